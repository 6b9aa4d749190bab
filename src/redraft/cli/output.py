"""What commands print: tables, and the one JSON line of `redraft bench`."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from redraft.benchmark.timing import Spread

JsonLineOption = Annotated[
    bool, typer.Option("--json", help="The JSON line alone, without the table on standard error.")
]


def show_table(
    rows: Iterable[Sequence[str]], columns: Sequence[str] = (), *, title: str | None = None, is_error: bool = False
) -> None:
    """Prints a table, with a header if there are `columns`; on standard error if `is_error`."""
    table = Table(*columns, title=title, show_header=bool(columns))
    for row in rows:
        table.add_row(*row)
    Console(stderr=is_error).print(table)


def report(
    facts: dict[str, Any], *notes: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], as_json: bool
) -> None:
    """Prints the facts of a benchmark as one JSON line and, unless `as_json`, a table and notes on standard error."""
    if not as_json:
        show_table(rows, columns, title=title, is_error=True)
        for note in notes:
            print(note, file=sys.stderr)
    print(json.dumps(facts, default=Spread.to_json))


def format_ms(seconds: Spread) -> str:
    """Formats median and quartiles in milliseconds."""
    return format_spread(seconds.scaled(1000), ".2f")


def format_spread(spread: Spread, form: str) -> str:
    """Formats median and quartiles, each by the format specification."""
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"
