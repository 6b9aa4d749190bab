"""A file of rows: checked as a whole before any work, then read row by row, each time as it was."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from redraft.utils.rows.formats import LINE_COLUMN, OTHER_SUFFIXES, PARSERS, SUFFIXES, BadRow
from redraft.utils.rows.source import LineSource
from redraft.utils.rows.template import PromptTemplate, column_text

DEFAULT_TEMPLATES = {"text": f"{{{LINE_COLUMN}}}"}
PROMPT_TEMPLATE = "{prompt}"
ID_COLUMN = "id"
MAX_TOLD = 3
"""As many bad rows are kept to be told."""


@dataclass(frozen=True)
class Row:
    """A prompt, its line in the file (the last, where a CSV's row has several), its columns, and its id if any."""

    line: int
    prompt: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    id: str | int | float | None = None


@dataclass(frozen=True)
class CheckedRows:
    """What the check of a file found: its good and bad rows, all columns, the first bad rows, and a digest."""

    good: int
    bad: int
    columns: tuple[str, ...]
    first_bad: tuple[BadRow, ...]
    digest: str


class RowFile:
    """A file of rows whose columns are filled into a template.

    format: "text", "jsonl", "csv" or "tsv"; None goes by the file's ending, and refuses OTHER_SUFFIXES. template: text
    with {column}s, literal braces doubled; None is the column "prompt", of a text file the line. id_column: where ids
    stand, which every row then must have, or "line" for none; None is the column "id" of the rows that have it.
    stream: takes the file's place. Blank lines are skipped.
    """

    def __init__(
        self,
        path: Path,
        *,
        format: str | None = None,
        template: str | None = None,
        id_column: str | None = None,
        stream: BinaryIO | None = None,
    ) -> None:
        self._source = LineSource(path, stream)
        self.name = self._source.name
        suffix = self._source.suffix
        if format is None and suffix in OTHER_SUFFIXES:
            raise ValueError(
                f"{path} does not look like lines of text: save it as CSV (.csv) or JSON lines (.jsonl), or name its "
                f"format: {', '.join(PARSERS)}"
            )
        self.format = format or SUFFIXES.get(suffix, "text")
        if self.format not in PARSERS:
            raise ValueError(f"the format of the rows is {format!r}, must be one of {', '.join(PARSERS)}")
        default = DEFAULT_TEMPLATES.get(self.format, PROMPT_TEMPLATE)
        self.template = default if template is None else template
        self._template = PromptTemplate(self.template)
        self._id_column = id_column
        self._digest: str | None = None

    def check(self, *, skip_bad: bool = False, unique_ids: bool = True) -> CheckedRows:
        """Reads the whole file, keeping no row.

        Raises ValueError with file and line of the first bad row, unless skip_bad; of two rows with the same id, if
        unique_ids; and where there is no good row.
        """
        self._digest = None
        columns: dict[str, None] = {}
        lines: dict[str, int] = {}
        first_bad: list[BadRow] = []
        good = bad = 0
        digest = hashlib.sha256()
        for row in self._read(digest.update):
            columns |= dict.fromkeys(row.columns)
            if isinstance(row, BadRow):
                if not skip_bad:
                    raise ValueError(f"{self.name}, {row.fault}{self._way_out(row.columns)}")
                bad += 1
                first_bad = [*first_bad, row][:MAX_TOLD]
                continue
            good += 1
            if unique_ids and row.id is not None and (first := lines.setdefault(str(row.id), row.line)) != row.line:
                raise ValueError(
                    f"{self.name}, lines {first} and {row.line} have the same id {row.id!r}: make ids unique, or name "
                    f"another column for them, or {LINE_COLUMN!r} for the lines' numbers"
                )
        if not bad and not good:
            raise ValueError(f"{self.name} has no rows")
        if not good:
            way_out = self._way_out(first_bad[0].columns)
            raise ValueError(f"{self.name} has bad rows only: {first_bad[0].fault}{way_out}")
        self._digest = digest.hexdigest()
        names = () if self.format == "text" else tuple(columns)
        return CheckedRows(good, bad, names, tuple(first_bad), self._digest)

    def _way_out(self, columns: Mapping[str, Any]) -> str:
        """Returns what to do where no column is the prompt, and no template says which are to be in it."""
        if self.template != PROMPT_TEMPLATE or not columns or "prompt" in columns:
            return ""
        name = next((one for one in columns if one != (self._id_column or ID_COLUMN)), ID_COLUMN)
        return f"; make prompts of them, as in --template 'Extract name, date as JSON: {{{name}}}'"

    def __iter__(self) -> Iterator[Row | BadRow]:
        """Yields the rows in order. Raises ValueError at the end if the file is not the one that was checked."""
        digest = hashlib.sha256()
        yield from self._read(digest.update)
        if self._digest not in (None, digest.hexdigest()):
            raise ValueError(f"{self.name} was changed while its rows were answered: put it back as it was")

    def _read(self, update: Callable[[bytes], object]) -> Iterator[Row | BadRow]:
        for parsed in PARSERS[self.format](self._source.lines(update)):
            if isinstance(parsed, BadRow):
                yield replace(parsed, id=usable_id(parsed.columns.get(self._id_column or ID_COLUMN)))
                continue
            line, columns = parsed
            # The column of a line of text is its prompt.
            own = {} if self.format == "text" else columns
            id = usable_id(own.get(self._id_column or ID_COLUMN))
            try:
                prompt = self._template.fill(columns)
                if id is None:
                    self._check_id(own)
            except ValueError as error:
                yield BadRow(line, f"line {line}: {error}", own, id)
            else:
                yield Row(line, prompt, own, id)

    def _check_id(self, columns: Mapping[str, Any]) -> None:
        """Raises ValueError where ids stand in a column that was named, and this row has none."""
        name = self._id_column
        if name is None or (name == LINE_COLUMN and name not in columns):
            return
        column_text(columns, name)
        raise ValueError(f"the id is empty: the column {name!r} must have one")


def usable_id(value: object) -> str | int | float | None:
    """Returns a column's value if it can be an id: a text that is not empty, or a number; else None."""
    if isinstance(value, str):
        return value if value.strip() else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
