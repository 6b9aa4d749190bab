"""Prompts from a file of text lines, JSON lines or CSV, read and checked as a whole before any work."""

import csv
import io
import json
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.utils.json_files import parse_json_lines

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
OTHER_FORMATS = frozenset(
    ".arrow .bz2 .db .doc .docx .feather .gz .json .npy .npz .ods .odt .orc .parquet .pdf .pickle .pkl .sqlite .tar "
    ".tsv .xls .xlsb .xlsm .xlsx .xml .xz .yaml .yml .zip .zst".split()
)
"""Suffixes of files that do not hold one prompt per line."""
LINE_COLUMN = "line"
DEFAULT_TEMPLATES = {"text": f"{{{LINE_COLUMN}}}", "csv": "{prompt}", "jsonl": "{prompt}"}


@dataclass(frozen=True)
class Row:
    """A prompt, and the line of its file that it was made of (the last, where a CSV's row has several)."""

    line: int
    prompt: str


def read_prompts(path: Path, *, format: str | None = None, template: str | None = None) -> list[Row]:
    """Reads a file of rows and fills each row's columns into the template.

    format: "text", "jsonl" or "csv"; None goes by the file's suffix, and refuses one of OTHER_FORMATS. template: text
    with {column}s, literal braces doubled; None is the column "prompt", of a text file the line. Blank lines are
    skipped. Raises ValueError with file and line of a row that is malformed, lacks a column or makes an empty prompt.
    """
    suffix = path.suffix.lower()
    if format is None and suffix in OTHER_FORMATS:
        raise ValueError(
            f"{path} does not look like lines of text: save it as CSV (.csv, with commas) or JSON lines (.jsonl), or "
            "name its format: text, jsonl or csv"
        )
    format = format or FORMATS.get(suffix, "text")
    if format not in DEFAULT_TEMPLATES:
        raise ValueError(f"the format of the rows is {format!r}, must be one of {', '.join(DEFAULT_TEMPLATES)}")
    parts = parse_template(DEFAULT_TEMPLATES[format] if template is None else template)
    rows = []
    for line, columns in READERS[format](path, _read_text(path)):
        where = f"{path}, line {line}"
        prompt = "".join(text + (_column(where, columns, name) if name is not None else "") for text, name in parts)
        if not prompt.strip():
            raise ValueError(f"{where}: the prompt is empty")
        rows.append(Row(line, prompt))
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """Splits a template into (text, the column that follows it or None). Raises ValueError for unmatched braces."""
    parts: list[tuple[str, str | None]] = []
    try:
        for text, name, specification, conversion in string.Formatter().parse(template):
            if specification or conversion:
                raise ValueError(f"{{{name}}} may hold only a column's name")
            if name == "":
                raise ValueError("{} names no column")
            parts.append((text, name))
    except ValueError as error:
        raise ValueError(f"the template {template!r}: {error}; write {{{{ and }}}} for literal braces") from None
    if all(name is None for _, name in parts):
        raise ValueError(f"the template {template!r} names no column: every row would be the same prompt")
    return parts


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        # With the byte order mark that spreadsheets write.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8") from None


def _column(where: str, columns: Mapping[str, Any], name: str) -> str:
    if name not in columns:
        raise ValueError(f"{where}: no column {name!r}; there are {', '.join(map(repr, columns)) or 'none'}")
    value = columns[name]
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise ValueError(f"{where}: {name!r} is {json.dumps(value)[:40]}, must be text or a number")


def _text_lines(_: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, {LINE_COLUMN: line.removesuffix("\r")}


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # A field may be as long as a prompt; what does not fit the model is refused there.
    csv.field_size_limit(2**31 - 1)
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num} is not CSV: {error}") from None
        if not lines[reader.line_num - 1].strip():
            continue
        if header is None:
            header = fields
            if duplicates := sorted({name for name in header if header.count(name) > 1}):
                raise ValueError(f"{path}, line {reader.line_num}: column {duplicates[0]!r} occurs more than once")
            continue
        if len(fields) != len(header):
            raise ValueError(
                f"{path}, line {reader.line_num} has {len(fields)} fields, the header has {len(header)}: "
                'put a field that contains a comma in "quotation marks"'
            )
        yield reader.line_num, dict(zip(header, fields, strict=True))


READERS: dict[str, Callable[[Path, str], Iterator[tuple[int, Mapping[str, Any]]]]] = {
    "text": _text_lines,
    "jsonl": lambda path, text: parse_json_lines(path, text.split("\n")),
    "csv": _csv_rows,
}
