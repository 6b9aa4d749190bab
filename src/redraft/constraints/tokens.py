"""What a language allows token by token: an automaton over classes of tokens."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.constraints.labels import LabelSet

Int32s = NDArray[np.int32]
NEVER = -1
"""The class of tokens that no state allows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenAutomaton:
    """States 0 to S−1 and the arcs between them, one for each class of tokens that a state allows.

    Tokens of one class lead everywhere to the same states. Every state can be reached and can reach the end; the end is
    the state `done`, to which the tokens that end an answer lead, and in which they repeat.

    class_of_token [V]: NEVER for tokens that are never allowed. first [S+1]: the arcs of state s are first[s] to
    first[s+1]−1. arc_class [E], in order within a state; target [E]. distance [S]: the tokens that a shortest way to
    `done` has, the one that ends the answer included. labels: of a choice its texts, where their probabilities can be
    told. is_filled: whether its answers are a given text with blanks.
    """

    class_of_token: Int32s
    first: Int32s
    arc_class: Int32s
    target: Int32s
    distance: Int32s
    start: int
    done: int
    labels: LabelSet | None = None
    is_filled: bool = False

    @property
    def num_states(self) -> int:
        return len(self.distance)

    @property
    def num_classes(self) -> int:
        return int(self.class_of_token.max()) + 1

    @property
    def num_arcs(self) -> int:
        return len(self.target)

    @property
    def num_bytes(self) -> int:
        """The bytes of its arrays."""
        return sum(array.nbytes for array in self._arrays().values())

    @property
    def min_tokens(self) -> int:
        """The tokens of a shortest answer, without the one that ends it."""
        return int(self.distance[self.start]) - 1

    def next_state(self, state: int, token_id: int) -> int | None:
        """Returns the state after a token, or None where it is not allowed."""
        begin, end = self.first[state], self.first[state + 1]
        token_class = self.class_of_token[token_id]
        at = begin + int(np.searchsorted(self.arc_class[begin:end], token_class))
        return int(self.target[at]) if at < end and self.arc_class[at] == token_class else None

    def state_after(self, token_ids: Sequence[int], state: int | None = None) -> int | None:
        """Returns the state after tokens from a state, by default the start, or None if one is not allowed."""
        state = self.start if state is None else state
        for token_id in token_ids:
            if state is not None:
                state = self.next_state(state, token_id)
        return state

    def is_complete(self, state: int) -> bool:
        """Tells whether nothing but the end can follow in a state."""
        return bool((self.target[self.first[state] : self.first[state + 1]] == self.done).all())

    def tokens_of(self, token_class: int) -> Int32s:
        """Returns the ids of a class, in order."""
        return np.flatnonzero(self.class_of_token == token_class).astype(np.int32)

    def shortest(self) -> list[int]:
        """Returns an answer of the fewest tokens, without the token that ends it; of several always the same."""
        answer = []
        state = self.start
        while self.distance[state] > 1:
            arcs = range(self.first[state], self.first[state + 1])
            arc = next(arc for arc in arcs if self.distance[self.target[arc]] == self.distance[state] - 1)
            answer.append(int(self.tokens_of(self.arc_class[arc])[0]))
            state = int(self.target[arc])
        return answer

    def random_member(self, generator: random.Random, max_tokens: int) -> list[int]:
        """Returns an answer found by going at random, of at most so many tokens or of the fewest if that is more."""
        answer: list[int] = []
        state = self.start
        while True:
            left = max(max_tokens - len(answer), int(self.distance[state]) - 1)
            arcs = np.arange(self.first[state], self.first[state + 1])
            arc = generator.choice(arcs[self.distance[self.target[arcs]] <= left].tolist())
            state = int(self.target[arc])
            if state == self.done:
                return answer
            answer.append(int(generator.choice(self.tokens_of(self.arc_class[arc]).tolist())))

    def to_bytes(self) -> bytes:
        """Returns everything as one npz file, to be sent to another process."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, ends=np.array([self.start, self.done]), **self._arrays())
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "TokenAutomaton":
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            start, done = arrays["ends"].tolist()
            return cls(start=start, done=done, **{name: arrays[name] for name in _ARRAYS})

    def _arrays(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _ARRAYS}


_ARRAYS = [field.name for field in fields(TokenAutomaton) if field.name not in ("start", "done", "labels", "is_filled")]
