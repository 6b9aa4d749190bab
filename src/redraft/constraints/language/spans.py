"""The stretches of a text as a language: all its substrings, or those that begin and end at the borders of words."""

from collections.abc import Iterable

from redraft.constraints.language.characters import Characters
from redraft.constraints.language.expression import Expression

MAX_TEXT = 4_000
"""Characters of a text whose stretches can be a language."""


def span_language(text: str, characters: Characters, *, at_words: bool = False) -> Expression:
    """Returns the non-empty stretches of a text, in whole characters; `at_words`: only those that cut no word.

    A state is the set of places where what was read so far may have ended: at most two states a character, since those
    sets are nested or disjoint (Blumer et al. 1985). Raises ValueError for a text that is empty or too long.
    """
    if not 0 < len(text) <= MAX_TEXT:
        raise ValueError(f"the text has {len(text):,} characters, must be 1 to {MAX_TEXT:,}: take a window of it")
    table = characters.table
    places: dict[str, int] = {}
    for at, character in enumerate(text):
        places[character] = places.get(character, 0) | 1 << at
    starts = _bits(at for at in range(len(text)) if not at_words or _may_start(text, at))
    ends = _bits(at for at in range(1, len(text) + 1) if not at_words or _may_start(text[::-1], len(text) - at))
    arcs: dict[int, list[tuple[str, int]]] = {}
    pending = [starts]
    while pending:
        state = pending.pop()
        if state in arcs:
            continue
        table.budget.spend(len(text) // 8)
        # Most states are a single place.
        at = state.bit_length() - 1
        following = places if state & (state - 1) else text[at : at + 1]
        arcs[state] = [(character, common << 1) for character in following if (common := state & places[character])]
        pending += [target for _, target in arcs[state]]
    after: dict[int, Expression] = {}
    # An arc leads to later places, so that the followers of a state come first.
    for state in sorted(arcs, key=lambda state: state & -state, reverse=True):
        languages = [table.sequence(characters.text(character), after[target]) for character, target in arcs[state]]
        may_end = state & ends and state != starts
        after[state] = table.alternative([table.epsilon if may_end else table.empty, *languages])
    return after[starts]


def _bits(places: Iterable[int]) -> int:
    return sum(1 << at for at in places)


def _may_start(text: str, at: int) -> bool:
    """Tells whether no word is cut in front of a character, which is not white space."""
    return not text[at].isspace() and not (at and text[at - 1].isalnum() and text[at].isalnum())
