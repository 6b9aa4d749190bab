"""The wording of the extraction task: kinds of text, the fields each may hold, and phrasings with slots.

A phrasing is one line of text. `{name}` is a slot for the value of the field `name`; `{a|b|}` is a choice between
alternatives, which may be empty and may contain slots and further choices; `\\n` is a line break. Everything else,
including square brackets and pipes outside braces, stands for itself.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS: dict[str, tuple[str, ...]] = {
    "contact": ("name", "email", "phone", "company", "role", "city", "website"),
    "order": ("name", "order_id", "product", "quantity", "amount", "date", "city"),
    "event": ("event", "date", "time", "place", "city", "name", "amount"),
    "address": ("name", "company", "street", "postcode", "city", "country", "phone"),
    "payment": ("name", "amount", "date", "iban", "invoice_id", "company", "email"),
    "log": ("date", "time", "level", "service", "host", "ip", "user", "status", "path", "duration"),
    "shipment": ("tracking_id", "carrier", "date", "city", "weight", "name", "product"),
    "appointment": ("name", "doctor", "date", "time", "place", "room", "phone"),
    "travel": ("name", "origin", "destination", "flight", "date", "time", "seat", "amount"),
    "ticket": ("ticket_id", "name", "email", "product", "version", "priority", "date"),
    "job": ("role", "company", "city", "salary", "date", "email", "name"),
    "stock": ("sku", "product", "quantity", "amount", "place", "date", "weight"),
}


@dataclass(frozen=True)
class Slot:
    """The place of one field's value."""

    field: str


@dataclass(frozen=True)
class Alternatives:
    """A choice between equally likely sequences of parts."""

    options: tuple[tuple["Part", ...], ...]


Part = str | Slot | Alternatives


@dataclass(frozen=True)
class Phrasing:
    """One way to write a text of one kind."""

    kind: str
    parts: tuple[Part, ...]

    def literals(self) -> Iterator[str]:
        """Yields every text between its slots, including those of all alternatives."""
        return _literals(self.parts)

    def expand(self, rng: random.Random) -> tuple[str | Slot, ...]:
        """Makes every choice and returns literals and slots in order."""
        return tuple(_settle(self.parts, rng))


def _literals(parts: tuple[Part, ...]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, Alternatives):
            for option in part.options:
                yield from _literals(option)


def _settle(parts: tuple[Part, ...], rng: random.Random) -> list[str | Slot]:
    settled: list[str | Slot] = []
    for part in parts:
        if isinstance(part, Alternatives):
            settled.extend(_settle(rng.choice(part.options), rng))
        else:
            settled.append(part)
    return settled


def parse(kind: str, line: str) -> Phrasing:
    """Parses one phrasing of `kind`; ValueError says what is wrong with it."""
    fields = KINDS.get(kind)
    if fields is None:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    options, end = _read_options(line.replace("\\n", "\n"), 0, fields, depth=0)
    assert end == len(line.replace("\\n", "\n"))
    phrasing = Phrasing(kind, options[0])
    if not _fields_in(phrasing.parts):
        raise ValueError(f"phrasing without a slot: {line!r}")
    return phrasing


def _read_options(line: str, at: int, fields: tuple[str, ...], depth: int) -> tuple[list[tuple[Part, ...]], int]:
    options: list[tuple[Part, ...]] = []
    parts: list[Part] = []
    literal = ""
    while at < len(line):
        char = line[at]
        if char == "{":
            if literal:
                parts.append(literal)
                literal = ""
            inner, at = _read_options(line, at + 1, fields, depth + 1)
            if len(inner) > 1:
                parts.append(Alternatives(tuple(inner)))
            else:
                field = "".join(part for part in inner[0] if isinstance(part, str))
                if field not in fields or len(inner[0]) > 1:
                    raise ValueError(f"{field!r} is not a field of this kind ({', '.join(fields)}) in {line!r}")
                parts.append(Slot(field))
        elif depth and char in "|}":
            if literal:
                parts.append(literal)
                literal = ""
            options.append(tuple(parts))
            parts = []
            at += 1
            if char == "}":
                return options, at
        elif char == "}":
            raise ValueError(f"'}}' without '{{' at character {at} of {line!r}")
        else:
            literal += char
            at += 1
    if depth:
        raise ValueError(f"'{{' without '}}' in {line!r}")
    if literal:
        parts.append(literal)
    return [tuple(parts)], at


def _fields_in(parts: tuple[Part, ...]) -> set[str]:
    found: set[str] = set()
    for part in parts:
        if isinstance(part, Slot):
            found.add(part.field)
        elif isinstance(part, Alternatives):
            for option in part.options:
                found |= _fields_in(option)
    return found


def read_phrasings(path: Path) -> list[Phrasing]:
    """Reads a file of `# kind` headings with one phrasing per line; ValueError names file and line."""
    phrasings: list[Phrasing] = []
    kind = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("# "):
            kind = line[2:].strip()
        elif line.strip():
            try:
                phrasings.append(parse(kind, line))
            except ValueError as error:
                raise ValueError(f"{path.name}:{number}: {error}") from None
    return phrasings
