"""From a JSON Schema to the language of the texts that are written for it."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from redraft.constraints.json_schema.document import MAX_BYTES, TOO_DEEP, Branch, Document, SchemaRefused, Subschema
from redraft.constraints.json_schema.exclusion import Narrowed, narrow
from redraft.constraints.json_schema.numbers import Numbers
from redraft.constraints.json_schema.strings import Strings
from redraft.constraints.json_schema.structures import Separators, array_language, object_language
from redraft.constraints.json_schema.values import (
    ALL_TYPES,
    KEYWORDS_OF,
    bounds_of,
    has_type,
    is_among,
    is_within,
    says,
    type_of,
    types_of,
    values_of,
)
from redraft.constraints.language.characters import Characters, JsonCharacters
from redraft.constraints.language.expression import Expression, Expressions

Whitespace = Literal["none", "compact", "json"]
Notation = Literal["json", "call"]
OBJECT_DEPTH = 3
"""Levels of a document without a schema, the outermost object included."""
FREE_DEPTH = 1
"""Levels of objects and arrays inside a value that a schema says nothing about."""


@dataclass(frozen=True, kw_only=True)
class SchemaOptions:
    """How a schema is written. whitespace: "compact" allows one space behind colons and commas, "json" also lines and
    indents. depth: how often a recursive $ref is followed into itself. text: what spans are taken from. is_grounded:
    whether every string that is otherwise free is a span of it; at_words: whether spans keep words whole. notation:
    "call" writes values as the arguments of tool calls are (`Strings`), and keys in alphabetical order.
    """

    notation: Notation = "json"
    whitespace: Whitespace = "compact"
    depth: int = 3
    text: str | None = None
    is_grounded: bool = False
    at_words: bool = False


def schema_language(schema: object, table: Expressions, options: SchemaOptions | None = None) -> Expression:
    """Returns the texts that are written for a schema: valid ones all, though not every valid one.

    Keys come in the schema's order, properties that it does not name are not written. Raises SchemaRefused for what is
    malformed or cannot be kept.
    """
    options = options or SchemaOptions()
    if not isinstance(schema, (dict, bool)):
        raise SchemaRefused("", "", "a schema must be an object or a boolean")
    document = Document(schema, options.depth)
    try:
        return _Compiler(document, table, options).whole()
    except RecursionError:
        raise SchemaRefused("", "", "the schema is nested too deeply: write fewer levels, or a smaller depth") from None


def any_object(table: Expressions, options: SchemaOptions | None = None) -> Expression:
    """Returns the objects of up to OBJECT_DEPTH levels."""
    compiler = _Compiler(Document(True), table, options or SchemaOptions())
    return compiler.free_object(OBJECT_DEPTH - 1)


def read_schema(text: str) -> object:
    """Reads a schema from JSON. Raises SchemaRefused for a text that is too long or not JSON."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise SchemaRefused("", "", f"the schema has more than {MAX_BYTES // 1024} kB: shorten it")
    try:
        found: object = json.loads(text)
    except RecursionError:
        raise SchemaRefused("", "", TOO_DEEP) from None
    except ValueError as error:
        raise SchemaRefused("", "", f"the schema is not valid JSON: {error}") from None
    return found


def write_schema(schema: object) -> str:
    """Returns a schema as JSON. Raises SchemaRefused for one that is nested too deeply, or is not JSON."""
    try:
        return json.dumps(schema)
    except RecursionError:
        raise SchemaRefused("", "", TOO_DEEP) from None
    except (TypeError, ValueError) as error:
        raise SchemaRefused("", "", f"the schema is not JSON: {error}") from None


class _Compiler:
    def __init__(self, document: Document, table: Expressions, options: SchemaOptions) -> None:
        self._document, self._table = document, table
        self._is_call = options.notation == "call"
        self._strings = Strings(
            Characters(table) if self._is_call else JsonCharacters(table),
            is_call=self._is_call,
            text=options.text,
            is_grounded=options.is_grounded,
            at_words=options.at_words,
        )
        self._numbers = Numbers(table)
        self._separators = Separators(table, options.whitespace)
        self._names = Characters(table)
        self._known: dict[tuple[object, ...], Expression] = {}
        self._free: dict[int, Expression] = {}

    def whole(self) -> Expression:
        found = self.language((self._document.whole(),))
        if found is self._table.empty:
            raise SchemaRefused("", "", "no value can satisfy this schema: its keywords contradict each other")
        return found

    def language(self, parts: tuple[Subschema | bool, ...]) -> Expression:
        """Returns the texts of the values that satisfy all parts."""
        key = tuple(part if isinstance(part, bool) else part.key for part in parts)
        if key not in self._known:
            branches = self._document.all_of(parts)
            self._known[key] = self._table.alternative(map(self._of_branch, branches))
        return self._known[key]

    def free_value(self, depth: int = FREE_DEPTH) -> Expression:
        """Returns all values of so many levels of arrays and objects."""
        if depth not in self._free:
            options = [self._strings.of(()), self._numbers.numbers(), *map(self._of_value, (True, False, None))]
            if depth:
                inner = self.free_value(depth - 1)
                options += [self.free_object(depth - 1), self._separators.repeated(b"[]", [], inner, 0, None)]
            self._free[depth] = self._table.alternative(options)
        return self._free[depth]

    def free_object(self, depth: int) -> Expression:
        """Returns the objects with any members whose values have so many levels."""
        member = self._separators.member(self._strings.any_key(), self.free_value(depth))
        return self._separators.repeated(b"{}", [], member, 0, None)

    def _of_branch(self, branch: Branch) -> Expression:
        narrowed = narrow(branch, self._document, self._names)
        values = values_of(narrowed.parts)
        if values is not None:
            return self._of_values(values, narrowed)
        is_open = not any(says(part, name) for part in narrowed.parts for name in KEYWORDS_OF)
        if narrowed.types == ALL_TYPES and is_open and not narrowed.forbidden:
            return self.free_value()
        return self._table.alternative(self._of_type(name, narrowed) for name in sorted(narrowed.types))

    def _of_type(self, name: str, narrowed: Narrowed) -> Expression:
        parts = narrowed.parts
        match name:
            case "null" | "boolean":
                values = [None] if name == "null" else [True, False]
                return self._table.alternative(
                    self._of_value(value) for value in values if not is_among(value, narrowed.forbidden)
                )
            case "string":
                texts = [self._strings.written(value) for value in narrowed.forbidden if isinstance(value, str)]
                others = self._table.complement(self._table.literals(texts))
                return self._table.intersection([self._strings.of(parts), others])
            case "number" | "integer":
                if _is_whole(parts) or name == "integer":
                    return self._numbers.integers(*bounds_of(parts))
                return self._numbers.numbers(*bounds_of(parts))
            case "object":
                return object_language(parts, self.language, self._strings, self._separators, self.free_value())
        return array_language(parts, self.language, self._enumerated, self._separators, self.free_value())

    def _enumerated(self, parts: tuple[Subschema | bool, ...]) -> list[Expression] | None:
        """Returns the texts of each value, if the parts list the values; no value twice."""
        branches = [narrow(branch, self._document, self._names) for branch in self._document.all_of(parts)]
        found: list[Any] = []
        for branch in branches:
            values = values_of(branch.parts)
            if values is None:
                return None
            found += [value for value in values if not is_among(value, found)]
        return [self._table.alternative(self._of_values([value], branch) for branch in branches) for value in found]

    def _of_values(self, values: list[Any], narrowed: Narrowed) -> Expression:
        """Returns those of some values that satisfy the rest of the schema."""
        parts, table = narrowed.parts, self._table
        low, high = bounds_of(parts)
        is_whole = _is_whole(parts)
        types = types_of(parts)
        texts, others = [], []
        for value in values:
            is_kept = has_type(value, types) and has_type(value, narrowed.types)
            if not is_kept or is_among(value, narrowed.forbidden):
                continue
            match type_of(value):
                case "string":
                    texts.append(self._strings.written(value))
                case "integer" | "number" as kind:
                    if is_within(value, low, high) and (kind == "integer" or not is_whole):
                        others.append(self._of_value(value))
                case kind:
                    _check_alone(parts, kind)
                    others.append(self._of_value(value))
        strings = table.literals(texts)
        if texts and any(says(part, "string") for part in parts):
            strings = table.intersection([strings, self._strings.of(parts)])
        return table.alternative([strings, *others])

    def _of_value(self, value: Any) -> Expression:
        """Returns the ways to write a value."""
        if isinstance(value, dict):
            names = self._strings.in_order(value)
            pairs = [(self._strings.name(name), self._of_value(value[name])) for name in names]
            return self._separators.ordered(b"{}", [(self._separators.member(*pair), True) for pair in pairs])
        if isinstance(value, list):
            return self._separators.ordered(b"[]", [(self._of_value(item), True) for item in value])
        if isinstance(value, str):
            return self._table.literal(self._strings.written(value))
        return self._table.literal(json.dumps(value).encode())


def _is_whole(parts: tuple[Subschema, ...]) -> bool:
    """Tells whether multipleOf leaves integers only. SchemaRefused if it is another number than 1."""
    found = False
    for part in parts:
        step = part.get("multipleOf", (int, float))
        if step is not None and step != 1:
            raise part.refused("multipleOf", f"multiples of {step} are not supported, only of 1: list them in an enum")
        found = found or step is not None
    return found


def _check_alone(parts: tuple[Subschema, ...], kind: str) -> None:
    """Raises SchemaRefused for a keyword that an enum's objects or arrays would have to satisfy."""
    for part in parts:
        for keyword in KEYWORDS_OF.get(kind, ()):
            if keyword in part.schema:
                raise part.refused(keyword, f"not supported beside an enum with an {kind}: drop what it rules out")
