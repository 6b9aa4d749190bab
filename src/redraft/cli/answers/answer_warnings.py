"""What may be wrong with answers, told on standard error, and the exit code of --strict and --min-trust."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from redraft.cli.streams import say
from redraft.text.trust.calibration import read_calibration
from redraft.utils.rows.tables import LOW_TRUST
from redraft.weights.fetch import resolve

if TYPE_CHECKING:
    from redraft.text.trust.evidence import Trust

STRICT_EXIT_CODE = 3
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help=f"Exit with {STRICT_EXIT_CODE} if an answer has a warning, once all are written."),
]
LOW_VALUE_TRUST = 0.75
"""Below it, the probability that a value is right is worth a word of its own, where the answer is trusted more.

It is said of 7 of 884 right answers of the bundled model's test sets that are trusted so much."""
MinTrustOption = Annotated[
    float | None,
    typer.Option(
        help=f"Exit with {STRICT_EXIT_CODE} if an answer is less probably right; of rows, these go into a file of "
        "their own beside --output."
    ),
]


def say_warnings(warnings: Iterable[str], trust: "Trust | None" = None, *, quiet: bool) -> None:
    """Prints each warning on standard error, and a line for an answer, or a value, of low trust, unless `quiet`."""
    for warning in warnings:
        say(f"warning: {warning}", quiet=quiet)
    if trust is None or trust.probability is None:
        return
    values = [(one.probability, ".".join(map(str, one.path))) for one in trust.values if one.probability is not None]
    least, name = min(values, default=(1.0, ""))
    if trust.probability < LOW_TRUST:
        where = f", least certain: {name} ({least:.0%})" if name else ""
        percent = math.floor(100 * trust.probability)  # 79.9 is below the limit, and so is what is said of it
        say(f"low trust: this answer is right with a probability of {percent}%{where}", quiet=quiet)
    elif least < LOW_VALUE_TRUST:
        say(f"low trust: the value of {name} is right with a probability of {math.floor(100 * least)}%", quiet=quiet)


def check_min_trust(model: str, least: float | None) -> None:
    """Raises ValueError for a least trust that is out of range, or that a checkpoint has no number for."""
    if least is None:
        return
    if not 0 < least <= 1:
        raise ValueError(f"--min-trust is {least}, must be above 0 and at most 1")
    if read_calibration(resolve(model)) is None:
        raise ValueError(f"--min-trust: {model} is not calibrated, so nobody knows; run 'redraft calibrate {model}'")


def is_below(probability: float | None, least: float | None) -> bool:
    """Tells whether an answer is trusted less than is asked for; one of which nothing is known is."""
    return least is not None and (probability is None or probability < least)


def end_with_warnings(warned: int, *, strict: bool) -> None:
    """Exits with STRICT_EXIT_CODE where `warned` of the answers, all printed, have warnings and `strict` is set."""
    if strict and warned:
        raise typer.Exit(STRICT_EXIT_CODE)
