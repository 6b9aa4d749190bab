"""Standard streams as programs, pipes and terminals give them to the command."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import redraft
from redraft.cli.streams import explain_os_error
from tests.cli.answers.test_terminal import Terminal
from tests.fakes.checkpoints import tiny_checkpoint

COMMAND = [sys.executable, "-c", "from redraft.cli import main; main()"]
CUT = "redraft: warning: the answer is cut after 4 tokens: the limit on new tokens, or the model's context, ends it\n"


def redraft_command(*arguments: object, shell: str = "", **more) -> subprocess.CompletedProcess[bytes]:
    """Runs `redraft` in a process of its own, with the shell's redirections."""
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120, **more)


def test_the_version(run):
    assert run("--version") == (0, f"redraft {redraft.__version__}\n", "")


@pytest.fixture
def piped(monkeypatch, tmp_path):
    """Makes a text the standard input of this process, as a file."""

    with contextlib.ExitStack() as open_files:

        def pipe(text: bytes) -> None:
            (tmp_path / "input").write_bytes(text)
            file = open_files.enter_context((tmp_path / "input").open(encoding="utf-8"))
            monkeypatch.setattr(sys, "stdin", file)

        yield pipe


def test_a_prompt_is_followed_by_standard_input_where_that_is_asked(run, checkpoint, piped):
    asked = ("-m", checkpoint, "--seed", 3, "--json")
    expected = run("generate", "Say it:\nhello\nthere", *asked)[1]
    piped(b"hello\nthere\n")
    told = run("generate", "Say it:", "-", *asked)[1]
    assert json.loads(told)["token_ids"] == json.loads(expected)["token_ids"]
    piped(b"hall\xe9")
    assert run("generate", "Say it:", "-", *asked)[::2] == (2, "redraft: standard input is not UTF-8: byte 0xe9 at 4\n")
    code, _, err = run("generate", "Say", "it", *asked)
    assert (code, err) == (
        2, "redraft: 'it' is a second argument, and only - may follow the prompt: put the whole prompt in one pair of "
        "quotation marks\n",
    )  # fmt: skip


@pytest.mark.parametrize("command", ["generate", "fill", "decide"])
def test_a_text_without_quotation_marks_is_told_to_have_some(run, command):
    code, _, err = run(command, "Extract", "name", "as", "JSON:", "I", "am", "Bob")
    assert code == 2
    assert err.endswith(f": put quotation marks around a text with spaces; see: redraft {command} --help\n")
    assert "quotation marks" not in run("serve", "a", "b")[2]


def test_a_prompt_does_not_read_standard_input(checkpoint):
    """It may be a pipe that stays open, or what the loop around the command reads."""
    process = subprocess.Popen(
        [*COMMAND, "generate", "hello", "-m", str(checkpoint)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.wait(timeout=120) == 0
    process.stdin.close()


def test_the_environment_names_the_model(run, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("REDRAFT_MODEL", str(checkpoint))
    assert json.loads(run("generate", "hello", "--json")[1])["model"] == str(checkpoint)
    assert json.loads(run("info", "--json")[1])["model"] == str(checkpoint)
    assert run("examples")[1].startswith("A tiny model for tests.")
    other = tiny_checkpoint(tmp_path / "other")
    assert json.loads(run("generate", "hello", "--json", "-m", other)[1])["model"] == str(other)
    monkeypatch.setenv("REDRAFT_MODEL", "nope")
    told = "(REDRAFT_MODEL names it: set another, or give --model)\n"
    for command in (("generate", "hello"), ("fields",)):
        code, _, err = run(*command)
        assert (code, err.startswith("redraft: there is no folder 'nope'; "), err.endswith(told)) == (2, True, True)
    assert "REDRAFT_MODEL" not in run("generate", "hello", "-m", "nope")[2]


def test_a_cut_answer_is_told_beside_plain_text(run, checkpoint):
    asked = ("generate", "hello", "-m", checkpoint, "--seed", 3, "--max-new-tokens", 4)
    asked += ("--confidence-threshold", 99, "--stability-threshold", 0)
    code, text, err = run(*asked)
    assert (code, err) == (0, CUT)
    assert run(*asked, "--quiet") == (0, text, "")


def test_a_terminal_shows_that_the_model_is_loaded(checkpoint):
    asked = ["generate", "hello", "-m", str(checkpoint), "--seed", "3"]
    terminal = Terminal(asked, columns=200)
    assert terminal.finish() == 0
    assert f"loading {checkpoint} ...\r\x1b[K".encode() in terminal.written
    assert "loading" not in terminal.text
    terminal = Terminal([*asked, "--quiet"], columns=200)
    assert terminal.finish() == 0
    assert b"loading" not in terminal.written


WRITES = "import sys; from redraft.cli.streams import prepare_streams; prepare_streams(); "


def test_what_the_encoding_cannot_hold_is_escaped_and_told_once():
    code = WRITES + "print('{\"price\": \"5 €, 😀 é\"}'); print('€')"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, check=True
    )
    first, second = ended.stdout.decode("latin-1").splitlines()
    assert first == r'{"price": "5 \u20ac, \ud83d\ude00 é"}'
    assert json.loads(first) == {"price": "5 €, 😀 é"}
    assert second == r"\u20ac"
    assert ended.stderr.decode().count("\n") == 1
    assert (
        "characters that it lacks are escaped as in JSON; without PYTHONIOENCODING, PYTHONUTF8=1"
        in ended.stderr.decode()
    )


def test_answers_and_later_rows_outlive_an_encoding(run, tmp_path, checkpoint):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "hello"}\n{"prompt": "again"}\n')
    rows = ("generate", "--rows", tmp_path / "rows.jsonl", "-m", checkpoint, "--seed", 3)
    # The tiny model's noise holds characters that ASCII does not.
    ascii = redraft_command(*rows, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    code, utf_8, _ = run(*rows)
    assert ascii.returncode == code == 0
    assert not utf_8.isascii()
    texts = [[json.loads(line)["text"] for line in out.splitlines()] for out in (ascii.stdout, utf_8)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 2


@pytest.mark.parametrize(
    ("arguments", "shell", "message"),
    [
        (["generate", "hello"], ">&-", b"redraft: standard output is closed; send it to a file, a pipe or /dev/null\n"),
        (["--version"], ">&-", b"redraft: standard output is closed; send it to a file, a pipe or /dev/null\n"),
        (["generate", "-"], "<&-", b"redraft: standard input is closed; give it a file, a pipe or /dev/null\n"),
        (["chat"], "<&-", b"redraft: standard input is closed; give it a file, a pipe or /dev/null\n"),
        (["generate", "hello", "--plain", "-q"], ">/dev/full", b"redraft: standard output: No space left on device\n"),
        (["generate", "hello", "--json", "-q"], ">/dev/full", b"redraft: standard output: No space left on device\n"),
    ],
)
def test_a_stream_that_is_closed_is_a_sentence(checkpoint, arguments, shell, message):
    more = () if arguments[0] == "--version" else ("-m", checkpoint)
    ended = redraft_command(*arguments, *more, shell=shell, stdin=subprocess.DEVNULL)
    assert (ended.returncode, ended.stderr) == (2, message)


def test_closed_streams_that_are_not_needed_do_no_harm(run, checkpoint):
    asked = ("generate", "hello", "-m", checkpoint, "--seed", 3, "--max-new-tokens", 4)
    asked += ("--confidence-threshold", 99, "--stability-threshold", 0)
    code, text, told = run(*asked)
    assert (code, told) == (0, CUT)
    closed = redraft_command(*asked, shell="<&- 2>&-")
    assert (closed.returncode, closed.stdout.decode(), closed.stderr) == (0, text, b"")


def test_a_note_that_cannot_be_written_costs_no_row_and_no_exit_code(tmp_path, checkpoint):
    full = "2>/dev/full"
    (tmp_path / "rows.jsonl").write_text('{"prompt": "hello"}\n{"prompt": null}\n{"prompt": "again"}\n')
    asked = ("-m", checkpoint, "--seed", 3, "--max-new-tokens", 4)
    rows = ("generate", "--rows", tmp_path / "rows.jsonl", "--skip-bad", "--output", tmp_path / "out.jsonl", *asked)
    # A row was left out.
    assert redraft_command(*rows, shell=full).returncode == 1
    assert (tmp_path / "out.jsonl").read_text().count('"finish_reason"') == 2
    # An answer that is cut.
    assert redraft_command("generate", "hello", *asked, "--strict", shell=full).returncode == 3


def test_what_the_system_refuses_is_a_sentence(run, tmp_path):
    def refused(path: Path, attempt=Path.read_bytes) -> str:
        with pytest.raises(OSError) as error:  # noqa: PT011 - which one it is, is the system's business
            attempt(path)
        return explain_os_error(error.value)

    (tmp_path / "file").touch()
    assert refused(tmp_path / "no") == f"there is no file or folder '{tmp_path / 'no'}'"
    assert refused(tmp_path) == f"'{tmp_path}' is a folder, not a file"
    assert refused(tmp_path / "file", Path.mkdir) == f"'{tmp_path / 'file'}' is a file, not a folder"
    assert refused(tmp_path / "file" / "x") == f"'{tmp_path / 'file' / 'x'}' leads through a file that is not a folder"
    assert explain_os_error(PermissionError(13, "Permission denied", "a")) == (
        "'a' may not be read or written: permission denied"
    )
    assert explain_os_error(OSError(28, "No space left on device", "a")) == "'a': no space left on device"
    code, out, err = run("generate", "--rows", tmp_path / "no.txt")
    assert (code, out, err) == (2, "", f"redraft: there is no file or folder '{tmp_path / 'no.txt'}'\n")
