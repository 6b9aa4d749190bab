"""The flat batch: tokens of any number of requests and of both passes in one array.

N tokens in all. Everything token-wise works on [N, ...] and does not know where a request ends; only attention reads
the segments.
"""

import enum
from dataclasses import dataclass

import torch
from torch import Tensor


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

    token_ids int64 [N]; positions int64 [N]; segments cover the N rows in order. `soft_embedding` [N, D] is the
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
        assert rows == self.token_ids.shape[0] == self.positions.shape[0]

    @classmethod
    def single(
        cls, token_ids: Tensor, position: int, kind: Pass, *, soft_embedding: Tensor | None = None, slot: int = 0
    ) -> "FlatBatch":
        """One segment: the tokens [N] of one request from `position` on."""
        n = token_ids.shape[0]
        positions = torch.arange(position, position + n, device=token_ids.device)
        return cls(token_ids, positions, (Segment(slot, 0, n, position, kind),), soft_embedding)

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
