"""The commands are imported when they are asked for, and the help tells of each what it tells of itself."""

import re
import subprocess
import sys

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from redraft.cli.lazy import LazyCommand, LazyGroup, first_sentence
from redraft.cli.main import app


def lazy_commands(group: LazyGroup, path: str = "redraft"):
    for name, command in group.commands.items():
        if isinstance(command, LazyCommand):
            loaded = command.load()
            yield f"{path} {name}", command, loaded
            if isinstance(loaded, LazyGroup):
                yield from lazy_commands(loaded, f"{path} {name}")


def all_commands():
    """Every command and group by its path, loaded."""
    yield "redraft", get_command(app)
    for path, _, loaded in lazy_commands(get_command(app)):
        yield path, loaded
        if isinstance(loaded, TyperGroup) and not isinstance(loaded, LazyGroup):
            yield from ((f"{path} {name}", inner) for name, inner in loaded.commands.items())


def test_the_listed_help_is_the_first_sentence_of_the_commands_own():
    found = list(lazy_commands(get_command(app)))
    assert {name for name, _, _ in found} >= {"redraft generate", "redraft train", "redraft eval", "redraft bench"}
    for name, listed, loaded in found:
        assert loaded.name == listed.name
        assert listed.help == first_sentence(loaded.help), name


def test_the_package_is_the_command_too():
    command = [sys.executable, "-m", "redraft", "generate", "--steps", "abc"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    told = "redraft: --steps is 'abc', must be an integer; see: redraft generate --help\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", told)


@pytest.mark.parametrize("width", [60, 80])
def test_help_is_not_cut(width):
    for path, command in all_commands():
        help = command.get_help(typer.Context(command, info_name=path, terminal_width=width))
        assert max(map(len, help.splitlines())) <= width, path
        assert "…" not in help
        # A word may be continued on the next line after a hyphen of its own.
        shown = set(re.sub(r"-\n\s+", "-", help).split())
        told = [command.help, *(parameter.help or "" for parameter in command.params)]
        if isinstance(command, TyperGroup):
            told += (first_sentence(inner.help) for inner in command.commands.values())
        for text in told:
            assert set(text.split()) <= shown, path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["eval", "--help"], ["bench", "--help"], ["nope"], ["generate", "--help"], ["generate", "--stepz"],
        ["fields"], ["examples"],
    ],
)  # fmt: skip
def test_what_runs_no_model_does_not_wait_for_torch(arguments):
    code = f"""
import sys
from redraft.cli import main
sys.argv = ["redraft", *{arguments}]
try:
    main()
finally:
    print("imported:", *sorted({{"torch", "redraft.cli.train", "redraft.cli.checkpoint.info"}} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.endswith("imported:\n"), ended.stderr


def test_a_name_that_is_mistyped_is_suggested(run):
    code, out, err = run("generat")
    assert (code, out) == (2, "")
    assert err == "redraft: No such command 'generat'. Did you mean 'generate'? See: redraft --help\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fields", "order"], "redraft fields has no place for 'order'; see: redraft fields --help"),
        (["examples", "a"], "number must be an integer; see: redraft examples --help"),
        (["fields", "--model"], "Option '--model' requires an argument; see: redraft fields --help"),
    ],
)
def test_the_parsers_errors_name_the_command_and_the_value(run, arguments, told):
    assert run(*arguments) == (2, "", f"redraft: {told}\n")


def test_names_are_completed_without_importing_a_command():
    code = """
import os, sys
from redraft.cli import main
os.environ |= {"_REDRAFT_COMPLETE": "complete_bash", "COMP_WORDS": "redraft q", "COMP_CWORD": "1"}
sys.argv = ["redraft"]
try:
    main()
finally:
    print("imported:", *(name for name in sys.modules if name == "redraft.cli.checkpoint.quantize"))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["quantize", "imported:"], ended.stderr


def test_a_model_answers_without_torchs_compiler(checkpoint):
    """Importing it takes longer than all else of a start."""
    code = """import sys, redraft
redraft.load(sys.argv[1]).generate("hello", max_new_tokens=1, seed=1)
assert not {"torch._dynamo", "sympy"} & sys.modules.keys()"""
    subprocess.run([sys.executable, "-c", code, str(checkpoint)], check=True)
