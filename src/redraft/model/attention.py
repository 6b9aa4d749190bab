"""Attention over segments and the caches of their sequences.

N tokens, H query heads, G key-value heads, d head size, T keys, W sliding window.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from redraft.model.batch import ROW_MULTIPLE, Pass, Segment
from redraft.model.cache import KVCache
from redraft.model.config import ModelConfig
from redraft.model.native.kernels import AttentionSpan, Kernels

QUERY_BLOCK = 64
"""Causal queries attended at a time, those of positions [i · QUERY_BLOCK, (i + 1) · QUERY_BLOCK), with room for the
keys up to the last of them.

Bounds the score matrix to [H, QUERY_BLOCK, T] however long the prompt is. And since the shape of the keys follows from
a block's position alone, a token's result does not depend on how its prompt was cut into chunks. In float32 only the
rows that are needed are computed, from a multiple of ROW_MULTIPLE to one: there their number does not matter.
"""

UNLIMITED = 2**62
"""More tokens than any context has."""

KEY_BLOCK = 64
"""Keys of a canvas are filled up, unseen, to a multiple of so many: canvases of as many blocks share their products."""

MAX_ELEMENTS = 2**25
"""Scores computed at a time, or keys and values laid out for them, unless one block of queries has more."""


@dataclass(frozen=True)
class QueryBlock:
    """Queries [n, H, d] attended together, rows [offset, offset + n) of a product of `height` rows.

    keys, values: parts [T, G, d], one behind the other, which stand at [first, end) of `room`; the first `unseen` of
    the room are seen by no query. hidden, bool [height, room]: what else a query does not see.
    """

    queries: Tensor
    offset: int
    height: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    first: int
    end: int
    room: int
    unseen: int = 0
    hidden: Tensor | None = None


class AttentionContext(Protocol):
    """What a layer needs to know of requests: hand it queries, keys and values, get what they attended to."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [N, H, d], k and v [N, G, d], all normalised and rotated → [N, H, d]. Scores are not scaled."""


class SegmentedAttention:
    """The attention of all segments of a batch, each with the cache of its sequence (`caches[segment.slot]`).

    Encoder segments attend causally to their cache and themselves, and extend a fork of it; denoiser segments only
    read it. Blocks of as many queries, with room for as many keys, share their products. Of two segments of one
    sequence in a batch the later sees what the earlier committed. The caches that it is given stay as they are.
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
        if self.kernels is not None:
            return self._attend_by_kernels(self.kernels, layer, q, k, v)
        blocks: list[QueryBlock] = []
        lengths = [segment.length for segment in self.segments]
        parts = zip(self.segments, *(torch.split(x[: sum(lengths)], lengths) for x in (q, k, v)), strict=True)
        for segment, queries, new_keys, new_values in parts:
            cache = self.caches[segment.slot]
            if segment.kind is Pass.ENCODER:
                keys, values = cache.append(layer, new_keys, new_values)
                visible = self.config.visible_past(layer)
                blocks += _causal_blocks(queries, segment.position, keys, values, visible)
            else:
                blocks.append(_canvas_block(queries, cache.content(layer), new_keys, new_values))
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, block in enumerate(blocks):
            groups[block.height, block.room].append(i)
        attended: dict[int, Tensor] = {}
        for (height, room), members in groups.items():
            most = max(1, MAX_ELEMENTS // (room * max(q.shape[1] * height, k[0].numel() + v[0].numel())))
            for start in range(0, len(members), most):
                some = members[start : start + most]
                attended |= zip(some, _attend_blocks([blocks[i] for i in some]), strict=True)
        padding = q.new_zeros(q.shape[0] - sum(lengths), *q.shape[1:])
        return torch.cat([*(attended[i] for i in range(len(blocks))), padding])

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


def _canvas_block(
    queries: Tensor, cached: tuple[Tensor | None, Tensor | None], new_keys: Tensor, new_values: Tensor
) -> QueryBlock:
    """A cache holds just what its canvas may see, the same from each of the canvas's positions."""
    keys, values = (
        (new,) if held is None else (held, new) for held, new in zip(cached, (new_keys, new_values), strict=True)
    )
    end = sum(part.shape[0] for part in keys)
    room = -(-end // KEY_BLOCK) * KEY_BLOCK
    return QueryBlock(queries, 0, queries.shape[0], keys, values, 0, end, room)


def _causal_blocks(
    queries: Tensor, position: int, keys: Tensor, values: Tensor, visible: int | None
) -> Iterator[QueryBlock]:
    """The queries, from `position` on, are the last of the T keys; each sees itself and `visible` before it."""
    stop = position + queries.shape[0]
    held = stop - keys.shape[0]
    step = ROW_MULTIPLE if queries.dtype == torch.float32 else QUERY_BLOCK
    for base in range(position // QUERY_BLOCK * QUERY_BLOCK, stop, QUERY_BLOCK):
        first, last = max(base, position), min(base + QUERY_BLOCK, stop)
        top = first // step * step
        height = -(-last // step) * step - top
        low = 0 if visible is None else max(0, base - visible)
        start = max(low, held)
        room, unseen, hidden = base + QUERY_BLOCK - low, start - low, None
        if last - first > 1:
            at = torch.arange(top, top + height, device=keys.device)[:, None]
            key_at = torch.arange(low, low + room, device=keys.device)[None, :]
            hidden = key_at > at
            if visible is not None:
                hidden |= key_at < at - visible
        elif visible is not None:
            unseen = max(unseen, first - visible - low)
        seen = slice(start - held, last - held)
        yield QueryBlock(
            queries[first - position : last - position], first - top, height,
            (keys[seen],), (values[seen],), start - low, last - low, room, unseen, hidden,
        )  # fmt: skip


def _attend_blocks(group: Sequence[QueryBlock]) -> list[Tensor]:
    """Returns what blocks of one height, with one room for keys, attend to, [n, H, d] of each."""
    count, height, room = len(group), group[0].height, group[0].room
    heads, d = group[0].queries.shape[1:]
    groups = group[0].keys[0].shape[1]
    queries = _lay_out([(block.offset, (block.queries,)) for block in group], height)
    keys = _lay_out([(block.first, block.keys) for block in group], room)
    values = _lay_out([(block.first, block.values) for block in group], room)
    # Query heads that share a key-value head become rows of one product.
    rows = queries.view(count, height, groups, -1, d).permute(0, 2, 3, 1, 4).reshape(count * groups, -1, d)
    keys, values = (x.view(count, room, groups, d).transpose(1, 2).reshape(-1, room, d) for x in (keys, values))
    scores = rows @ keys.transpose(1, 2)
    # Not minus infinity: a row that fills a block up may see nothing, and some CPUs' products in bfloat16 read beyond a
    # row's end, where zero times its NaN would be NaN for its neighbour.
    nothing = torch.finfo(scores.dtype).min
    for seen, block in zip(scores.view(count, groups, -1, height, room), group, strict=True):
        if block.hidden is not None:
            seen.masked_fill_(block.hidden, nothing)
        if block.unseen:
            seen[..., : block.unseen] = nothing
        if block.end < room:
            seen[..., block.end :] = nothing
    mixed = (scores.softmax(dim=-1) @ values).view(count, groups, -1, height, d)
    mixed = mixed.permute(0, 3, 1, 2, 4).reshape(count, height, heads, d)
    return [
        found[block.offset : block.offset + block.queries.shape[0]] for found, block in zip(mixed, group, strict=True)
    ]


def _lay_out(blocks: Sequence[tuple[int, Sequence[Tensor]]], room: int) -> Tensor:
    """Puts the parts [n, ...] of each block behind so many zero rows, fills each up to `room`: [blocks · room, ...]."""
    like = blocks[0][1][0]
    # Zero times whatever stands in a row that no query sees has to be zero.
    zeros = like.new_zeros(1, 1, 1).expand(room, *like.shape[1:])
    rows: list[Tensor] = []
    for first, parts in blocks:
        if first:
            rows.append(zeros[:first])
        rows += parts
        if (missing := room - first - sum(part.shape[0] for part in parts)) > 0:
            rows.append(zeros[:missing])
    return torch.cat(rows)
