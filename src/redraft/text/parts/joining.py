"""One answer from the answers to the parts of a prompt: which stretches of theirs it is made of."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from redraft.text.trust.places import Leaf, leaves

MIN_SURE = 0.4
"""What a value is trusted at least where other windows find none. Of 160 records made for it 0.3 to 0.6 are as good."""


Emptiness = Literal["none", "ends", "any"]
"""Which items of a text may be none: no one, those at its ends, or any."""


@dataclass(frozen=True)
class Stretch:
    """The characters of a part's answer from `start` to before `end`, as they are in the whole."""

    part: int
    start: int
    end: int


@dataclass(frozen=True)
class Unread:
    """What stands for an answer that says nothing: text that nobody is sure of."""

    text: str


@dataclass(frozen=True)
class Joined:
    """What a whole answer is made of, in order: what is written anew, and stretches of the answers to its parts.

    items: of an array, the part that each object is from. unread: parts whose answers are no JSON object.
    """

    pieces: Sequence[str | Stretch | Unread]
    items: tuple[int, ...] = ()
    unread: int = 0


def join_items(fields: Sequence[str], answers: Sequence[str], *, may_be_none: Emptiness) -> Joined:
    """Returns the JSON array of some objects. may_be_none: which are left out if they say nothing and others do.

    A text has lines before and after its items that look like them. In the place of an answer that is no object stands
    one of nulls.
    """
    kept = list(range(len(answers)))
    if may_be_none == "any" and not all(map(_is_empty, answers)):
        kept = [at for at in kept if not _is_empty(answers[at])]
    elif may_be_none == "ends" and not all(map(_is_empty, answers)):
        kept = list(itertools.dropwhile(lambda at: _is_empty(answers[at]), kept))
        kept = list(itertools.dropwhile(lambda at: _is_empty(answers[at]), reversed(kept)))[::-1]
    pieces, unread = list[str | Stretch | Unread](["["]), 0
    for at in kept:
        text = answers[at]
        pieces += [", "] if len(pieces) > 1 else []
        if _is_object(text):
            pieces.append(Stretch(at, len(text) - len(text.lstrip()), len(text.rstrip())))
        else:
            pieces.append(Unread(json.dumps(dict.fromkeys(fields), ensure_ascii=False)))
            unread += 1
    return Joined([*pieces, "]"], tuple(kept), unread)


def _is_object(answer: str) -> bool:
    try:
        return isinstance(json.loads(answer), dict)
    except (ValueError, RecursionError):
        return False


def _is_empty(answer: str) -> bool:
    return _is_object(answer) and all(leaf.value is None for leaf in leaves(answer))


def join_windows(fields: Sequence[str], answers: Sequence[str], sureness: Sequence[Mapping[str, float]]) -> Joined:
    """Returns the JSON object of some fields whose values are the surest that any window has.

    sureness: of each answer, how probable the value of each field is. What is null in every window is null.
    """
    found = [{leaf.path[0]: leaf for leaf in leaves(answer) if len(leaf.path) == 1} for answer in answers]
    pieces = list[str | Stretch | Unread]()
    for name in fields:
        told = [
            (sure, part, leaf)
            for part, of_part in enumerate(found)
            if (leaf := of_part.get(name)) is not None
            and ((sure := sureness[part].get(name, 0.0)) >= MIN_SURE or leaf.value is None)
        ]
        values = [one for one in told if one[2].value is not None]
        # Where none has a value, the window that is least sure of that says most of how sure it is.
        chosen = max(values, default=min(told, default=None, key=_sure), key=_sure)
        written = Unread("null") if chosen is None else Stretch(chosen[1], chosen[2].start, chosen[2].end)
        pieces += [", " if pieces else "{", f"{json.dumps(name, ensure_ascii=False)}: ", written]
    # Where others have answers, what one of them lacks is not missed.
    return Joined([*pieces, "}"], unread=0 if any(found) else len(answers))


def _sure(one: tuple[float, int, Leaf]) -> float:
    return one[0]
