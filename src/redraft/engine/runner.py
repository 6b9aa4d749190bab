"""One forward for many requests: their tokens in one flat batch, then readout and sampler for all canvases at once.

N rows, C canvas length, D hidden size, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.diffusion import Counter, EntropyBound, Purpose, initial_canvas, uniforms_of_many
from redraft.engine.scheduler import Piece
from redraft.engine.sequence import Progress
from redraft.generation import DenoisingStep
from redraft.generation.loop import not_finite
from redraft.model import FlatBatch, Pass, ReadoutQuery, Segment, TopTokens, Transformer
from redraft.model.readout.streamed import streamed_readout


@dataclass(frozen=True)
class Denoised:
    """What a forward made of a canvas: a denoising step and the soft embedding [C, D] it leaves, or an error."""

    progress: Progress
    step: DenoisingStep | None = None
    soft_embedding: Tensor | None = None
    error: Exception | None = None


@torch.inference_mode()
def run_forward(model: Transformer, parts: Sequence[tuple[Progress, Piece]]) -> list[Denoised]:
    """Runs the model once over the pieces of distinct requests; returns what became of each canvas among them.

    The requests' caches are replaced by longer ones after the whole forward has succeeded: one that raises has changed
    nothing.
    """
    canvases = [_canvas(progress) if piece.denoises else None for progress, piece in parts]
    batch = _flat_batch(model, parts, canvases)
    forward = model.run(batch, [progress.cache for progress, _ in parts])
    hidden = forward.hidden
    outcomes: list[Denoised] = []
    canvas_rows = [segment.rows for segment in batch.segments if segment.kind is Pass.DENOISER]
    if canvas_rows:
        hidden = torch.cat([hidden[rows] for rows in canvas_rows])
        outcomes = _sample(model, [progress for progress, piece in parts if piece.denoises], hidden)
    for (progress, _), cache in zip(parts, forward.caches, strict=True):
        progress.cache = cache
    return outcomes


def _canvas(progress: Progress) -> Tensor:
    """int64 [C]: what the next denoising step reads."""
    if progress.canvas is not None:
        return progress.canvas
    at = progress.counter
    # The noise that a canvas begins as belongs to no step.
    return initial_canvas(
        Counter(at.seed, at.choice, at.canvas), progress.task.canvas_length, progress.config.vocab_size
    )


def _flat_batch(
    model: Transformer, parts: Sequence[tuple[Progress, Piece]], canvases: Sequence[Tensor | None]
) -> FlatBatch:
    """Each request's unread tokens, then its canvas; positions go on from its cache."""
    device = model.embed_tokens.weight.device
    segments: list[Segment] = []
    tokens: list[Tensor] = []
    signals: list[tuple[Segment, Tensor]] = []

    def add(slot: int, rows: Tensor, position: int, kind: Pass) -> Segment:
        start = segments[-1].rows.stop if segments else 0
        segments.append(Segment(slot, start, rows.shape[0], position, kind))
        tokens.append(rows.to(device))
        return segments[-1]

    for slot, ((progress, piece), canvas) in enumerate(zip(parts, canvases, strict=True)):
        position = progress.cache.length
        if piece.encoded:
            add(slot, torch.tensor(progress.unread[: piece.encoded]), position, Pass.ENCODER)
        if canvas is not None:
            segment = add(slot, canvas, position + piece.encoded, Pass.DENOISER)
            if progress.soft_embedding is not None:
                signals.append((segment, progress.soft_embedding))
    positions = torch.cat([torch.arange(s.position, s.position + s.length, device=device) for s in segments])
    soft_embedding = None
    if signals:
        soft_embedding = torch.zeros(len(positions), model.config.hidden_size, device=device)
        for segment, signal in signals:
            soft_embedding[segment.rows] = signal
    return FlatBatch(torch.cat(tokens), positions, tuple(segments), soft_embedding)


def _sample(model: Transformer, progresses: Sequence[Progress], hidden: Tensor) -> list[Denoised]:
    """Readout of hidden [N, D], the rows of all canvases, and what the sampler makes of it."""
    device = hidden.device
    counters = [progress.counter for progress in progresses]
    lengths = [progress.task.canvas_length for progress in progresses]
    sizes = torch.tensor(lengths, device=device)

    def by_row(values: Sequence[float] | Sequence[bool], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, device=device, dtype=dtype).repeat_interleave(sizes)

    temperatures = [progress.temperature for progress in progresses]
    uniform = uniforms_of_many(counters, lengths, Purpose.SAMPLE, device)
    count = max(progress.request.top for progress in progresses)
    read = streamed_readout(model.head, hidden, ReadoutQuery(by_row(temperatures, torch.float64), uniform, top=count))
    sample = torch.where(
        by_row([progress.settings.temperature == 0 for progress in progresses], torch.bool), read.argmax, read.sample
    )
    noise = (uniforms_of_many(counters, lengths, Purpose.RENOISE, device) * model.config.vocab_size).long()
    entropies = torch.split(read.entropy, lengths)
    accepted = _accepted(progresses, entropies)
    renoised = torch.split(torch.where(torch.cat(accepted), sample, noise), lengths)
    # One question for all: on the whole nothing is wrong.
    sound = bool(read.entropy.isfinite().all())
    outcomes = []
    for i, (progress, draft, signal) in enumerate(
        zip(progresses, torch.split(read.argmax, lengths), torch.split(read.soft_embedding, lengths), strict=True)
    ):
        at, entropy = counters[i], entropies[i]
        if not sound and not entropy.isfinite().all():
            outcomes.append(Denoised(progress, error=not_finite(at.canvas, at.step)))
            continue
        finished = progress.stops(entropy, draft)
        top = None
        if (count := progress.request.top) and (finished or progress.request.drafts):
            assert read.top is not None
            rows = slice(sum(lengths[:i]), sum(lengths[: i + 1]))
            top = TopTokens(read.top.ids[rows, :count], read.top.log_probs[rows, :count])
        step = DenoisingStep(
            at.canvas, at.step, temperatures[i], draft, renoised[i], accepted[i], entropy, finished, top
        )
        # A copy, or one request would hold the signals of all that were in this forward.
        outcomes.append(Denoised(progress, step, signal.clone()))
    return outcomes


def _accepted(progresses: Sequence[Progress], entropies: Sequence[Tensor]) -> list[Tensor]:
    """bool [C] of each canvas; canvases of one length under one entropy bound are decided together."""
    accepted: dict[int, Tensor] = {}
    together: dict[tuple[EntropyBound, int], list[int]] = defaultdict(list)
    for i, (progress, entropy) in enumerate(zip(progresses, entropies, strict=True)):
        rule = progress.settings.acceptance_rule
        if isinstance(rule, EntropyBound):
            together[rule, entropy.shape[0]].append(i)
        else:
            accepted[i] = rule.accept(entropy, progress.step, progress.settings.steps)
    for (bound, _), group in together.items():
        rows = bound.accept(torch.stack([entropies[i] for i in group]), 0, 0)
        accepted |= dict(zip(group, rows, strict=True))
    return [accepted[i] for i in range(len(progresses))]
