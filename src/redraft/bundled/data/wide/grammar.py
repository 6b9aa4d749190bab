"""The notation of the tables: lines of text with choices and references in braces.

`{a|b|}` is a choice between alternatives, which may be empty and may contain further braces. `{1..9}` is a number,
`{#A9-*}` a pattern of letters (A), digits (9) or either (*). Any other `{name}` is a reference, which the caller
resolves: `{@city}`, `{~colors}`, `{text}`. `\\n` is a line break. Everything else stands for itself.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from redraft.bundled.data.extraction.values import fill

TABLES = Path(__file__).parent / "tables"
_NUMBER = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class Reference:
    """A name in braces, to be resolved."""

    name: str


@dataclass(frozen=True)
class Choice:
    """Equally likely sequences of parts."""

    options: tuple[tuple["Piece", ...], ...]


Piece = str | Reference | Choice
Resolve = Callable[[str], str]


@dataclass(frozen=True)
class Template:
    """A parsed line."""

    pieces: tuple[Piece, ...]

    def settle(self, rng: random.Random) -> Iterator[str | Reference]:
        """Makes every choice and yields literals and references in order."""
        return _settle(self.pieces, rng)

    def fill(self, rng: random.Random, resolve: Resolve) -> str:
        """Makes every choice and replaces references by what `resolve` returns for their names."""
        return "".join(part if isinstance(part, str) else resolve(part.name) for part in self.settle(rng))

    def names(self) -> frozenset[str]:
        """Returns the names of all references, including those in alternatives."""
        return frozenset(part.name for part in _flatten(self.pieces) if isinstance(part, Reference))

    def literals(self) -> Iterator[str]:
        """Yields all literal texts, including those in alternatives."""
        return (part for part in _flatten(self.pieces) if isinstance(part, str))


def parse(line: str) -> Template:
    """Parses a line. Raises ValueError for braces that do not match."""
    options, _ = _read(line.replace("\\n", "\n"), 0, is_inside=False)
    return Template(options[0])


@cache
def read_table(name: str) -> dict[str, tuple[str, ...]]:
    """Reads a table by section: `# name` headings with one entry a line; lines before any heading are section ''.

    `#! ` starts a comment.
    """
    sections: dict[str, list[str]] = {}
    heading = ""
    for line in (TABLES / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            heading = line[2:].strip()
        elif line.strip() and not line.startswith("#! "):
            sections.setdefault(heading, []).append(line)
    return {section: tuple(lines) for section, lines in sections.items()}


@cache
def read_templates(name: str) -> dict[str, tuple[Template, ...]]:
    """Reads a table whose entries are templates. ValueError names table and line."""
    found = {}
    for section, lines in read_table(name).items():
        templates = []
        for line in lines:
            try:
                templates.append(parse(line))
            except ValueError as error:
                raise ValueError(f"{name}.txt, {line!r}: {error}") from None
        found[section] = tuple(templates)
    return found


def _read(line: str, at: int, *, is_inside: bool) -> tuple[list[tuple[Piece, ...]], int]:
    options: list[tuple[Piece, ...]] = []
    pieces: list[Piece] = []
    literal = ""
    while at < len(line):
        char = line[at]
        at += 1
        if char == "{":
            inner, at = _read(line, at, is_inside=True)
            pieces += [literal] if literal else []
            literal = ""
            if len(inner) > 1:
                pieces.append(Choice(tuple(inner)))
            elif len(inner[0]) == 1 and isinstance(inner[0][0], str):
                pieces.append(Reference(inner[0][0]))
            else:
                raise ValueError("braces without a choice hold one name")
        elif is_inside and char in "|}":
            pieces += [literal] if literal else []
            literal = ""
            options.append(tuple(pieces))
            pieces = []
            if char == "}":
                return options, at
        elif char == "}":
            raise ValueError(f"'}}' without '{{' before character {at}")
        else:
            literal += char
    if is_inside:
        raise ValueError("'{' without '}'")
    return [(*pieces, literal) if literal else tuple(pieces)], at


def _settle(pieces: tuple[Piece, ...], rng: random.Random) -> Iterator[str | Reference]:
    for piece in pieces:
        if isinstance(piece, Choice):
            yield from _settle(rng.choice(piece.options), rng)
        elif isinstance(piece, Reference) and (number := _NUMBER.fullmatch(piece.name)):
            yield str(rng.randint(int(number[1]), int(number[2])))
        elif isinstance(piece, Reference) and piece.name.startswith("#"):
            yield fill(piece.name[1:], rng)
        else:
            yield piece


def _flatten(pieces: tuple[Piece, ...]) -> Iterator[str | Reference]:
    for piece in pieces:
        if isinstance(piece, Choice):
            for option in piece.options:
                yield from _flatten(option)
        else:
            yield piece
