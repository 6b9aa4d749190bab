"""The flat batch: tokens of any number of sequences and of both passes in one array.

N tokens in all. Everything token-wise works on [N, ...] and does not know where a sequence ends; only attention
reads the segments.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.linear.low_rank import AdapterMatrices

ROW_MULTIPLE = 8
"""The number whose multiple the rows of products are padded to.

A product's kernel is chosen by its number of rows, and with few of them sums in another order; the vectorised part of
a function ends where a multiple of the vector's width does, and what is left is computed in another way. From 8 rows
on, and in multiples of 8, a row's result does not depend on how many others there are (measured in float32 and
bfloat16 with one and two threads; docs/architecture.md, decision 5).
"""


def pad_rows(rows: Tensor, block: int = ROW_MULTIPLE) -> Tensor:
    """Appends zeros to rows [N, ...], up to a multiple of `block`."""
    missing = -rows.shape[0] % block
    return F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) if missing else rows


class Pass(enum.Enum):
    """The two ways of reading the one stack of weights."""

    ENCODER = "encoder"
    DENOISER = "denoiser"


@dataclass(frozen=True)
class SegmentInput:
    """What a segment reads: token_ids int64 [n] of a sequence from `position` on, in one pass.

    `soft_embedding` [n, D] is a denoiser segment's self-conditioning signal (None: no signal); `slot` names the
    sequence's cache; `adapter` is one that the model holds (`AdapterBank`), None for the base alone.
    """

    token_ids: Tensor
    position: int
    kind: Pass
    soft_embedding: Tensor | None = None
    slot: int = 0
    adapter: AdapterMatrices | None = None


@dataclass(frozen=True)
class Segment:
    """A run of tokens of one sequence: rows [start, start + length) of the flat batch.

    `slot` is the place of the sequence's cache among those of the forward; `position` is that of the first token;
    `adapter` is one that the model holds, None for the base alone.
    """

    slot: int
    start: int
    length: int
    position: int
    kind: Pass
    adapter: AdapterMatrices | None = None

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.length)


@dataclass(frozen=True)
class FlatBatch:
    """What one forward reads.

    token_ids int64 [N]; positions int64 [N]; segments cover the rows in order, and what lies behind the last one is
    padding: nothing attends to it, and the model does not return it. `soft_embedding` [N, D] is the
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
        """The number of rows that belong to a segment; those behind them are padding."""
        return self.segments[-1].start + self.segments[-1].length

    def padded(self) -> "FlatBatch":
        """Returns the same batch, padded to a multiple of ROW_MULTIPLE rows."""
        rows = (self.token_ids, self.positions, self.soft_embedding, self.embeddings, self.embedded)
        token_ids, positions, *others = (None if each is None else pad_rows(each) for each in rows)
        assert token_ids is not None and positions is not None
        return FlatBatch(token_ids, positions, self.segments, *others)

    @classmethod
    def of(cls, parts: Sequence[SegmentInput]) -> "FlatBatch":
        """Puts the segments of a forward behind each other, on the device of their tokens."""
        segments: list[Segment] = []
        start = 0
        for part in parts:
            length = part.token_ids.shape[0]
            segments.append(Segment(part.slot, start, length, part.position, part.kind, part.adapter))
            start += length
        device = parts[0].token_ids.device
        positions = torch.cat([torch.arange(s.position, s.position + s.length, device=device) for s in segments])
        signals = [part.soft_embedding for part in parts]
        soft_embedding = next((signal for signal in signals if signal is not None), None)
        if soft_embedding is not None and len(parts) > 1:
            size = soft_embedding.shape[1]
            soft_embedding = torch.cat(
                [
                    soft_embedding.new_zeros(segment.length, size) if signal is None else signal
                    for segment, signal in zip(segments, signals, strict=True)
                ]
            )
        token_ids = torch.cat([part.token_ids for part in parts])
        return cls(token_ids, positions, tuple(segments), soft_embedding)

    @classmethod
    def single(
        cls,
        token_ids: Tensor,
        position: int,
        kind: Pass,
        *,
        soft_embedding: Tensor | None = None,
        adapter: AdapterMatrices | None = None,
    ) -> "FlatBatch":
        """Makes a batch of one segment: token_ids int64 [N] of one sequence from `position` on."""
        return cls.of([SegmentInput(token_ids, position, kind, soft_embedding, adapter=adapter)])

    def pass_of_all(self) -> Pass | None:
        """Returns the pass that every row belongs to, or None where the batch mixes them."""
        kinds = {segment.kind for segment in self.segments}
        return kinds.pop() if len(kinds) == 1 else None

    def denoiser_rows(self) -> Tensor:
        """Returns bool [N], true where the row belongs to a denoiser pass."""
        mask = torch.zeros(self.token_ids.shape[0], dtype=torch.bool, device=self.token_ids.device)
        for segment in self.segments:
            if segment.kind is Pass.DENOISER:
                mask[segment.rows] = True
        return mask
