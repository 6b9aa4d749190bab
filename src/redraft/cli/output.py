"""What commands print: tables, and the one JSON line of `redraft bench`."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from redraft.benchmark.timing import Spread
    from redraft.training.run.watchers import StepProgress

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


def summary_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the rows of a table for what `--json` prints as one object: words for keys, a row for each group.

    What is None has no row.
    """
    for name, value in summary.items():
        if isinstance(value, Mapping) and any(isinstance(one, Mapping) for one in value.values()):
            yield from ((group, format_value(one)) for group, one in value.items())
        elif name == "settings":
            # Their names are those of the options.
            yield name, ", ".join(f"{setting}={one}" for setting, one in value.items()) or "the model's own"
        elif value is not None:
            yield describe(name), format_value(value)


SPELLINGS = {"json": "JSON", "f1": "F1"}


def describe(name: str) -> str:
    """Returns the words for a key: "tokens_per_second" is "tokens/s", "answer_ms" is "answer, ms"."""
    name = re.sub(r"_(seen|unseen|held_out_values|two_canvases|ms)$", r", \1", name)
    words = name.replace("_per_second", "/s").replace("_", " ").split(" ")
    return " ".join(SPELLINGS.get(word, word) for word in words)


def format_value(value: Any) -> str:
    """Formats a number with four digits at most after its first, or the numbers of an object with their words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{describe(name)} {format_value(one)}" for name, one in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else "unknown" if value is None else str(value)


class TrainingLine:
    """The line of a run that is under way, below all that is printed: a bar, losses, speed, time left and memory."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def step(self, now: "StepProgress") -> None:
        if self._task is None:
            self._task = self._progress.add_task("")
        memory = "" if now.memory_bytes is None else f"  {now.memory_bytes / 1e9:.1f} GB"
        told = f"{now.begun}  {now.rest}{memory}"
        self._progress.update(self._task, completed=now.step, total=now.total, description=told)

    def logged(self, row: Mapping[str, Any]) -> None:
        pass


@contextmanager
def training_line(console: Console | None = None) -> Iterator[TrainingLine | None]:
    """Shows a run's line on standard error for as long as the block takes; None where that is not a terminal."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    # What is printed goes above the line, but only where it would be printed into it.
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield TrainingLine(progress)


@contextmanager
def bytes_progress(task: str, *, is_shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on standard error, if that is a terminal; yields what takes the bytes done and their total."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # Without a terminal there is no bar, so that an error is one line there too.
    with Progress(
        *columns, console=console, transient=True, disable=not (is_shown and console.is_terminal)
    ) as progress:
        bar = progress.add_task(task, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def report(
    facts: dict[str, Any], *notes: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], as_json: bool
) -> None:
    """Prints the facts of a benchmark as one JSON line and, unless `as_json`, a table and notes on standard error."""
    if not as_json:
        show_table(rows, columns, title=title, is_error=True)
        for note in notes:
            print(note, file=sys.stderr)
    print(json.dumps(facts, default=lambda spread: spread.to_json()))


def format_ms(seconds: "Spread") -> str:
    return format_spread(seconds.scaled(1000), ".2f")


def format_spread(spread: "Spread", form: str) -> str:
    """Formats median and quartiles, each by the format specification."""
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"
