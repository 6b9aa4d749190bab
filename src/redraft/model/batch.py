"""The flat batch: tokens of any number of requests and of both passes in one array.

N tokens in all. Everything token-wise works on [N, ...] and does not know where a request ends; only attention reads
the segments.
"""

import enum
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ROW_BLOCK = 8
"""What the rows of products are filled up to a multiple of.

A product's kernel is chosen by its number of rows, and with few of them sums in another order; the vectorised part of
a function ends where a multiple of the vector's width does, and what is left is computed in another way. From 8 rows
on, and in multiples of 8, a row's result does not depend on how many others there are (measured in float32 and
bfloat16 with one and two threads; docs/architecture.md, decision 5).
"""


def filled(rows: Tensor, block: int = ROW_BLOCK) -> Tensor:
    """rows [N, ...] with zeros behind them, up to a multiple of `block`."""
    missing = -rows.shape[0] % block
    return F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) if missing else rows


class Pass(enum.Enum):
    """The two ways of reading the one stack of weights."""

    ENCODER = "encoder"
    DENOISER = "denoiser"


@dataclass(frozen=True)
class Segment:
    """A run of tokens of one request: rows [start, start + length) of the flat batch.

    `slot` names the request's KV cache in the attention context; `position` is the position of the first token.
    """

    slot: int
    start: int
    length: int
    position: int
    kind: Pass

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.length)


@dataclass(frozen=True)
class FlatBatch:
    """What one forward reads.

    token_ids int64 [N]; positions int64 [N]; segments cover the rows in order, and what lies behind the last one only
    fills up: nothing attends to it, and the model does not return it. `soft_embedding` [N, D] is the
    self-conditioning signal of denoiser rows (None: no row has one; rows of the encoder pass are ignored).
    `embeddings` [N, D] with `embedded` bool [N] takes the place of token embeddings × √D where `embedded` is true.
    """

    token_ids: Tensor
    positions: Tensor
    segments: tuple[Segment, ...]
    soft_embedding: Tensor | None = None
    embeddings: Tensor | None = None
    embedded: Tensor | None = None

    def __post_init__(self) -> None:
        rows = 0
        for segment in self.segments:
            assert segment.start == rows and segment.length > 0, "segments must cover the rows in order"
            rows += segment.length
        assert rows <= self.token_ids.shape[0] == self.positions.shape[0]

    @property
    def covered(self) -> int:
        """The rows that belong to a segment; those behind them fill up."""
        return self.segments[-1].start + self.segments[-1].length

    def filled(self) -> "FlatBatch":
        """The same, filled up to a multiple of ROW_BLOCK rows."""
        rows = (self.token_ids, self.positions, self.soft_embedding, self.embeddings, self.embedded)
        token_ids, positions, *others = (None if each is None else filled(each) for each in rows)
        assert token_ids is not None and positions is not None
        return FlatBatch(token_ids, positions, self.segments, *others)

    @classmethod
    def single(
        cls, token_ids: Tensor, position: int, kind: Pass, *, soft_embedding: Tensor | None = None, slot: int = 0
    ) -> "FlatBatch":
        """One segment: the tokens [N] of one request from `position` on."""
        n = token_ids.shape[0]
        positions = torch.arange(position, position + n, device=token_ids.device)
        return cls(token_ids, positions, (Segment(slot, 0, n, position, kind),), soft_embedding).filled()

    def pass_of_all(self) -> Pass | None:
        """The pass that every row belongs to, or None where the batch mixes them."""
        kinds = {segment.kind for segment in self.segments}
        return kinds.pop() if len(kinds) == 1 else None

    def denoiser_rows(self) -> Tensor:
        """bool [N]: true where the row belongs to a denoiser pass."""
        mask = torch.zeros(self.token_ids.shape[0], dtype=torch.bool, device=self.token_ids.device)
        for segment in self.segments:
            if segment.kind is Pass.DENOISER:
                mask[segment.rows] = True
        return mask
