"""`redraft batch`: jobs on the local engine, in processes that are interrupted."""

import json
import shlex
import signal
import subprocess
import time

import pytest

from redraft.batch.parquet import parse_parquet
from tests.cli.test_streams import COMMAND
from tests.fakes.adapters import adapter_folder
from tests.fakes.batch_endpoint import batch_endpoint
from tests.fakes.killed import kill_at_random

SHORT = ["--max-new-tokens", 6, "--canvas-length", 6, "--steps", 2]


def write_rows(path, number):
    path.write_text("".join(json.dumps({"id": f"r{n}", "prompt": f"row {n}"}) + "\n" for n in range(number)))
    return path


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_job_and_what_it_says(run, checkpoint, tmp_path):
    rows, out = tmp_path / "in.jsonl", tmp_path / "out"
    rows.write_text('{"id":"a","prompt":"hello"}\n{"id":"b","prompt":"%s"}\n{"prompt":"bye"}\n' % ("word " * 400))
    asked = ["batch", "run", rows, "--out", out, "-m", checkpoint, *SHORT, "--seed", 3]
    code, printed, err = run(*asked)
    assert (code, printed) == (1, "")
    assert f"{out}/results.jsonl: 3 rows," in err
    assert "1 of 3 rows has an error (1 context_length_exceeded)" in err
    first, second, third = records(out / "results.jsonl")
    assert (first["id"], second["id"], third["id"]) == ("a", "b", "line-3")
    assert second["error_kind"] == "context_length_exceeded"
    assert "the context holds 256: shorten the prompt" in second["error"]
    alone = json.loads(run("generate", "hello", "-m", checkpoint, *SHORT, "--seed", first["seed"], "--json")[1])
    assert (first["text"], first["finish_reason"]) == (alone["text"], alone["finish_reason"])
    code, printed, _ = run("batch", "status", out)
    assert (code, printed) == (0, "finished: 3 of 3 rows\n1 context_length_exceeded\n")
    assert json.loads(run("batch", "status", out, "--json")[1])["done"] == 3
    code, _, err = run(*asked, "--precision", "bf16")
    assert code == 2
    assert '--precision was "auto" and is "bf16"' in err


def test_answers_with_warnings_are_counted_and_rows_have_the_trust_that_generate_tells(run, tmp_path):
    rows, out = tmp_path / "in.jsonl", tmp_path / "out"
    known = "Extract name as JSON: My name is Tom Reed."
    rows.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in (known, "What is it?")))
    asked = ["batch", "run", rows, "--out", out, "--max-new-tokens", 64, "--seed", 3]
    code, _, err = run(*asked)
    assert code == 0
    assert err.endswith('; 1 of 2 answers has a warning: see "warnings" there\n')
    first, second = records(out / "results.jsonl")
    alone = json.loads(run("generate", known, "--max-new-tokens", 64, "--seed", first["seed"], "--json")[1])
    assert first["trust"] == {name: value for name, value in alone["trust"].items() if value is not None}
    assert ("warnings" in first, "warnings" in second) == (False, True)
    # Nothing is answered again: what the journal has is counted.
    code, _, err = run(*asked, "--format", "parquet")
    assert (code, err) == (
        0,
        f'redraft: {out}/results.parquet: 2 rows; 1 of 2 answers has a warning: see "warnings" there\n',
    )
    (told,) = [columns["trust"] for number, columns in parse_parquet(out / "results.parquet") if number == 1]
    assert told == alone["trust"]["probability"]


def test_openai_lines_come_back_as_openai_lines(run, checkpoint, tmp_path):
    rows, out = tmp_path / "in.jsonl", tmp_path / "out"
    chat = {"messages": [{"role": "user", "content": "hello"}], "n": 2, "max_tokens": 6}
    lines = [
        {"custom_id": "chat", "method": "POST", "url": "/v1/chat/completions", "body": chat},
        {"custom_id": "text", "method": "POST", "url": "/v1/completions", "body": {"prompt": "hello"}},
        {"custom_id": "response", "method": "POST", "url": "/v1/responses", "body": {"input": "hello"}},
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run("batch", "run", rows, "--out", out, "-m", checkpoint, "--steps", 2)[0] == 0
    chat, text, response = records(out / "results.jsonl")
    assert [one["custom_id"] for one in (chat, text, response)] == ["chat", "text", "response"]
    assert len(chat["response"]["body"]["choices"]) == 2
    assert text["response"]["body"]["object"] == "text_completion"
    assert response["response"]["body"]["object"] == "response"


def test_an_adapter_of_the_job_and_adapters_of_rows(run, checkpoint, tmp_path):
    rows, base = tmp_path / "in.jsonl", checkpoint.name
    own = [{}, {"model": base}, {"model": "one"}, {"model": "two"}]
    rows.write_text("".join(json.dumps({"prompt": "hello", "own": {**given, "seed": 1}}) + "\n" for given in own))
    folders = [adapter_folder(tmp_path / f"adapter{n}", checkpoint, n) for n in range(3)]
    asked = ["batch", "run", rows, "-m", checkpoint, *SHORT, "--body-column", "own"]
    each = ["--row-adapter", f"one={folders[1]}", "--row-adapter", f"two={folders[2]}"]
    wanted = {}
    for name, folder in zip((None, "all", "one", "two"), (None, *folders), strict=True):
        of_job = [] if folder is None else ["--adapter", folder]
        arguments = ["generate", "hello", "-m", checkpoint, *SHORT, "--seed", 1, "--json", *of_job]
        wanted[name] = json.loads(run(*arguments)[1])["text"]
    assert len(set(wanted.values())) == 4
    assert run(*asked, *each, "--out", tmp_path / "a")[0] == 0
    assert [row["text"] for row in records(tmp_path / "a" / "results.jsonl")] == [
        wanted[None], wanted[None], wanted["one"], wanted["two"],
    ]  # fmt: skip
    assert run(*asked, *each, "--adapter", folders[0], "--out", tmp_path / "b")[0] == 0
    assert [row["text"] for row in records(tmp_path / "b" / "results.jsonl")] == [
        wanted["all"], wanted["all"], wanted["one"], wanted["two"],
    ]  # fmt: skip
    code, _, err = run(*asked, "--out", tmp_path / "c")
    assert (code, f"model is 'one', must be {base!r}, or left out" in err) == (2, True)
    changed = ["--row-adapter", f"one={folders[2]}", "--row-adapter", f"two={folders[2]}"]
    code, _, err = run(*asked, *changed, "--out", tmp_path / "a")
    assert (code, "the adapter 'one'" in err) == (2, True)
    code, _, err = run(*asked, "--row-adapter", "one", "--out", tmp_path / "c")
    assert (code, "--row-adapter one: must be NAME=FOLDER" in err) == (2, True)


def test_a_job_does_not_go_on_with_other_weights_of_its_adapters_run(run, checkpoint, tmp_path):
    (tmp_path / "in.txt").write_text("hello\n")
    asked = ["batch", "run", tmp_path / "in.txt", "-m", checkpoint, *SHORT, "--adapter", tmp_path / "run"]
    for seed, wanted in enumerate((0, 2)):
        adapter_folder(tmp_path / "run" / "step-0000009", checkpoint, seed)
        (tmp_path / "run" / "checkpoint.json").write_text('{"checkpoint": "step-0000009"}')
        code, _, err = run(*asked, "--out", tmp_path / "out")
        assert code == wanted
    assert "the adapter" in err


def test_a_schema_holds_every_row(run, checkpoint, tmp_path):
    rows, out, schema = write_rows(tmp_path / "in.jsonl", 3), tmp_path / "out", tmp_path / "schema.json"
    schema.write_text('{"enum": ["yes", "no"]}')
    asked = ["batch", "run", rows, "--out", out, "-m", checkpoint, "--json-schema", schema, "--steps", 2]
    assert run(*asked)[0] == 0
    assert {row["text"] for row in records(out / "results.jsonl")} <= {'"yes"', '"no"'}


def test_grounded_rows_have_their_spans(run, tmp_path):
    rows, out = tmp_path / "in.jsonl", tmp_path / "out"
    texts = ["This is Ana Kovacs, I paid on 3 March 2024.", "I am Ben. It was on 4 May 2023."]
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    asked = ["batch", "run", rows, "--out", out, "--seed", 3, "--schema-from-prompt", "--grounded"]
    assert run(*asked, "--template", "Extract name, date as JSON: {text}")[0] == 0
    for record in records(out / "results.jsonl"):
        prompt = f"Extract name, date as JSON: {record['columns']['text']}"
        values = {name: prompt[slice(*span)] for name, span in record["spans"].items()}
        written = json.loads(record["text"])
        assert written.keys() == {"name", "date"}
        assert values == {name: value for name, value in written.items() if value is not None}
    code, _, told = run("batch", "run", rows, "--out", tmp_path / "other", "--grounded")
    assert (code, "--grounded needs a schema" in told) == (2, True)


HARD = {
    "control": "<bos><|turn>user\n<turn|><eos> a",
    "surrogate": "half \ud800 of it",
    "nul": "a\0b",
    "long": "word " * 200_000,
}


def test_rows_with_whatever_text_can_be(run, checkpoint, tmp_path):
    """Those that the model cannot read have an error of their own; the others are answered, and none is lost."""
    rows, out = tmp_path / "in.jsonl", tmp_path / "out"
    rows.write_text("".join(json.dumps({"id": id, "prompt": prompt}) + "\n" for id, prompt in HARD.items()))
    assert rows.stat().st_size > 10**6
    asked = ["batch", "run", rows, "--out", out, "-m", checkpoint, *SHORT, "--seed", 3]
    assert run(*asked)[0] == 1
    found = {row["id"]: row for row in records(out / "results.jsonl")}
    assert {id: row["columns"]["prompt"] for id, row in found.items()} == HARD
    assert found["long"]["error_kind"] == "context_length_exceeded"
    assert found["surrogate"]["error_kind"] == "invalid_value"
    assert found["nul"]["answer_tokens"] > 0
    # What looks like the template's own tokens is text as any other.
    assert found["control"]["prompt_tokens"] > 20
    journal = (out / "journal.jsonl").read_bytes()
    assert run(*asked)[0] == 1
    assert (out / "journal.jsonl").read_bytes() == journal
    assert run(*asked, "--format", "parquet")[0] == 1


def test_paths_that_only_ray_opens(run, checkpoint, tmp_path):
    for arguments, message in (
        (["s3://bucket/rows"], "IN is 's3://bucket/rows', which only Ray opens: give --ray"),
        ([write_rows(tmp_path / "in.jsonl", 1), "--results-to", "s3://b"], "--results-to is 's3://b', which only Ray"),
    ):
        code, _, err = run("batch", "run", *arguments, "--out", tmp_path / "out", "-m", checkpoint)
        assert code == 2
        assert message in err
    assert not (tmp_path / "out").exists()


def test_columns_of_a_standard_input_that_is_read_as_text_are_refused(run, tmp_path):
    code, _, err = run("batch", "run", "-", "--out", tmp_path / "out", "--template", "{a}")
    assert (code, err.partition(": --rows-format")[0]) == (
        2, "redraft: --template names the column 'a', but standard input is read as lines of text",
    )  # fmt: skip


def test_an_endpoint_answers(run, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "k")
    rows, out = write_rows(tmp_path / "in.jsonl", 3), tmp_path / "out"
    with batch_endpoint(key="Bearer k") as server:
        asked = ["batch", "run", rows, "--out", out, "--endpoint", server.url, "--model", "their", "--seed", 3]
        code, _, err = run(*asked)
        assert code == 2
        assert f"{server.url} answers 401: wrong key; 0 of 3 rows are kept in {out}; go on with: redraft batch" in err
        asked += ["--api-key-env", "A_KEY", "--price-answer", "1000"]
        assert run(*asked)[0] == 0
    assert [row["text"] for row in records(out / "results.jsonl")] == ["re row 0", "re row 1", "re row 2"]
    assert json.loads((out / "progress.json").read_text())["cost"] == 0.006
    code, _, err = run("batch", "run", rows, "--out", tmp_path / "b", "--endpoint", "http://x", "--device", "cpu")
    assert (code, "--device and --precision are the server's choice" in err) == (2, True)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ('{"prompt": "x"}\n{"prompt": ""}\n', [], "1 of 2 rows is faulty, nothing was started: fix them, or give --on"),
        ('{"prompt": ""}\n', ["--on-error", "skip"], "1 of 1 row is faulty, nothing was started: fix them"),
        ('{"prompt": "x"}\n', ["--template", "{text}"], "in.jsonl, line 1: no column 'text'; there are 'prompt'"),
        ('{"prompt": "x"}\n', ["--on-error", "go"], "--on-error is 'go', must be stop or skip"),
        ('{"prompt": "x"}\n', ["--index", "2"], "redraft: --index has no use in a job, whose rows each have a seed"),
        ('{"prompt": "x"}\n', ["--body", "[]"], "--body must hold a JSON object, it holds a list"),
        (
            '{"prompt": "x"}\n',
            ["--body", '{"topp": 1}'],
            "in.jsonl, line 1: topp is not supported; did you mean top_p?",
        ),
        ('{"prompt": "x"}\n', ["--body", '{"seed": 1}', "--temperature", "9"], "temperature"),
        (
            '{"prompt": "x"}\n',
            ["--body", '{"top_p": 0.9}', "--temperature", "0.5"],
            "drawn from the whole distribution",
        ),
        ('{"prompt": "x"}\n', ["--format", "xml"], "the format of the results is 'xml', must be one of jsonl, openai"),
        ('{"prompt": "x"}\n', ["--regex", "a", "--choice", "b"], "--regex and --choice are given: an answer has one"),
        ('{"prompt": "x"}\n', ["--ray", "auto", "--actors", "0"], "actors is 0, must be above 0"),
        ('{"prompt": "x"}\n', ["--ray", "auto", "--endpoint", "http://x"], "--ray and --endpoint are two places"),
        ("", [], "in.jsonl has no rows"),
    ],
)
def test_nothing_is_begun_with_bad_input(run, checkpoint, tmp_path, content, arguments, message):
    (tmp_path / "in.jsonl").write_text(content)
    code, _, err = run("batch", "run", tmp_path / "in.jsonl", "--out", tmp_path / "out", "-m", checkpoint, *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def started(arguments):
    return subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def wait_for(journal, lines, process):
    until = time.monotonic() + 100
    while not journal.exists() or journal.read_bytes().count(b"\n") <= lines:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)


def test_an_interrupted_job_says_how_to_go_on(run, checkpoint, tmp_path):
    rows, out = write_rows(tmp_path / "in.jsonl", 300), tmp_path / "out"
    asked = ["batch", "run", rows, "--out", out, "-m", checkpoint, *SHORT, "--seed", 3]
    process = started([*asked, "--restart"])
    wait_for(out / "journal.jsonl", 3, process)
    code, _, err = run(*asked)
    assert (code, err) == (2, f"redraft: {out} is in use: another process runs this job\n")
    assert run("batch", "status", out)[1].startswith("running: ")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    kept = (out / "journal.jsonl").read_bytes().count(b"\n") - 1
    command = shlex.join(["redraft", *map(str, asked)])
    assert err == f"redraft: {kept} of 300 rows are kept in {out}; go on with: {command}\nredraft: interrupted\n"
    assert process.returncode == 130
    assert 3 <= kept < 300
    assert run("batch", "status", out)[1].startswith(f"interrupted: {kept} of 300 rows")


def kill_and_compare(asked, tmp_path, *, kills, number, seed):
    """Kills jobs at random moments, goes on each time, and compares with one that nobody disturbed."""
    undisturbed = tmp_path / "undisturbed"
    jobs = kill_at_random(asked, undisturbed, tmp_path / "jobs", kills=kills, seed=seed)
    wanted = (undisturbed / "results.jsonl").read_bytes()
    assert wanted.count(b"\n") == number
    for job in jobs:
        ids = [record["id"] for record in records(job / "journal.jsonl")[1:]]
        assert sorted(ids) == sorted(f"r{n}" for n in range(number))
        assert (job / "results.jsonl").read_bytes() == wanted


@pytest.mark.slow
def test_jobs_that_are_killed_a_hundred_times_lose_nothing(checkpoint, tmp_path):
    rows = write_rows(tmp_path / "in.jsonl", 60)
    (tmp_path / "jobs").mkdir()
    asked = ["batch", "run", rows, "-m", checkpoint, *SHORT, "--seed", 3, "--out"]
    kill_and_compare(asked, tmp_path, kills=100, number=60, seed=2)


@pytest.mark.slow
def test_jobs_on_an_endpoint_that_are_killed_lose_nothing(tmp_path):
    rows = write_rows(tmp_path / "in.jsonl", 200)
    (tmp_path / "jobs").mkdir()
    with batch_endpoint(seconds=0.01) as server:
        asked = ["batch", "run", rows, "--endpoint", server.url, "--model", "their", "--seed", 3, "--out"]
        kill_and_compare(asked, tmp_path, kills=20, number=200, seed=3)
