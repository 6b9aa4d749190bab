"""Objects and arrays: members in the schema's order, items one after the other, and the signs between them."""

from collections.abc import Callable, Sequence

from redraft.constraints.json_schema.document import Subschema
from redraft.constraints.json_schema.members import Parts, is_closed, names_of, required_of, schemas_of
from redraft.constraints.json_schema.strings import Strings
from redraft.constraints.language.characters import Characters
from redraft.constraints.language.expression import Expression, Expressions
from redraft.constraints.language.regex import regex_language

MAX_ITEMS = 1_000
MAX_LINES, MAX_INDENT = 2, 16
Compile = Callable[[tuple[Subschema | bool, ...]], Expression]


class Separators:
    """Lists between brackets. whitespace: that of `SchemaOptions`."""

    def __init__(self, table: Expressions, whitespace: str) -> None:
        self._table = table
        has_lines = whitespace == "json"
        one_space = table.epsilon if whitespace == "none" else table.optional(table.literal(b" "))
        lines = table.sequence(
            table.repeat(table.literal(b"\n"), 0, MAX_LINES), table.repeat(table.literal(b" "), 0, MAX_INDENT)
        )
        self._edge = lines if has_lines else table.epsilon
        self._comma = table.sequence(table.literal(b","), lines if has_lines else one_space)
        self._colon = table.sequence(table.literal(b":"), one_space)

    def member(self, name: Expression, value: Expression) -> Expression:
        return self._table.sequence(name, self._colon, value)

    def ordered(
        self, brackets: bytes, members: Sequence[tuple[Expression, bool]], low: int = 0, high: int | None = None
    ) -> Expression:
        """Returns the lists of `low` to `high` of some members in order, with those that are required (True)."""
        table, count = self._table, len(members)
        high = count if high is None else min(high, count)
        # Without bounds it does not matter how many there are so far.
        is_counted = low > 0 or high < count
        width = count + 1 if is_counted else 1
        may_end = True
        first = [table.empty] * (width + 1)
        for member, is_required in reversed(members):
            after = [
                table.alternative(
                    [
                        table.sequence(self._comma, first[taken]),
                        table.epsilon if may_end and (taken >= low or not is_counted) else table.empty,
                    ]
                )
                for taken in range(width + 1)
            ]
            step = 1 if is_counted else 0
            first = [
                table.alternative(
                    [
                        table.sequence(member, after[taken + step]) if taken < high or not is_counted else table.empty,
                        table.empty if is_required else first[taken],
                    ]
                )
                for taken in range(width)
            ] + [table.empty]
            may_end = may_end and not is_required
        is_optional = may_end and low == 0
        return self._bracketed(brackets, table.optional(first[0]) if is_optional else first[0])

    def repeated(
        self, brackets: bytes, prefix: Sequence[Expression], item: Expression, low: int, high: int | None
    ) -> Expression:
        """Returns the lists that begin with the items of a prefix, as far as they go, and go on with others."""
        table = self._table
        if high is not None:
            prefix = prefix[:high]
        if high is not None and low > high:
            return table.empty
        more_low = max(low - len(prefix), 0)
        more_high = None if high is None else high - len(prefix)
        if not prefix:
            if high == 0:
                return self._bracketed(brackets, table.epsilon)
            rest = table.repeat(
                table.sequence(self._comma, item), max(more_low - 1, 0), None if more_high is None else more_high - 1
            )
            content = table.sequence(item, rest)
        else:
            content = table.repeat(table.sequence(self._comma, item), more_low, more_high)
            for at in reversed(range(len(prefix))):
                content = table.sequence(prefix[at], content)
                if at:
                    content = table.sequence(self._comma, content)
                    content = table.optional(content) if at >= low else content
        return self._bracketed(brackets, table.optional(content) if low == 0 else content)

    def _bracketed(self, brackets: bytes, content: Expression) -> Expression:
        opening, closing = self._table.literal(brackets[:1]), self._table.literal(brackets[1:])
        if content is self._table.epsilon:
            return self._table.sequence(opening, closing)
        return self._table.sequence(opening, self._edge, content, self._edge, closing)


def object_language(
    parts: Parts, language: Compile, strings: Strings, separators: Separators, free_value: Expression
) -> Expression:
    """Returns the objects that satisfy all parts."""
    names, required = names_of(parts), required_of(parts)
    low = max((part.count("minProperties") or 0 for part in parts), default=0)
    highs = [high for part in parts if (high := part.count("maxProperties")) is not None]
    high = min(highs, default=None)
    key_parts = tuple(part.below("propertyNames") for part in parts if "propertyNames" in part.schema)
    named = language((*key_parts, _NAME)) if key_parts else None
    keys = strings.any_key() if named is None else named
    plain = Characters(strings.characters.table)
    if not names:
        return _free_object(parts, language, strings, separators, free_value, keys, low, high)
    members = []
    for name in strings.in_order(names):
        key = strings.name(name, named)
        held = schemas_of(parts, name, plain)
        value = language(held) if held else free_value
        members.append((separators.member(key, value), name in required))
    if low > len(members):
        part = next(part for part in parts if "minProperties" in part.schema)
        raise part.refused(
            "minProperties", f"{low} members are demanded, and {len(members)} are declared; declare them in properties"
        )
    return separators.ordered(b"{}", members, low, high)


def _free_object(
    parts: Parts,
    language: Compile,
    strings: Strings,
    separators: Separators,
    free_value: Expression,
    keys: Expression,
    low: int,
    high: int | None,
) -> Expression:
    """Returns the objects without declared names. A name may be written twice, so that members cannot be counted."""
    table = strings.characters.table
    if low > 1:
        part = next(part for part in parts if "minProperties" in part.schema)
        raise part.refused("minProperties", "only members that properties declare can be counted; declare them there")
    with_patterns = [part for part in parts if part.get("patternProperties", dict)]
    if len(with_patterns) > 1:
        raise with_patterns[1].refused("patternProperties", "two of them would hold together; write them in one schema")
    others = [part for part in parts if part not in with_patterns]
    additional = tuple(part.below("additionalProperties") for part in others if "additionalProperties" in part.schema)
    members, rest = [], keys
    for part in with_patterns:
        patterns = {
            pattern: strings.quoted(_pattern(part, pattern, strings)) for pattern in part.schema["patternProperties"]
        }
        for pattern, matched in patterns.items():
            different = [table.complement(other) for name, other in patterns.items() if name != pattern]
            key = table.intersection([keys, matched, *different])
            members.append(separators.member(key, language((part.below("patternProperties", pattern), *additional))))
        rest = table.intersection([keys, *map(table.complement, patterns.values())])
        if "additionalProperties" in part.schema:
            additional += (part.below("additionalProperties"),)
    value = language(additional) if additional else free_value
    if with_patterns and not is_closed(parts) and not additional:
        value = table.empty  # what the patterns do not name is not declared
    members.append(separators.member(rest, value))
    return separators.repeated(b"{}", [], table.alternative(members), low, high)


def _pattern(part: Subschema, pattern: str, strings: Strings) -> Expression:
    try:
        return regex_language(pattern, strings.characters, is_search=True)
    except ValueError as error:
        raise part.refused("patternProperties", str(error)) from None


def array_language(
    parts: Parts,
    language: Compile,
    enumerated: Callable[[tuple[Subschema | bool, ...]], list[Expression] | None],
    separators: Separators,
    free_value: Expression,
) -> Expression:
    """Returns the arrays that satisfy all parts."""
    low = max((part.count("minItems", MAX_ITEMS) or 0 for part in parts), default=0)
    highs = [high for part in parts if (high := part.count("maxItems", MAX_ITEMS)) is not None]
    high = min(highs, default=None)
    length = max((_prefix_length(part) for part in parts), default=0)
    prefix_parts = [tuple(_item(part, at) for part in parts) for at in range(length)]
    item_parts = tuple(_item(part, length) for part in parts)
    unique = next((part for part in parts if part.get("uniqueItems", bool)), None)
    if unique is not None:
        values = enumerated(item_parts) if not length else None
        if values is not None:
            return separators.ordered(b"[]", [(value, False) for value in values], low, high)
        if low > 1:
            raise unique.refused(
                "uniqueItems", "only items that an enum lists can be told apart; give one, or minItems 1"
            )
        high = 1 if high is None else min(high, 1)
    prefix = [language(held) if any(item is not True for item in held) else free_value for held in prefix_parts]
    item = language(item_parts) if any(part is not True for part in item_parts) else free_value
    return separators.repeated(b"[]", prefix, item, low, high)


def _prefix_length(part: Subschema) -> int:
    if isinstance(part.schema.get("items"), list):
        return len(part.schema["items"])
    return len(part.get("prefixItems", list, []))


def _item(part: Subschema, at: int) -> Subschema | bool:
    """Returns what holds for the item of a place; before draft 2020 `items` may be a list, then additionalItems."""
    is_old = isinstance(part.schema.get("items"), list)
    if at < _prefix_length(part):
        return part.below("items" if is_old else "prefixItems", at)
    keyword = "additionalItems" if is_old else "items"
    return part.below(keyword) if keyword in part.schema else True


_NAME = Subschema(schema={"type": "string"}, pointer="/propertyNames")
