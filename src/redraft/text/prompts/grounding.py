"""Values that are stretches of a text: the text as a model reads it, and where each value stands in it."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redraft.text.characters import CHANGED, writable

Span = tuple[int, int]


@dataclass(frozen=True)
class SourceText:
    """A text that values are taken from. own: as it was sent, and read: as a model reads it.

    starts, ends: of each character that is read, from where to where it stands in what was sent; `own` begins there at
    character `offset`.
    """

    own: str
    read: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    offset: int = 0

    @classmethod
    def of(cls, own: str, has_token: Callable[[str], bool], offset: int = 0) -> "SourceText":
        """Reads a text. has_token: whether a character is a token of its own."""
        made: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for match in itertools.chain(CHANGED.finditer(own), [None]):
            until = len(own) if match is None else match.start()
            made.append(own[at:until])
            starts += range(at, until)
            ends += range(at + 1, until + 1)
            if match is not None:
                made.append(piece := writable(match[0], has_token))
                is_same = piece == match[0]
                starts += range(until, match.end()) if is_same else [until] * len(piece)
                ends += range(until + 1, match.end() + 1) if is_same else [match.end()] * len(piece)
                at = match.end()
        return cls(own, "".join(made), tuple(starts), tuple(ends), offset)

    @property
    def is_changed(self) -> bool:
        """Whether a model reads it otherwise than it was sent."""
        return self.own != self.read

    def places(self, value: str) -> list[Span]:
        """Returns where a value, as a model writes it, stands in what was sent."""
        found = [match.start() for match in re.finditer(f"(?={re.escape(value)})", self.read)] if value else []
        return [(self.starts[at] + self.offset, self.ends[at + len(value) - 1] + self.offset) for at in found]

    def text_at(self, span: Span) -> str:
        """Returns what was sent there."""
        return self.own[span[0] - self.offset : span[1] - self.offset]


def ground(value: Any, source: SourceText, stretches: Sequence[Span] = ()) -> tuple[Any, dict[str, Span]]:
    """Returns a JSON value with its texts as they were sent, and where each of them stands, by its path.

    A path is made of keys and numbers, with slashes between them. Of a text that stands in several places the one that
    is nearest to the others is meant. One that stands nowhere is left as it is, without a place. stretches: of an array
    that was made item by item, where the item of each object stands, which goes before other places.
    """
    places: dict[str, Sequence[Span]] = {
        path: _within(path, found, stretches) for path, text in _texts(value) if (found := source.places(text))
    }
    spans: dict[str, Span] = {path: found[0] for path, found in places.items() if len(found) == 1}
    for path, several in places.items():
        if path not in spans:
            others = list(spans.values())
            spans[path] = min(several, key=lambda span: (_distance(span, others), span))
    texts = {path: source.text_at(span) for path, span in spans.items()}
    return _replaced(value, texts), {path: spans[path] for path in places}


def ground_answer(
    answer: str, source: SourceText, stretches: Sequence[Span] = ()
) -> tuple[str, dict[str, Span] | None]:
    """Returns a JSON answer with its texts as they were sent, and where they stand; None for one that is not JSON."""
    try:
        value = json.loads(answer)
    except ValueError:
        return answer, None
    grounded, spans = ground(value, source, stretches)
    return answer if grounded == value else json.dumps(grounded, ensure_ascii=False), spans


def _within(path: str, found: Sequence[Span], stretches: Sequence[Span]) -> Sequence[Span]:
    """Returns those of some places that are in the stretch of a path's item; all where none is."""
    number, _, _ = path.partition("/")
    if not (number.isdigit() and int(number) < len(stretches)):
        return found
    start, end = stretches[int(number)]
    return [span for span in found if start <= span[0] and span[1] <= end] or found


def _distance(span: Span, others: list[Span]) -> int:
    """Returns the fewest characters between a span and one of the others; one that lies over it is far away."""
    far = 2**31
    return min((max(a - span[1], span[0] - b) if a >= span[1] or span[0] >= b else far for a, b in others), default=0)


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, held in items:
            yield from _texts(held, f"{path}/{name}" if path else str(name))


def _replaced(value: Any, texts: Mapping[str, str], path: str = "") -> Any:
    def below(name: object) -> str:
        return f"{path}/{name}" if path else str(name)

    if isinstance(value, str):
        return texts.get(path, value)
    if isinstance(value, dict):
        return {name: _replaced(held, texts, below(name)) for name, held in value.items()}
    if isinstance(value, list):
        return [_replaced(held, texts, below(at)) for at, held in enumerate(value)]
    return value
