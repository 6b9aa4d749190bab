"""Strings: lengths, patterns and formats, inside their quotation marks."""

import json
import re
from collections.abc import Iterable

from redraft.constraints.json_schema.document import Subschema
from redraft.constraints.language.characters import EVERY, Characters
from redraft.constraints.language.expression import Expression
from redraft.constraints.language.marks import QUOTE
from redraft.constraints.language.regex import regex_language
from redraft.constraints.language.spans import span_language

MAX_LENGTH = 5_000
_BARE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DAYS = r"((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))"
_LEAP = r"([12]\d(0[48]|[2468][048]|[13579][26])|(1[26]|2[048])00)-02-29"
_DATE = rf"([12]\d{{3}}-{_DAYS}|{_LEAP})"
_ZONE = r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_TIME = rf"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{{1,6}})?{_ZONE}"
_LABEL = r"[A-Za-z0-9]{1,12}(-[A-Za-z0-9]{1,12}){0,3}"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
_PATH = r"(/[A-Za-z0-9._~-]*)*"
_URI = rf"https?://{_HOST}(:[1-9]\d{{1,3}})?{_PATH}(\?[A-Za-z0-9._~=&-]*)?(#[A-Za-z0-9._~-]*)?"
_OCTET = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_EMAIL = rf"[A-Za-z0-9_+-]{{1,20}}(\.[A-Za-z0-9_+-]{{1,20}}){{0,2}}@{_HOST}\.[A-Za-z]{{2,6}}"
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": r"P(\d{1,4}D|\d{1,4}W|(\d{1,4}D)?T\d{1,4}[HMS])",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": rf"{_OCTET}(\.{_OCTET}){{3}}",
    "ipv6": "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "uri": _URI,
    "iri": _URI,
    "uri-reference": _URI,
    "iri-reference": _URI,
    "uri-template": _URI,
    "json-pointer": "(/[A-Za-z0-9_-]+)*",
    "relative-json-pointer": "(0|[1-9][0-9]?)(/[A-Za-z0-9_-]+)*",
    "regex": "[A-Za-z0-9_ ]*",
}
"""Formats of the standard and what is written for them: often fewer texts than the format has. Others say nothing."""
SPAN = "span"
"""Our own format: a stretch of the text that the compiler was given."""


class Strings:
    """Languages of strings. text: what spans are taken from. is_grounded: whether every free string is a span.

    characters: how they are spelled inside. is_call: whether they stand in a tool call: between quote tokens, each
    character as it is, and names without quotes where they can do without.
    """

    def __init__(
        self,
        characters: Characters,
        *,
        is_call: bool = False,
        text: str | None = None,
        is_grounded: bool = False,
        at_words: bool = False,
    ) -> None:
        self.characters = characters
        self._is_call = is_call
        self._mark = QUOTE if is_call else b'"'
        self._table = characters.table
        self._text, self._is_grounded, self._at_words = text, is_grounded, at_words
        self._character = characters.any_of(EVERY)
        self._span: Expression | None = None

    def any_key(self) -> Expression:
        """Returns the names that a member may have where none are declared: all but the empty one."""
        return self.quoted(self._table.repeat(self._character, 1))

    def quoted(self, content: Expression) -> Expression:
        mark = self._table.literal(self._mark)
        return self._table.sequence(mark, content, mark)

    def written(self, text: str) -> bytes:
        """Returns the one spelling of a string."""
        return QUOTE + text.encode() + QUOTE if self._is_call else json.dumps(text, ensure_ascii=False).encode()

    def name(self, text: str, among: Expression | None = None) -> Expression:
        """Returns the one spelling of a member's name. among: strings, of which it must be one, if that is asked."""
        quoted = self._table.literal(self.written(text))
        if among is not None:
            return self._table.intersection([quoted, among])
        is_bare = self._is_call and _BARE_NAME.fullmatch(text)
        return self._table.literal(text.encode()) if is_bare else quoted

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Returns the names of an object's members in the order in which they are written."""
        return sorted(names, key=str.lower) if self._is_call else list(names)

    def of(self, parts: tuple[Subschema, ...]) -> Expression:
        """Returns the strings that satisfy all parts."""
        table = self._table
        contents = [content for part in parts for content in self._contents(part)]
        low = max((part.count("minLength", MAX_LENGTH) or 0 for part in parts), default=0)
        highs = [high for part in parts if (high := part.count("maxLength", MAX_LENGTH)) is not None]
        high = min(highs, default=None)
        if high is not None and low > high:
            return table.empty
        if self._is_grounded and not contents:
            contents = [self._spans()]
        if low or high is not None or not contents:
            contents.append(table.repeat(self._character, low, high))
        return self.quoted(table.intersection(contents))

    def _contents(self, part: Subschema) -> list[Expression]:
        found = []
        if (pattern := part.get("pattern", str)) is not None:
            try:
                found.append(regex_language(pattern, self.characters, is_search=True))
            except ValueError as error:
                raise part.refused("pattern", str(error)) from None
        name = part.get("format", str)
        if name == SPAN:
            try:
                found.append(self._spans())
            except ValueError as error:
                raise part.refused("format", str(error)) from None
        elif name in FORMATS:
            found.append(regex_language(FORMATS[name], self.characters))
        return found

    def _spans(self) -> Expression:
        if self._text is None:
            raise ValueError("a span is a stretch of a text; give the text")
        if self._span is None:
            self._span = span_language(self._text, self.characters, at_words=self._at_words)
        return self._span
