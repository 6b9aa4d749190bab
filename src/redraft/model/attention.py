"""Attention over segments, and the KV cache it reads and writes.

N tokens, H query heads, G key-value heads, d head size, T keys, W sliding window.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from redraft.model.batch import Pass, Segment
from redraft.model.config import ModelConfig

QUERY_BLOCK = 256
"""Queries attended at a time: bounds the score matrix to [H, QUERY_BLOCK, T] however long the prompt is."""


class AttentionContext(Protocol):
    """What a layer needs to know of requests: hand it queries, keys and values, get what they attended to."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [N, H, d], k and v [N, G, d], all normalised and rotated → [N, H, d]. Scores are not scaled."""
        ...


class KVCache:
    """Keys and values of one request's committed tokens, per layer [T, G, d].

    Sliding layers keep only what a later token can still see, the last W - 1 tokens.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._keys: list[Tensor | None] = [None] * config.num_layers
        self._values: list[Tensor | None] = [None] * config.num_layers
        self.length = 0
        """Committed tokens; advanced by whoever runs the forward, after all layers have appended."""

    def extended(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The cached keys and values with k and v [n, G, d] after them; the cache itself stays as it was."""
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            return k, v
        return torch.cat((keys, k)), torch.cat((values, v))

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Takes what `extended` returned as the layer's new content, less what nobody can see any more."""
        visible = self._config.visible_past(layer)
        if visible is not None and keys.shape[0] > visible:
            # A copy, so that the evicted part is really freed.
            keys, values = keys[keys.shape[0] - visible :].clone(), values[values.shape[0] - visible :].clone()
        self._keys[layer], self._values[layer] = keys, values

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values) if t is not None)


@dataclass(frozen=True)
class SegmentedAttention:
    """The plain attention: one segment after the other, each with its request's cache (`caches[segment.slot]`).

    Encoder segments append to the cache and attend causally; denoiser segments only read it. Of two segments of one
    request in a batch the later sees what the earlier committed.
    """

    config: ModelConfig
    segments: tuple[Segment, ...]
    caches: tuple[KVCache, ...]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        for segment in self.segments:
            rows, cache = segment.rows, self.caches[segment.slot]
            keys, values = cache.extended(layer, k[rows], v[rows])
            if segment.kind is Pass.ENCODER:
                out[rows] = _attend_causal(q[rows], keys, values, self.config.visible_past(layer))
                cache.store(layer, keys, values)
            else:
                # The cache holds just what a canvas may see, the same from each of its positions.
                out[rows] = _attend(q[rows], keys, values, None)
        return out

    def advance(self) -> None:
        """Moves each cache's length past what the forward appended to it."""
        for segment in self.segments:
            if segment.kind is Pass.ENCODER:
                self.caches[segment.slot].length += segment.length


def _attend_causal(q: Tensor, keys: Tensor, values: Tensor, visible: int | None) -> Tensor:
    """q [n, H, d] are the last n of the T keys; each sees itself and `visible` tokens before it (None: all)."""
    n, total = q.shape[0], keys.shape[0]
    blocks = []
    for start in range(0, n, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, n)
        # Absolute index of the block's first and last query among the keys.
        first, last = total - n + start, total - n + stop - 1
        low = 0 if visible is None else max(0, first - visible)
        at = torch.arange(first, last + 1, device=q.device)[:, None]
        key_at = torch.arange(low, last + 1, device=q.device)[None, :]
        hidden = key_at > at
        if visible is not None:
            hidden |= key_at < at - visible
        blocks.append(_attend(q[start:stop], keys[low : last + 1], values[low : last + 1], hidden))
    return torch.cat(blocks)


def _attend(q: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> Tensor:
    """q [n, H, d], keys and values [T, G, d], hidden bool [n, T] → [n, H, d]; softmax in float32."""
    n, heads, d = q.shape
    groups = keys.shape[1]
    # Query heads that share a key-value head become rows of one product: [G, H/G * n, d] x [G, d, T].
    rows = q.view(n, groups, heads // groups, d).permute(1, 2, 0, 3).reshape(groups, -1, d)
    scores = (rows @ keys.permute(1, 2, 0)).float()
    if hidden is not None:
        scores = scores.view(groups, -1, n, keys.shape[0]).masked_fill(hidden, float("-inf")).view_as(scores)
    mixed = scores.softmax(dim=-1).to(values.dtype) @ values.permute(1, 0, 2)
    return mixed.view(groups, heads // groups, n, d).permute(2, 0, 1, 3).reshape(n, heads, d)
