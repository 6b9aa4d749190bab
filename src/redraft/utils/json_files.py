"""Reading and writing small JSON objects and JSON lines that others may have written."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 32 * 2**20
"""No config or index comes near this; a file above it is not what its name says."""


def parse_json_object(text: bytes, where: str) -> dict[str, object]:
    """Parses a JSON object. Raises ValueError, beginning with `where`, for anything else and for a duplicate key."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON: {str(error) or type(error).__name__}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} must hold a JSON object, it holds a {type(value).__name__}")
    return value


def read_json_object(path: Path) -> dict[str, object]:
    """Reads a file's JSON object. Raises ValueError with its name where there is none, or none of sensible size."""
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, at most {MAX_JSON_BYTES:,} are read: it is not a configuration")
    return parse_json_object(path.read_bytes(), str(path))


def parse_json_lines(path: Path, lines: Iterable[str | bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (number, object) of each line that is not blank. Raises ValueError with the line of a bad one."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, parse_json_line(line, f"{path}, line {number}")


def parse_json_line(line: str | bytes, where: str) -> dict[str, Any]:
    """Parses a line that holds a JSON object. Raises ValueError, beginning with `where`, for anything else."""
    try:
        row = json.loads(line, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        # Where in the line: that its line break begins a second one says nothing.
        raise ValueError(f"{where} is not JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a JSON object")
    return row


def json_bytes(value: dict[str, object]) -> bytes:
    """Formats an object as an indented file, with its keys in their order."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Builds an object as a JSON reader's `object_pairs_hook`. Raises ValueError for a key that occurs twice."""
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key!r} occurs twice")
        values[key] = value
    return values
