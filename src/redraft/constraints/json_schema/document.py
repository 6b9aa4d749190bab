"""A schema's parts, where they stand, and the alternatives that they come to."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

MAX_BYTES = 256 * 1024
MAX_LEVELS = 64
TOO_DEEP = f"the schema is nested deeper than {MAX_LEVELS} levels: write fewer"
MAX_BRANCHES = 256
MAX_DEPTH = 16
TOO_MANY = f"its alternatives come to more than {MAX_BRANCHES} combinations; write out the ones you need"
REFUSED: Final = {
    "if": "then or else would depend on it; write the cases as anyOf",
    "dependencies": "write the cases as anyOf",
    "dependentRequired": "write the cases as anyOf",
    "dependentSchemas": "write the cases as anyOf",
    "contains": "give items or prefixItems instead",
    "unevaluatedProperties": "use additionalProperties",
    "unevaluatedItems": "use items",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
}
"""Keywords that are not supported, and the way out."""


class SchemaRefused(ValueError):
    """A schema that is malformed or cannot be kept. pointer: the JSON pointer of the part; keyword: one of its own."""

    def __init__(self, pointer: str, keyword: str, reason: str) -> None:
        where = f"{pointer}/{_escaped(keyword)}" if keyword else pointer
        super().__init__(f"JSON Schema, #{where}: {reason}")
        self.pointer, self.keyword, self.reason = pointer, keyword, reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Subschema:
    """A schema inside a document. references: the recursive $refs that lead to it, one entry for each time."""

    schema: Mapping[str, Any]
    pointer: str
    references: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, tuple[str, ...], int]:
        return self.pointer, self.references, id(self.schema)

    def get(self, keyword: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """Returns the value of a keyword. SchemaRefused if it is not of the kind; True is not an integer."""
        value = self.schema.get(keyword, default)
        if keyword in self.schema and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise self.refused(keyword, f"{json.dumps(value)[:40]} is not a valid value of {keyword}")
        return value

    def count(self, keyword: str, limit: int | None = None) -> int | None:
        """Returns a keyword's number of things, or None. SchemaRefused if it is negative, or above the limit."""
        value = self.get(keyword, (int, float))
        if value is None:
            return None
        if value != int(value) or value < 0:
            raise self.refused(keyword, f"{value} is not a count")
        if limit is not None and value > limit:
            raise self.refused(keyword, f"{value:,} is above the limit of {limit:,}")
        return int(value)

    def below(self, keyword: str, *path: str | int) -> "Subschema | bool":
        """Returns the schema under a keyword, or True or False. SchemaRefused if there is something else."""
        value: Any = self.schema[keyword]
        pointer = f"{self.pointer}/{_escaped(keyword)}"
        for step in path:
            value = value[step]
            pointer += f"/{_escaped(str(step))}"
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            raise SchemaRefused(pointer, "", "a schema must be an object or a boolean")
        return Subschema(schema=value, pointer=pointer, references=self.references)

    def refused(self, keyword: str, reason: str) -> SchemaRefused:
        return SchemaRefused(self.pointer, keyword, reason)


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A part that a value must not satisfy. keyword: what demands it, "not" or "oneOf", in the part `where`."""

    part: Subschema | bool
    where: Subschema
    keyword: str


@dataclass(frozen=True, kw_only=True)
class Branch:
    """What a value must satisfy: all the parts, whose own keywords are meant, and none of the excluded."""

    parts: tuple[Subschema, ...] = ()
    excluded: tuple[Excluded, ...] = ()

    def __add__(self, other: "Branch") -> "Branch":
        return Branch(parts=self.parts + other.parts, excluded=self.excluded + other.excluded)


@dataclass
class Document:
    """A schema with its references. depth: how often a recursive reference is followed into itself."""

    root: Mapping[str, Any] | bool
    depth: int = 3
    _anchors: dict[str, tuple[Any, str]] = field(default_factory=dict)
    _recursive: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.root, (dict, bool)):
            raise SchemaRefused("", "", "a schema must be an object or a boolean")
        if not 1 <= self.depth <= MAX_DEPTH:
            raise ValueError(f"the depth of recursion is {self.depth}, must be 1 to {MAX_DEPTH}")
        pending: list[tuple[Any, str, int]] = [(self.root, "", 0)]
        while pending:
            value, pointer, level = pending.pop()
            if level > 4 * MAX_LEVELS:
                raise SchemaRefused(pointer[:200], "", TOO_DEEP)
            if isinstance(value, dict):
                for name in (value.get("$id"), value.get("id"), value.get("$anchor")):
                    if isinstance(name, str):
                        self._anchors.setdefault(name if name.startswith("#") else f"#{name}", (value, pointer))
                pending += [(below, f"{pointer}/{_escaped(name)}", level + 1) for name, below in value.items()]
            elif isinstance(value, list):
                pending += [(below, f"{pointer}/{at}", level + 1) for at, below in enumerate(value)]

    def whole(self) -> Subschema | bool:
        return self.root if isinstance(self.root, bool) else Subschema(schema=self.root, pointer="")

    def branches(self, part: Subschema | bool) -> list[Branch]:
        """Returns a part's alternatives: its own keywords, one of each anyOf and oneOf, all of allOf, its $ref."""
        if isinstance(part, bool):
            return [Branch()] if part else []
        _check_supported(part)
        found = [Branch(parts=(part,))]
        if "$ref" in part.schema:
            target = self._resolve(part)
            found = self._product(part, "$ref", found, [] if target is None else self.branches(target))
        if "not" in part.schema:
            excluded = Excluded(part=part.below("not"), where=part, keyword="not")
            found = [branch + Branch(excluded=(excluded,)) for branch in found]
        for inner in self._listed(part, "allOf"):
            found = self._product(part, "allOf", found, self.branches(inner))
        if "anyOf" in part.schema:
            options = [branch for inner in self._listed(part, "anyOf") for branch in self.branches(inner)]
            found = self._product(part, "anyOf", found, options)
        if "oneOf" in part.schema:
            found = self._product(part, "oneOf", found, list(self._exactly_one(part)))
        return found

    def all_of(self, parts: tuple[Subschema | bool, ...]) -> list[Branch]:
        """Returns the alternatives of several parts that hold together."""
        found = [Branch()]
        for part in parts:
            branches = self.branches(part)
            found = [left + right for left in found for right in branches]
            if len(found) > MAX_BRANCHES:
                assert isinstance(part, Subschema)
                raise part.refused("", TOO_MANY)
        return found

    def _exactly_one(self, part: Subschema) -> Iterator[Branch]:
        options = self._listed(part, "oneOf")
        for at, option in enumerate(options):
            others = [other for place, other in enumerate(options) if place != at]
            excluded = tuple(Excluded(part=other, where=part, keyword="oneOf") for other in others)
            for branch in self.branches(option):
                yield branch + Branch(excluded=excluded)

    def _listed(self, part: Subschema, keyword: str) -> list[Subschema | bool]:
        return [part.below(keyword, at) for at in range(len(part.get(keyword, list, [])))]

    def _product(self, part: Subschema, keyword: str, left: list[Branch], right: list[Branch]) -> list[Branch]:
        if len(left) * len(right) > MAX_BRANCHES:
            raise part.refused(keyword, TOO_MANY)
        return [a + b for a in left for b in right]

    def _resolve(self, part: Subschema) -> Subschema | bool | None:
        """Returns what a $ref stands for; None if it has led into itself as often as it may."""
        reference = part.get("$ref", str)
        value, pointer = self._target(part, reference)
        self._check_circle(part, value, pointer)
        references = part.references
        if self._is_recursive(value, pointer):
            if references.count(pointer) >= self.depth:
                return None
            references += (pointer,)
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            raise part.refused("$ref", f"{reference} is not a schema")
        return Subschema(schema=value, pointer=pointer, references=references)

    def _check_circle(self, part: Subschema, value: Any, pointer: str) -> None:
        """Refuses a $ref that leads to nothing but another $ref, and so back to itself."""
        passed = [pointer]
        while isinstance(value, dict) and isinstance(value.get("$ref"), str):
            value, pointer = self._target(part, value["$ref"])
            if pointer in passed:
                way = " → ".join(f"#{one}" for one in [*passed, pointer])
                raise part.refused("$ref", f"it leads back to where it came from, with no value on the way: {way}")
            passed.append(pointer)

    def _target(self, part: Subschema, reference: str) -> tuple[Any, str]:
        if reference in self._anchors:
            return self._anchors[reference]
        if f"#{reference}" in self._anchors:
            return self._anchors[f"#{reference}"]
        base, _, fragment = reference.partition("#")
        value, pointer = self._anchors.get(f"#{base}", (self.root, "")) if base else (self.root, "")
        if base and f"#{base}" not in self._anchors:
            raise part.refused("$ref", f"{reference} is outside this document; copy what it names under $defs")
        for step in fragment.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            is_place = isinstance(value, list) and name.isdigit() and int(name) < len(value)
            if not is_place and not (isinstance(value, dict) and name in value):
                raise part.refused("$ref", f"{reference} is not in this document")
            value = value[int(name) if isinstance(value, list) else name]
            pointer += f"/{_escaped(name)}"
        if fragment and not fragment.startswith("/"):
            raise part.refused("$ref", f"{reference} is not in this document")
        return value, pointer

    def _is_recursive(self, value: Any, pointer: str) -> bool:
        """Tells whether a part can be reached from inside itself."""
        if pointer not in self._recursive:
            seen: set[str] = set()
            pending = [(value, pointer)]
            is_found = False
            while pending and not is_found:
                for reference in _references(pending.pop()[0]):
                    try:
                        target = self._target(Subschema(schema={}, pointer=pointer), reference)
                    except SchemaRefused:
                        continue  # refused where it is used
                    is_found = is_found or target[1] == pointer
                    if target[1] not in seen:
                        seen.add(target[1])
                        pending.append(target)
            self._recursive[pointer] = is_found
        return self._recursive[pointer]


def _references(schema: Any) -> Iterator[str]:
    pending = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _check_supported(part: Subschema) -> None:
    for keyword, way_out in REFUSED.items():
        if keyword == "if":
            is_idle = "then" not in part.schema and "else" not in part.schema
        else:
            is_idle = part.schema.get(keyword) is True or part.schema.get(keyword) == {}
        if keyword in part.schema and not is_idle:
            raise part.refused(keyword, f"{keyword} is not supported: {way_out}")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
