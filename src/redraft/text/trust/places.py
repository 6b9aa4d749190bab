"""Where things stand: the values of a JSON answer, and those values in the text that they were copied from."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from redraft.text.characters import comparable

_SPACE = re.compile(r"[ \t\r\n]*")
_LETTER = re.compile(r"\r\n|(?s:.)[\u0300-\u036f\u3099\u309a]*")
_DECODER = json.JSONDecoder()

MAX_PLACES = 8
"""Places of a value that are told: a value of one letter stands nearly everywhere."""

Place = tuple[int, int]
"""Where a stretch begins and where it ends, in characters."""


@dataclass(frozen=True)
class Leaf:
    """A value of a JSON answer that is neither object nor array.

    path: the keys and indices that lead to it. start, end: its characters in the answer, quotation marks included.
    """

    path: tuple[str | int, ...]
    value: str | float | bool | None
    start: int
    end: int


def leaves(answer: str) -> list[Leaf]:
    """Returns the values inside a JSON object or array, in their order; none of what is not valid JSON."""
    try:
        json.loads(answer)
        return list(_leaves(answer, _skip(answer, 0), ()))
    except (ValueError, RecursionError):
        return []


def find(value: str, text: str, start: int = 0) -> tuple[Place, ...]:
    """Returns where a value stands in a text, from `start` on, in whatever form accents, spaces and quotes are.

    At most MAX_PLACES.
    """
    if not value:
        return ()
    if found := _all(value, text, start):
        return tuple(found)
    # Where it has another form there, letter by letter: each may become none, one or several.
    plain, at = "", []
    for letter in _LETTER.finditer(text, start):
        made = comparable(letter[0])
        plain += made
        at += [letter.span()] * len(made)
    return tuple((at[first][0], at[last - 1][1]) for first, last in _all(comparable(value), plain, 0))


def find_whole(value: str, text: str, start: int = 0) -> tuple[Place, ...]:
    """Returns where a value stands in a text, as `find` does, and is no part of a longer word or number there."""
    return tuple(place for place in find(value, text, start) if not any(_is_within(text, at) for at in place))


def _is_within(text: str, at: int) -> bool:
    """Returns whether a word or a number goes on from before `at` to behind it.

    Letters without capitals, as of Chinese, are of scripts that do not part their words.
    """
    around = text[at - 1 : at + 1] if at else ""
    return len(around) == 2 and (around.isdigit() or all(one.lower() != one.upper() for one in around))


def _all(value: str, text: str, start: int) -> list[Place]:
    found: list[Place] = []
    at = text.find(value, start) if value else -1
    while at >= 0 and len(found) < MAX_PLACES:
        found.append((at, at + len(value)))
        at = text.find(value, at + len(value))
    return found


def _leaves(text: str, at: int, path: tuple[str | int, ...]) -> Iterator[Leaf]:
    """Yields those of the object or array that begins at `at` in a text of valid JSON; none of another value."""
    if text[at] not in "{[":
        return
    is_object, at, index = text[at] == "{", _skip(text, at + 1), 0
    while text[at] not in "}]":
        key: str | int = index
        if is_object:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        value, end = _DECODER.raw_decode(text, at)
        if isinstance(value, dict | list):
            yield from _leaves(text, at, (*path, key))
        else:
            yield Leaf((*path, key), value, at, end)
        at, index = _skip(text, end), index + 1
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()
