"""`redraft generate --rows`: many prompts from a file."""

import csv
import gzip
import io
import json
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import redraft
from redraft.diffusion.settings import SamplerSettings
from tests.cli.test_streams import COMMAND, redraft_command
from tests.fakes.models import tiny_model


@pytest.mark.parametrize(
    ("name", "content", "template", "message"),
    [
        ("a.csv", "a,b\n1,2\n", "{c}", "line 2: no column 'c'; there are 'a', 'b'"),
        ("a.csv", "a,b\n1,2\n", None, "no column 'prompt'; there are 'a', 'b'; make prompts of them, as in --"),
        ("a.csv", "a,b\n1,2\n1\n", "{a}", "line 3 has 1 field, the header has 2: none is left for column 2, 'b'"),
        ("a.csv", 'a,b\n1,"2\n', "{a}", "line 2 is not CSV: unexpected end of data, at column 3; a quotation mark"),
        ("a.csv", "a,a\n1,2\n", "{a}", "line 1: column 'a' occurs more than once"),
        ("a.csv", "a,b\n", "{a}", "has no rows"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', None, "line 2 is not JSON: Expecting value at character"),
        ("a.jsonl", '{"prompt": "x"}\n[1]\n', None, "line 2 is not a JSON object"),
        ("a.jsonl", '{"prompt": null}\n', None, "line 1: 'prompt' is null, must be text or a number"),
        ("a.jsonl", '{"prompt": true}\n', None, "line 1: 'prompt' is true, must be text or a number"),
        ("a.jsonl", '{"a": 1}\n{"prompt": "x", "prompt": "y"}\n', "{a}", "line 2 is not JSON: the key 'prompt' occurs"),
        ("a.csv", 'a\n"  "\n', "{a}", "line 2: the prompt is empty"),
        ("a.json", '["x"]', None, "does not look like lines of text: save it as CSV"),
        ("a.parquet.gz", "x", None, "does not look like lines of text: save it as CSV"),
        ("a.TSV", "a\tb\n1\n", "{a}", "line 2 has 1 field, the header has 2"),
        ("a.jsonl", '{"prompt": "x", "n": NaN}\n', None, "a.jsonl, line 1: 'n' holds NaN, Infinity or a number beyond"),
        ("a.jsonl", '{"prompt": " "}\n', None, "line 1: the prompt is empty"),
        ("a.txt", b"good\n\xff\n", None, "line 2: byte 0xff at column 1 is not UTF-8"),
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
        (["x", "--template", "{a}"], "--template requires --rows FILE"),
        (["x", "--skip-bad", "--output", "a"], "--output and --skip-bad require --rows FILE"),
        (["--rows", "{}", "--resume"], "--resume requires --output FILE"),
        (["--rows", "{}", "--output", "/no/such/a.jsonl"], "--output: there is no folder '/no/such'"),
        (["--rows", "{}", "--output", "/"], "--output: '/' is a folder, not a file"),
        (["--rows", "{}", "--output", "{}"], "is there already: remove it, or name another file"),
        (["--rows", "{}", "--output", "a.xlsx"], "the output a.xlsx has an ending that is not supported"),
        (["--rows", "{}", "--format", "xml"], "the format of the output is 'xml', must be one of jsonl, csv, tsv"),
        (["--rows", "{}", "--fields", "a,,b"], "--fields is 'a,,b', must be different names with commas between them"),
        (
            ["--rows", "-", "--template", "{a}"],
            "--template names the column 'a', but standard input is read as lines of",
        ),
        (
            ["--rows", "-", "--id", "a"],
            "--id names the column 'a', but standard input is read as lines of text: --rows",
        ),
        (["--rows", "/"], "'/' is a folder, not a file"),
        (["x", "--rows", "{}"], "--rows cannot be combined with a prompt"),
        (["--rows", "{}", "--grounded"], "--grounded needs a schema: give --json-schema, or --schema-from-prompt"),
        (["x", "--at-words", "--regex", "a"], "--at-words needs a schema"),
        (["x", "--schema-from-prompt", "--regex", "a"], "--schema-from-prompt gives the constraint: leave out"),
        (["--rows", "{}", "--plain"], "--rows cannot be combined with --plain"),
        (["--rows", "{}", "--json", "--format", "csv"], "--json cannot be combined with a table: the output is csv"),
        (["--rows", "{}", "--json", "--output", "a.tsv"], "--json cannot be combined with a table: the output is tsv"),
        (
            ["--rows", "{}", "--rows-format", "xml"],
            "the format of the rows is 'xml', must be one of text, jsonl, csv, tsv",
        ),
        (["--rows", "/no/such/file"], "there is no file or folder '/no/such/file'"),
    ],
)
def test_options_that_do_not_go_together(run, file, arguments, message):
    path = str(file("a.txt", "x\n"))
    code, out, err = run("generate", *[argument.replace("{}", path) for argument in arguments])
    assert (code, out) == (2, "")
    assert message in err


def alone(run, checkpoint, prompt: str) -> dict[str, object]:
    """Returns the answer of a single call."""
    return json.loads(run("generate", prompt, "-m", checkpoint, "--seed", 3, "--json")[1])


def without_warnings(err: str) -> str:
    """Leaves out what the tiny model's noise may be warned of."""
    return "".join(line for line in err.splitlines(keepends=True) if "warning" not in line)


def lines_of(path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


PROMPTS = ["hello", "word " * 400, "good bye"]
"""The second is beyond the context."""


@pytest.fixture
def three_rows(file):
    return file("rows.jsonl", "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))


@pytest.mark.parametrize("name", [None, "out.jsonl"])
def test_answers_come_in_order_and_a_failed_row_does_not_lose_the_rest(run, checkpoint, three_rows, tmp_path, name):
    output = [] if name is None else ["--output", tmp_path / name]
    code, out, err = run("generate", "--rows", three_rows, "-m", checkpoint, "--seed", 3, "--token-ids", *output)
    assert code == 1
    assert '1 of 3 rows failed: see "error" there' in err
    if name is not None:
        assert out == ""
        out = (tmp_path / name).read_text(encoding="utf-8")
    first, second, third = map(json.loads, out.splitlines())
    assert [row["line"] for row in (first, second, third)] == [1, 2, 3]
    assert second.keys() == {"line", "columns", "error"}
    assert "the context holds 256" in second["error"]
    for row, prompt in ((first, PROMPTS[0]), (third, PROMPTS[2])):
        expected = alone(run, checkpoint, prompt)
        assert row["token_ids"] == expected["token_ids"]
        assert row.keys() == {"line", "columns", *expected}
        assert row["columns"] == {"prompt": prompt}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_all_rows_answered(run, checkpoint, file):
    path = file("rows.csv", "name,place\nAna,Porto\nBo,Oslo\n")
    code, out, err = run("generate", "--rows", path, "--template", "{name} in {place}", "-m", checkpoint, "--seed", 3)
    assert (code, without_warnings(err)) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert first["columns"] == {"name": "Ana", "place": "Porto"}
    assert second["line"] == 3
    assert "token_ids" not in first


@pytest.mark.parametrize("output", [False, True])
def test_each_row_is_held_to_its_own_prompt(run, file, tmp_path, output):
    rows = file("a.csv", 'text\n"This is Ana Kovacs, I paid on 3 March 2024."\nnot I\n')
    asked = ["generate", "--rows", rows, "--schema-from-prompt", "--grounded", "--seed", 0]
    to = tmp_path / "out.jsonl"
    more = ["--output", to] if output else []
    code, printed, err = run(*asked, "--template", "Extract name, date as JSON: {text}", *more)
    assert code == 0, err
    for line in (to.read_text() if output else printed).splitlines():
        row = json.loads(line)
        prompt = f"Extract name, date as JSON: {row['columns']['text']}"
        values = {name: value for name, value in json.loads(row["text"]).items() if value is not None}
        assert {name: prompt[slice(*span)] for name, span in row["spans"].items()} == values
    code, printed, _ = run(*asked, "--template", "{text}")
    assert code == 1
    assert all("asks for no fields" in json.loads(line)["error"] for line in printed.splitlines())


def test_rows_from_standard_input(run, checkpoint, monkeypatch):
    for content, code in ((b"hello\n\ngood bye", 0), (b"\x1f\x8b", 2), (b"", 2)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        found = run("generate", "--rows", "-", "-m", checkpoint, "--seed", 3)
        assert found[0] == code
        if code == 0:
            texts = [json.loads(line)["text"] for line in found[1].splitlines()]
            assert texts == [alone(run, checkpoint, prompt)["text"] for prompt in ("hello", "good bye")]
        else:
            assert found[2].startswith("redraft: standard input ")


def test_a_table_with_fields(run, checkpoint, file, tmp_path):
    """The tiny model's noise is never JSON: its text is there all the same, and what is wrong with it."""
    path = file("rows.csv.gz", gzip.compress(b"id;message;city\na1;hello;X\na2;good bye;Y\n"))
    output = tmp_path / "out.csv"
    asked = ["--template", "{message}", "-m", checkpoint, "--seed", 3, "--fields", "name, city", "--output", output]
    code, out, err = run("generate", "--rows", path, *asked)
    assert (code, out) == (0, "")
    assert err == (
        f"redraft: {path} has a column 'city': the answer's is called 'answer.city'\n"
        f'redraft: {output}: 2 of 2 answers have warnings: see "warnings" there\n'
    )
    with output.open(encoding="utf-8", newline="") as lines:
        first, second = csv.DictReader(lines)
    assert (first["line"], first["id"], first["city"], second["id"]) == ("2", "a1", "X", "a2")
    assert first["text"] == alone(run, checkpoint, "hello")["text"]
    assert (first["name"], first["answer.city"]) == ("", "")
    assert "the fields' columns are empty: the answer is not a JSON object" in first["warnings"]


@pytest.mark.parametrize(
    ("template", "more", "told"),
    [
        ("Extract name, date as JSON: {text}", [], True),
        ("Extract {text} as JSON: {text}", [], False),
        ("{text}", [], False),
        ("Extract name as JSON: {text}", ["--regex", "a"], False),
    ],
)
def test_fields_that_no_prompt_asks_for_are_told_before_the_model_is_loaded(
    run, file, monkeypatch, template, more, told
):
    def load(*_, **__):
        raise ValueError("not loaded yet")

    monkeypatch.setattr(redraft, "load", load)
    asked = ["generate", "--rows", file("rows.csv", "text\nI am Bob.\n"), "--template", template]
    code, _, err = run(*asked, "--fields", "nmae,date", *more)
    unasked = "'nmae', so its column will be empty: the template asks for 'name', 'date'"
    note = f"redraft: --fields: no prompt asks for {unasked}\n" if told else ""
    assert (code, err) == (2, f"{note}redraft: not loaded yet\n")


def test_bad_rows_may_be_skipped(run, checkpoint, file, tmp_path):
    bad = '{"prompt": "", "id": "b"}\n{"prompt"\n' + '{"id": "c"}\n' * 3
    path = file("rows.jsonl", f'{{"prompt": "hello", "id": "a"}}\n{bad}{{"prompt": "good bye", "id": "d"}}\n')
    asked = ["generate", "--rows", path, "-m", checkpoint, "--seed", 3, "--skip-bad"]
    code, printed, err = run(*asked)
    assert code == 1
    assert without_warnings(err) == (
        f"redraft: skipped: {path}, line 2: the prompt is empty (id b)\n"
        f"redraft: skipped: {path}, line 3 is not JSON: Expecting ':' delimiter at character 11\n"
        f"redraft: skipped: {path}, line 4: no column 'prompt'; there are 'id' (id c)\n"
        f"redraft: skipped: 2 more bad rows of {path}\n"
        "redraft: 5 of 7 rows were bad and skipped\n"
    )
    assert run(*asked, "--output", tmp_path / "out")[0] == 1
    for rows in ([json.loads(line) for line in printed.splitlines()], lines_of(tmp_path / "out")):
        assert [(row["line"], row.get("id"), "error" in row) for row in rows] == [
            (1, "a", False), (2, "b", True), (3, None, True), (4, "c", True), (5, "c", True), (6, "c", True),
            (7, "d", False),
        ]  # fmt: skip
        assert rows[1]["error"] == "line 2: the prompt is empty"
        assert rows[6]["text"] == alone(run, checkpoint, "good bye")["text"]


def test_ids_are_unique_where_they_are_needed(run, checkpoint, file, tmp_path):
    path = file("rows.csv", "id,key,prompt\n1,x,hello\n1,y,good bye\n")
    asked = ["generate", "--rows", path, "-m", checkpoint]
    assert run(*asked)[0] == 0
    code, _, err = run(*asked, "--output", tmp_path / "out")
    assert code == 2
    assert "lines 2 and 3 have the same id '1'" in err
    assert run(*asked, "--id", "key", "--output", tmp_path / "out")[0] == 0
    assert [row["id"] for row in lines_of(tmp_path / "out")] == ["x", "y"]
    assert run(*asked, "--id", "line", "--output", tmp_path / "other")[0] == 0


def interrupted(arguments: list[object], number: int, *, after: int = 3) -> tuple[int, str]:
    """Runs the command in a process of its own, signals it when rows are in its journal; returns its code and words."""
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    (output,) = [arguments[at + 1] for at, name in enumerate(arguments) if name == "--output"]
    journal = output.with_name(f".{output.name}.partial")
    until = time.monotonic() + 100
    while not journal.exists() or journal.read_bytes().count(b"\n") <= after:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    return process.returncode, err


# SIGTERM is handed on to whoever waits for ctrl-C.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_is_resumed(run, checkpoint, file, tmp_path, number):
    path = file("rows.txt", "".join(f"row {row}\n" for row in range(300)))
    output, journal = tmp_path / "out.jsonl", tmp_path / ".out.jsonl.partial"
    short = ["--max-new-tokens", 6, "--canvas-length", 6, "--seed", 3]
    asked = ["generate", "--rows", path, "-m", checkpoint, *short, "--output", output]
    code, err = interrupted(asked, number)
    assert not output.exists()
    kept = journal.read_bytes().count(b"\n") - 1
    assert 3 <= kept < 300
    if number == signal.SIGKILL:
        # It may have been in the middle of a line.
        journal.write_bytes(journal.read_bytes()[:-5])
        kept -= 1
    else:
        assert code == 130
        command = shlex.join(["redraft", *map(str, asked), "--resume"])
        assert err == (
            f"redraft: {kept} of 300 rows are kept in {journal}; go on with: {command}\nredraft: interrupted\n"
        )
    code, _, err = run(*asked)
    assert (code, err) == (
        2, f"redraft: {journal} has the rows of a run that did not end: go on with --resume, or remove it\n",
    )  # fmt: skip
    code, _, err = run(*asked, "--resume", "--steps", 5)
    assert code == 2
    assert "--steps was not given and is 5. Go on with what it was" in err
    whole = path.read_text()
    path.write_text("another row\n")
    code, _, err = run(*asked, "--resume")
    assert code == 2
    assert "the content of the file of rows changed. Go on with what it was" in err
    path.write_text(whole)
    code, _, err = run(*asked, "--resume")
    assert (code, without_warnings(err)) == (0, f"redraft: {kept} of 300 rows are answered already\n")
    assert not journal.exists()
    undisturbed = tmp_path / "undisturbed"
    assert run(*asked[:-1], undisturbed)[0] == 0
    told = ("line", "text", "seed", "finish_reason")
    assert [[row[name] for name in told] for row in lines_of(output)] == [
        [row[name] for name in told] for row in lines_of(undisturbed)
    ]
    code, _, err = run(*asked, "--resume")
    assert code == 2
    assert "is there already, and nothing is left to resume" in err


def test_a_full_disk_keeps_the_rows(run, checkpoint, file, tmp_path):
    path = file("rows.txt", "".join(f"row {row}\n" for row in range(30)))
    asked = ["generate", "--rows", path, "-m", checkpoint, "--seed", 3, "--output", tmp_path / "out"]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); "
    command = [sys.executable, "-c", limit + COMMAND[-1], *map(str, asked)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    journal = tmp_path / ".out.partial"
    kept = journal.read_bytes().count(b"\n") - 1
    assert ended.returncode == 2
    assert ended.stderr == (
        f"redraft: '{journal}': file too large; {kept} of 30 rows are kept in {journal}; "
        f"go on with: {shlex.join(['redraft', *map(str, asked), '--resume'])}\n"
    )
    assert 0 < kept < 30
    assert run(*asked, "--resume")[0] == 0
    assert [row["line"] for row in lines_of(tmp_path / "out")] == list(range(1, 31))


def test_a_full_disk_behind_standard_output(checkpoint, file):
    asked = ["generate", "--rows", file("rows.txt", "hello\n"), "-m", checkpoint]
    ended = redraft_command(*asked, shell="> /dev/full")
    assert ended.returncode == 2
    told = ended.stderr.decode()
    assert "standard output: No space left on device" in told
    assert "--output keeps what is answered, and can be resumed" in told


def test_a_run_that_answered_nothing_leaves_nothing(run, checkpoint, file, tmp_path):
    path = file("rows.txt", "hello\n")
    asked = ["generate", "--rows", path, "--output", tmp_path / "out"]
    assert run(*asked, "-m", checkpoint, "--device", "tpu")[0] == 2
    assert [one.name for one in tmp_path.iterdir()] == ["rows.txt"]
    assert run(*asked, "-m", checkpoint, "--resume")[0] == 0


def test_warnings_are_counted(run, checkpoint, file, monkeypatch):
    """Results may say what is odd about them; here all do."""
    plain = redraft.Result.to_json
    monkeypatch.setattr(redraft.Result, "to_json", lambda result: plain(result) | {"warnings": ["odd"]})
    asked = ["generate", "--rows", file("rows.txt", "hello\n"), "-m", checkpoint, "--seed", 3]
    code, out, err = run(*asked)
    assert (code, err) == (0, 'redraft: 1 of 1 answer has a warning: see "warnings" there\n')
    assert json.loads(out)["warnings"] == ["odd"]
    assert run(*asked, "--quiet")[2] == ""


def test_a_large_file_is_told(run, checkpoint, file, monkeypatch):
    monkeypatch.setattr("redraft.cli.answers.rows.MANY_ROWS", 1)
    asked = ["generate", "--rows", file("rows.txt", "hello\nbye\n"), "-m", checkpoint, "--seed", 3]
    code, _, err = run(*asked)
    assert code == 0
    assert "has 2 rows: this command is for smaller files. `redraft batch run` keeps" in err
    assert run(*asked, "--quiet")[2] == ""


def test_a_terminal_shows_the_progress(run, checkpoint, file, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    path = file("rows.txt", "".join(f"row {row}\n" for row in range(40)) + "word " * 400)
    asked = ["generate", "--rows", path, "-m", checkpoint, "--seed", 3, "--output"]
    code, _, err = run(*asked, tmp_path / "out")
    assert code == 1
    for part in ("/41", "rows/s", "1 failed"):
        assert part in err
    assert run(*asked, tmp_path / "other", "--quiet")[2].count("\n") == 1


def test_rows_are_refused_by_the_model_alone():
    model = SimpleNamespace(transformer=tiny_model(max_context=300_000), defaults=SamplerSettings())
    limits = redraft.Engine.context_limits(model, {"canvas_length": 5000})
    assert limits == {
        "forward_tokens": 5000,
        "admitted_tokens": 300_000,
    }
    model.transformer = tiny_model()
    assert redraft.Limits(**redraft.Engine.context_limits(model, {})) == redraft.Limits()
