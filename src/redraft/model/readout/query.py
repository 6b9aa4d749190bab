"""What a readout is asked, and what it answers.

N rows, D hidden, V vocabulary, A tokens asked for of each row, K sets of allowed tokens.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

Rows = slice | Tensor
"""A slice of rows, or their indices."""


@dataclass(frozen=True)
class AllowedTokens:
    """The tokens that rows are limited to: masks bool [K, V] of a few sets, and each row's set, rows int64 [N].

    A row of −1 is not limited. Raises ValueError for a set that allows nothing, and for rows without a set.
    """

    masks: Tensor
    rows: Tensor

    def __post_init__(self) -> None:
        if bool((empty := ~self.masks.any(dim=1)).any()):
            raise ValueError(f"allowed set {int(empty.nonzero()[0])} has no tokens, must have at least one")
        if bool(((self.rows < -1) | (self.rows >= len(self.masks))).any()):
            raise ValueError(f"rows of allowed tokens must lie between -1 and {len(self.masks) - 1}, the last set")

    def allows(self, ids: Tensor) -> Tensor:
        """Returns bool [N, A]: whether each row may have each of its ids int64 [N, A]."""
        return self.masks[self.rows[:, None], ids] | (self.rows < 0)[:, None]


@dataclass(frozen=True)
class ReadoutQuery:
    """What is asked of N rows.

    temperature: above 0, one number or float [N]. uniforms: float64 [N] in [0, 1), which decide the samples by inverse
    CDF. allowed: what rows are limited to (None: to nothing). token_ids: int64 [N, A] whose log-probabilities are
    wanted. top: how many of the likeliest tokens are wanted.
    """

    temperature: Tensor | float
    uniforms: Tensor
    allowed: AllowedTokens | None = None
    token_ids: Tensor | None = None
    top: int = 0

    def select(self, rows: Rows) -> "ReadoutQuery":
        """Returns the same query of some rows."""
        return replace(
            self,
            temperature=self.temperature[rows] if isinstance(self.temperature, Tensor) else self.temperature,
            uniforms=self.uniforms[rows],
            allowed=None if self.allowed is None else replace(self.allowed, rows=self.allowed.rows[rows]),
            token_ids=None if self.token_ids is None else self.token_ids[rows],
        )


@dataclass(frozen=True)
class TopTokens:
    """The A likeliest tokens of each row, likeliest first: ids int64 [N, A], log_probs float32 [N, A].

    At temperature 1: what the model itself says, whatever the schedule does with it. Where a row is limited to fewer
    than A tokens, the rest are ids of 0 with a log-probability of −∞.
    """

    ids: Tensor
    log_probs: Tensor

    def select(self, rows: Rows) -> "TopTokens":
        """Returns those of some rows."""
        return TopTokens(self.ids[rows], self.log_probs[rows])

    def first(self, count: int) -> "TopTokens":
        """Returns only the `count` likeliest of each row."""
        return TopTokens(self.ids[:, :count], self.log_probs[:, :count])


@dataclass(frozen=True)
class Readout:
    """What is learned of each row, under its temperature and of its allowed tokens.

    sample, argmax int64 [N]; entropy float32 [N] in nats; soft_embedding float32 [N, D]; log_probs float32 [N, A] of
    the token ids that were asked for, −∞ for one that is not allowed; None where none were, as `top`.
    """

    sample: Tensor
    argmax: Tensor
    entropy: Tensor
    soft_embedding: Tensor
    log_probs: Tensor | None = None
    top: TopTokens | None = None

    def select(self, rows: Rows) -> "Readout":
        """Returns that of some rows."""
        return Readout(
            self.sample[rows],
            self.argmax[rows],
            self.entropy[rows],
            self.soft_embedding[rows],
            None if self.log_probs is None else self.log_probs[rows],
            None if self.top is None else self.top.select(rows),
        )


def concatenate(parts: list[Readout]) -> Readout:
    """Returns the readout of the rows of all parts, which answer the same query."""
    if len(parts) == 1:
        return parts[0]
    log_probs = [part.log_probs for part in parts if part.log_probs is not None]
    tops = [part.top for part in parts if part.top is not None]
    return Readout(
        torch.cat([part.sample for part in parts]),
        torch.cat([part.argmax for part in parts]),
        torch.cat([part.entropy for part in parts]),
        torch.cat([part.soft_embedding for part in parts]),
        torch.cat(log_probs) if log_probs else None,
        TopTokens(torch.cat([one.ids for one in tops]), torch.cat([one.log_probs for one in tops])) if tops else None,
    )
