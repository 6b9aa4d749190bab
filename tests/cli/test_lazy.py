"""The commands are imported when they are asked for, and the help tells of each what it tells of itself."""

import re
import subprocess
import sys

import pytest
from typer.main import get_command

from redraft.cli.lazy import LazyCommand, LazyGroup
from redraft.cli.main import app


def lazy_commands(group: LazyGroup, path: str = "redraft"):
    for name, command in group.commands.items():
        if isinstance(command, LazyCommand):
            loaded = command.load()
            yield f"{path} {name}", command, loaded
            if isinstance(loaded, LazyGroup):
                yield from lazy_commands(loaded, f"{path} {name}")


def test_the_listed_help_is_the_first_sentence_of_the_commands_own():
    found = list(lazy_commands(get_command(app)))
    assert {name for name, _, _ in found} >= {"redraft generate", "redraft train", "redraft eval", "redraft bench"}
    for name, listed, loaded in found:
        assert loaded.name == listed.name
        assert listed.help == re.split(r"(?<=\.)\s", loaded.help)[0], name


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["eval", "--help"], ["bench", "--help"], ["nope"], ["generate", "--help"], ["generate", "--stepz"]],
)
def test_help_and_refusals_do_not_wait_for_torch(arguments):
    code = f"""
import sys
from redraft.cli import main
sys.argv = ["redraft", *{arguments}]
try:
    main()
finally:
    print("imported:", *sorted({{"torch", "redraft.cli.train", "redraft.cli.info"}} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.endswith("imported:\n"), ended.stderr


def test_a_name_that_is_mistyped_is_suggested(run):
    code, out, err = run("generat")
    assert (code, out) == (2, "")
    assert err == "redraft: No such command 'generat'. Did you mean 'generate'?; see: redraft --help\n"


def test_names_are_completed_without_importing_a_command():
    code = """
import os, sys
from redraft.cli import main
os.environ |= {"_REDRAFT_COMPLETE": "complete_bash", "COMP_WORDS": "redraft q", "COMP_CWORD": "1"}
sys.argv = ["redraft"]
try:
    main()
finally:
    print("imported:", *(name for name in sys.modules if name == "redraft.cli.quantize"))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["quantize", "imported:"], ended.stderr
