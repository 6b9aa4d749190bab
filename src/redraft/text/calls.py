"""A tool call as Gemma 4's chat template writes it, `call:NAME{key:value,...}`, read into a name and JSON arguments.

Strings stand between quote tokens, literally: nothing in them is escaped, and they may contain quotes and braces. So a
call arrives as segments: its text, split at the quote tokens. Keys are bare. What models also write is accepted: keys
in quotes, JSON strings, Python's None, True and False, and white space between lexemes.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MAX_DEPTH = 64
_NAME = re.compile(r'\s*call:([^\s{}\[\],"]+)')
_LEXEME = re.compile(r'\s*([{}\[\]:,]|"[^"\\]*(?:\\.[^"\\]*)*"|[^\s{}\[\]:,"][^{}\[\]:,"]*)', re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_CONSTANTS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_END = ""


@dataclass(frozen=True)
class ToolCall:
    """A call of the function `name`, with a JSON object as `arguments`.

    If not `complete`, the answer was cut off or the call is malformed: then `name` is what could be read of it, perhaps
    "", and `arguments` is what follows as the model wrote it, quote tokens as `"`.
    """

    name: str
    arguments: str
    complete: bool = True


def read_call(segments: Sequence[str]) -> ToolCall:
    """Reads a call from segments, alternately outside and inside quotes; an even number means that a quote is open."""
    named = _NAME.match(segments[0])
    name, rest = (named[1], segments[0][named.end() :]) if named else ("", segments[0])
    after = [rest, *segments[1:]]
    try:
        if not named:
            raise ValueError("a call must begin with `call:` and a name")
        return ToolCall(name, _Arguments(after).json())
    except ValueError:
        return ToolCall(name, '"'.join(after), complete=False)


class _Arguments:
    """Rewrites the lexemes of a call's arguments as JSON. Numbers keep their digits, objects the order of their keys.

    A lexeme is a mark (one of `{}[]:,`), a JSON string, or a bare word, which may contain spaces.
    """

    def __init__(self, segments: Sequence[str]) -> None:
        self._lexemes = _lexemes(segments)
        self._next = next(self._lexemes)
        self._written: list[str] = []

    def json(self) -> str:
        """Returns the JSON object; ValueError if the lexemes are not one object, or it is nested too deeply."""
        self._demand("{")
        self._group(self._entry, "{", "}", depth=1)
        self._demand(_END)
        return "".join(self._written)

    def _group(self, item: Callable[[int], None], opening: str, closing: str, *, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ValueError(f"arguments are nested deeper than {MAX_DEPTH} levels")
        self._written.append(opening)
        if self._next != closing:
            item(depth)
            while self._next == ",":
                self._written.append(self._take())
                item(depth)
        self._demand(closing)
        self._written.append(closing)

    def _entry(self, depth: int) -> None:
        key = self._take()
        if key == _END or key in "{}[]:,":
            raise ValueError(f"found {key!r} where a key was expected")
        self._demand(":")
        self._written += [key if key[0] == '"' else _string(key), ":"]
        self._value(depth)

    def _value(self, depth: int) -> None:
        lexeme = self._take()
        if lexeme == "{":
            self._group(self._entry, "{", "}", depth=depth + 1)
        elif lexeme == "[":
            self._group(self._value, "[", "]", depth=depth + 1)
        elif lexeme[:1] == '"' or _NUMBER.fullmatch(lexeme):
            self._written.append(lexeme)
        elif lexeme in _CONSTANTS:
            self._written.append(_CONSTANTS[lexeme])
        else:
            raise ValueError(f"found {lexeme!r} where a value was expected")

    def _take(self) -> str:
        taken, self._next = self._next, next(self._lexemes, _END)
        return taken

    def _demand(self, lexeme: str) -> None:
        if (found := self._take()) != lexeme:
            raise ValueError(f"found {found!r} where {lexeme!r} was expected")


def _lexemes(segments: Sequence[str]) -> Iterator[str]:
    """Yields the lexemes; ValueError for text that is not a lexeme, or a quote that is not closed."""
    for at, segment in enumerate(segments):
        if at % 2:
            yield _string(segment)
        else:
            yield from _outside(segment)
    if len(segments) % 2 == 0:
        raise ValueError("a quote is not closed")
    yield _END


def _outside(segment: str) -> Iterator[str]:
    at = 0
    while match := _LEXEME.match(segment, at):
        lexeme, at = match[1], match.end()
        yield _without_lone_surrogates(lexeme) if lexeme[0] == '"' else lexeme.rstrip()
    if segment[at:].strip():
        raise ValueError(f"found {segment[at:][:20]!r}, a string that does not end")


def _without_lone_surrogates(lexeme: str) -> str:
    """Returns a JSON string rewritten in ASCII; an escape that stands for half a surrogate pair becomes U+FFFD."""
    text = json.loads(lexeme, strict=False)
    return json.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
