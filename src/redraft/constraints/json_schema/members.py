"""What a schema says about the members of an object: their names, which must be there, and what holds for each."""

import json

from redraft.constraints.json_schema.document import Subschema
from redraft.constraints.language.characters import Characters
from redraft.constraints.language.regex import regex_language

Parts = tuple[Subschema, ...]


def names_of(parts: Parts) -> list[str]:
    """Returns the names that the parts declare, in order, and those that are only required."""
    names: dict[str, None] = {}
    for part in parts:
        names |= dict.fromkeys(part.get("properties", dict, {}))
    return list(names | dict.fromkeys(required_of(parts)))


def required_of(parts: Parts) -> list[str]:
    names: dict[str, None] = {}
    for part in parts:
        # Draft 3 has a boolean here, which says nothing to later drafts.
        given = part.get("required", (list, bool), [])
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise part.refused("required", f"{json.dumps(given)[:40]} is not a list of names")
        names |= dict.fromkeys(given)
    return list(names)


def schemas_of(parts: Parts, name: str, characters: Characters) -> tuple[Subschema | bool, ...]:
    """Returns what holds for the member of a name; False among it if there must be none."""
    found: list[Subschema | bool] = []
    for part in parts:
        patterns = [
            pattern for pattern in part.get("patternProperties", dict, {}) if _matches(part, pattern, name, characters)
        ]
        own: list[Subschema | bool] = [part.below("patternProperties", pattern) for pattern in patterns]
        if name in part.get("properties", dict, {}):
            own.append(part.below("properties", name))
        if not own and "additionalProperties" in part.schema:
            own.append(part.below("additionalProperties"))
        found += own
    return tuple(found)


def is_closed(parts: Parts) -> bool:
    """Tells whether some part allows the names only that it declares."""
    return any(part.schema.get("additionalProperties") is False for part in parts)


def _matches(part: Subschema, pattern: str, name: str, characters: Characters) -> bool:
    try:
        language = regex_language(pattern, characters, is_search=True)
    except ValueError as error:
        raise part.refused("patternProperties", str(error)) from None
    return characters.table.contains(language, name.encode())
