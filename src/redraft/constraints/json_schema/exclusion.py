"""Values that must not satisfy a part, for `not` and `oneOf`: what is written is narrowed until none can.

Fewer texts than are valid may be written, never more: whatever narrowing cannot prove is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from redraft.constraints.json_schema.document import Branch, Document, Subschema
from redraft.constraints.json_schema.members import Parts, names_of, required_of, schemas_of
from redraft.constraints.json_schema.values import (
    bounds_of,
    has_type,
    implied_types,
    is_among,
    type_of,
    types_of,
    values_of,
)
from redraft.constraints.language.characters import Characters


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """What is written of a branch. forbidden: values that are not."""

    parts: Parts
    types: frozenset[str]
    forbidden: tuple[Any, ...] = ()


def narrow(branch: Branch, document: Document, characters: Characters) -> Narrowed:
    """Returns the branch without what is excluded. SchemaRefused, by its keyword, where that cannot be proven."""
    values = values_of(branch.parts)
    types = implied_types(branch.parts)
    if values is not None:
        types = frozenset(type_of(value) for value in values if has_type(value, types_of(branch.parts)))
    narrowed = Narrowed(parts=branch.parts, types=types)
    for excluded in branch.excluded:
        for other in document.branches(excluded.part):
            found = _violating(narrowed, other.parts, document, characters)
            if found is None:
                way_out = "tell them apart by their type, an enum, a const or a required property"
                raise excluded.where.refused(
                    excluded.keyword, f"nothing shows that a value does not satisfy {_name(excluded.part)}: {way_out}"
                )
            narrowed = found
    return narrowed


def _violating(mine: Narrowed, other: Parts, document: Document, characters: Characters) -> Narrowed | None:
    """Returns what of `mine` does not satisfy all of `other`, None if that cannot be told."""
    accepted = types_of(other)
    common = frozenset(name for name in mine.types if name in accepted or _is_number_of(name, accepted))
    if not common:
        return mine
    values = values_of(other)
    if values is not None and (values_of(mine.parts) is not None or _can_forbid(values, common)):
        return replace(mine, forbidden=(*mine.forbidden, *values))
    if common == {"object"}:
        found = next(_by_members(mine, other, document, characters), None)
        if found is not None:
            return found
    if common <= {"integer", "number"} and _are_apart(mine.parts, other):
        return mine
    left = mine.types - common
    return replace(mine, types=left) if left else None


def _by_members(mine: Narrowed, other: Parts, document: Document, characters: Characters) -> Iterator[Narrowed]:
    """Yields ways in which no object of `mine` satisfies `other`, those that take least away first."""
    written, demanded = names_of(mine.parts), required_of(other)
    required = required_of(mine.parts)
    if written and any(name not in written for name in demanded):
        yield mine  # names that are not declared are never written
    held = {name: schemas_of(mine.parts, name, characters) for name in written}
    if any(False in held.get(name, ()) for name in demanded):
        yield mine
    apart = [
        name
        for name in written
        if (theirs := schemas_of(other, name, characters)) and _are_disjoint(held[name], theirs, document)
    ]
    if any(name in required for name in apart):
        yield mine
    if apart:
        yield _with(mine, {"required": apart[:1]})
    for name in demanded:
        if name not in required and name in written:
            yield _with(mine, {"properties": {name: False}})


def _with(mine: Narrowed, schema: dict[str, Any]) -> Narrowed:
    return replace(
        mine, parts=(*mine.parts, Subschema(schema=schema, pointer=mine.parts[0].pointer if mine.parts else ""))
    )


def _are_disjoint(mine: tuple[Subschema | bool, ...], other: tuple[Subschema | bool, ...], document: Document) -> bool:
    """Tells whether types, or the values of an enum or const, show that nothing written for one satisfies the other."""
    for left in document.all_of(mine):
        for right in document.all_of(other):
            values, others = values_of(left.parts), values_of(right.parts)
            types, accepted = implied_types(left.parts), types_of(right.parts)
            if values is not None:
                values = [value for value in values if has_type(value, types_of(left.parts))]
                types = frozenset(map(type_of, values))
            if not any(name in accepted or _is_number_of(name, accepted) for name in types):
                continue
            if values is None or others is None or any(is_among(value, others) for value in values):
                return False
    return True


def _are_apart(mine: Parts, other: Parts) -> bool:
    """Tells whether the bounds of numbers leave none in common."""
    low, high = bounds_of((*mine, *other))
    if low is None or high is None:
        return False
    return low.value > high.value or (low.value == high.value and (low.is_open or high.is_open))


def _can_forbid(values: list[Any], types: frozenset[str]) -> bool:
    """Tells whether texts of the types can be written without those of some values, in all their spellings."""
    return all(isinstance(value, (str, bool)) or value is None or not has_type(value, types) for value in values)


def _is_number_of(name: str, types: frozenset[str]) -> bool:
    return name in ("integer", "number") and bool(types & {"integer", "number"})


def _name(part: Subschema | bool) -> str:
    return str(part).lower() if isinstance(part, bool) else f"#{part.pointer}"
