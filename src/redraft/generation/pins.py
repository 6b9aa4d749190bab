"""Pinned tokens: an answer that has them, and whether a constraint can.

C canvas length, S states of an automaton.
"""

from collections.abc import Sequence

import numpy as np

from redraft.constraints.tokens import TokenAutomaton
from redraft.diffusion.start import CanvasStart
from redraft.generation.constrained import ConstrainedCanvas


def constraint_with_pins(
    constraint: TokenAutomaton | None, start: CanvasStart | None, *, vocab_size: int, stop_ids: Sequence[int]
) -> TokenAutomaton | None:
    """Returns what an answer is held to that begins as `start`: its constraint, or else not to end before its pins.

    Under a constraint it cannot, as nothing of a language follows its end; nor without tokens that end it.
    """
    if constraint is not None or start is None or not stop_ids:
        return constraint
    held = [position + 1 for position in start.pinned if start.tokens[position] not in stop_ids]
    return _ending_behind(max(held), vocab_size, stop_ids) if held else None


def _ending_behind(count: int, vocab_size: int, stop_ids: Sequence[int]) -> TokenAutomaton:
    """Returns the language of answers of at least `count` tokens; what stands behind their end is free."""
    class_of_token = np.zeros(vocab_size, dtype=np.int32)
    class_of_token[list(stop_ids)] = 1
    first = [*range(count), count, count + 2, count + 4]
    return TokenAutomaton(
        class_of_token=class_of_token,
        first=np.array(first, dtype=np.int32),
        arc_class=np.array([0] * count + [0, 1, 0, 1], dtype=np.int32),
        target=np.array([*range(1, count + 1), count, *[count + 1] * 3], dtype=np.int32),
        distance=np.arange(count + 1, -1, -1, dtype=np.int32),
        start=0,
        done=count + 1,
    )


def check_pins(start: CanvasStart, held: ConstrainedCanvas, length: int) -> None:
    """Raises ValueError unless a canvas of that length can meet its constraint with what is pinned."""
    automaton, pinned = held.automaton, {at: start.tokens[at] for at in start.pinned}
    can_end = held.ends
    for position in reversed(range(length)):
        leads = can_end[automaton.target]
        if (token := pinned.get(position)) is not None:
            leads &= automaton.arc_class == automaton.class_of_token[token]
        if position >= held.limit:
            leads &= np.isin(automaton.arc_class, held.end_classes)
        can_end = np.logical_or.reduceat(leads, automaton.first[:-1])
    if not can_end[held.state]:
        raise ValueError("the pinned tokens do not fit the constraint: no answer of its language has them there")
