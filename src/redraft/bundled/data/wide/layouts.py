"""Layouts that data is printed in: lists of names and values, tables, and the formats of programs.

A layout gets rows of cells, None where a value is missing, and gives text in which each value is written as it is.
"""

import random
from collections.abc import Callable, Sequence

Rows = Sequence[Sequence[str | None]]
Layout = Callable[[Sequence[str], Rows, random.Random], str]


def _lines(names: Sequence[str], rows: Rows, rng: random.Random) -> str:
    mark = rng.choice((": ", ": ", ": ", " = ", "=", " - ", "\t", " | ", " : ", ":\n", " -> ", " .... ", "; "))
    bullet = rng.choice(("", "", "", "- ", "* ", "• ", "| "))
    between = (
        rng.choice(("\n", "\n", "\n", "\n", ", ", "; ", " | ", " / ")) if "\n" not in mark and not bullet else "\n"
    )
    blocks = (
        between.join(f"{bullet}{name}{mark}{cell}" for name, cell in zip(names, row, strict=True) if cell is not None)
        for row in rows
    )
    return rng.choice(("\n\n", "\n---\n")).join(blocks)


def _bold(names: Sequence[str], rows: Rows, rng: random.Random) -> str:
    left, right = rng.choice((("**", ":** "), ("**", "**: "), ("<b>", ":</b> "), ("[", "] "), ("*", "* ")))
    return "\n\n".join(
        "\n".join(f"{left}{name}{right}{cell}" for name, cell in zip(names, row, strict=True) if cell is not None)
        for row in rows
    )


def _table(names: Sequence[str], rows: Rows, rng: random.Random) -> str:
    mark = rng.choice((" | ", " | ", "|", "\t", ";", ",", "  ", "   "))
    if mark == "," and any("," in (cell or "") for row in rows for cell in row):
        mark = ";"
    empty = "" if mark != "  " else "-"
    lines = [mark.join(names), *(mark.join(cell if cell is not None else empty for cell in row) for row in rows)]
    if mark == " | " and rng.random() < 0.6:
        lines.insert(1, " | ".join("---" for _ in names))
        lines = [f"| {line} |" for line in lines]
    return "\n".join(lines)


def _json(names: Sequence[str], rows: Rows, rng: random.Random) -> str:
    between, colon = rng.choice(((", ", ": "), (",", ":"), (",\n  ", ": ")))
    items = [
        "{"
        + between.join(
            f'"{name}"{colon}' + ("null" if cell is None else f'"{cell}"')
            for name, cell in zip(names, row, strict=True)
        )
        + "}"
        for row in rows
    ]
    return items[0] if len(items) == 1 else rng.choice(("\n", ",\n")).join(items)


def _xml(names: Sequence[str], rows: Rows, rng: random.Random) -> str:
    tags = ["_".join(name.split()) for name in names]
    between = rng.choice(("", "\n", "\n  "))
    items = [
        between.join(f"<{tag}>{cell}</{tag}>" for tag, cell in zip(tags, row, strict=True) if cell is not None)
        for row in rows
    ]
    return items[0] if len(items) == 1 else "\n".join(f"<item>{item}</item>" for item in items)


def _html(names: Sequence[str], rows: Rows, _: random.Random) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    return "\n".join(
        (f"<tr>{head}</tr>", *("<tr>" + "".join(f"<td>{cell or ''}</td>" for cell in row) + "</tr>" for row in rows))
    )


def _logfmt(names: Sequence[str], rows: Rows, rng: random.Random) -> str:
    keys = ["_".join(name.split()) for name in names]
    quote = any(" " in (cell or "") for row in rows for cell in row)
    form = '{}="{}"' if quote else "{}={}"
    between = rng.choice((" ", " ", "&")) if not quote else " "
    return "\n".join(
        between.join(form.format(key, cell) for key, cell in zip(keys, row, strict=True) if cell is not None)
        for row in rows
    )


LAYOUTS: dict[Layout, int] = {_lines: 10, _bold: 2, _table: 5, _json: 2, _xml: 1, _html: 1, _logfmt: 2}
"""The layouts and how often each is used."""
TABLES: dict[Layout, int] = {_table: 6, _json: 2, _html: 1, _logfmt: 1, _lines: 1}
"""Those for several rows."""


def lay_out(names: Sequence[str], rows: Rows, rng: random.Random) -> str:
    """Writes rows in some layout that can hold their values."""
    layouts = LAYOUTS if len(rows) == 1 else TABLES
    (layout,) = rng.choices(list(layouts), list(layouts.values()))
    cells = "".join(cell or "" for row in rows for cell in row)
    if any(char in cells for char in '"\\<>|'):
        layout = _lines
    return layout(names, rows, rng)
