"""`redraft generate --rows`: many prompts from a file."""

import json
from types import SimpleNamespace

import pytest

import redraft
from redraft.diffusion.settings import SamplerSettings
from tests.fakes.models import tiny_model


@pytest.fixture
def file(tmp_path):
    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "content", "template", "message"),
    [
        ("a.csv", "a,b\n1,2\n", "{c}", "line 2: no column 'c'; there are 'a', 'b'"),
        ("a.csv", "a,b\n1,2\n", None, "line 2: no column 'prompt'"),
        ("a.csv", "a,b\n1,2\n1\n", "{a}", "line 3 has 1 fields, the header has 2"),
        ("a.csv", 'a,b\n1,"2\n', "{a}", "is not CSV"),
        ("a.csv", "a,a\n1,2\n", "{a}", "line 1: column 'a' occurs more than once"),
        ("a.csv", "a,b\n", "{a}", "has no rows"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', None, "line 2 is not JSON"),
        ("a.jsonl", '{"prompt": "x"}\n[1]\n', None, "line 2 is not a JSON object"),
        ("a.jsonl", '{"prompt": null}\n', None, "line 1: 'prompt' is null, must be text or a number"),
        ("a.jsonl", '{"prompt": true}\n', None, "line 1: 'prompt' is true, must be text or a number"),
        ("a.jsonl", '{"a": 1}\n{"prompt": "x", "prompt": "y"}\n', "{a}", "line 2 is not JSON: the key 'prompt' occurs"),
        ("a.csv", 'a\n"  "\n', "{a}", "line 2: the prompt is empty"),
        ("a.json", '["x"]', None, "does not look like lines of text: save it as CSV"),
        ("a.TSV", "a\tb", None, "does not look like lines of text: save it as CSV"),
        ("a.jsonl", '{"prompt": " "}\n', None, "line 1: the prompt is empty"),
        ("a.txt", b"good\n\xff\n", None, "line 2: byte 0xff is not UTF-8"),
        ("a.txt", "x\n", "{line", "the template '{line'"),
        ("a.txt", "x\n", "no column", "names no column: every row would be the same"),
        ("a.txt", "x\n", "{line!r}", "may hold only a column's name"),
        ("a.txt", "x\n", "{}", "{} names no column"),
    ],
)
def test_bad_rows_are_refused_before_any_work(run, file, name, content, template, message):
    arguments = ["generate", "--rows", file(name, content), "-m", "/no/such/folder"]
    code, out, err = run(*arguments, *(["--template", template] if template is not None else []))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt"),
        (["x", "--template", "{a}"], "--template and --rows-format require --rows FILE"),
        (["x", "--rows", "{}"], "--rows cannot be combined with a prompt"),
        (["--rows", "{}", "--plain"], "--rows cannot be combined with --plain"),
        (["--rows", "{}", "--rows-format", "xml"], "the format of the rows is 'xml', must be one of text, csv, jsonl"),
        (["--rows", "/no/such/file"], "/no/such/file"),
    ],
)
def test_options_that_do_not_go_together(run, file, arguments, message):
    path = str(file("a.txt", "x\n"))
    code, out, err = run("generate", *[argument.replace("{}", path) for argument in arguments])
    assert (code, out) == (2, "")
    assert message in err


def test_answers_come_in_order_and_a_failed_row_does_not_lose_the_rest(run, checkpoint, file):
    prompts = ["hello", "word " * 400, "good bye"]
    path = file("rows.jsonl", "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    code, out, err = run("generate", "--rows", path, "-m", checkpoint, "--seed", 3)
    assert code == 1
    assert "redraft: 1 of 3 rows failed" in err
    first, second, third = map(json.loads, out.splitlines())
    assert [row["line"] for row in (first, second, third)] == [1, 2, 3]
    assert second.keys() == {"line", "error"}
    assert "the context holds 256" in second["error"]
    for row, prompt in ((first, prompts[0]), (third, prompts[2])):
        alone = json.loads(run("generate", prompt, "-m", checkpoint, "--seed", 3, "--json")[1])
        assert row["token_ids"] == alone["token_ids"]
        assert row.keys() == {"line", *alone}


def test_all_rows_answered(run, checkpoint, file):
    path = file("rows.csv", "name,place\nAna,Porto\nBo,Oslo\n")
    code, out, _ = run("generate", "--rows", path, "--template", "{name} in {place}", "-m", checkpoint, "--seed", 3)
    assert code == 0
    assert len(out.splitlines()) == 2


def test_rows_are_refused_by_the_model_alone():
    model = SimpleNamespace(transformer=tiny_model(max_context=300_000), defaults=SamplerSettings())
    limits = redraft.Engine.context_limits(model, {"canvas_length": 5000})
    assert limits == {
        "forward_tokens": 5000,
        "admitted_tokens": 300_000,
    }
    model.transformer = tiny_model()
    assert redraft.Limits(**redraft.Engine.context_limits(model, {})) == redraft.Limits()
