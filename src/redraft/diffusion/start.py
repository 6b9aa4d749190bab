"""What a canvas begins as, where it is not noise alone. Imports no torch.

C canvas length.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CanvasStart:
    """Tokens that the first canvas of an answer begins with, of which some are pinned.

    tokens: from its first position on; None, and what lies behind them, is noise. pinned: positions that hold their
    token in every step, and in the answer. strength: None lets the other tokens stand in the first step, and runs all
    steps; a share of up to 1 replaces each of them by noise with this probability, and runs this share of the steps.
    Raises ValueError for a position without a token, and a strength out of range.
    """

    tokens: tuple[int | None, ...]
    pinned: frozenset[int] = frozenset()
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength}, must be above 0 and at most 1")
        for position in sorted(self.pinned):
            if not 0 <= position < len(self.tokens) or self.tokens[position] is None:
                raise ValueError(f"position {position} is pinned, but no token is given for it")

    @classmethod
    def holding(cls, tokens: Sequence[int]) -> "CanvasStart":
        """Returns the start with these tokens pinned in its first positions."""
        return cls(tokens=tuple(tokens), pinned=frozenset(range(len(tokens))))

    def check(self, length: int, vocab_size: int, room: int) -> None:
        """Raises ValueError unless it fits a canvas of that length, and an answer of at most `room` tokens."""
        if len(self.tokens) > length:
            raise ValueError(f"{len(self.tokens)} tokens are given, the canvas has {length}: raise canvas_length")
        if bad := [token for token in self.tokens if token is not None and not 0 <= token < vocab_size][:3]:
            raise ValueError(f"tokens {bad} of the canvas lie outside the vocabulary of {vocab_size}")
        if self.pinned and (last := max(self.pinned)) > room:
            raise ValueError(f"position {last} is pinned, max_new_tokens is {room}: raise it")

    def first_step(self, steps: int) -> int:
        """Returns how many of `steps` are run."""
        return steps if self.strength is None else max(1, math.ceil(steps * self.strength))
