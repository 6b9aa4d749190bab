"""Decoding by verified drafts: a canvas drafts, the causal pass keeps what it would have written itself.

    canvas ──denoiser passes──▶ draft ──one encoder pass──▶ longest prefix that agrees, and one token more ──▶ answer
       ▲                                                        │
       └─────────── the rest, moved on, and noise behind ◀──────┘

The answer is that of `generation/autoregressive.py`, token for token, whatever the drafts are: a row of the encoder
pass is computed with the same bits in a pass over many rows and over one, and a token that is kept was the likeliest
behind tokens that had been kept. The cache then holds what was kept, as if nothing else had been encoded.

C rows of a canvas, D hidden size, R rows that are read out.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redraft.diffusion.drafting import moved_on
from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.diffusion.schedule import LinearTemperature
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.diffusion.stopping import EveryPositionConfident
from redraft.engine.events import CanvasCommitted, Event, Finished, StepTaken
from redraft.engine.request import Request
from redraft.engine.sequence import Chunk, DecodingOutcome, Phase, Sequence, WorkItem
from redraft.generation.autoregressive import TokenRecord
from redraft.generation.result import AnswerRecord, DenoisingStep, Generation, Verification, check_prompt, not_finite
from redraft.model.config import ModelConfig
from redraft.model.head import OutputHead
from redraft.model.readout.query import Readout, ReadoutQuery
from redraft.model.readout.streamed import streamed_readout


@dataclass(frozen=True, kw_only=True)
class DraftingPolicy:
    """When a draft is verified. It decides how long an answer takes, never what it is.

    canvas_length: rows of a canvas, for a model whose own canvas is not shorter. steps: most denoising steps before a
    draft is verified. entropy_limit: it is verified earlier once no position, up to its first EOS, has an entropy above
    so many nats. min_kept: what is left of a draft is verified at once, without another step, where the last pass kept
    at least so many tokens. Chosen by measurement on the bundled model.
    """

    canvas_length: int = 24
    steps: int = 4
    entropy_limit: float = 1.0
    min_kept: int = 2


class VerifiedRecord(TokenRecord):
    """The record of an answer that is verified. rounds and denoiser_passes: see `Verification`."""

    rounds = 0
    denoiser_passes = 0

    def generation(self, finish_reason: str) -> Generation:
        found = Verification(self.rounds, self.denoiser_passes, self.written / self.rounds)
        return replace(super().generation(finish_reason), verification=found)


class Verified:
    """The decoding mode whose answers are those of `Autoregressive`, drafted on canvases.

    A canvas follows what the cache holds. Its first row is the last kept token, which the cache does not hold yet; in
    the forward that reads the end of the prompt there is none. A sequence has pending tokens where the next forward
    verifies: the last kept token and the draft behind it. Otherwise the next forward denoises.
    """

    def __init__(self, config: ModelConfig, device: torch.device, policy: DraftingPolicy | None = None) -> None:
        self._config, self._device, self._policy = config, device, policy or DraftingPolicy()
        self._sampler = Sampler(config.vocab_size)

    def check(self, request: Request) -> None:
        config = self._config
        check_prompt(request.prompt, 1, config.vocab_size, config.max_context)
        if bad := [token for token in request.stop_ids or () if not 0 <= token < config.vocab_size]:
            raise ValueError(f"stop ids {bad} lie outside the vocabulary of {config.vocab_size}")
        if request.settings.temperature:
            raise ValueError(
                f"temperature is {request.settings.temperature}, must be 0 in mode 'verified': its answer is the "
                "greedy one of mode 'autoregressive'"
            )

    def canvas_length(self, request: Request) -> int:
        config = self._config
        length = request.settings.canvas_length or min(self._policy.canvas_length, config.canvas_length)
        # With one row there would be no draft, and the context may have no room for more.
        return length if 1 < length <= config.max_context - len(request.prompt) else 0

    def record(self, request: Request) -> AnswerRecord:
        return VerifiedRecord(len(request.prompt), request.settings, self._config, stop_ids=request.stop_ids)

    def max_cached(self, request: Request) -> int:
        # The first token comes from the row of the prompt's last.
        return len(request.prompt) - 1

    def work(self, chunk: Chunk) -> WorkItem:
        sequence = chunk.sequence
        encode, verifies = sequence.pending[: chunk.encode], sequence.phase is Phase.COMMIT
        canvas = None
        if chunk.denoises and (canvas := sequence.canvas) is None:
            settings = self._round_settings(sequence.request.settings)
            canvas = self._sampler.init([settings], [_place(sequence)], sequence.canvas_rows, device=self._device)
        return WorkItem(
            chunk,
            encode,
            canvas,
            read_last=len(encode) if verifies else int(chunk.is_last and bool(encode)),
            is_revocable=verifies and len(encode) > 1,
        )

    def read(self, items: list[WorkItem], head: OutputHead, hidden: Tensor) -> list[DecodingOutcome]:
        states = [item.canvas for item in items if item.canvas is not None]
        # What is read causally needs no temperature.
        temperatures = [
            temperature
            for item in items
            for temperature in [1.0] * item.read_last
            + ([] if item.canvas is None else [item.canvas.temperatures[0]] * item.canvas.length)
        ]
        query = ReadoutQuery(
            torch.tensor(temperatures, dtype=torch.float64, device=self._device),
            None,
            top=max(item.sequence.request.top for item in items),
            soft_embedding=bool(states),
        )
        readout = streamed_readout(head, hidden, query)
        causal, canvas_rows, end = [], [], 0
        for item in items:
            causal.append(slice(end, end := end + item.read_last))
            if item.canvas is not None:
                canvas_rows.append(torch.arange(end, end + item.canvas.length, device=self._device))
                end += item.canvas.length
        stepped: list[CanvasState] = []
        if states:
            stepped = self._sampler.step_each(states, readout.select(torch.cat(canvas_rows)))
        following = iter(stepped)
        return [
            self._outcome(item, head, readout.select(rows), None if item.canvas is None else next(following))
            for item, rows in zip(items, causal, strict=True)
        ]

    def take(self, sequence: Sequence, outcome: DecodingOutcome) -> Iterator[Event]:
        record, request, step = sequence.record, sequence.request, outcome.step
        assert isinstance(record, VerifiedRecord)
        record.lap("denoising" if step is not None else sequence.phase.value)
        record.forwards += 1
        kept = list(outcome.token_ids)
        if step is not None:
            record.denoiser_passes += 1
        if kept:
            record.rounds += 1
            announced, finish_reason = [], None
            for token, entropy in zip(kept, outcome.entropies, strict=True):
                if (finish_reason := record.write(token, entropy)) is not None:
                    break
                announced.append(token)
            if announced:
                top = None if outcome.top is None else outcome.top[: len(announced)]
                yield CanvasCommitted(request.id, tuple(announced), steps=0, top=top)
            if finish_reason is not None:
                yield Finished(request.id, record.generation(finish_reason))
                return
            if sequence.phase is Phase.COMMIT:
                # Of what was encoded all stays but the draft from where it was wrong.
                start = len(request.prompt) + record.written - len(kept) - 1
                sequence.cache = sequence.cache.truncate(start + len(kept))
        if step is not None and request.drafts:
            yield StepTaken(request.id, step)
        sequence.phase, sequence.canvas = Phase.COMMIT, outcome.canvas
        self._go_on(sequence, kept[-1] if kept else None, outcome.verify)

    def _go_on(self, sequence: Sequence, last: int | None, draft: Tokens[int] | None) -> None:
        """Says what the next forward is to do: verify, or denoise where there is nothing to verify and room for it."""
        canvas, record, length = sequence.canvas, sequence.record, sequence.canvas_length
        assert isinstance(record, VerifiedRecord)
        if last is None:
            assert canvas is not None
            last = int(canvas.tokens[0, 0])
        has_room = 0 < length <= self._config.max_context - sequence.cache.length
        if draft is None and has_room:
            if canvas is None:
                sequence.canvas = self._first_canvas(sequence, last)
            sequence.pending, sequence.canvas_rows = [], length
            return
        # An answer of `room` tokens needs no row behind them.
        most = len(sequence.request.prompt) + record.room - sequence.cache.length - 1
        sequence.pending, sequence.canvas_rows = [last, *(draft or ())[:most]], 0

    def _first_canvas(self, sequence: Sequence, last: int) -> CanvasState:
        """Starts a canvas whose first row holds the last kept token."""
        length = sequence.canvas_length
        settings, start = self._round_settings(sequence.request.settings), CanvasStart.holding([last])
        return self._sampler.init([settings], [_place(sequence)], length, device=self._device, starts=[start])

    def _round_settings(self, settings: SamplerSettings) -> SamplerSettings:
        """Returns the settings of a round: one temperature, the schedule's middle, and the argmax as the sample."""
        middle = (settings.schedule.t_min + settings.schedule.t_max) / 2
        return replace(
            settings,
            steps=min(self._policy.steps, settings.steps),
            temperature=0.0,
            schedule=LinearTemperature(t_min=middle, t_max=middle),
            stopping=EveryPositionConfident(limit=self._policy.entropy_limit),
        )

    def _outcome(
        self, item: WorkItem, head: OutputHead, causal: Readout, stepped: CanvasState | None
    ) -> DecodingOutcome:
        """Returns what the causal rows, if any, keep of a draft, and what becomes of the canvas."""
        sequence, step, top = item.sequence, None, None
        kept, bad = _kept(item, causal) if item.read_last else ([], None)
        if bad is not None:
            at = sequence.cache.length + len(item.encode) - item.read_last + 1 + bad
            return DecodingOutcome(error=not_finite(f"behind token {at}"))
        entropies = tuple(causal.entropy[: len(kept)].tolist())
        if (count := sequence.request.top) and kept:
            assert causal.top is not None
            top = causal.top[slice(len(kept)), slice(count)]
        if stepped is not None:
            assert item.canvas is not None
            step = _as_step(item.canvas, stepped)
        state = sequence.canvas if stepped is None else stepped
        # In the prompt's forward the canvas stands right behind the prompt, else from the last kept token on.
        moves = 0 if sequence.phase is Phase.PREFILL else len(kept)
        if state is None or moves >= state.length:
            return DecodingOutcome(step=step, token_ids=tuple(kept), entropies=entropies, top=top)
        old_rows = state.length - moves
        first = kept[-1] if kept else int(state.tokens[0, 0])
        state = self._with_first(state, sequence, moves, first, head.embedding[first].float() * head.scale)
        stop_ids, verify = sequence.record.stop_ids, None
        if self._is_ready(state, stop_ids) if stepped is not None else len(kept) >= self._policy.min_kept:
            verify = _until_stop(state.draft[0, 1:old_rows].tolist(), stop_ids) if old_rows > 1 else None
        return DecodingOutcome(
            step=step,
            canvas=replace(state, active=torch.ones_like(state.active)),
            token_ids=tuple(kept),
            entropies=entropies,
            top=top,
            verify=None if verify is None else tuple(verify),
        )

    def _with_first(
        self, state: CanvasState, sequence: Sequence, moves: int, first: int, embedding: Tensor
    ) -> CanvasState:
        """Returns the canvas moved on by so many tokens, with the last kept token, of that embedding, in its first row.

        Where it has moved a new round begins.
        """
        (at,) = state.counters
        place = replace(at, canvas=at.canvas + 1) if moves else at
        moved = moved_on(
            state, moves, first, embedding, settings=self._round_settings(sequence.request.settings), counter=place,
            vocab_size=self._config.vocab_size,
        )  # fmt: skip
        return moved if moves else replace(moved, counters=state.counters, active=state.active)

    def _is_ready(self, state: CanvasState, stop_ids: Tokens[int]) -> bool:
        """Whether a draft is to be verified: its round is over, or it is sure enough up to the first EOS."""
        if not bool(state.active[0]):
            return True
        until = len(_until_stop(state.draft[0, 1:].tolist(), stop_ids)) + 2
        return bool(state.entropy[0, 1:until].amax() <= self._policy.entropy_limit)


def _kept(item: WorkItem, causal: Readout) -> tuple[list[int], int | None]:
    """Returns the tokens that a causal pass keeps, at least one; or of which row before their end it says nothing.

    The rows are those of the last kept token and of the draft behind it.
    """
    likeliest, finite = torch.stack([causal.argmax, causal.entropy.isfinite().long()]).tolist()
    draft = item.encode[1:] if item.read_last > 1 else []
    agreeing = next((i for i, token in enumerate(draft) if token != likeliest[i]), len(draft))
    kept = likeliest[: agreeing + 1]
    return kept, None if all(finite[: len(kept)]) else finite.index(0)


def _place(sequence: Sequence) -> Counter:
    """Returns the place of a sequence's first round; each round is the next canvas."""
    settings = sequence.request.settings
    return Counter(settings.seed or 0, settings.index)


def _until_stop(draft: list[int], stop_ids: Tokens[int]) -> list[int]:
    """Returns what precedes the first of `stop_ids`: the pass over it shows whether the answer ends there."""
    return draft[: next((i for i, token in enumerate(draft) if token in stop_ids), len(draft))]


def _as_step(before: CanvasState, after: CanvasState) -> DenoisingStep:
    """Returns a denoising step without the row of the last kept token, which is in the answer already."""
    rows, at = slice(1, None), before.counters[0]
    return DenoisingStep(
        canvas=at.canvas, step=at.step, number=before.begun[0] - at.step + 1,
        temperature=before.temperatures[0], draft=after.draft[0, rows],
        renoised=after.tokens[0, rows], accepted=after.accepted[0, rows], entropy=after.entropy[0, rows],
        finished=not bool(after.active[0]),
    )  # fmt: skip
