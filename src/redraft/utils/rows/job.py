"""A job over a file of rows: answers go to a journal as they come, and to the output, in order, when there is each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.utils.files import write_chunks
from redraft.utils.rows.formats import BadRow
from redraft.utils.rows.journal import Journal
from redraft.utils.rows.reading import Row
from redraft.utils.rows.source import GZIP_SUFFIX
from redraft.utils.rows.tables import LOW_TRUST, RowWriter, probability_of

Outcome = Mapping[str, Any]
"""A result's JSON, or {"error": ...}."""
AnswerRows = Callable[[Iterator[Row]], Iterator[tuple[Row, Outcome]]]
"""Answers rows, and yields each with its outcome in any order."""


@dataclass
class RowCounts:
    """How many rows are told, and how many were bad, have failed, or have an answer with warnings.

    low: how many answers are trusted less than LOW_TRUST. unknown: of how many no probability is known. below,
    warned_below: how many are in the file of low trust, and how many of these have warnings.
    """

    rows: int = 0
    bad: int = 0
    failed: int = 0
    warned: int = 0
    low: int = 0
    unknown: int = 0
    below: int = 0
    warned_below: int = 0

    def add(self, row: Row | BadRow, outcome: Outcome, warnings: Sequence[str]) -> None:
        self.rows += 1
        self.bad += isinstance(row, BadRow)
        self.failed += isinstance(row, Row) and "error" in outcome
        self.warned += bool(warnings)
        probability = probability_of(outcome)
        self.low += probability is not None and probability < LOW_TRUST
        self.unknown += "error" not in outcome and probability is None


def bad_outcome(row: BadRow) -> Outcome:
    return {"error": row.fault}


def answer_missing(rows: Iterable[Row | BadRow], journal: Journal, answer: AnswerRows) -> Iterator[Outcome]:
    """Answers the rows that the journal does not have, and yields each outcome when it is written there."""
    missing = (row for row in rows if isinstance(row, Row) and row.line not in journal)
    for row, outcome in answer(missing):
        journal.append(row.line, outcome)
        if journal.is_due():
            journal.sync()
        yield outcome


def write_output(
    path: Path,
    rows: Iterable[Row | BadRow],
    journal: Journal,
    writer: RowWriter,
    is_chosen: Callable[[Outcome], bool] = lambda _: True,
) -> RowCounts:
    """Writes the output as a whole, with all rows that are chosen in their order, and returns what it has."""
    counts = RowCounts()

    def lines() -> Iterator[str]:
        yield writer.header()
        for row in rows:
            outcome = journal[row.line] if isinstance(row, Row) else bad_outcome(row)
            if not is_chosen(outcome):
                continue
            counts.add(row, outcome, writer.warnings(outcome))
            yield writer.line(row, outcome)

    # Half a surrogate pair, which JSON's escapes may be of, becomes that escape again.
    chunks = (line.encode("utf-8", "backslashreplace") for line in lines())
    write_chunks(path, chunks, is_packed=path.suffix.lower() == GZIP_SUFFIX)
    return counts
