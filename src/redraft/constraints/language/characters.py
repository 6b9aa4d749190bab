"""Sets of characters as languages of bytes: in UTF-8, or as they stand inside a JSON string."""

import json
from collections.abc import Iterable, Iterator, Sequence

from redraft.constraints.language.expression import Expression, Expressions, byte_range

Ranges = tuple[tuple[int, int], ...]
"""A set of code points: ranges with both ends, in order, without gaps of zero between them."""
SURROGATES = (0xD800, 0xDFFF)
LAST = 0x10FFFF
EVERY: Ranges = ((0, SURROGATES[0] - 1), (SURROGATES[1] + 1, LAST))
"""All characters: UTF-8 has no surrogates."""
RAW: Ranges = ((0x20, ord('"') - 1), (ord('"') + 1, ord("\\") - 1), (ord("\\") + 1, 0x7E), (0x80, LAST))
"""What stands in a JSON string as it is; DEL might too, but some readers refuse it."""
ESCAPES = '"\\\b\f\n\r\t'
"""What is written with a backslash and a letter. Other control characters occur in texts that are given, only."""


def ranges_of(pairs: Iterable[tuple[int, int]]) -> Ranges:
    """Returns the set of some ranges in any order."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(pairs):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def common(left: Ranges, right: Ranges) -> Ranges:
    return ranges_of((max(a, c), min(b, d)) for a, b in left for c, d in right if max(a, c) <= min(b, d))


def without(ranges: Ranges, removed: Ranges) -> Ranges:
    edges = [-1, *(edge for low, high in removed for edge in (low, high)), LAST + 1]
    gaps = [(edges[at] + 1, edges[at + 1] - 1) for at in range(0, len(edges), 2)]
    return common(ranges, ranges_of((low, high) for low, high in gaps if low <= high))


class Characters:
    """Languages of single characters and of texts in UTF-8."""

    def __init__(self, table: Expressions) -> None:
        self.table = table
        self._languages: dict[Ranges, Expression] = {}

    def any_of(self, ranges: Ranges) -> Expression:
        """Returns the language of the characters of a set."""
        if ranges not in self._languages:
            self._languages[ranges] = self._any_of(common(ranges, EVERY))
        return self._languages[ranges]

    def text(self, text: str) -> Expression:
        return self.table.literal(text.encode())

    def _any_of(self, ranges: Ranges) -> Expression:
        masks = [[byte_range(*pair) for pair in pairs] for low, high in ranges for pairs in _utf8(low, high)]
        return self.table.alternative(self.table.sequence(*map(self.table.byte, bytes)) for bytes in masks)


class JsonCharacters(Characters):
    """The same inside a JSON string: each character in one spelling, as it is where that may be, else escaped."""

    def text(self, text: str) -> Expression:
        return self.table.literal(json.dumps(text, ensure_ascii=False)[1:-1].encode())

    def _any_of(self, ranges: Ranges) -> Expression:
        escapes = [json.dumps(character)[1:-1].encode() for character in ESCAPES if _has(ranges, ord(character))]
        return self.table.alternative([super()._any_of(common(ranges, RAW)), self.table.literals(escapes)])


def _has(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


def _utf8(low: int, high: int) -> Iterator[Sequence[tuple[int, int]]]:
    """Yields the sequences of byte ranges that together are the characters from low to high, without surrogates."""
    for bound in (0x7F, 0x7FF, 0xFFFF):
        if low <= bound < high:
            yield from _utf8(low, bound)
            yield from _utf8(bound + 1, high)
            return
    if high <= 0x7F:
        yield [(low, high)]
        return
    # A range of characters is one of bytes if below its first differing byte it is whole.
    for bits in (6, 12, 18):
        block = (1 << bits) - 1
        if low >> bits != high >> bits:
            if low & block:
                yield from _utf8(low, low | block)
                yield from _utf8((low | block) + 1, high)
                return
            if high & block != block:
                yield from _utf8(low, (high & ~block) - 1)
                yield from _utf8(high & ~block, high)
                return
    yield list(zip(chr(low).encode(), chr(high).encode(), strict=True))
