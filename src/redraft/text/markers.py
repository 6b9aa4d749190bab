"""Markers that keep what a chat template writes apart from what people write, whatever the template does with both.

Each control token that the template writes is rendered as one character that occurs nowhere else: a marker from the
end of Unicode's private-use planes. After rendering, markers are the only control tokens; everything else is text, also
a "<|turn>" that a message brought along or that arose where two pieces met. Should a message use a marker's character,
a stand-in replaces it for the rendering.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

LAST_PRIVATE, FIRST_PRIVATE = 0x10FFFD, 0xF0000
MAX_DEPTH = 100


class Markers:
    """A marker for each of `tokens` (text of a control token -> id); none of them occurs in `source`."""

    def __init__(self, tokens: Mapping[str, int], source: str) -> None:
        self._source = frozenset(source)
        free = _free_characters(self._source)
        self.literals: dict[str, str] = {text: next(free) for text in tokens}
        self._ids = {self.literals[text]: token_id for text, token_id in tokens.items()}
        # The empty lookahead of nothing never matches: without markers there is nothing to split at.
        self._pattern = re.compile(f"([{''.join(self._ids)}])" if self._ids else "((?!))")

    def stand_ins(self, texts: Iterable[str]) -> dict[str, str]:
        """Returns stand-ins for the markers that these texts use: characters that none of them uses."""
        used = set().union(*texts)
        free = _free_characters(used | self._ids.keys() | self._source)
        return {marker: next(free) for marker in self._ids.keys() & used}

    def split(self, rendered: str) -> Iterator[str | int]:
        """Yields texts, possibly empty, and between them the ids of the control tokens that the template wrote."""
        for at, piece in enumerate(self._pattern.split(rendered)):
            yield self._ids[piece] if at % 2 else piece


class Finder:
    """A search for which of many texts occur in another text."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(texts)
        self._lengths = sorted({len(text) for text in self._texts})
        starts = re.escape("".join(sorted({text[0] for text in self._texts})))
        self._start = re.compile(f"[{starts}]") if starts else None

    def find(self, text: str) -> set[str]:
        if self._start is None:
            return set()
        starts = [match.start() for match in self._start.finditer(text)]
        return {text[at : at + length] for at in starts for length in self._lengths} & self._texts


def strings(value: object, depth: int = 0) -> Iterator[str]:
    """Yields every string in a JSON value, keys included. ValueError for what is not a JSON value."""
    if depth > MAX_DEPTH:
        raise ValueError(f"messages are nested deeper than {MAX_DEPTH} levels: flatten them")
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"messages contain the key {key!r}, keys must be strings")
            yield key
            yield from strings(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item, depth + 1)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise ValueError(f"messages contain a value of type {type(value).__name__}; only JSON values can be rendered")


def replace(value: object, table: Mapping[int, str]) -> object:
    """Returns a JSON value as plain dicts and lists, with `table` (as for str.translate) applied to every string."""
    if isinstance(value, str):
        return value.translate(table)
    if isinstance(value, Mapping):
        return {key.translate(table): replace(item, table) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace(item, table) for item in value]
    return value


def _free_characters(taken: AbstractSet[str]) -> Iterator[str]:
    for code in range(LAST_PRIVATE, FIRST_PRIVATE - 1, -1):
        # The last two code points of each plane are not characters.
        if code & 0xFFFF < 0xFFFE and chr(code) not in taken:
            yield chr(code)
    raise ValueError("the text uses up Unicode's private-use planes: remove those characters")
