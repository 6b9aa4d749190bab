"""Decoding by the causal reading of the one stack of weights: an encoder pass for each token, or for several.

In mode "autoregressive" each forward writes one token. In mode "verified" canvases draft (`modes/drafting.py`), and a
forward over a draft keeps what it would have written itself. In mode "auto" each turn of the engine decides for each
sequence between the two, by what forwards cost and what drafts have given (`costs.py`).

The answer is that of `generation/autoregressive.py`, token for token, whatever the drafts are: a row of the encoder
pass is computed with the same bits in a pass over many rows and over one; the number that draws a token belongs to its
place in the answer; and a draft's token that is kept is the one that was written behind tokens that had been kept. The
cache then holds what was kept, as if nothing else had been encoded.

C rows of a canvas, D hidden size, R rows that are read out.
"""

import math
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Tokens
from dataclasses import replace

import torch
from torch import Tensor

from redraft.diffusion.sampler import CanvasState
from redraft.engine.costs import DraftChoice, Load
from redraft.engine.events import CanvasCommitted, Event, Finished, StepTaken
from redraft.engine.modes.drafting import DraftedRecord, Drafting, DraftingPolicy
from redraft.engine.request import Request
from redraft.engine.sequence import Chunk, DecodingOutcome, Phase, Sequence, WorkItem
from redraft.generation.autoregressive import TokenRecord
from redraft.generation.result import AnswerRecord, DenoisingStep, check_prompt, not_finite
from redraft.generation.token_constraint import TokenConstraint, allowed_tokens
from redraft.model.config import ModelConfig
from redraft.model.head import OutputHead
from redraft.model.readout.query import Readout, ReadoutQuery, TopTokens
from redraft.model.readout.streamed import streamed_readout

TYPICAL_CHUNK = 64
"""Of other requests' pending tokens, no more count for the choice: prompts are read once and gone."""


class Causal:
    """The decoding mode of answers whose tokens are those of the causal pass.

    A sequence has pending tokens where the next forward writes or verifies: the last kept token and the draft behind
    it. Otherwise the next forward denoises its canvas.
    """

    def __init__(self, config: ModelConfig, device: torch.device, policy: DraftingPolicy | None = None) -> None:
        self._config, self._device = config, device
        self._drafting = Drafting(config, device, policy or DraftingPolicy())
        self.choice = DraftChoice()

    def check(self, request: Request) -> None:
        config = self._config
        check_prompt(request.prompt, 1, config.vocab_size, config.max_context)
        if bad := [token for token in request.stop_ids or () if not 0 <= token < config.vocab_size]:
            raise ValueError(f"stop ids {bad} lie outside the vocabulary of {config.vocab_size}")

    def canvas_length(self, request: Request) -> int:
        return 0 if request.mode == "autoregressive" else self._drafting.length(request)

    def record(self, request: Request) -> AnswerRecord:
        kind = TokenRecord if request.mode == "autoregressive" else DraftedRecord
        return kind(
            request.prompt, request.settings, self._config, stop_ids=request.stop_ids, constraint=request.constraint
        )

    def prepare(self, admitted: Iterable[Sequence]) -> None:
        """Decides, before each forward, which of its sequences draft. admitted: all that may be in the forward."""
        others, count, canvas_rows = Load(), 0, 0
        for sequence in admitted:
            if sequence.mode is self and sequence.request.mode == "auto" and sequence.canvas_length:
                count, canvas_rows = count + 1, max(canvas_rows, sequence.canvas_length)
            else:
                rows = min(len(sequence.pending), TYPICAL_CHUNK) + sequence.canvas_rows
                others += Load(1, rows, sequence.canvas_rows)
        if count:
            self.choice.begin(count, canvas_rows, others)
        for sequence in admitted:
            record, is_own = sequence.record, sequence.mode is self and sequence.canvas_length > 0
            if is_own and isinstance(record, DraftedRecord):
                drafts = sequence.request.mode == "verified" or self.choice.pays(record.yielded)
                self._choose(sequence, record, drafts)

    def _choose(self, sequence: Sequence, record: DraftedRecord, drafts: bool) -> None:
        """Begins a canvas where a sequence is to draft and has none, and gives one up that is not to be denoised."""
        if sequence.phase is Phase.PREFILL:
            sequence.canvas_rows = sequence.canvas_length if drafts else 0
        elif drafts and sequence.pending == [record.last] and sequence.canvas is None:
            if self._drafting.has_room(sequence):
                sequence.canvas = self._drafting.first(sequence, record.last)
                sequence.pending, sequence.canvas_rows = [], sequence.canvas_length
        elif not drafts and not sequence.pending:
            sequence.canvas, sequence.pending, sequence.canvas_rows = None, [record.last], 0

    def max_cached(self, request: Request) -> int:
        # The first token comes from the row of the prompt's last.
        return len(request.prompt) - 1

    def work(self, chunk: Chunk) -> WorkItem:
        sequence = chunk.sequence
        encode, writes = sequence.pending[: chunk.encode], sequence.phase is Phase.COMMIT
        canvas = None
        if chunk.denoises and (canvas := sequence.canvas) is None:
            canvas = self._drafting.first(sequence, None)
        return WorkItem(
            chunk,
            encode,
            canvas,
            read_last=len(encode) if writes else int(chunk.is_last and bool(encode)),
            is_revocable=writes and len(encode) > 1,
        )

    def read(self, items: list[WorkItem], head: OutputHead, hidden: Tensor) -> list[DecodingOutcome]:
        rows = _Rows(items, self._device)
        readout = rows.readout(head, hidden)
        stepped = iter(self._stepped(items, rows, readout))
        tokens, entropies = readout.argmax.tolist(), readout.entropy.tolist()
        outcomes = []
        for item, own in zip(items, rows.causal, strict=True):
            canvas = None if item.canvas is None else next(stepped)
            draft = tuple(item.encode[1:]) if item.read_last > 1 else ()
            kept = _kept(tokens[own], draft)
            sure = entropies[own][: len(kept)]
            if bad := [i for i, entropy in enumerate(sure) if not math.isfinite(entropy)]:
                at = item.sequence.cache.length + len(item.encode) - item.read_last + 1 + bad[0]
                outcomes.append(DecodingOutcome(error=not_finite(f"behind token {at}")))
                continue
            top, log_probs = rows.scores(item, own.start, kept, readout, head, hidden)
            after, verify = self._drafting.advanced(item.sequence, canvas, kept, head)
            outcomes.append(
                DecodingOutcome(
                    step=None if item.canvas is None or canvas is None else _as_step(item.canvas, canvas),
                    canvas=after,
                    token_ids=tuple(kept),
                    entropies=tuple(sure),
                    log_probs=log_probs,
                    top=top,
                    draft=draft,
                    verify=None if verify is None else tuple(verify),
                )
            )
        return outcomes

    def _stepped(self, items: list[WorkItem], rows: "_Rows", readout: Readout) -> list[CanvasState]:
        """Returns the canvases that there are, one denoising step further."""
        states = [item.canvas for item in items if item.canvas is not None]
        if not states:
            return []
        canvas_rows = torch.cat([torch.arange(one.start, one.stop, device=self._device) for one in rows.canvases])
        return self._drafting.sampler.step_each(states, readout.select(canvas_rows))

    def take(self, sequence: Sequence, outcome: DecodingOutcome) -> Iterator[Event]:
        record, request, step, kept = sequence.record, sequence.request, outcome.step, outcome.token_ids
        assert isinstance(record, TokenRecord)
        record.lap("denoising" if step is not None else sequence.phase.value)
        record.count(is_step=step is not None, has_draft=bool(outcome.draft), has_tokens=bool(kept))
        if kept and sequence.phase is Phase.COMMIT and isinstance(record, DraftedRecord):
            self.choice.note(record.yielded, record.round(len(outcome.draft), len(kept)))
        if kept:
            told, finish_reason = [], None
            for token, entropy in zip(kept, outcome.entropies, strict=True):
                finish_reason = record.write(token, entropy)
                if finish_reason is None or (finish_reason == "stop" and token not in record.stop_ids):
                    told.append(token)
                if finish_reason is not None:
                    break
            if told:
                top = None if outcome.top is None else outcome.top[: len(told)]
                yield CanvasCommitted(
                    request.id, tuple(told), record.take_steps(), top, outcome.log_probs[: len(told)], outcome.draft
                )
            if finish_reason is not None:
                yield Finished(request.id, record.generation(finish_reason))
                return
            if outcome.draft:
                # Of what was encoded all stays but the draft from where it was wrong.
                sequence.cache = sequence.cache.truncate(len(request.prompt) + record.written - 1)
        if step is not None and request.drafts:
            yield StepTaken(request.id, step)
        sequence.phase, sequence.canvas = Phase.COMMIT, outcome.canvas
        self._go_on(sequence, record.last, outcome.verify)

    def _go_on(self, sequence: Sequence, last: int, draft: Tokens[int] | None) -> None:
        """Says what the next forward is to do: to denoise a canvas there is, or to verify a draft or write a token."""
        canvas, record = sequence.canvas, sequence.record
        assert isinstance(record, TokenRecord)
        if draft is None and canvas is not None and self._drafting.has_room(sequence):
            sequence.pending, sequence.canvas_rows = [], sequence.canvas_length
            return
        # An answer of `room` tokens needs no row behind them.
        most = len(sequence.request.prompt) + record.room - sequence.cache.length - 1
        fitting = list(draft or ())[:most]
        if record.held is not None:
            fitting = record.held.fitting(fitting)
        sequence.pending, sequence.canvas_rows = [last, *fitting], 0


class _Rows:
    """What the rows of some sequences are asked, one sequence behind the other: causal ones, then those of its canvas.

    causal: the rows of each sequence in which tokens are written; canvases: of each that has one, its canvas's.
    """

    def __init__(self, items: list[WorkItem], device: torch.device) -> None:
        self.causal: list[slice] = []
        self.canvases: list[slice] = []
        self._items, self._device = items, device
        end = 0
        for item in items:
            self.causal.append(slice(end, end := end + item.read_last))
            if item.canvas is not None:
                self.canvases.append(slice(end, end := end + item.canvas.length))
        self._allowed = allowed_tokens([part for item in items for part in _limited(item)], device)

    def readout(self, head: OutputHead, hidden: Tensor) -> Readout:
        """Reads the rows; the argmax of each is the token that is written or drafted there, drawn or likeliest."""
        is_drawn = [item.sequence.request.settings.temperature > 0 for item in self._items for _ in range(_count(item))]
        query = ReadoutQuery(
            self._temperatures(),
            self._uniforms() if any(is_drawn) else None,
            allowed=self._allowed,
            top=max(item.sequence.request.top for item in self._items),
            soft_embedding=bool(self.canvases),
        )
        readout = streamed_readout(head, hidden, query)
        if query.uniforms is None:
            return readout
        drawn = torch.tensor(is_drawn, device=self._device)
        return replace(readout, argmax=torch.where(drawn, readout.sample, readout.argmax))

    def scores(
        self, item: WorkItem, start: int, kept: Tokens[int], readout: Readout, head: OutputHead, hidden: Tensor
    ) -> tuple[TopTokens | None, tuple[float, ...]]:
        """Returns the likeliest tokens in the place of those kept, and the log-probabilities of these, if asked for.

        At temperature 1, whatever tokens are drawn at. start: the row of the first.
        """
        request, rows = item.sequence.request, slice(start, start + len(kept))
        if not (request.top and kept):
            return None, ()
        assert readout.top is not None
        top = readout.top[rows, : request.top]
        if not request.settings.temperature:
            return top, tuple(top.log_probs[:, 0].tolist())
        ids = torch.tensor(kept, device=self._device)[:, None]
        allowed = None if self._allowed is None else replace(self._allowed, rows=self._allowed.rows[rows])
        query = ReadoutQuery(1.0, None, allowed=allowed, token_ids=ids, soft_embedding=False)
        log_probs = streamed_readout(head, hidden[rows], query).log_probs
        assert log_probs is not None
        return top, tuple(top.as_listed(ids, log_probs)[:, 0].tolist())

    def _temperatures(self) -> Tensor:
        # What is read at temperature 0 needs none.
        found = [
            temperature
            for item in self._items
            for temperature in [item.sequence.request.settings.temperature or 1.0] * item.read_last
            + ([] if item.canvas is None else [item.canvas.temperatures[0]] * item.canvas.length)
        ]
        return torch.tensor(found, dtype=torch.float64, device=self._device)

    def _uniforms(self) -> Tensor:
        parts = []
        for item in self._items:
            record = item.sequence.record
            assert isinstance(record, TokenRecord)
            parts.append(record.uniforms(record.written, item.read_last))
            if item.canvas is not None:
                # Its first row is the last kept token's, or the first of the answer.
                parts.append(record.uniforms(max(0, record.written - 1), item.canvas.length))
        return torch.cat(parts).to(self._device)


def _count(item: WorkItem) -> int:
    """Returns the rows of a sequence that are read out."""
    return item.read_last + (0 if item.canvas is None else item.canvas.length)


def _limited(item: WorkItem) -> Iterator[tuple[TokenConstraint | None, Tokens[int], int]]:
    """Yields what a sequence's rows are limited to, as `allowed_tokens` takes it: its canvas's to nothing."""
    record = item.sequence.record
    assert isinstance(record, TokenRecord)
    yield record.held, item.encode[1:] if item.read_last > 1 else (), item.read_last
    if item.canvas is not None:
        yield None, (), item.canvas.length


def _kept(written: list[int], draft: Tokens[int]) -> list[int]:
    """Returns the tokens that a causal pass keeps: as far as its own equal the draft's, and one more."""
    agreeing = next((i for i, token in enumerate(draft) if token != written[i]), len(draft))
    return written[: agreeing + 1]


def _as_step(before: CanvasState, after: CanvasState) -> DenoisingStep:
    """Returns a denoising step without the row of the last kept token, which is in the answer already."""
    rows, at = slice(1, None), before.counters[0]
    return DenoisingStep(
        canvas=at.canvas, step=at.step, number=before.begun[0] - at.step + 1,
        temperature=before.temperatures[0], draft=after.draft[0, rows],
        renoised=after.tokens[0, rows], accepted=after.accepted[0, rows], entropy=after.entropy[0, rows],
        finished=not bool(after.active[0]),
    )  # fmt: skip
