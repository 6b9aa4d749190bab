"""Reading and writing small JSON objects that others may have written."""

import json
from pathlib import Path

MAX_JSON_BYTES = 32 * 2**20
"""No config or index comes near this; a file above it is not what its name says."""


def parse_json_object(text: bytes, where: str) -> dict[str, object]:
    """The JSON object in `text`. Raises ValueError, beginning with `where`, for anything else and for a key twice."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON: {str(error) or type(error).__name__}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} must hold a JSON object, it holds a {type(value).__name__}")
    return value


def read_json_object(path: Path) -> dict[str, object]:
    """The JSON object in a file. Raises ValueError naming the file if there is none, or none of sensible size."""
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, at most {MAX_JSON_BYTES:,} are read: it is not a configuration")
    return parse_json_object(path.read_bytes(), str(path))


def json_bytes(value: dict[str, object]) -> bytes:
    """`value` as an indented file, keys in their order."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The `object_pairs_hook` of a JSON reader that raises ValueError for a key that occurs twice in an object."""
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key!r} occurs twice")
        values[key] = value
    return values
