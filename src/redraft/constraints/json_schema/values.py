"""JSON values: their types, when two are equal, and what of them a schema's enum and const leave."""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from redraft.constraints.json_schema.document import Subschema
from redraft.constraints.json_schema.numbers import Bound

TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")
ALL_TYPES: Final = frozenset(TYPES) - {"integer"}
"""Every type once: an integer is a number."""
KEYWORDS_OF: Final = {
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
        *("minProperties", "maxProperties"),
    ),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
"""The keywords that speak of one type only."""


def says(part: Subschema, name: str) -> bool:
    """Tells whether a part has a keyword that speaks of a type only."""
    return any(keyword in part.schema for keyword in KEYWORDS_OF[name])


def types_of(parts: tuple[Subschema, ...]) -> frozenset[str]:
    """Returns the types that every `type` allows, all where there is none; "integer" where no other number is."""
    found = ALL_TYPES
    for part in parts:
        given = part.get("type", (str, list))
        if given is None:
            continue
        names = [given] if isinstance(given, str) else given
        unknown = [name for name in names if name not in TYPES]
        if unknown or not names:
            raise part.refused("type", f"{json.dumps(given)[:40]} is not a type; use {', '.join(TYPES)}")
        # What is left of two sets: a number that must be an integer is one.
        is_integer = ("integer" in names or "number" in names) and "integer" in found
        is_integer = is_integer or ("integer" in names and "number" not in names and "number" in found)
        left = (found & frozenset(names)) - {"integer"}
        found = left | {"integer"} if is_integer else left
    return found


def implied_types(parts: tuple[Subschema, ...]) -> frozenset[str]:
    """Returns the types that are written: where no `type` is given, those that other keywords speak of."""
    found = types_of(parts)
    if any("type" in part.schema for part in parts):
        return found
    spoken = {name for name in KEYWORDS_OF for part in parts if says(part, name)}
    return found & spoken if spoken else found


def type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
    return "integer" if value == int(value) else "number"


def has_type(value: Any, types: frozenset[str]) -> bool:
    name = type_of(value)
    return name in types or (name == "integer" and "number" in types)


def is_equal(left: Any, right: Any) -> bool:
    """Tells whether two values are one in JSON: 1 is 1.0, but not true; the order of keys says nothing."""
    if type_of(left) != type_of(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(is_equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(is_equal, left, right))
    return bool(left == right)


def is_among(value: Any, values: Sequence[Any]) -> bool:
    return any(is_equal(value, other) for other in values)


def values_of(parts: tuple[Subschema, ...]) -> list[Any] | None:
    """Returns the values that every enum and const of the parts allows; None if there are neither."""
    found: list[Any] | None = None
    for part in parts:
        lists = [[part.schema["const"]]] if "const" in part.schema else []
        if "enum" in part.schema:
            lists.append(part.get("enum", list))
        for values in lists:
            _check_values(part, values)
            if found is None:
                found = list(values)
            else:
                kept = _scalars(values)
                found = [value for value in found if _key(value) in kept or is_among(value, values)]
    return found


def bounds_of(parts: tuple[Subschema, ...]) -> tuple[Bound | None, Bound | None]:
    """Returns the tightest limits of a number."""
    lows = [bound for part in parts for bound in _bounds(part, "minimum", "exclusiveMinimum")]
    highs = [bound for part in parts for bound in _bounds(part, "maximum", "exclusiveMaximum")]
    low = max(lows, key=lambda bound: (bound.value, bound.is_open), default=None)
    high = min(highs, key=lambda bound: (bound.value, not bound.is_open), default=None)
    return low, high


def is_within(value: Any, low: Bound | None, high: Bound | None) -> bool:
    number = _decimal(value)
    is_above = low is None or number > low.value or (number == low.value and not low.is_open)
    is_below = high is None or number < high.value or (number == high.value and not high.is_open)
    return is_above and is_below


def _bounds(part: Subschema, inclusive: str, exclusive: str) -> Iterator[Bound]:
    strict = part.schema.get(exclusive)
    if inclusive in part.schema:
        # Draft 4: exclusiveMinimum: true says that the minimum itself does not belong to it.
        yield Bound(_limit(part, inclusive), is_open=strict is True)
    if exclusive in part.schema and not isinstance(strict, bool):
        yield Bound(_limit(part, exclusive), is_open=True)


def _limit(part: Subschema, keyword: str) -> Decimal:
    value = part.get(keyword, (int, float))
    number = _decimal(value)
    if not number.is_finite():
        raise part.refused(keyword, f"{value} is not a finite number")
    return number


def _decimal(value: Any) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _check_values(part: Subschema, values: list[Any]) -> None:
    try:
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, UnicodeEncodeError):
        keyword = "const" if "const" in part.schema else "enum"
        raise part.refused(keyword, "a value is not a finite number, or not valid Unicode") from None


def _key(value: Any) -> tuple[str, Any]:
    return (type_of(value), value) if not isinstance(value, (dict, list)) else ("", None)


def _scalars(values: list[Any]) -> set[tuple[str, Any]]:
    return {_key(value) for value in values if not isinstance(value, (dict, list))}
