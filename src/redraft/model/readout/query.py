"""What a readout is asked, and what it answers.

N rows, D hidden, V vocabulary, A tokens asked for of each row, K sets of allowed tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redraft.model.readout.classes import ClassReadout, RowClasses

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
    CDF; without them the argmax is the sample. allowed: what rows are limited to (None: to nothing). token_ids: int64
    [N, A] whose log-probabilities are wanted. top: how many of the likeliest tokens are wanted. soft_embedding: whether
    that is wanted. classes: rows that are read by classes of tokens too; they cannot be limited as well.
    """

    temperature: Tensor | float
    uniforms: Tensor | None
    allowed: AllowedTokens | None = None
    token_ids: Tensor | None = None
    top: int = 0
    soft_embedding: bool = True
    classes: tuple[RowClasses, ...] = ()


@dataclass(frozen=True)
class TopTokens:
    """The A likeliest tokens of each row, likeliest first: ids int64 [N, A], log_probs float32 [N, A].

    At temperature 1: what the model itself says, whatever the schedule does with it. Where a row is limited to fewer
    than A tokens, the rest are ids of 0 with a log-probability of −∞.
    """

    ids: Tensor
    log_probs: Tensor

    def __getitem__(self, at: Rows | tuple[Rows, Rows]) -> "TopTokens":
        """Returns those of some rows, or of some rows and ranks."""
        return TopTokens(self.ids[at], self.log_probs[at])

    def as_listed(self, ids: Tensor, log_probs: Tensor) -> Tensor:
        """Returns log_probs [N, 1] of the ids [N, 1], but those in this list as they stand there.

        The two are rounded differently, and whoever compares them asks whether a token is the likeliest.
        """
        matches = self.ids == ids
        listed = self.log_probs.gather(1, matches.long().argmax(dim=1, keepdim=True))
        return torch.where(matches.any(dim=1, keepdim=True), listed, log_probs)


@dataclass(frozen=True)
class Readout:
    """What is learned of each row, under its temperature and of its allowed tokens.

    sample, argmax int64 [N]; entropy float32 [N] in nats; soft_embedding float32 [N, D]; log_probs float32 [N, A] of
    the token ids that were asked for, −∞ for one that is not allowed. None for what was not asked. classes: those of
    each `RowClasses` that was asked for; a selection of rows is without them.
    """

    sample: Tensor
    argmax: Tensor
    entropy: Tensor
    soft_embedding: Tensor | None = None
    log_probs: Tensor | None = None
    top: TopTokens | None = None
    classes: tuple[ClassReadout, ...] = ()

    def select(self, rows: Rows) -> "Readout":
        """Returns that of some rows."""
        chosen: dict[str, Any] = {name: None if one is None else one[rows] for name, one in _by_row(self).items()}
        return Readout(**chosen)


def concatenate(parts: Sequence[Readout]) -> Readout:
    """Returns the readout of the rows of all parts, which answer the same query."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {name: _joined([getattr(part, name) for part in parts]) for name in _by_row(parts[0])}
    return Readout(**joined)


def _by_row(readout: Readout) -> dict[str, Any]:
    return {name: value for name, value in vars(readout).items() if name != "classes"}


def _joined(values: list[Any]) -> Any:
    if isinstance(values[0], TopTokens):
        return TopTokens(torch.cat([top.ids for top in values]), torch.cat([top.log_probs for top in values]))
    return None if values[0] is None else torch.cat(values)
