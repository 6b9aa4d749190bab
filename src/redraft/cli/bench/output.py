"""What the commands of `redraft bench` print: a table on standard error, one JSON line on standard output."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from redraft.benchmark.timing import Spread

JsonLineOption = Annotated[
    bool, typer.Option("--json", help="The JSON line alone, without the table on standard error.")
]


def format_ms(seconds: Spread) -> str:
    """Formats median and quartiles in milliseconds."""
    return format_spread(seconds.scaled(1000), ".2f")


def format_spread(spread: Spread, form: str) -> str:
    """Formats median and quartiles, each by the format specification."""
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table on standard error."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(stderr=True).print(table)
