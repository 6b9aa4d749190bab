"""Jobs over rows: whatever happens to the process, every row is in the output once, with the same answer."""

import contextlib
import csv
import gzip
import io
import json
import resource
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.utils.rows.formats import BadRow
from redraft.utils.rows.job import answer_missing, write_output
from redraft.utils.rows.journal import Journal, RunIdentity, digest_folder
from redraft.utils.rows.reading import Row, RowFile
from redraft.utils.rows.tables import RowWriter, output_format, parse_fields

IDENTITY = RunIdentity({"--model": "tiny", "--steps": 4}, {"the rows": "1a2b"})


@pytest.fixture(autouse=True, scope="module")
def fast_disk():
    """Nothing here loses power, and a disk's answer to fsync takes 10 ms and more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


class Interrupted(Exception):
    pass


def answer_of(row: Row) -> dict[str, object]:
    return {"error": "too long"} if row.line % 5 == 0 else {"text": f"an answer to {row.prompt} é"}


def answering(order: st.DataObject | None = None, *, until: int | None = None, given: list[int] | None = None):
    """Returns what answers rows: in an order that hypothesis draws, until it is interrupted."""

    def answer(rows):
        left = list(rows)
        for number in range(len(left)):
            if number == until:
                raise Interrupted
            row = left.pop(0 if order is None else order.draw(st.integers(0, len(left) - 1)))
            if given is not None:
                given.append(row.line)
            yield row, answer_of(row)

    return answer


def run(output: Path, rows: RowFile, answer, *, resume: bool = False) -> None:
    with Journal(output.with_name(".out.partial"), IDENTITY, resume=resume) as journal:
        for _ in answer_missing(rows, journal, answer):
            pass
        write_output(output, rows, journal, RowWriter("jsonl"))
        journal.remove()


@given(st.data())
def test_whatever_is_finished_and_wherever_it_is_killed_each_row_is_answered_once(data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.txt").write_text("".join(f"row {number}\n" for number in range(1, 9)))
        rows = RowFile(folder / "rows.txt")
        rows.check()
        run(folder / "undisturbed", rows, answering())
        journal = folder / ".out.partial"
        answered: list[int] = []
        for _ in range(data.draw(st.integers(1, 3))):
            with contextlib.suppress(Interrupted):
                until = data.draw(st.integers(0, 8))
                run(folder / "out", rows, answering(data, until=until, given=answered), resume=True)
            if (folder / "out").exists():
                break
            # What a kill leaves of the journal may end at any byte.
            if journal.exists():
                written = journal.read_bytes()
                journal.write_bytes(written[: data.draw(st.integers(0, len(written)))])
                kept = [json.loads(line)["line"] for line in journal.read_bytes().split(b"\n")[1:-1]]
                answered[:] = kept
        else:
            run(folder / "out", rows, answering(data, given=answered), resume=True)
        assert (folder / "out").read_bytes() == (folder / "undisturbed").read_bytes()
        assert sorted(answered) == list(range(1, 9))
        assert not journal.exists()


def test_lines_of_the_journal_are_there_at_once(tmp_path):
    path = tmp_path / ".out.partial"
    with Journal(path, IDENTITY, resume=False) as journal:
        journal.append(7, {"text": "\ud800 é"})
        lines = path.read_bytes().splitlines()
        assert json.loads(lines[1]) == {"line": 7, "outcome": {"text": "\ud800 é"}}
        assert 7 in journal
        assert 8 not in journal
        assert journal[7] == {"text": "\ud800 é"}


def test_the_later_of_two_lines_counts_and_a_row_can_be_forgotten(tmp_path):
    path = tmp_path / ".out.partial"
    with Journal(path, IDENTITY, resume=False, kind="k", facts={"seed": 4}) as journal:
        for line, text in [(3, "a"), (1, "b"), (3, "c"), (2, "d")]:
            journal.append(line, {"text": text}, id=f"row {line}")
        journal.forget(2)
        assert (len(journal), 2 in journal, 9 in journal, journal.unsynced) == (2, False, False, 4)
        journal.sync()
        assert (journal.unsynced, journal.is_due()) == (0, False)
    with Journal(path, IDENTITY, resume=True, kind="k", facts={"seed": 5}) as journal:
        assert journal.facts == {"seed": 4}
        assert [(one["id"], one["outcome"]["text"]) for one in journal.records()] == [
            ("row 1", "b"), ("row 3", "c"), ("row 2", "d"),
        ]  # fmt: skip
    with pytest.raises(ValueError, match="is not a journal of this command"):
        Journal(path, IDENTITY, resume=True)


def test_what_was_changed_is_told(tmp_path):
    path = tmp_path / ".out.partial"
    with Journal(path, IDENTITY, resume=False) as journal:
        journal.append(1, {"text": "a"})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"has the rows of a run that did not end: go on with --resume, or remove it"):
        Journal(path, IDENTITY, resume=False)
    other = RunIdentity({"--model": "tiny", "--steps": 5, "--seed": 3}, {"the rows": "9f"})
    with pytest.raises(
        ValueError, match=r"--steps was 4 and is 5; --seed was not given and is 3; the rows changed\. Go"
    ):
        Journal(path, other, resume=True)
    assert path.read_bytes() == before


def test_a_damaged_line_costs_its_own_row_alone(tmp_path):
    """Whichever byte it is: a line's end that is gone costs the next line too."""
    path = tmp_path / ".out.partial"
    with Journal(path, IDENTITY, resume=False) as journal:
        for line in range(1, 7):
            journal.append(line, {"text": f"answer {line}"})
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    third = range(header + 2 * (len(whole) - header) // 6, header + 3 * (len(whole) - header) // 6)
    for at in third:
        damaged = bytearray(whole)
        damaged[at] = 0
        path.write_bytes(damaged)
        with Journal(path, IDENTITY, resume=True) as journal:
            lost = [line for line in range(1, 7) if line not in journal]
            assert lost == ([3, 4] if whole[at : at + 1] == b"\n" else [3])
            assert journal.damaged == 1
            assert [journal[line]["text"] for line in (1, 2, 5, 6)] == [f"answer {line}" for line in (1, 2, 5, 6)]
            for line in lost:
                journal.append(line, {"text": "again"})
            assert len(journal) == 6
        with Journal(path, IDENTITY, resume=True) as journal:
            assert len(journal) == 6
            assert journal[3] == {"text": "again"}


@pytest.mark.parametrize("content", [b"[1]\n", b"some notes", b"{}\n", b'{"kind": "x"}\n', b"\xff\n"])
def test_another_file_is_left_alone(tmp_path, content):
    path = tmp_path / ".out.partial"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a journal of this command"):
        Journal(path, IDENTITY, resume=True)
    assert path.read_bytes() == content


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / ".out.partial"
    with (
        Journal(path, IDENTITY, resume=False),
        pytest.raises(ValueError, match="is in use: another process answers these rows"),
    ):
        Journal(path, IDENTITY, resume=True)
    assert not path.exists()


@contextlib.contextmanager
def full_disk(size: int):
    """Lets no file of this process grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / ".out.partial"
    with Journal(path, IDENTITY, resume=False) as journal:
        journal.append(1, {"text": "a"})
        before = path.read_bytes()
        with full_disk(len(before) + 20), pytest.raises(OSError, match="too large") as error:
            journal.append(2, {"text": "b" * 100})
        assert error.value.filename == str(path)
        assert path.read_bytes() == before
        assert 2 not in journal
    with Journal(path, IDENTITY, resume=True) as journal:
        assert len(journal) == 1
        journal.append(2, {"text": "b"})
        assert journal[2] == {"text": "b"}


def test_a_full_disk_leaves_no_half_output(tmp_path):
    (tmp_path / "rows.txt").write_text("one\n" * 200)
    rows = RowFile(tmp_path / "rows.txt")
    with Journal(tmp_path / ".out.partial", IDENTITY, resume=False) as journal:
        for _ in answer_missing(rows, journal, answering()):
            pass
        with full_disk(2000), pytest.raises(OSError, match="too large") as error:
            write_output(tmp_path / "out", rows, journal, RowWriter("jsonl"))
        assert error.value.filename == str(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial", "rows.txt"]


def test_a_checkpoint_that_was_trained_on_is_another(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(3 * 2**20))
    before = digest_folder(tmp_path, ["*.safetensors"])
    (tmp_path / "notes.txt").write_text("x")
    assert digest_folder(tmp_path, ["*.safetensors"]) == before
    (tmp_path / "model.safetensors").write_bytes(bytes(3 * 2**20 - 1) + b"\1")
    assert digest_folder(tmp_path, ["*.safetensors"]) != before


def test_an_output_may_be_packed(tmp_path):
    (tmp_path / "rows.txt").write_text("one\n")
    run(tmp_path / "out.jsonl.gz", RowFile(tmp_path / "rows.txt"), answering())
    with gzip.open(tmp_path / "out.jsonl.gz", "rt", encoding="utf-8") as lines:
        assert [json.loads(line) for line in lines] == [{"line": 1, "text": "an answer to one é"}]


ROW = Row(2, "x", {"id": "a1", "n": None, "name": "B"}, "a1")
ANSWER = {"text": '{"name": "Ana", "n": 42.5}', "token_ids": [5], "finish_reason": "stop", "seed": 3}


def test_json_lines_have_the_columns_beside_the_answer():
    whole = json.loads(RowWriter("jsonl").line(ROW, ANSWER))
    assert whole == {
        "line": 2, "id": "a1", "columns": {"id": "a1", "n": None, "name": "B"},
        "text": ANSWER["text"], "finish_reason": "stop", "seed": 3,
    }  # fmt: skip
    assert json.loads(RowWriter("jsonl", token_ids=True).line(ROW, ANSWER)) == whole | {"token_ids": [5]}
    bad = BadRow(4, "line 4: the prompt is empty", {"id": "b"}, "b")
    assert json.loads(RowWriter("jsonl").line(bad, {"error": bad.fault})) == {
        "line": 4, "id": "b", "columns": {"id": "b"}, "error": "line 4: the prompt is empty",
    }  # fmt: skip


@pytest.mark.parametrize(("format", "separator"), [("csv", ","), ("tsv", "\t")])
def test_fields_are_columns(format, separator):
    writer = RowWriter(format, columns=["id", "n", "name"], fields=["name", "city"], token_ids=True)
    lines = (
        writer.header()
        + writer.line(ROW, ANSWER | {"warnings": ["odd", "cut"], "trust": {"probability": 0.75}})
        + writer.line(ROW, {"error": "no"})
    )
    first, second = csv.DictReader(io.StringIO(lines), delimiter=separator)
    assert writer.renamed_fields == {"name": "answer.name"}
    assert first == {
        "line": "2", "id": "a1", "n": "", "name": "B", "answer.name": "Ana", "city": "", "text": ANSWER["text"],
        "finish_reason": "stop", "seed": "3", "trust": "0.75", "error": "", "token_ids": "[5]",
        "warnings": "odd; cut; the column 'city' is empty: the answer has no such field; "
        "the answer's field 'n' has no column",
    }  # fmt: skip
    assert (second["error"], second["answer.name"], second["text"], second["trust"]) == ("no", "", "", "")


def test_fields_in_json_lines_keep_their_types():
    writer = RowWriter("jsonl", columns=["id", "text"], fields=["n", "name"])
    assert json.loads(writer.line(Row(2, "x", {"text": "mine"}), ANSWER)) == {
        "line": 2, "id": None, "text": "mine", "n": 42.5, "name": "Ana", "answer.text": ANSWER["text"],
        "finish_reason": "stop", "seed": 3, "warnings": [], "trust": None, "error": None,
    }  # fmt: skip


@pytest.mark.parametrize("text", ['{"a": "b', "", "[1]", '{"a": NaN}', '{"a": 1e400}', '{"a": 1, "a": 2}', "[" * 9999])
def test_an_answer_that_cannot_be_parsed_is_told(text):
    assert parse_fields(text, ["a"]) == (
        {"a": None},
        ["the fields' columns are empty: the answer is not a JSON object"],
    )


def test_half_a_surrogate_pair_stays_json(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "\\ud800 é"}\n')
    run(tmp_path / "out", RowFile(tmp_path / "rows.jsonl"), answering())
    assert json.loads((tmp_path / "out").read_text(encoding="utf-8"))["columns"] == {"prompt": "\ud800 é"}


def test_the_format_of_an_output():
    names = {"a.csv": "csv", "a.TSV": "tsv", "a.csv.gz": "csv", "a.jsonl": "jsonl", "a.out": "jsonl", "a": "jsonl"}
    assert {name: output_format(Path(name), None) for name in names} == names
    assert output_format(Path("a.json"), "csv") == "csv"
    assert output_format(None, None) == "jsonl"
    with pytest.raises(
        ValueError, match=r"the output .*a.parquet has an ending that is not supported: use .csv, .tsv or .jsonl"
    ):
        output_format(Path("a.parquet"), None)
    with pytest.raises(ValueError, match="the format of the output is 'xml', must be one of jsonl, csv, tsv"):
        output_format(Path("a.csv"), "xml")
