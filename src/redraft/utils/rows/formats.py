"""The formats of a file of rows: lines of text, JSON lines, and tables whose columns a comma, ; or tab separates."""

import csv
import io
import itertools
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from redraft.utils.json_files import parse_json_line
from redraft.utils.words import counted

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
OTHER_SUFFIXES = frozenset(
    ".7z .arrow .avro .bz2 .db .doc .docx .feather .gz .json .npy .npz .ods .odt .orc .parquet .pdf .pickle .pkl .rar "
    ".sqlite .tar .tgz .xls .xlsb .xlsm .xlsx .xml .xz .yaml .yml .zip .zst".split()
)
"""Endings of files that do not hold one row per line."""
LINE_COLUMN = "line"
MAX_TOLD = 40
"""Characters of a field that an error repeats."""
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}

Lines = Iterator[tuple[str, str | None]]
"""Lines with their line breaks, and what is wrong with each or None."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be asked: its line, the sentence that says why, and its columns and id as far as known."""

    line: int
    fault: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    id: str | int | float | None = None


Parsed = Iterator[tuple[int, Mapping[str, Any]] | BadRow]


def parse_text(lines: Lines) -> Parsed:
    """Yields (line, its text as the column "line") of each line that is not blank, or what is wrong with it."""
    for number, (line, fault) in enumerate(lines, 1):
        if fault is not None:
            yield BadRow(number, f"line {number}: {fault}")
        elif line.strip():
            yield number, {LINE_COLUMN: line.removesuffix("\n").removesuffix("\r")}


def parse_json(lines: Lines) -> Parsed:
    """Yields (line, object) of each line that is not blank, or what is wrong with it."""
    for number, (line, fault) in enumerate(lines, 1):
        where = f"line {number}"
        if fault is not None:
            yield BadRow(number, f"{where}: {fault}")
        elif line.strip():
            try:
                columns = parse_json_line(line, where)
            except ValueError as error:
                yield BadRow(number, str(error))
                continue
            bad = next((column for column, value in columns.items() if not is_finite(value)), None)
            if bad is None:
                yield number, columns
            else:
                finite = {column: value for column, value in columns.items() if is_finite(value)}
                problem = "holds NaN, Infinity or a number beyond 1.8e308, which JSON cannot hold"
                yield BadRow(number, f"{where}: {bad!r} {problem}: write a smaller number, or text", finite)


def is_finite(value: object) -> bool:
    """Tells whether a parsed JSON value has no number that JSON cannot write."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return False
        if isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return True


def parse_csv(lines: Lines) -> Parsed:
    """Yields (last line, columns) of each row of a table, or what is wrong with it.

    A comma separates its columns; or ;, a tab or |, if its header has no comma; or what a line "sep=;" before the
    header says, as spreadsheets write and read it.
    """
    start: list[tuple[str, str | None]] = []
    for line, fault in lines:
        # A blank line in its place keeps the numbers of the lines.
        told = re.fullmatch(r'"?sep=([,;\t|])"?\s*', line, re.IGNORECASE)
        start.append(("\n", fault) if told else (line, fault))
        if told:
            return _parse_table(itertools.chain(start, lines), told[1], "CSV")
        if line.strip():
            break
    header = re.sub(r'"[^"]*"', "", start[-1][0] if start else "")
    separator = next((one for one in SEPARATORS if one in header), ",")
    return _parse_table(itertools.chain(start, lines), separator, "CSV")


def parse_tsv(lines: Lines) -> Parsed:
    """Yields (last line, columns) of each row of a table that tabs separate, or what is wrong with it."""
    return _parse_table(lines, "\t", "TSV")


def _parse_table(lines: Lines, separator: str, kind: str) -> Parsed:
    header: list[str] | None = None
    for row in _split_rows(lines, separator, kind):
        if isinstance(row, BadRow):
            yield row
            if header is None:
                return
            continue
        number, fields = row
        if header is None:
            header = fields
            if kind == "TSV" and len(header) == 1 and (other := next((one for one in ",;|" if one in header[0]), None)):
                told = f"line {number}: tabs separate no columns here, but the header has {SEPARATORS[other]}"
                yield BadRow(number, f"{told}: call it .csv, or name the format csv")
                return
            if duplicates := sorted({name for name in header if header.count(name) > 1}):
                yield BadRow(number, f"line {number}: column {duplicates[0]!r} occurs more than once")
                return
        elif len(fields) == len(header):
            yield number, dict(zip(header, fields, strict=True))
        else:
            counts = f"line {number} has {counted(len(fields), 'field')}, the header has {len(header)}"
            yield BadRow(number, f"{counts}: {_count_fault(header, fields, separator)}")


def _count_fault(header: list[str], fields: list[str], separator: str) -> str:
    """Says which column has no field, or which field has no column, of a row that has too few or too many."""
    count = len(header)
    if len(fields) < count:
        return f"none is left for column {len(fields) + 1}, {header[len(fields)]!r}"
    surplus = fields[count] if len(fields[count]) <= MAX_TOLD else f"{fields[count][:MAX_TOLD]}..."
    way_out = f'put a field that contains {SEPARATORS[separator]} in "quotation marks"'
    return f"field {count + 1}, {surplus!r}, has no column; {way_out}"


def _split_rows(lines: Lines, separator: str, kind: str) -> Iterator[tuple[int, list[str]] | BadRow]:
    """Yields (last line, fields) of each row that is not blank, or what is wrong with it."""
    # A field may be as long as a prompt; what does not fit the model is refused there.
    csv.field_size_limit(2**31 - 1)
    # Also a single \r ends a line.
    parts = ((part, fault) for text, fault in lines for part in io.StringIO(text, newline=""))
    returned: deque[tuple[str, str | None]] = deque()
    # The lines of the row that is being read.
    taken: list[tuple[str, str | None]] = []

    def take() -> Iterator[str]:
        while (line := returned.popleft() if returned else next(parts, None)) is not None:
            taken.append(line)
            yield line[0]

    reader = csv.reader(take(), strict=True, delimiter=separator)
    number = 0
    while True:
        taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quotation mark may have swallowed any number of rows: only the line that it stands in is lost.
            returned.extendleft(reversed(taken[1:]))
            reader = csv.reader(take(), strict=True, delimiter=separator)
            number += 1
            is_unclosed = len(taken) > 1 or "unexpected end" in str(error)
            unclosed = "; a quotation mark is not closed" if is_unclosed else ""
            column = _quoting_fault(taken[0][0], separator)
            yield BadRow(number, f"line {number} is not {kind}: {error}, at column {column}{unclosed}")
            continue
        number += len(taken)
        if fault := next((fault for _, fault in taken if fault), None):
            yield BadRow(number, f"line {number}: {fault}")
        elif taken[-1][0].strip():
            yield number, fields


def _quoting_fault(line: str, separator: str) -> int:
    """Returns the column, from 1, at which a line's quotation marks go wrong.

    That of the mark that is not closed, or of what follows one that is.
    """
    at = 0
    while True:
        if line.startswith('"', at):
            opening = at
            # Doubled, it is one of the field's.
            while (at := line.find('"', at + 1)) >= 0 and line.startswith('"', at + 1):
                at += 1
            if at < 0:
                return opening + 1
            at += 1
            if line[at:].rstrip("\r\n") and not line.startswith(separator, at):
                return at + 1
        at = line.find(separator, at)
        if at < 0:
            return len(line.rstrip("\r\n")) + 1
        at += len(separator)


PARSERS: dict[str, Callable[[Lines], Parsed]] = {
    "text": parse_text,
    "jsonl": parse_json,
    "csv": parse_csv,
    "tsv": parse_tsv,
}
