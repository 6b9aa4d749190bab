"""Runs the documentation: what a reader copies from it works, its links lead somewhere, its glossary has no term twice.

- ```python blocks are executed; those of one file share a namespace, so a later one may use what an earlier one made.
- In ```console blocks, the commands that begin with `$ redraft` are run and must exit with 0. If the output shown under
  a command is one JSON object, the last line that is printed must be an object with at least its keys.
- ```console serving and ```python serving are run against a server of the bundled model, which replaces
  http://localhost:8000; every `event:` line and `[DONE]` that is shown under a command must be printed.
- ```python no-run, ```console no-run and all other languages are left out.
- `>>>` examples in the docstrings of src are run by doctest.

Examples run in an empty directory and use only the installed package and what they make themselves.
"""

import dataclasses
import doctest
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import redraft
from redraft.benchmark.load.serving import serving

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MODULES = ["redraft", *(module.name for module in pkgutil.walk_packages(redraft.__path__, "redraft."))]
COMMAND_SECONDS = 120


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after its opening fence, its text, and the line of the page where the text begins."""

    info: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A shell command and the output that the page shows for it."""

    text: str
    output: str


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks, info, lines, start = [], None, [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if info is None and (fence := re.match(r"```(.*)", line)):
            info, lines, start = fence[1].strip(), [], number + 1
        elif info is not None and line.startswith("```"):
            blocks.append(Block(info, "\n".join(lines), start))
            info = None
        elif info is not None:
            lines.append(line)
    assert info is None, f"{page.name}: the block that begins at line {start} has no end"
    return blocks


def commands_of(block: Block) -> list[Command]:
    """The `$` commands of a console block, their lines joined where one ends in a backslash."""
    commands = []
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.replace("\\\n", "").partition("\n")
        commands.append(Command(command.strip(), output.strip()))
    return commands


def run_python(page: Path) -> None:
    """Executes a page's python blocks; a traceback names the page and its line."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.info == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)


def run_console(page: Path) -> None:
    """Runs a page's redraft commands with this environment's `redraft`, through bash, so that pipes work."""
    for command in (c for block in blocks_of(page) if block.info == "console" for c in commands_of(block)):
        if not command.text.startswith("redraft"):
            continue
        printed = run_command(page, command.text)
        if command.output.startswith("{"):
            found = json.loads(printed.strip().splitlines()[-1])
            assert json.loads(command.output).keys() <= found.keys(), f"$ {command.text}\nprinted {found}"


def run_command(page: Path, command: str, **environment: str) -> str:
    """Runs a command, which must exit with 0, and returns what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    where = f"{page.name}: $ {command}"
    assert done.returncode == 0, f"{where}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_serving(page: Path) -> None:
    """Runs a page's examples that need a server."""
    blocks = [block for block in blocks_of(page) if block.info in ("console serving", "python serving")]
    if not blocks:
        return
    with serving("bundled") as server:
        for shown_block in blocks:
            block = dataclasses.replace(shown_block, text=shown_block.text.replace("http://localhost:8000", server.url))
            if block.info == "python serving":
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), {"__name__": "__main__"})
                continue
            for command in commands_of(block):
                printed = run_command(page, command.text, REDRAFT_URL=server.url)
                assert printed.strip(), command.text
                assert '"error"' not in printed, printed
                shown = {line for line in command.output.splitlines() if line.startswith("event:") or "[DONE]" in line}
                assert shown <= set(printed.splitlines()), f"$ {command.text}\nprinted {printed}"


def broken_links(page: Path) -> list[str]:
    """The relative links and images of a page that lead to no file, or to no heading of a page."""
    prose = prose_of(page)
    targets = re.findall(r"\]\(\s*<?([^)>\s]+)", prose)
    targets += re.findall(r'<(?:img|a)\s[^>]*?(?:src|href)="([^"]+)"', prose)
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target) and not leads(page, target)]


def prose_of(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def leads(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    aim = page.parent / name if name else page
    return aim.exists() and (not anchor or aim.suffix != ".md" or anchor in anchors(aim))


def anchors(page: Path) -> set[str]:
    """What links call the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def glossary_terms(page: Path) -> list[str]:
    """The terms that the first column of a page's tables defines; a cell may define several, with commas between."""
    cells = re.findall(r"^\| \*\*(.+?)\*\* \| [^|\s]", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [term for cell in cells for term in cell.split(", ")]


def repeated_terms(page: Path) -> list[str]:
    """The terms that a glossary defines more than once, in whatever case."""
    counts = Counter(term.lower() for term in glossary_terms(page))
    return [term for term, count in counts.items() if count > 1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    def test_python_blocks_run(self, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        run_python(page)

    def test_redraft_commands_exit_with_0(self, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        run_console(page)

    def test_what_needs_a_server(self, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        run_serving(page)

    def test_relative_links_lead_to_files_and_headings(self, page: Path):
        assert broken_links(page) == []


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module: str):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def page_with(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def test_a_python_block_that_fails_is_found_at_its_line(tmp_path: Path):
    page = page_with(tmp_path, "Words.\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as raised:
        run_python(page)
    assert raised.traceback[-1].lineno == 7  # counted from 0


def test_a_block_marked_no_run_is_left_out(tmp_path: Path):
    page = page_with(tmp_path, "```python no-run\n1 / 0\n```\n\n```console no-run\n$ redraft no-such-command\n```\n")
    run_python(page)
    run_console(page)


def test_a_command_that_fails_is_found(tmp_path: Path):
    page = page_with(tmp_path, "```console\n$ ls no-such-file\n$ redraft \\\n    no-such-command\n```\n")
    with pytest.raises(AssertionError, match="exit code"):
        run_console(page)


def test_a_json_key_that_is_not_printed_is_found(tmp_path: Path):
    page = page_with(tmp_path, '```console\n$ redraft --help >/dev/null; echo \'{"a": 1}\'\n{"a": 2}\n```\n')
    run_console(page)
    page = page_with(tmp_path, page.read_text().replace('{"a": 2}', '{"a": 2, "b": 3}'))
    with pytest.raises(AssertionError, match="printed"):
        run_console(page)


def test_a_link_to_nowhere_is_found(tmp_path: Path):
    links = "[a](page.md#the-top-of-it) [b](https://example.org) [c](#here) ![d](gone.svg) [e](#the-top-of-it)"
    page = page_with(tmp_path, f'# The top, of it\n{links}\n<img src="lost.png">\n')
    assert broken_links(page) == ["#here", "gone.svg", "lost.png"]


def test_the_glossary_has_every_term_once():
    page = ROOT / "docs" / "glossary.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ") and line != "| term | meaning |"]
    assert len(rows) > 50
    assert [row for row in rows if not re.match(r"\| \*\*[^*|]+\*\* \| [^|]+[.] \|$", row)] == []
    assert repeated_terms(page) == []


def test_a_term_that_is_defined_twice_is_found(tmp_path: Path):
    rows = "| **Canvas** | A block. |\n| **open, shut** | Of a door. |\n\n## More\n\n| **canvas** | A **draft**. |\n"
    assert repeated_terms(page_with(tmp_path, rows + "| **doors, open** | Doors. |\n")) == ["canvas", "open"]
    assert glossary_terms(page_with(tmp_path, "| term | meaning |\n|---|---|\n| **empty** | |\n")) == []
