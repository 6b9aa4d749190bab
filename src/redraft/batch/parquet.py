"""Parquet, by pyarrow (the extra "batch"): rows read group by group, results written so too."""

import hashlib
import importlib
import importlib.util
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from redraft.utils.files import replace_when_whole
from redraft.utils.rows.formats import Parsed

ROWS_AT_ONCE = 1024
TEXTS = frozenset({"str", "date", "datetime", "time", "timedelta", "Decimal", "UUID"})
"""Types whose values JSON has as text; a column of them is one of text."""
KINDS = {
    frozenset({"bool"}): "bool_", frozenset({"int"}): "int64",
    frozenset({"float"}): "float64", frozenset({"int", "float"}): "float64",
}  # fmt: skip
"""Types of Arrow for the types of a column's values; a column of any others is written as JSON."""


def parse_parquet(path: Path) -> Parsed:
    """Yields (number from 1, columns) of each row. Raises ValueError for a file that is not Parquet, or is damaged."""
    arrow = _arrow()
    try:
        with arrow.parquet.ParquetFile(path) as file:
            for field in file.schema_arrow:
                if _is_binary(arrow, field.type):
                    raise ValueError(f"{path}: the column {field.name!r} is binary, which is not text: leave it out")
            number = 0
            for batch in file.iter_batches(ROWS_AT_ONCE):
                for columns in batch.to_pylist():
                    number += 1
                    yield number, columns
    except arrow.ArrowException as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from None


def column_types(path: Path) -> dict[str, Any]:
    """Returns the types of a file's columns."""
    arrow = _arrow()
    return {field.name: field.type for field in arrow.parquet.read_schema(path)}


def write_parquet(path: Path, types: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
    """Writes records as a Parquet file, as a whole or not at all.

    types: of each column the types of its values, as a set of Python's names or as Arrow's own type.
    """
    arrow = _arrow()
    arrow_types: dict[str, Any] = {}
    as_json: set[str] = set()
    texts: set[str] = set()
    for name, kind in types.items():
        if isinstance(kind, set):
            found = KINDS.get(frozenset(kind - {"NoneType"}))
            if found is None:
                (texts if kind - {"NoneType"} <= TEXTS else as_json).add(name)
            arrow_types[name] = getattr(arrow, found or "string")()
        else:
            arrow_types[name] = kind
    schema = arrow.schema(list(arrow_types.items()))

    def cell(name: str, value: Any) -> Any:
        if value is None:
            return None
        if name in as_json:
            return json.dumps(json_value(value))
        if name in texts:
            value = json_value(value)
        # Half a surrogate pair has no UTF-8: its escape stands for it.
        return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value

    with replace_when_whole(path) as file, arrow.parquet.ParquetWriter(file, schema) as writer:
        for some in _groups(records, ROWS_AT_ONCE):
            arrays = [
                arrow.array([cell(name, one.get(name)) for one in some], type=kind)
                for name, kind in arrow_types.items()
            ]
            writer.write_batch(arrow.record_batch(arrays, schema=schema))


def json_value(value: Any) -> Any:
    """Returns a value of a table as JSON has it: NaN, which stands for none, as null; times in ISO 8601.

    Durations, decimal numbers and UUIDs become text. Raises ValueError for a value of another type.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): json_value(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(one) for one in value]
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, timedelta | Decimal | UUID):
        return str(value)
    raise ValueError(f"a value is of type {type(value).__name__}, which JSON has nothing for: leave its column out")


def _is_binary(arrow: Any, kind: Any) -> bool:
    """Whether a column's values are bytes, or have some in them."""
    types = arrow.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    if types.is_dictionary(kind):
        return _is_binary(arrow, kind.value_type)
    inner = (kind.field(i).type for i in range(kind.num_fields))
    return any(test(kind) for test in tests) or any(_is_binary(arrow, one) for one in inner)


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _groups(records: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[Mapping[str, Any]]]:
    some: list[Mapping[str, Any]] = []
    for one in records:
        some.append(one)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _arrow() -> Any:
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError("Parquet needs pyarrow: pip install -e '.[batch]' in the checkout")
    importlib.import_module("pyarrow.parquet")
    return importlib.import_module("pyarrow")
