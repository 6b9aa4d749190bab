"""Attention over segments and the caches of their sequences.

N tokens, H query heads, G key-value heads, d head size, T keys, W sliding window.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.model.batch import Pass, Segment
from redraft.model.cache import KVCache
from redraft.model.config import ModelConfig
from redraft.model.native.kernels import AttentionSpan, Kernels

QUERY_BLOCK = 64
"""Causal queries attended at a time, those of positions [i · QUERY_BLOCK, (i + 1) · QUERY_BLOCK).

Bounds the score matrix to [H, QUERY_BLOCK, T] however long the prompt is. And since a block's products have a shape
that follows from its position alone, a token's result does not depend on how its prompt was cut into chunks.
"""

UNLIMITED = 2**62
"""More tokens than any context has."""

KEY_BLOCK = 64
"""Keys of a canvas are filled up, unseen, to a multiple of so many: canvases of as many blocks share their products."""

MAX_SCORES = 2**25
"""Scores of canvases computed at a time, unless one canvas has more."""


Canvas = tuple[slice, Tensor | None, Tensor | None]
"""Rows of a denoiser segment, and the cached keys and values that it reads."""


class AttentionContext(Protocol):
    """What a layer needs to know of requests: hand it queries, keys and values, get what they attended to."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [N, H, d], k and v [N, G, d], all normalised and rotated → [N, H, d]. Scores are not scaled."""


class SegmentedAttention:
    """The attention of all segments of a batch, each with the cache of its sequence (`caches[segment.slot]`).

    Encoder segments attend causally, one after the other, to their cache and themselves, and extend a fork of it;
    denoiser segments only read it, and those of one length with as many blocks of keys do so together. Of two segments
    of one sequence in a batch the later sees what the earlier committed. The caches that it is given stay as they are.
    """

    def __init__(
        self,
        config: ModelConfig,
        segments: Sequence[Segment],
        caches: Sequence[KVCache],
        kernels: Kernels | None = None,
    ) -> None:
        self.config, self.segments, self.kernels = config, segments, kernels
        extended = {segment.slot for segment in segments if segment.kind is Pass.ENCODER}
        self.caches = tuple(cache.fork() if slot in extended else cache for slot, cache in enumerate(caches))

    def extended_caches(self) -> tuple[KVCache, ...]:
        """Returns the caches with what the segments committed, once every layer has attended.

        That of a slot without encoder segments is the object that was given.
        """
        for segment in self.segments:
            if segment.kind is Pass.ENCODER:
                self.caches[segment.slot].advance(segment.length)
        return self.caches

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Returns what `AttentionContext.attend` does; each layer once, since it extends the caches."""
        if self.kernels is not None and self.kernels.has_attend(q.dtype):
            return self._attend_by_kernels(self.kernels, layer, q, k, v)
        out = torch.zeros_like(q)
        canvases: dict[tuple[int, int], list[Canvas]] = defaultdict(list)
        for segment in self.segments:
            rows, cache = segment.rows, self.caches[segment.slot]
            if segment.kind is Pass.ENCODER:
                keys, values = cache.append(layer, k[rows], v[rows])
                out[rows] = _attend_causal(q[rows], keys, values, segment.position, self.config.visible_past(layer))
            else:
                blocks = -(-(cache.stored(layer) + segment.length) // KEY_BLOCK)
                canvases[segment.length, blocks].append((rows, *cache.content(layer)))
        for (length, blocks), group in canvases.items():
            room = blocks * KEY_BLOCK
            most = max(1, MAX_SCORES // (q.shape[1] * length * room))
            for start in range(0, len(group), most):
                _attend_canvases(q, k, v, out, group[start : start + most], room)
        return out

    def _attend_by_kernels(self, kernels: Kernels, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        spans, held = [], []
        for segment in self.segments:
            cache, causal = self.caches[segment.slot], segment.kind is Pass.ENCODER
            keys, values = cache.content(layer)
            # Until the kernel has read them: appending may let go of them.
            held.append((keys, values))
            visible = self.config.visible_past(layer)
            spans.append(
                AttentionSpan(
                    start=segment.start, length=segment.length, position=segment.position,
                    cached=cache.stored(layer),
                    visible=-1 if not causal else UNLIMITED if visible is None else visible,
                    keys=None if keys is None else keys.data_ptr(),
                    values=None if values is None else values.data_ptr(),
                )
            )  # fmt: skip
            if causal:
                cache.append(layer, k[segment.rows], v[segment.rows])
        return kernels.attend(q, k, v, spans)


def _attend_canvases(q: Tensor, k: Tensor, v: Tensor, out: Tensor, group: Sequence[Canvas], room: int) -> None:
    """Writes into `out` what canvases of one length, each with at most `room` keys, attend to.

    A cache holds just what its canvas may see, the same from each of the canvas's positions.
    """
    heads, d = q.shape[1:]
    groups, n = k.shape[1], group[0][0].stop - group[0][0].start
    queries = q.new_empty(len(group), groups, heads // groups, n, d)
    keys, values = (x.new_empty(len(group), groups, room, d) for x in (k, v))
    counts = []
    for i, (rows, *content) in enumerate(group):
        queries[i] = q[rows].view(n, groups, heads // groups, d).permute(1, 2, 0, 3)
        for new, cached, place in zip((k, v), content, (keys, values), strict=True):
            before = 0 if cached is None else cached.shape[0]
            if cached is not None:
                place[i, :, :before] = cached.transpose(0, 1)
            place[i, :, before : before + n] = new[rows].transpose(0, 1)
            # Whatever was there, zero times it has to be zero.
            place[i, :, before + n :] = 0
        counts.append(before + n)
    # Query heads that share a key-value head become rows of one product.
    scores = queries.flatten(2, 3).flatten(0, 1) @ keys.flatten(0, 1).transpose(1, 2)
    for i, count in enumerate(counts):
        if count < room:
            scores.view(len(group), groups, -1, room)[i, ..., count:] = -torch.inf
    mixed = (scores.softmax(dim=-1) @ values.flatten(0, 1)).view_as(queries)
    for i, (rows, *_) in enumerate(group):
        out[rows] = mixed[i].permute(2, 0, 1, 3).reshape(n, heads, d)


def _attend_causal(q: Tensor, keys: Tensor, values: Tensor, position: int, visible: int | None) -> Tensor:
    """q [n, H, d] are the last n of the T keys, the first at `position`; each sees itself and `visible` before it."""
    n, total = q.shape[0], keys.shape[0]
    end = position + n
    out = torch.empty_like(q)
    for base in range(position // QUERY_BLOCK * QUERY_BLOCK, end, QUERY_BLOCK):
        stop = base + QUERY_BLOCK
        low = 0 if visible is None else max(0, base - visible)
        at = torch.arange(base, stop, device=q.device)[:, None]
        key_at = torch.arange(low, stop, device=q.device)[None, :]
        hidden = key_at > at
        if visible is not None:
            hidden |= key_at < at - visible
        block = _attend(
            _between(q, position, base, stop),
            _between(keys, end - total, low, stop),
            _between(values, end - total, low, stop),
            hidden,
        )
        first, last = max(base, position), min(stop, end)
        out[first - position : last - position] = block[first - base : last - base]
    return out


def _between(x: Tensor, position: int, start: int, stop: int) -> Tensor:
    """Positions [start, stop) of x [n, ...], whose first row is at `position`; zeros where x has none."""
    first, last = max(start, position), min(stop, position + x.shape[0])
    part = x[first - position : last - position]
    if first == start and last == stop:
        return part
    return F.pad(part, (0, 0, 0, 0, first - start, stop - last))


def _attend(q: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None) -> Tensor:
    """q [n, H, d], keys and values [T, G, d], hidden bool [n, T] → [n, H, d]."""
    n, heads, d = q.shape
    groups = keys.shape[1]
    # Query heads that share a key-value head become rows of one product: [G, H/G * n, d] x [G, d, T].
    rows = q.reshape(n, groups, heads // groups, d).permute(1, 2, 0, 3).reshape(groups, -1, d)
    scores = rows @ keys.permute(1, 2, 0)
    if hidden is not None:
        scores = scores.view(groups, -1, n, keys.shape[0]).masked_fill(hidden, float("-inf")).view_as(scores)
    mixed = scores.softmax(dim=-1) @ values.permute(1, 0, 2)
    return mixed.view(groups, heads // groups, n, d).permute(2, 0, 1, 3).reshape(n, heads, d)
