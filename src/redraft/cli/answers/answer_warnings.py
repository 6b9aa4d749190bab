"""What may be wrong with answers, told on standard error, and the exit code of --strict."""

from collections.abc import Iterable
from typing import Annotated

import typer

from redraft.cli.streams import say

STRICT_EXIT_CODE = 3
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help=f"Exit with {STRICT_EXIT_CODE} if an answer has a warning, once all are written."),
]


def say_warnings(warnings: Iterable[str], *, quiet: bool) -> None:
    """Prints each warning as a line on standard error, unless `quiet`."""
    for warning in warnings:
        say(f"warning: {warning}", quiet=quiet)


def end_with_warnings(warned: int, *, strict: bool) -> None:
    """Exits with STRICT_EXIT_CODE where `warned` of the answers, all printed, have warnings and `strict` is set."""
    if strict and warned:
        raise typer.Exit(STRICT_EXIT_CODE)
