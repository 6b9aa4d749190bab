"""One forward for many sequences: their tokens in one flat batch, then a readout of the rows that each mode wants."""

from collections import defaultdict
from dataclasses import dataclass

import torch

from redraft.engine.sequence import Chunk, DecodingMode, DecodingOutcome, WorkItem
from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.cache import KVCache
from redraft.model.transformer import Transformer


@dataclass(frozen=True)
class ChunkResult:
    """What a forward made of a chunk: its sequence's cache after it, and the outcome where rows were read out."""

    chunk: Chunk
    cache: KVCache
    outcome: DecodingOutcome | None


@torch.inference_mode()
def run_forward(model: Transformer, chunks: list[Chunk]) -> list[ChunkResult]:
    """Runs the model once over the chunks of distinct sequences, of which it changes none."""
    items = [chunk.sequence.mode.work(chunk) for chunk in chunks]
    parts, rows = _segments(items, model.embed_tokens.weight.device)
    caches = [item.sequence.cache.revocable() if item.is_revocable else item.sequence.cache for item in items]
    result = model.run(FlatBatch.of(parts), caches)
    groups: dict[DecodingMode, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        if rows[i].start < rows[i].stop:
            groups[item.sequence.mode].append(i)
    outcomes: dict[int, DecodingOutcome] = {}
    for mode, members in groups.items():
        hidden = torch.cat([result.hidden[rows[i]] for i in members])
        outcomes |= zip(members, mode.read([items[i] for i in members], model.head, hidden), strict=True)
    after = zip(chunks, result.caches, strict=True)
    return [ChunkResult(chunk, cache, outcomes.get(i)) for i, (chunk, cache) in enumerate(after)]


def _segments(items: list[WorkItem], device: torch.device) -> tuple[list[SegmentInput], list[slice]]:
    """Lays out each sequence's pending tokens, then its canvas; the slices are the rows of each that are read out."""
    parts: list[SegmentInput] = []
    rows: list[slice] = []
    end = 0
    for slot, item in enumerate(items):
        position, count, adapter = item.sequence.cache.length, len(item.encode), item.sequence.adapter
        if count:
            tokens = torch.tensor(item.encode, device=device)
            parts.append(SegmentInput(tokens, position, Pass.ENCODER, slot=slot, adapter=adapter))
            end += count
        read = item.read_last
        if (canvas := item.canvas) is not None:
            signal = None if canvas.soft_embedding is None else canvas.soft_embedding[0]
            parts.append(SegmentInput(canvas.tokens[0], position + count, Pass.DENOISER, signal, slot, adapter))
            end, read = end + canvas.length, read + canvas.length
        rows.append(slice(end - read, end))
    return parts, rows
