"""Jobs: whatever happens to the process, every row is in the results once, with the same answer."""

import contextlib
import json
import resource
import tempfile
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.batch.executors.protocol import ExecutorFailed
from redraft.batch.job import Job, JobSettings
from redraft.batch.rows import JobFile
from redraft.batch.status import read_status
from redraft.utils.locks import lock_folder
from redraft.utils.rows.journal import RunIdentity
from tests.fakes.executors import FakeExecutor, Killed

IDENTITY = RunIdentity({"the model": "tiny"}, {})


@pytest.fixture(autouse=True, scope="module")
def fast_disk():
    """Nothing here loses power, and a disk's answer to fsync takes 10 ms and more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


def write_rows(path, number=8, bad=()):
    path.write_text("".join(json.dumps({"id": f"r{n}", "prompt": "bad" if n in bad else "x" * n}) + "\n"
                            for n in range(1, number + 1)))  # fmt: skip
    return path


def make(folder, rows, *, identity=IDENTITY, file=None, **settings):
    file = file or JobFile(rows)
    return Job(folder, file, file.check(), identity=identity, settings=JobSettings(**{"seed": 1, **settings}))


def run(folder, rows, executor=None, **settings):
    job = make(folder, rows, **settings)
    return job.run((executor or FakeExecutor()).open)


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@settings(max_examples=60)
@given(st.data())
def test_whatever_is_finished_and_wherever_it_is_killed_each_row_is_answered_once(data):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder / "in.jsonl", bad=data.draw(st.sets(st.integers(1, 8), max_size=2)))
        run(folder / "undisturbed", rows)
        out, journal = folder / "out", folder / "out" / "journal.jsonl"
        kept: list[str] = []
        for _ in range(data.draw(st.integers(0, 3))):
            after = data.draw(st.integers(0, 8))
            executor = FakeExecutor(
                kill_after=after, seed=data.draw(st.integers(0, 99)), in_flight=data.draw(st.integers(1, 9))
            )
            with contextlib.suppress(Killed):
                run(out, rows, executor)
            assert not kept or not set(kept) & set(executor.asked)
            if not journal.exists():
                continue
            # What a kill leaves of the journal may end at any byte behind its first line.
            written = journal.read_bytes()
            journal.write_bytes(written[: data.draw(st.integers(written.index(b"\n") + 1, len(written)))])
            kept = [json.loads(line)["id"] for line in journal.read_bytes().split(b"\n")[1:-1]]
        last = FakeExecutor(seed=data.draw(st.integers(0, 99)))
        assert run(out, rows, last).done == 8
        assert sorted([*kept, *last.asked]) == [f"r{n}" for n in range(1, 9)]
        assert (out / "results.jsonl").read_bytes() == (folder / "undisturbed" / "results.jsonl").read_bytes()
        ids = [json.loads(line)["id"] for line in journal.read_bytes().splitlines()[1:]]
        assert sorted(ids) == [f"r{n}" for n in range(1, 9)]


def test_what_was_changed_is_told_and_nothing_is_lost(tmp_path):
    rows, out = write_rows(tmp_path / "in.jsonl"), tmp_path / "out"
    run(out, rows)
    before = (out / "journal.jsonl").read_bytes()
    other = JobFile(rows, fields={"temperature": 1})
    for changed, told in (
        ({"identity": RunIdentity({"the model": "other"}, {})}, 'the model was "tiny" and is "other"'),
        ({"file": other}, 'the fields of requests was not given and is {"temperature": 1}'),
        ({"seed": 2}, "the seed was 1 and is 2"),
        ({"unordered": True}, 'the order of the results was not given and is "unordered"'),
    ):
        with pytest.raises(ValueError, match="cannot be resumed") as error:
            make(out, rows, **changed).run(FakeExecutor().open)
        assert told in str(error.value)
        assert "give --restart to begin again" in str(error.value)
    write_rows(rows, 9)
    with pytest.raises(ValueError, match="the content of the rows changed"):
        run(out, rows)
    assert (out / "journal.jsonl").read_bytes() == before
    assert run(out, rows, restart=True).done == 9


def test_rows_that_failed_are_answered_again(tmp_path):
    rows, out = write_rows(tmp_path / "in.jsonl", bad={2, 5}), tmp_path / "out"
    assert run(out, rows).errors == {"bad": 2}
    assert records(out / "results.jsonl")[1] == {
        "id": "r2", "line": 2, "columns": {"id": "r2", "prompt": "bad"}, "error": "r2 is bad", "error_kind": "bad",
    }  # fmt: skip
    executor = FakeExecutor()
    run(out, rows, executor)
    assert executor.asked == []
    progress = run(out, rows, executor, retry_errors=True)
    assert sorted(executor.asked) == ["r2", "r5"]
    assert (progress.done, progress.failed) == (8, 2)
    assert read_status(out) == {**progress.to_json(), "state": "finished", "rows_per_second": None,
                                "tokens_per_second": None, "seconds_left": None}  # fmt: skip


def test_faulty_rows_are_error_rows_in_their_places(tmp_path):
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"prompt":"x"}\n{"prompt":\n{"id":"c"}\n{"prompt":"\\ud800 y\\u0000"}\n')
    for unordered in (False, True):
        out = tmp_path / f"out{unordered}"
        assert run(out, rows, unordered=unordered).errors == {"faulty row": 2}
        found = records(out / "results.jsonl")
        assert sorted(row["id"] for row in found) == ["c", "line-1", "line-2", "line-4"]
        by_id = {row["id"]: row for row in found}
        assert by_id["c"]["error"] == "line 3: no column 'prompt'; there are 'id'"
        assert by_id["line-4"]["columns"] == {"prompt": "\ud800 y\0"}
        assert by_id["line-4"]["text"] == "4 é"


def test_openai_lines_come_back_as_such(tmp_path):
    rows = tmp_path / "in.jsonl"
    lines = [{"custom_id": id, "method": "POST", "url": "/v1/chat/completions",
              "body": {"messages": [{"role": "user", "content": id}]}} for id in ("one", "bad")]  # fmt: skip
    rows.write_text("\n".join(map(json.dumps, lines)))
    run(tmp_path / "out", rows, result_format="openai")
    one, bad = records(tmp_path / "out" / "results.jsonl")
    assert (one["custom_id"], one["response"]["status_code"], one["error"]) == ("one", 200, None)
    assert one["response"]["body"]["choices"][0]["message"]["content"] == "3 é"
    assert (bad["response"], bad["error"]) == (None, {"code": "bad", "message": "bad is bad"})
    with pytest.raises(ValueError, match="OpenAI's output is for its batch lines"):
        make(tmp_path / "other", write_rows(tmp_path / "rows.jsonl"), result_format="openai")


def test_parquet_in_and_out(tmp_path):
    table = pyarrow.table({
        "id": ["a", "b", "c"], "prompt": ["x", "bad", "yy"], "price": [1.5, float("nan"), None],
        "at": pyarrow.array([0, 1, None], type=pyarrow.timestamp("ms")),
    })  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    rows = tmp_path / "in.parquet"
    run(tmp_path / "out", rows, result_format="parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out" / "results.parquet")
    assert found.select(["id", "prompt", "at"]).equals(table.select(["id", "prompt", "at"]))
    assert found["answer.id"].to_pylist() == ["a", "b", "c"]
    assert found["text"].to_pylist() == ["1 é", None, "2 é"]
    assert found["error"].to_pylist() == [None, "b is bad", None]
    assert found.schema.field("price").type == pyarrow.float64()
    run(tmp_path / "lines", rows)
    assert records(tmp_path / "lines" / "results.jsonl")[1]["columns"] == {
        "id": "b", "prompt": "bad", "price": None, "at": "1970-01-01T00:00:00.001000",
    }  # fmt: skip


def test_faults_of_parquet_name_the_row(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "a"], "prompt": ["x", "y"]}), tmp_path / "in.parquet")
    with pytest.raises(ValueError, match="rows 1 and 2 have the same id 'a'"):
        JobFile(tmp_path / "in.parquet").check()
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b"], "prompt": ["x", None]}), tmp_path / "in.parquet")
    assert JobFile(tmp_path / "in.parquet").check().faults[0].fault.startswith("row 2: ")


def test_parquet_out_of_order_has_times_as_text(tmp_path):
    table = pyarrow.table({
        "prompt": ["x", "yy"], "at": pyarrow.array([0, None], type=pyarrow.timestamp("s")), "l": [[1], [2, 3]],
        "price": pyarrow.array([Decimal("1.50"), None]),
    })  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    run(tmp_path / "out", tmp_path / "in.parquet", result_format="parquet", unordered=True)
    found = pyarrow.parquet.read_table(tmp_path / "out" / "results.parquet").sort_by("line")
    assert found["at"].to_pylist() == ["1970-01-01T00:00:00", None]
    assert found["price"].to_pylist() == ["1.50", None]
    assert found["l"].to_pylist() == ["[1]", "[2, 3]"]


def test_a_file_in_the_folders_place_is_told(tmp_path):
    rows = write_rows(tmp_path / "in.jsonl")
    with pytest.raises(ValueError, match=r"in\.jsonl is a file, but a job is a folder: name a new or empty one"):
        run(rows, rows)


def test_other_folders_are_left_alone(tmp_path):
    rows, out = write_rows(tmp_path / "in.jsonl"), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not a job's folder: it has 'notes\.txt'; name a new or empty one"):
        run(out, rows)
    (out / "notes.txt").unlink()
    (out / "journal.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match="is not a journal of this command"):
        run(out, rows)
    assert (out / "journal.jsonl").read_text() == "mine\n"
    with lock_folder(out, busy="x"), pytest.raises(ValueError, match="is in use: another process runs this job"):
        run(out, rows)


def test_what_stops_an_executor_stops_the_job_and_keeps_what_there_is(tmp_path):
    class Broken(FakeExecutor):
        async def answer(self, row):
            if len(self.asked) == 3:
                raise ExecutorFailed("the engine has stopped")
            return await super().answer(row)

    rows, out = write_rows(tmp_path / "in.jsonl"), tmp_path / "out"
    with pytest.raises(ExecutorFailed):
        run(out, rows, Broken(in_flight=1))
    assert {name: read_status(out)[name] for name in ("state", "rows", "done")} == {
        "state": "interrupted", "rows": 8, "done": 3,
    }  # fmt: skip
    assert run(out, rows).done == 8
    with pytest.raises(ValueError, match=r"has no journal\.jsonl: it is not a job's folder"):
        read_status(tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder '.*nope': give the one that `redraft batch run --out`"):
        read_status(tmp_path / "nope")


@contextlib.contextmanager
def full_disk(size):
    """Lets no file of this process grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_full_disk_loses_nothing(tmp_path, format):
    rows, out = write_rows(tmp_path / "in.jsonl", 60), tmp_path / "out"
    with full_disk(4000), pytest.raises(OSError, match="too large") as error:
        run(out, rows, result_format=format)
    assert error.value.filename == str(out / "journal.jsonl")
    done = read_status(out)["done"]
    assert 3 < done < 60
    assert (out / "journal.jsonl").read_bytes().endswith(b"\n")
    assert run(out, rows, result_format=format).before == done
    (written,) = out.glob("results.*")
    written.unlink()
    with full_disk(1000), pytest.raises(OSError, match="too large") as error:
        run(out, rows, result_format=format)
    assert error.value.filename == str(written)
    assert sorted(path.name for path in out.iterdir()) == ["journal.jsonl", "progress.json"]
    run(out, rows, result_format=format)
    assert written.exists()
