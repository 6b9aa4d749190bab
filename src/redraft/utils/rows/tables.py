"""What is written for each row: its columns and its answer, as JSON lines, or as a table with the answer's fields."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redraft.utils.json_files import unique_keys
from redraft.utils.rows.formats import LINE_COLUMN, OTHER_SUFFIXES, SUFFIXES, BadRow, is_finite
from redraft.utils.rows.reading import Row
from redraft.utils.rows.source import GZIP_SUFFIX

SEPARATORS = {"csv": ",", "tsv": "\t"}
FORMATS = ("jsonl", *SEPARATORS)
TOKEN_IDS = "token_ids"
COLUMNS_AFTER = ("text", "finish_reason", "seed", "warnings", "trust", "error")
"""What a table tells of each answer, after the row's columns and the answer's fields."""
PREFIX = "answer."
"""Stands before a column of ours whose name is taken."""
LOW_TRUST = 0.9
"""Below it, the probability that an answer is right is worth a word."""


def output_format(path: Path | None, format: str | None) -> str:
    """Returns the format of an output: the one named, or by the file's ending, else JSON lines.

    Raises ValueError for one that is unknown, and for an ending that says something else.
    """
    if format is not None:
        if format not in FORMATS:
            raise ValueError(f"the format of the output is {format!r}, must be one of {', '.join(FORMATS)}")
        return format
    if path is None:
        return "jsonl"
    suffix = (path.with_suffix("") if path.suffix.lower() == GZIP_SUFFIX else path).suffix.lower()
    if suffix in OTHER_SUFFIXES:
        raise ValueError(
            f"the output {path} has an ending that is not supported: use .csv, .tsv or .jsonl, or name a format"
        )
    return SUFFIXES.get(suffix, "jsonl")


def probability_of(outcome: Mapping[str, Any]) -> float | None:
    """Returns the probability that an answer is right; None where it is not known."""
    found: float | None = outcome.get("trust", {}).get("probability")
    return found


def parse_fields(text: str, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of an answer's fields, None for those it lacks, and what of it the fields do not tell."""
    try:
        found = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not is_finite(found):
        return dict.fromkeys(names), ["the fields' columns are empty: the answer is not a JSON object"]
    warnings = [f"the column {name!r} is empty: the answer has no such field" for name in names if name not in found]
    warnings += [f"the answer's field {name!r} has no column" for name in found if name not in names]
    return {name: found.get(name) for name in names}, warnings


class RowWriter:
    """Makes the lines of an output from rows and their outcomes, which are a result's JSON or {"error": ...}.

    format: one of FORMATS. columns: those of all rows. fields: the answer's, if it is to be read as a JSON object: then
    JSON lines have the columns of a table too. token_ids: whether these are written.
    """

    def __init__(
        self, format: str, *, columns: Sequence[str] = (), fields: Sequence[str] = (), token_ids: bool = False
    ) -> None:
        self._separator = SEPARATORS.get(format)
        self._is_table = bool(fields) or self._separator is not None
        self._has_token_ids = token_ids
        self._columns, self._fields = columns, fields
        taken = set(columns)

        def free(names: Sequence[str]) -> dict[str, str]:
            found = {}
            for name in names:
                column = name
                while column in taken:
                    column = PREFIX + column
                taken.add(column)
                found[name] = column
            return found

        self._field_columns = free(fields)
        self._own_columns = free((LINE_COLUMN, *COLUMNS_AFTER, *([TOKEN_IDS] if token_ids else [])))

    @property
    def renamed_fields(self) -> dict[str, str]:
        """The fields that the rows have columns of, and what they are called instead."""
        return {name: column for name, column in self._field_columns.items() if name != column}

    def header(self) -> str:
        """Returns the first line, "" in JSON lines."""
        if self._separator is None:
            return ""
        own = self._own_columns
        after = [own[name] for name in own if name != LINE_COLUMN]
        return self._join([own[LINE_COLUMN], *self._columns, *self._field_columns.values(), *after])

    def warnings(self, outcome: Mapping[str, Any]) -> list[str]:
        """Returns what is odd about an answer: its own warnings, and what its fields lack."""
        found = list(outcome.get("warnings", []))
        if self._fields and "text" in outcome:
            found += parse_fields(outcome["text"], self._fields)[1]
        return found

    def line(self, row: Row | BadRow, outcome: Mapping[str, Any]) -> str:
        """Returns the line of a row, with its line break."""
        if not self._is_table:
            return json.dumps(self._record(row, outcome), ensure_ascii=False) + "\n"
        cells = self._cells(row, outcome)
        if self._separator is None:
            return json.dumps(cells, ensure_ascii=False) + "\n"
        return self._join([_cell(value) for value in cells.values()])

    def _record(self, row: Row | BadRow, outcome: Mapping[str, Any]) -> dict[str, Any]:
        record: dict[str, Any] = {"line": row.line}
        if row.id is not None:
            record["id"] = row.id
        if row.columns:
            record["columns"] = row.columns
        return record | {name: value for name, value in outcome.items() if self._has_token_ids or name != TOKEN_IDS}

    def _cells(self, row: Row | BadRow, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the row's part of the table, by the names of its columns."""
        fields, _ = parse_fields(outcome.get("text", ""), self._fields)
        own = {**dict.fromkeys(self._own_columns), **outcome, "warnings": self.warnings(outcome)}
        own["trust"] = probability_of(outcome)
        return {
            self._own_columns[LINE_COLUMN]: row.line,
            **{name: row.columns.get(name) for name in self._columns},
            **{self._field_columns[name]: value for name, value in fields.items()},
            **{column: own[name] for name, column in self._own_columns.items() if name != LINE_COLUMN},
        }

    def _join(self, cells: Sequence[str]) -> str:
        assert self._separator is not None
        line = io.StringIO()
        csv.writer(line, delimiter=self._separator, lineterminator="\n").writerow(cells)
        return line.getvalue()


def _cell(value: object) -> str:
    """Returns a value as a cell of a table: text as it is, nothing for None, warnings joined, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "; ".join(value)
    return json.dumps(value, ensure_ascii=False)
