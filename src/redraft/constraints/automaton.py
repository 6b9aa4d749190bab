"""A deterministic automaton over bytes, found by taking derivatives until no new ones come."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.constraints.language.expression import Expression, Expressions, Mask

DEAD = -1
Int32s = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class ByteAutomaton:
    """States 0 to S−1 and the state that each byte leads to; 0 is the start. Every state can reach an accepting one.

    byte_class [256]: bytes of one class lead everywhere to the same states. next [S, classes]: DEAD where nothing
    follows. accepts [S]: whether the text may end there.
    """

    byte_class: NDArray[np.uint8]
    next: Int32s
    accepts: Bools

    @property
    def num_states(self) -> int:
        return len(self.accepts)

    def state_after(self, text: bytes, start: int = 0) -> int:
        """Returns the state after a text, or DEAD."""
        state = start
        for byte in text:
            state = int(self.next[state, self.byte_class[byte]])
            if state == DEAD:
                break
        return state

    def contains(self, text: bytes) -> bool:
        """Tells whether a text belongs to the language."""
        state = self.state_after(text)
        return state != DEAD and bool(self.accepts[state])


def build_automaton(table: Expressions, language: Expression) -> ByteAutomaton:
    """Builds the automaton of a language. ValueError if it is empty, LimitExceeded if it is too large."""
    states = {language: 0}
    pending = deque([language])
    arcs: dict[Mask, list[tuple[int, int]]] = {}
    sources: list[list[int]] = [[]]
    while pending:
        table.budget.check()
        expression = pending.popleft()
        state = states[expression]
        for mask, after in table.derivatives(expression):
            target = states.setdefault(after, len(states))
            if target == len(sources):
                table.budget.check_count("byte_states", len(states))
                pending.append(after)
                sources.append([])
            sources[target].append(state)
            arcs.setdefault(mask, []).append((state, target))
    accepts = np.array([expression.is_nullable for expression in states])
    return _without_dead_ends(_tabulate(arcs, accepts), sources)


def _tabulate(arcs: dict[Mask, list[tuple[int, int]]], accepts: Bools) -> ByteAutomaton:
    masks = np.array([list(mask.to_bytes(32, "little")) for mask in arcs], dtype=np.uint8).reshape(-1, 32)
    members = np.unpackbits(masks, axis=1, bitorder="little")
    columns, byte_class = np.unique(members, axis=1, return_inverse=True)
    next_states = np.full((len(accepts), columns.shape[1]), DEAD, dtype=np.int32)
    for row, pairs in zip(columns, arcs.values(), strict=True):
        ends = np.array(pairs, dtype=np.int32)
        next_states[ends[:, :1], np.flatnonzero(row)] = ends[:, 1:]
    return ByteAutomaton(byte_class=byte_class.astype(np.uint8), next=next_states, accepts=accepts)


def _without_dead_ends(automaton: ByteAutomaton, sources: list[list[int]]) -> ByteAutomaton:
    """Removes the states from which the text can never end: an intersection may be empty without showing it."""
    is_alive = automaton.accepts.copy()
    pending = np.flatnonzero(is_alive).tolist()
    while pending:
        for source in sources[pending.pop()]:
            if not is_alive[source]:
                is_alive[source] = True
                pending.append(source)
    if not is_alive[0]:
        raise ValueError("no text fits this constraint: its parts contradict each other")
    # The last entry is that of DEAD.
    renumbered = np.append(np.where(is_alive, np.cumsum(is_alive) - 1, DEAD), DEAD).astype(np.int32)
    return ByteAutomaton(
        byte_class=automaton.byte_class,
        next=renumbered[automaton.next[is_alive]],
        accepts=automaton.accepts[is_alive],
    )
