"""`redraft fill` and `redraft edit`: what is printed, written and refused."""

import json

import pytest

import redraft
from redraft.filling import FilledText

TEXT = "Dear Ana,\r\nsee you on Mnoday.\r\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "note.txt"
    path.write_bytes(TEXT.encode())
    path.chmod(0o640)
    return path


def test_fill_prints_the_text_and_its_values(run, checkpoint):
    code, out, _ = run("fill", "Dear ___, on ___ we met.", "--model", checkpoint, "--limit", 5, "--seed", 1, "--json")
    told = json.loads(out)
    assert code == 0
    first, second = told["values"]
    assert told["text"] == f"Dear {first}, on {second} we met."
    assert max(len(first), len(second)) <= 5
    assert (
        run("fill", "Dear ___, on ___ we met.", "--model", checkpoint, "--limit", 5, "--seed", 1)[1]
        == told["text"] + "\n"
    )


@pytest.mark.parametrize("more", [[], ["--strength", "0.5", "--canvas-length", "24"], ["--instruction", "Fix typos"]])
def test_edit_changes_no_byte_outside_the_span(run, checkpoint, file, more):
    start = TEXT.index("Mnoday")
    arguments = ("edit", file, "--find", "Mnoday", "--model", checkpoint, "--seed", 1, *more)
    code, out, _ = run(*arguments)
    assert code == 0
    assert file.read_bytes() == TEXT.encode()
    code, again, _ = run(*arguments, "--in-place")
    assert (code, again) == (0, out)
    after = file.read_bytes().decode()
    assert after.startswith(TEXT[:start])
    assert after.endswith(TEXT[start + 6 :])
    assert after == TEXT or "-see you on Mnoday." in out
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["note.txt"]


def test_edit_says_that_nothing_changes(run, checkpoint, file, monkeypatch):
    filled = FilledText(TEXT, ("Mnoday",), redraft.load(checkpoint).generate("a", max_new_tokens=1, seed=1))
    monkeypatch.setattr(redraft.Model, "edit", lambda *_, **__: filled)
    before = file.stat()
    code, out, err = run("edit", file, "--find", "Mnoday", "--model", checkpoint, "--in-place")
    assert (code, out) == (0, "")
    assert "redraft: the span was written as it stood: nothing changes" in err
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_what_cannot_be_done_is_refused_before_the_model_is_loaded(run, file):
    for message, *arguments in (
        ("give either --span A:B or --find TEXT", "edit", file),
        ("give either --span A:B or --find TEXT", "edit", file, "--span", "1:2", "--find", "a"),
        ("--find 'n' stands 3 times in the file", "edit", file, "--find", "n"),
        ("--find 'Bob' stands 0 times", "edit", file, "--find", "Bob"),
        ("--find is empty, must be a text that stands in the file once", "edit", file, "--find", ""),
        ("--span is '3:99', must be A:B within the file's 31 characters", "edit", file, "--span", "3:99"),
        ("--span is '3-5', must be A:B", "edit", file, "--span", "3-5"),
        ("--limit cannot be combined with --strength", "edit", file, "--span", "1:2", "--limit", 3, "--strength", 1),
        ("--limit is 0, must be at least 1", "fill", "a ___", "--limit", 0),
        ("two blanks stand side by side", "fill", "a [][] b", "--blank", "[]"),
        ("the text has no blank: mark it with ___", "fill", "a b"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert message in err
