"""What a reader of the first page tries at once: its examples are right with any seed, its install lines work."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

import redraft

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()

SHOWN = re.search(r"^\$ redraft (generate .*)\n(\{.*)$", README, flags=re.MULTILINE)
CALLED = re.search(r'model\.generate\("(.*)", seed=\d+\)', README)


@pytest.fixture(scope="module")
def model():
    return redraft.load(precision="float32")


@pytest.mark.parametrize("seed", range(10))
def test_the_examples_are_right_with_every_seed(model, seed):
    assert SHOWN and CALLED
    prompt = shlex.split(SHOWN[1])[1]
    assert model.generate(prompt, seed=seed).text == SHOWN[2]
    assert model.generate(CALLED[1], seed=seed).text == '{"city": "Porto", "date": "4 May"}'


def test_what_is_to_be_installed_is_an_extra_of_the_checkout():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *(ROOT / "src").rglob("*.py")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    # What is not ours comes from its registry.
    lines = re.findall(r"""pip install (?!openai|"lm-eval)[^\n`"#]*""", text)
    assert len(lines) > 5
    for line in lines:
        found = re.match(r"pip install -e '\.\[(\w+|\{extra\})\]'", line)
        assert found, line
        assert found[1] in {*EXTRAS, "{extra}"}, line
    asked = re.findall(r'require_package\(.*"(\w+)"\)', text)
    assert len(asked) > 5
    assert set(asked) <= EXTRAS


def test_the_commands_of_the_install_can_be_copied():
    (block,) = re.findall(r"## Install\n.*?```console no-run\n(.*?)```", README, flags=re.DOTALL)
    commands = [line.removeprefix("$ ").partition("#")[0].strip() for line in block.splitlines()]
    assert commands[0] == "make demo"
    # No place in them is left for the reader to fill in.
    assert not re.search(r"[A-Z]{3}|[<>]|example", "\n".join(commands))
