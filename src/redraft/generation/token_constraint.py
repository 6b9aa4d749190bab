"""A constraint on an answer that is written causally: at each token the model chooses among those that may stand there.

V vocabulary, R rows that are read out.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from redraft.constraints.tokens import TokenAutomaton
from redraft.model.readout.query import AllowedTokens


class TokenConstraint:
    """The language that an answer is of, and where in it the answer stands. `room`: tokens that it may still have.

    A token may stand where a shortest rest, and what ends it, still fit behind it.
    """

    def __init__(self, automaton: TokenAutomaton, room: int) -> None:
        self.automaton, self.state, self.room = automaton, automaton.start, room

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow but the end."""
        return self.automaton.is_complete(self.state) or self.room <= 0

    def take(self, token: int) -> None:
        """Goes on behind a token that may stand there."""
        state = self.automaton.next_state(self.state, token)
        assert state is not None
        self.state, self.room = state, self.room - 1

    def fitting(self, draft: Iterable[int]) -> list[int]:
        """Returns a draft as far as it may stand, without what ends the answer.

        Where only one token may stand, it stands there whatever the draft says.
        """
        automaton, state, room, found = self.automaton, self.state, self.room, list[int]()
        for token in draft:
            arcs = self._arcs(state, room)
            classes = automaton.arc_class[arcs]
            if automaton.class_of_token[token] not in classes:
                if len(arcs) > 1 or len(only := automaton.tokens_of(classes[0])) > 1:
                    break
                token = int(only[0])
            after = automaton.next_state(state, token)
            if after is None or after == automaton.done:
                break
            found.append(token)
            state, room = after, room - 1
        return found

    def masks(self, draft: Sequence[int]) -> tuple[list[NDArray[np.bool_]], list[int]]:
        """Returns which tokens bool [V] may stand in the place of each of a draft's and behind it.

        That is, a few masks, and for each of the len(draft) + 1 places which of them holds there. `draft`: one that is
        `fitting`.
        """
        masks, rows, known = list[NDArray[np.bool_]](), list[int](), dict[bytes, int]()
        state, room = self.state, self.room
        for place in range(len(draft) + 1):
            classes = self.automaton.arc_class[self._arcs(state, room)]
            at = known.setdefault(classes.tobytes(), len(masks))
            if at == len(masks):
                # The class NEVER is −1, the last of these: it is never allowed.
                allowed = np.zeros(self.automaton.num_classes + 1, dtype=np.bool_)
                allowed[classes] = True
                masks.append(allowed[self.automaton.class_of_token])
            rows.append(at)
            if place < len(draft):
                after = self.automaton.next_state(state, draft[place])
                assert after is not None
                state, room = after, room - 1
        return masks, rows

    def _arcs(self, state: int, room: int) -> NDArray[np.int64]:
        """Returns the arcs of a state behind which the rest of an answer fits into the room."""
        arcs = np.arange(self.automaton.first[state], self.automaton.first[state + 1])
        return arcs[self.automaton.distance[self.automaton.target[arcs]] <= room]


def allowed_tokens(
    parts: Sequence[tuple[TokenConstraint | None, Sequence[int], int]], device: torch.device
) -> AllowedTokens | None:
    """Returns what R rows are limited to; None where none is.

    parts: of rows one behind the other, the constraint, the draft that they read, and how many of their last are read
    out. Rows without a constraint are not limited.
    """
    masks, rows = list[NDArray[np.bool_]](), list[int]()
    for constraint, draft, count in parts:
        if constraint is None or not count:
            rows += [-1] * count
            continue
        own, places = constraint.masks(draft)
        rows += [len(masks) + place for place in places[len(places) - count :]]
        masks += own
    if not masks:
        return None
    return AllowedTokens(torch.from_numpy(np.stack(masks)).to(device), torch.tensor(rows, device=device))
