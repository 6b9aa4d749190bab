"""A job's file of rows: checked as a whole before any work, then read row by row as requests."""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from redraft.batch.parquet import column_types, digest_file, parse_parquet
from redraft.batch.requests import CHAT_URL, URLS, JobRow, RequestFields
from redraft.utils.rows.formats import OTHER_SUFFIXES, PARSERS, SUFFIXES, BadRow, Parsed
from redraft.utils.rows.reading import DEFAULT_TEMPLATES, ID_COLUMN, PROMPT_TEMPLATE, usable_id
from redraft.utils.rows.source import LineSource
from redraft.utils.rows.template import PromptTemplate, column_text

OPENAI, PARQUET = "openai", "parquet"
FORMATS = (*PARSERS, PARQUET, OPENAI)
OPENAI_KEYS = frozenset({"custom_id", "method", "url", "body"})
MAX_FAULTS = 20
"""As many faulty rows are kept to be told."""

CheckBody = Callable[[str, Mapping[str, Any]], None]
"""Raises ValueError for the body of a request that its URL does not take."""


@dataclass
class CheckedJob:
    """What the check of a file found: its rows, how many of them are faulty, the first faults, columns, and a digest.

    kinds: of each column the names of its values' types.
    """

    rows: int = 0
    bad: int = 0
    faults: list[BadRow] = field(default_factory=list)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    digest: str = ""

    def add(self, row: JobRow | BadRow) -> None:
        self.rows += 1
        for name, value in row.columns.items():
            self.kinds.setdefault(name, set()).add(type(value).__name__)
        if isinstance(row, BadRow):
            self.bad += 1
            if len(self.faults) < MAX_FAULTS:
                self.faults.append(row)


class JobFile:
    """A file of rows, or of OpenAI's batch lines, as requests.

    format: one of FORMATS; None goes by the file's ending, and takes JSON lines whose first has a custom_id and a body
    for OpenAI's. template: the prompt of a row, with its {columns}; OpenAI's lines have none. id_column: where the
    rows' ids stand; without one the column "id" of those that have it, else the line's number. body_column: where a row
    has fields of its own request. url: where prompts go. fields: of every request. check_body: raises ValueError for a
    body that could not be answered. stream: takes the file's place. name: what the file is called where that is not its
    path. Blank lines are no rows.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str | None = None,
        template: str | None = None,
        id_column: str | None = None,
        body_column: str | None = None,
        url: str = CHAT_URL,
        fields: Mapping[str, Any] | None = None,
        check_body: CheckBody | None = None,
        stream: BinaryIO | None = None,
        name: str | None = None,
    ) -> None:
        if format is not None and format not in FORMATS:
            raise ValueError(f"the format of the rows is {format!r}, must be one of {', '.join(FORMATS)}")
        self._path, self.url = path, url
        self._source = LineSource(path, stream)
        self.name = name or self._source.name
        suffix = self._source.suffix
        if format is None and suffix in OTHER_SUFFIXES - {f".{PARQUET}"}:
            raise ValueError(f"{path} does not look like rows: name its format, one of {', '.join(FORMATS)}")
        self.format = format or (PARQUET if suffix == f".{PARQUET}" else SUFFIXES.get(suffix, "text"))
        if self.format == PARQUET and stream is not None:
            raise ValueError("Parquet cannot be read from standard input: give a file")
        if format is None and template is None and self.format == "jsonl" and self._begins_as_openai():
            self.format = OPENAI
        self.fields = RequestFields(fields=dict(fields or {}))
        self.id_column, self.body_column = id_column, body_column
        self._check_body = check_body
        if self.format == OPENAI:
            given = {"a template": template, "a column of ids": id_column, "a column of bodies": body_column}
            if names := [name for name, value in given.items() if value is not None]:
                raise ValueError(
                    f"{self.name} has OpenAI's batch lines, which are whole requests: leave out {names[0]}"
                )
            self.template = None
        else:
            default = DEFAULT_TEMPLATES.get(self.format, PROMPT_TEMPLATE)
            self.template = default if template is None else template
            self._template = PromptTemplate(self.template)
        # A file of Parquet has no lines.
        self._place = "row" if self.format == PARQUET else "line"
        self._digest: str | None = None

    def check(self) -> CheckedJob:
        """Reads the whole file and checks every row, keeping none but the first that are faulty.

        It takes 8 bytes for each row. Raises ValueError for two rows with one id, and where there are no rows.
        """
        checked, ids = CheckedJob(), array("Q")
        digest = hashlib.sha256()
        for row in self._read(self.fields, digest.update):
            checked.add(row)
            ids.append(_hashed(row_id(row)))
        if not checked.rows:
            raise ValueError(f"{self.name} has no rows")
        self._refuse_duplicates(ids)
        checked.digest = self._digest = self._digest_of(digest)
        return checked

    def rows(self, seed: int) -> Iterator[JobRow | BadRow]:
        """Yields the rows in order. Raises ValueError at the end if the file is not the one that was checked."""
        digest = hashlib.sha256()
        yield from self._read(replace(self.fields, seed=seed), digest.update)
        if self._digest not in (None, self._digest_of(digest)):
            raise ValueError(f"{self.name} was changed while its rows were answered: put it back as it was")

    def column_types(self) -> dict[str, Any]:
        """Returns Arrow's types of the columns of a file of Parquet."""
        return column_types(self._path)

    def _digest_of(self, read: Any) -> str:
        found: str = digest_file(self._path) if self.format == PARQUET else read.hexdigest()
        return found

    def _begins_as_openai(self) -> bool:
        for parsed in PARSERS["jsonl"](self._source.lines()):
            return not isinstance(parsed, BadRow) and {"custom_id", "body"} <= parsed[1].keys()
        return False

    def _parse(self, update: Callable[[bytes], object]) -> Parsed:
        if self.format == PARQUET:
            return parse_parquet(self._path)
        return PARSERS["jsonl" if self.format == OPENAI else self.format](self._source.lines(update))

    def _read(self, fields: RequestFields, update: Callable[[bytes], object]) -> Iterator[JobRow | BadRow]:
        make = self._openai_row if self.format == OPENAI else self._row
        for parsed in self._parse(update):
            if isinstance(parsed, BadRow):
                yield replace(parsed, id=usable_id(parsed.columns.get(self.id_column or ID_COLUMN)))
                continue
            line, columns = parsed
            try:
                row = make(line, columns, fields)
                if row.body.get("stream"):
                    raise ValueError("stream is true, but an answer of a batch is whole: leave it out")
                if self._check_body is not None:
                    self._check_body(row.url, row.body)
            except ValueError as error:
                id = columns.get("custom_id" if self.format == OPENAI else self.id_column or ID_COLUMN)
                own = {} if self.format in ("text", OPENAI) else columns
                yield BadRow(line, f"{self._place} {line}: {error}", own, usable_id(id))
            else:
                yield row

    def _openai_row(self, line: int, given: Mapping[str, Any], fields: RequestFields) -> JobRow:
        if unknown := given.keys() - OPENAI_KEYS:
            raise ValueError(f"{sorted(unknown)[0]!r} is not a key of a batch line: {', '.join(sorted(OPENAI_KEYS))}")
        id, url, body = given.get("custom_id"), given.get("url", self.url), given.get("body")
        if not isinstance(id, str) or not id.strip():
            raise ValueError(f"custom_id is {id!r}, must be a text that is not empty")
        if (method := given.get("method", "POST")) != "POST":
            raise ValueError(f"method is {method!r}, must be 'POST'")
        if url not in URLS:
            raise ValueError(f"url is {url!r}, must be one of {', '.join(URLS)}")
        if not isinstance(body, dict):
            raise ValueError(f"body is {type(body).__name__}, must be an object")
        return JobRow(line, id, url, fields.body(line, url, body))

    def _row(self, line: int, columns: Mapping[str, Any], fields: RequestFields) -> JobRow:
        prompt = self._template.fill(columns)
        own = {} if self.format == "text" else columns
        column = self.id_column or ID_COLUMN
        id = usable_id(own.get(column))
        if id is None and (self.id_column is not None or not isinstance(own.get(column), str | float | None)):
            column_text(own, column)
            raise ValueError(f"the id is empty: the column {column!r} must have one")
        more = {} if self.body_column is None else columns.get(self.body_column)
        if not isinstance(more, dict | None):
            raise ValueError(f"{self.body_column!r} is {type(more).__name__}, must be an object of a request's fields")
        asked = {"messages": [{"role": "user", "content": prompt}]} if self.url == CHAT_URL else {"prompt": prompt}
        body = fields.body(line, self.url, {**asked, **(more or {})})
        return JobRow(line, _named(line, id), self.url, body, own)

    def _refuse_duplicates(self, ids: "array[int]") -> None:
        """Raises ValueError where two rows have one id; `ids` are the hashes of all."""
        ordered = np.sort(np.frombuffer(ids, dtype=np.uint64))
        suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        if not suspects:
            return
        lines: dict[str, int] = {}
        for row in self._read(self.fields, bytes):
            id = row_id(row)
            if _hashed(id) in suspects and (first := lines.setdefault(id, row.line)) != row.line:
                places = f"{self._place}s {first} and {row.line}"
                raise ValueError(f"{self.name}, {places} have the same id {id!r}: make ids unique")


def is_url(path: str) -> bool:
    """Tells whether a path is one that Ray opens and Python does not, like s3://bucket/rows."""
    return "://" in path


def row_id(row: JobRow | BadRow) -> str:
    """Returns a row's id; of one without the number of its line."""
    return row.id if isinstance(row, JobRow) else _named(row.line, row.id)


def _named(line: int, id: str | int | float | None) -> str:
    return f"line-{line}" if id is None else str(id)


def _hashed(id: str) -> int:
    data = id.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
