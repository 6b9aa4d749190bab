"""One forward for many requests: their tokens in one flat batch, then readout and sampler for all canvases at once.

N rows, C canvas length, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.engine.scheduler import Piece
from redraft.engine.sequence import Progress
from redraft.generation import DenoisingStep
from redraft.generation.result import not_finite
from redraft.model import FlatBatch, Pass, Segment, Transformer, top_tokens
from redraft.model.readout.streamed import streamed_readout


@dataclass(frozen=True)
class Denoised:
    """What a forward made of a canvas: a denoising step and the state it leaves, or an error."""

    progress: Progress
    step: DenoisingStep | None = None
    state: CanvasState | None = None
    error: Exception | None = None


@torch.inference_mode()
def run_forward(model: Transformer, parts: Sequence[tuple[Progress, Piece]]) -> list[Denoised]:
    """Runs the model once over the pieces of distinct requests; returns what became of each canvas among them.

    The requests' caches are replaced by longer ones after the whole forward has succeeded: one that raises has changed
    nothing.
    """
    caches = tuple(progress.cache.copy() for progress, _ in parts)
    canvases = [_canvas(progress) if piece.denoises else None for progress, piece in parts]
    batch = _flat_batch(model, parts, canvases)
    context = model.attention(batch.segments, caches)
    hidden = model(batch, context)
    context.advance()
    outcomes: list[Denoised] = []
    canvas_rows = [segment.rows for segment in batch.segments if segment.kind is Pass.DENOISER]
    if canvas_rows:
        hidden = torch.cat([hidden[rows] for rows in canvas_rows])
        chosen = [progress for progress, piece in parts if piece.denoises]
        outcomes = _sample(model, chosen, [canvas for canvas in canvases if canvas is not None], hidden)
    for (progress, _), cache in zip(parts, caches, strict=True):
        progress.cache = cache
    return outcomes


def _canvas(progress: Progress) -> CanvasState:
    """What the next denoising step starts from."""
    if progress.canvas is not None:
        return progress.canvas
    sampler = Sampler(progress.config.vocab_size)
    return sampler.init([progress.settings], [progress.counter], progress.task.canvas_length)


def _flat_batch(
    model: Transformer, parts: Sequence[tuple[Progress, Piece]], canvases: Sequence[CanvasState | None]
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
            segment = add(slot, canvas.tokens[0], position + piece.encoded, Pass.DENOISER)
            if canvas.soft_embedding is not None:
                signals.append((segment, canvas.soft_embedding[0]))
    positions = torch.cat([torch.arange(s.position, s.position + s.length, device=device) for s in segments])
    soft_embedding = None
    if signals:
        soft_embedding = torch.zeros(len(positions), model.config.hidden_size, device=device)
        for segment, signal in signals:
            soft_embedding[segment.rows] = signal
    return FlatBatch(torch.cat(tokens), positions, tuple(segments), soft_embedding).filled()


def _sample(
    model: Transformer, progresses: Sequence[Progress], states: Sequence[CanvasState], hidden: Tensor
) -> list[Denoised]:
    """Readout of hidden [N, D], the rows of all canvases, and what the sampler makes of it."""
    sampler = Sampler(model.config.vocab_size)
    lengths = [state.length for state in states]
    temperatures = [state.temperatures[0] for state in states]
    by_row = torch.tensor(temperatures, dtype=torch.float64).repeat_interleave(torch.tensor(lengths)).to(hidden.device)
    read = streamed_readout(model, hidden, by_row, sampler.uniforms(*states))
    stepped = sampler.step_each(states, read)
    # One question for all of them.
    facts = torch.stack([torch.cat([state.ok for state in stepped]), torch.cat([state.active for state in stepped])])
    outcomes = []
    for progress, before, state, temperature, rows, ok, active in zip(
        progresses, states, stepped, temperatures, torch.split(hidden, lengths), *facts.tolist(), strict=True
    ):
        at = before.counters[0]
        if not ok:
            outcomes.append(Denoised(progress, error=not_finite(f"in canvas {at.canvas}, step {at.step}")))
            continue
        top = None
        if (count := progress.request.top) and (not active or progress.request.drafts):
            top = top_tokens(model, rows, count)
        step = DenoisingStep(
            at.canvas, at.step, temperature, state.draft[0], state.tokens[0], state.accepted[0], state.entropy[0],
            not active, top,
        )  # fmt: skip
        outcomes.append(Denoised(progress, step, state))
    return outcomes
