"""Decoding by diffusion: canvases are denoised, and each finished one is committed together with the next one's start.

C canvas length.
"""

import secrets
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import Sampler
from redraft.diffusion.settings import MAX_SEED
from redraft.engine.events import CanvasCommitted, Event, Finished, StepTaken
from redraft.engine.request import Request
from redraft.engine.sequence import Chunk, DecodingOutcome, Phase, Sequence, WorkItem
from redraft.generation.constrained import classes_of, constrain
from redraft.generation.decisions import choice_probabilities
from redraft.generation.result import AnswerRecord, DenoisingStep, check_prompt, not_finite
from redraft.generation.scoring import log_probs_of
from redraft.model.config import ModelConfig
from redraft.model.head import OutputHead
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout


class Diffusion:
    """The decoding mode of `generation/loop.py`, whose tokens its sequences have one for one."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._sampler = Sampler(config.vocab_size)

    def check(self, request: Request) -> None:
        config = self._config
        check_prompt(request.prompt, self.canvas_length(request), config.vocab_size, config.max_context)
        if bad := [token for token in request.stop_ids or () if not 0 <= token < config.vocab_size]:
            raise ValueError(f"stop ids {bad} lie outside the vocabulary of {config.vocab_size}")

    def canvas_length(self, request: Request) -> int:
        return request.settings.canvas_length or self._config.canvas_length

    def record(self, request: Request) -> AnswerRecord:
        seed = request.settings.seed
        record = AnswerRecord(
            room=request.settings.max_new_tokens,
            stop_ids=self._config.eos_ids if request.stop_ids is None else request.stop_ids,
            seed=secrets.randbelow(MAX_SEED) if seed is None else seed,
            max_context=self._config.max_context,
            vocab_size=self._config.vocab_size,
            constraint=request.constraint,
            start=request.start,
            is_scored=request.is_scored,
        )
        record.check(len(request.prompt), self.canvas_length(request))
        return record

    def max_cached(self, request: Request) -> int:
        return len(request.prompt)

    def work(self, chunk: Chunk) -> WorkItem:
        sequence = chunk.sequence
        canvas, held = None, sequence.held
        if chunk.denoises and (canvas := sequence.canvas) is None:
            settings, record = sequence.request.settings, sequence.record
            place = Counter(record.seed, settings.index, len(record.canvases))
            canvas = self._sampler.init(
                [settings], [place], sequence.canvas_length, device=self._device, starts=[record.canvas_start]
            )
            held = record.constrained_canvas(sequence.canvas_length, committed=sequence.cache.length + chunk.encode)
        encode = sequence.pending[: chunk.encode]
        is_read = sequence.request.is_scored and sequence.phase is Phase.COMMIT
        return WorkItem(chunk, encode, canvas, held, read_last=len(encode) if is_read else 0)

    def read(self, items: list[WorkItem], head: OutputHead, hidden: Tensor) -> list[DecodingOutcome]:
        denoised = [item for item in items if item.canvas is not None]
        if not any(item.read_last for item in items):
            return self._step(denoised, head, hidden)
        lengths = [(item.read_last, 0 if item.canvas is None else item.canvas.length) for item in items]
        parts = torch.split(hidden, [length for both in lengths for length in both])
        scores = [_scores(item, head, rows) for item, rows in zip(items, parts[::2], strict=True)]
        steps = iter(self._step(denoised, head, torch.cat(parts[1::2])) if denoised else ())
        return [
            replace(DecodingOutcome() if item.canvas is None else next(steps), log_probs=log_probs)
            for item, log_probs in zip(items, scores, strict=True)
        ]

    def _step(self, items: list[WorkItem], head: OutputHead, hidden: Tensor) -> list[DecodingOutcome]:
        """Takes a denoising step of the canvases of some items, from their rows."""
        states = [item.canvas for item in items if item.canvas is not None]
        requests = [item.sequence.request for item in items]
        temperatures = [state.temperatures[0] for state in states]
        lengths = [state.length for state in states]
        by_row = torch.tensor(temperatures, dtype=torch.float64).repeat_interleave(torch.tensor(lengths))
        query = ReadoutQuery(
            by_row.to(self._device),
            self._sampler.uniforms(*states) if any(request.settings.temperature for request in requests) else None,
            top=max(request.top if request.drafts else 0 for request in requests),
            soft_embedding=any(state.counters[0].step > 1 for state in states),
            classes=classes_of(held := [item.held for item in items], states),
        )
        readout = streamed_readout(head, hidden, query)
        constrained, overruling = constrain(held, states, head, hidden, readout)
        stepped = self._sampler.step_each(states, readout, overruling)
        verdicts = self._sampler.verdicts(*stepped)
        outcomes, end = [], 0
        for i, (request, state, (is_finite, is_active)) in enumerate(zip(requests, stepped, verdicts, strict=True)):
            at, rows = states[i].counters[0], slice(end, end + state.length)
            end, constraint = rows.stop, constrained[i]
            if not is_finite:
                outcomes.append(DecodingOutcome(error=not_finite(f"in canvas {at.canvas}, step {at.step}")))
                continue
            top = None if readout.top is None or not request.drafts else readout.top[rows, : request.top]
            if request.top and not request.drafts and not is_active:
                # Without drafts it is told of a canvas's last step only, and which that is turns out just now.
                query = ReadoutQuery(1.0, None, top=request.top, soft_embedding=False)
                top = streamed_readout(head, hidden[rows], query).top
            choices = None if is_active else choice_probabilities(head, hidden[rows], state, constraint)
            step = DenoisingStep(
                canvas=at.canvas,
                step=at.step,
                number=state.begun[0] - at.step + 1,
                temperature=temperatures[i],
                draft=state.draft[0],
                renoised=state.tokens[0],
                accepted=state.accepted[0],
                entropy=state.entropy[0],
                finished=not is_active,
                top=top,
                guided=constraint is not None and constraint.is_guided,
                log_mass=None if constraint is None else constraint.log_mass,
                choices=choices,
            )
            outcomes.append(DecodingOutcome(step=step, canvas=state, held=constraint))
        return outcomes

    def take(self, sequence: Sequence, outcome: DecodingOutcome) -> Iterator[Event]:
        step, request, record = outcome.step, sequence.request, sequence.record
        record.score(outcome.log_probs)
        if step is None:
            record.lap(sequence.phase.value)
            if not sequence.pending and record.finish_reason is not None:
                yield Finished(request.id, record.generation(record.finish_reason))
            return
        record.take(step)
        if request.drafts:
            yield StepTaken(request.id, step)
        if not step.finished:
            sequence.canvas, sequence.held = outcome.canvas, outcome.held
            return
        sequence.canvas = sequence.held = None
        canvas = step.draft.tolist()
        part, finish_reason = record.add(canvas, step.number, committed=sequence.cache.length)
        yield CanvasCommitted(request.id, tuple(part), step.number, step.top)
        sequence.pending, sequence.phase = canvas, Phase.COMMIT
        if finish_reason is not None:
            if unscored := record.unscored:
                sequence.pending, sequence.canvas_rows = unscored, 0
            else:
                yield Finished(request.id, record.generation(finish_reason))


def _scores(item: WorkItem, head: OutputHead, hidden: Tensor) -> tuple[float, ...]:
    """Returns the log-probabilities of the tokens of a canvas behind those that an item encodes, from their rows."""
    if not item.read_last:
        return ()
    record, pending = item.sequence.record, item.sequence.pending
    # Behind a last canvas's last row there is one token of it; behind another's nothing is known yet.
    behind = pending[1 : item.read_last + 1]
    if len(behind) < item.read_last and record.finish_reason is not None:
        behind = [*behind, record.canvases[-1][len(record.unscored)]]
    return tuple(log_probs_of(head, hidden[: len(behind)], behind))
