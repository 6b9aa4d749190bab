"""Answers in progress: slots for them, the engine's events as text, metrics, and cancellation when nobody waits."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from redraft import engine
from redraft.answers import writing_of
from redraft.api import Model
from redraft.async_engine import Engine
from redraft.generation.result import ConstraintReport, DenoisingStep, Generation
from redraft.server.metrics import Metrics
from redraft.server.openai.errors import ApiError, bad_request, retry_later
from redraft.server.openai.responses import CanvasInfo, ConstraintInfo, PromptTokensDetails, TrustInfo, Usage
from redraft.text import AnswerStream, Content, Delta, End, ReadPrompt, ScoredToken
from redraft.text.trust.evidence import Trust, Writing, assess

log = logging.getLogger("redraft.server")

DELTA_TOKENS = 8
"""A canvas becomes final at once, and is sent in deltas of this many tokens."""

MAX_QUEUED_EVENTS = 256
"""Events that wait for a client that receives slowly: beyond it, drafts are dropped, and nothing else."""


MIN_LOG_MASS = -1e9


class AdmissionSlots:
    """The slots for answers, waiting ones included: reserved before any work is done for them."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.taken = 0
        self._limit, self._metrics = limit, metrics
        self._mean_seconds = 1.0

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Reserves `count` slots for the block; 429 if none are free, 400 if there are never so many."""
        if count > self._limit:
            raise bad_request(
                f"the request asks for {count} answers, this server holds {self._limit} at a time: send fewer prompts, "
                "or a smaller n", "n",
            )  # fmt: skip
        if self.taken + count > self._limit:
            self._metrics.rejected.labels("queue_full").inc()
            message = f"{self.taken} of {self._limit} slots for answers are taken: try again later"
            raise retry_later(429, message, self._mean_seconds, "queue_full")
        started = time.perf_counter()
        self.taken += count
        try:
            yield
            # Recent answers tell when a slot may be free; what was refused or cancelled says nothing about it.
            self._mean_seconds += (time.perf_counter() - started - self._mean_seconds) / 8
        finally:
            self.taken -= count


class EventQueue(asyncio.Queue[engine.Event]):
    """A queue of the engine's events that drops drafts instead of letting them pile up."""

    def put_nowait(self, event: engine.Event) -> None:
        if not (isinstance(event, engine.StepTaken) and self.qsize() >= MAX_QUEUED_EVENTS):
            super().put_nowait(event)


@dataclass(frozen=True)
class Echo:
    """A prompt's text, to go before its answers. offsets: of a scored prompt, where in it each token ends."""

    text: str = ""
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True)
class PreparedRequest:
    """What one API request asks the engine for.

    requests: one for each choice of each prompt. num_choices: answers to each prompt. stop_texts: where an answer's
    content ends. top_logprobs: likeliest tokens to report, None for no log-probabilities. alternatives: likeliest
    tokens to send with each draft. warnings: what is not as it was asked for, known before there is an answer. echoes:
    of each prompt, what goes before its answers; none if nothing does. is_cut: whether the answers are to be empty.
    """

    requests: tuple[engine.Request, ...]
    prompts: tuple[ReadPrompt, ...]
    num_choices: int
    stop_texts: tuple[str, ...]
    top_logprobs: int | None
    alternatives: int
    warnings: tuple[str, ...] = ()
    echoes: tuple[Echo, ...] = ()
    is_cut: bool = False

    @property
    def prompt_tokens(self) -> int:
        """The tokens of all prompts, each counted once."""
        return sum(len(prompt.ids) for prompt in self.prompts)


@dataclass(frozen=True)
class StepUpdate:
    """A denoising step, numbered from 1, and the text that the answer's canvas would be if it stopped there."""

    step: DenoisingStep
    number: int
    text: str


@dataclass(frozen=True)
class ChoiceUpdate:
    """News of the choice with this index."""

    index: int
    event: Delta | StepUpdate | End


@dataclass
class ChoiceProgress:
    """One answer in progress.

    scores: of the prompt's tokens but the first, and of the one behind it, where they are asked for. has_stopped:
    whether the model ended it by itself, with an EOS. steps: of each canvas. admitted_at, ended_at: times of
    time.perf_counter(), None until then. Once it has ended, warnings, trust: what may be wrong with it, and what is
    known about it; constraint: what one had to do; generation: None of one that a stop text ends.
    """

    request: engine.Request
    prompt: ReadPrompt
    model: Model
    stream: AnswerStream
    top_logprobs: int | None
    scores: list[ScoredToken] = field(default_factory=list)
    has_stopped: bool = False
    steps: list[int] = field(default_factory=list)
    cached_tokens: int = 0
    admitted_at: float | None = None
    ended_at: float | None = None
    has_text: bool = False
    content: str = ""
    warnings: tuple[str, ...] = ()
    constraint: ConstraintReport | None = None
    trust: Trust | None = None
    generation: Generation | None = None

    @property
    def tokens_written(self) -> int:
        """The tokens of the answer, the EOS included."""
        return self.stream.num_tokens + self.has_stopped

    def read(self, event: engine.Event) -> Iterator[Delta | StepUpdate | End]:
        """Yields what an event of the engine means; nothing after the end. Raises the error of a failed request."""
        if isinstance(event, engine.Failed):
            raise event.error
        if self.stream.has_ended:
            return
        if isinstance(event, engine.Admitted):
            self.cached_tokens, self.admitted_at = event.cached_tokens, event.at
        elif isinstance(event, engine.StepTaken):
            yield StepUpdate(event.step, event.step.number, self.stream.draft(event.step.draft.tolist()))
        elif isinstance(event, engine.TokensScored):
            self.scores += scored_tokens(event, self.top_logprobs)
        elif isinstance(event, engine.CanvasCommitted):
            if event.steps:
                self.steps.append(event.steps)
            yield from self.stream.commit(event.token_ids, scored_tokens(event, self.top_logprobs))
        elif isinstance(event, engine.Finished):
            self.generation = event.generation
            self.has_stopped = event.generation.finish_reason == "stop"
            self.constraint = event.generation.constraint
            yield from self.stream.finish(event.generation.finish_reason)

    def end(self, finish_reason: str) -> None:
        """Notes the time, what may be wrong with the answer, and what is known about it."""
        self.ended_at = time.perf_counter()
        if self.request.mode == "scoring":
            # Nobody asked for an answer.
            return
        self.warnings = self.prompt.check(
            self.content,
            finish_reason,
            num_tokens=self.stream.num_tokens,
            steps_per_canvas=self.steps,
            max_steps=self.request.settings.steps,
        )
        if self.generation is None:
            writing = Writing(mode=self.request.mode, finish_reason=finish_reason)
        else:
            writing = writing_of(self.request.mode, self.generation, self.request.settings)
        self.trust = assess(
            self.prompt, self.content, writing, self.model.tokenizer, calibration=self.model.calibration,
            is_held=self.request.constraint is not None,
        )  # fmt: skip


class GenerationSession:
    """The answers to one API request, in the engine from the start of a `with` block to its end at the latest.

    Entering raises ApiError if the engine refuses them. Leaving cancels what is not finished. failure: the code of the
    error that ended them, or None.
    """

    def __init__(self, within: Engine, prepared: PreparedRequest, metrics: Metrics, request_id: str) -> None:
        self.failure: str | None = None
        self.choices = [
            ChoiceProgress(
                request,
                prompt,
                within.model.with_adapter(request.adapter),
                answer_stream(within, request, prompt, prepared),
                prepared.top_logprobs,
            )
            for prompt, request in zip(_repeat(prepared.prompts, prepared.num_choices), prepared.requests, strict=True)
        ]
        self._engine, self._prepared, self._metrics, self._request_id = within, prepared, metrics, request_id
        self._index = {choice.request.id: at for at, choice in enumerate(self.choices)}
        self._events = EventQueue()
        self._started = time.perf_counter()

    def __enter__(self) -> "GenerationSession":
        try:
            for choice in self.choices:
                self._engine.events(choice.request, self._events)
        except BaseException as error:
            self._cancel()
            if isinstance(error, ValueError):
                raise bad_request(str(error), code="invalid_value") from error
            if isinstance(error, engine.QueueFull):
                raise retry_later(429, str(error), 1, "queue_full") from error
            if isinstance(error, RuntimeError):
                raise retry_later(503, str(error), 10, "draining") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel()
        self._metrics.prompt_tokens.inc(self._prepared.prompt_tokens)
        self._metrics.cached_tokens.inc(self._cached_tokens)
        self._metrics.answer_tokens.inc(sum(choice.stream.num_tokens for choice in self.choices))
        for choice in self.choices:
            if choice.admitted_at is not None:
                self._metrics.queued.observe(max(0.0, choice.admitted_at - self._started))

    async def updates(self) -> AsyncIterator[ChoiceUpdate]:
        """Yields what happens, as it happens. ApiError if an answer fails: the others end with it."""
        while not self.has_ended:
            event = await self._events.get()
            index = self._index[event.id]
            if isinstance(event, engine.Cancelled):
                if self.choices[index].ended_at is None:
                    raise retry_later(503, "the server is shutting down", 10, "draining")
                continue
            for told in self._read(self.choices[index], event):
                yield ChoiceUpdate(index, told)

    def fail(self, error: Exception) -> ApiError:
        """Logs an error that is not the client's, and returns what the client is told about it."""
        self.failure = "engine_error"
        # Counted before the client learns of it: whoever reads the error finds it in the metrics.
        self._metrics.failed.labels(self.failure).inc()
        log.error("request %s failed", self._request_id, exc_info=error, extra={"request_id": self._request_id})
        message = str(error) if isinstance(error, ValueError) else f"see request {self._request_id} in the server's log"
        return ApiError(500, f"the answer failed: {message}", code=self.failure)

    @property
    def has_ended(self) -> bool:
        return all(choice.ended_at is not None for choice in self.choices)

    @property
    def warnings(self) -> list[str] | None:
        """What is not as it was asked for, and what may be wrong with any answer; None if there is nothing."""
        found = itertools.chain(self._prepared.warnings, *(choice.warnings for choice in self.choices))
        return list(dict.fromkeys(found)) or None

    def warnings_of(self, index: int) -> list[str] | None:
        """What may be wrong with one answer; None if there is nothing."""
        return list(self.choices[index].warnings) or None

    def trust(self, index: int) -> TrustInfo | None:
        """What is known about one answer; None where there is none."""
        trust = self.choices[index].trust
        return None if trust is None else TrustInfo.model_validate(trust.to_json())

    @property
    def usage(self) -> Usage:
        tokens = sum(choice.stream.num_tokens for choice in self.choices)
        steps = sum(itertools.chain(*(choice.steps for choice in self.choices)))
        return Usage(
            prompt_tokens=self._prepared.prompt_tokens,
            completion_tokens=tokens,
            total_tokens=self._prepared.prompt_tokens + tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._cached_tokens),
            denoising_steps=steps,
            # Without a canvas no pass denoises, and each writes one token.
            tokens_per_forward=(
                round(sum(choice.tokens_written for choice in self.choices) / steps, 3) if steps else 1.0
            ),
        )

    def echo(self, index: int) -> Echo:
        """Returns what goes before an answer."""
        echoes = self._prepared.echoes
        return echoes[index // self._prepared.num_choices] if echoes else Echo()

    def canvas(self, index: int) -> CanvasInfo:
        choice = self.choices[index]
        admitted, ended = choice.admitted_at, choice.ended_at
        return CanvasInfo(
            seed=choice.request.settings.seed,
            steps_per_canvas=choice.steps,
            seconds=0.0 if admitted is None or ended is None else round(max(0.0, ended - admitted), 4),
            constraint=_constraint_info(choice.constraint),
        )

    def _cancel(self) -> None:
        for choice in self.choices:
            self._engine.cancel(choice.request)

    def _read(self, choice: ChoiceProgress, event: engine.Event) -> Iterator[Delta | StepUpdate | End]:
        try:
            for told in choice.read(event):
                if isinstance(told, Delta):
                    if not choice.has_text:
                        choice.has_text = True
                        self._metrics.first_text.observe(time.perf_counter() - self._started)
                    if isinstance(told.part, Content):
                        choice.content += told.part.text
                elif isinstance(told, End):
                    choice.end(told.finish_reason)
                    # A stop text may end it before the model does.
                    self._engine.cancel(choice.request)
                    self._observe_end(choice)
                yield told
        except Exception as error:
            raise self.fail(error) from error

    def _observe_end(self, choice: ChoiceProgress) -> None:
        assert choice.ended_at is not None
        self._metrics.whole.observe(choice.ended_at - self._started)
        if choice.admitted_at is not None and choice.stream.num_tokens:
            self._metrics.per_token.observe((choice.ended_at - choice.admitted_at) / choice.stream.num_tokens)
        if choice.constraint is not None:
            self._metrics.guided_steps.inc(choice.constraint.guided_steps)
        for steps in choice.steps:
            self._metrics.steps.observe(steps)
        if choice.steps:
            self._metrics.per_forward.observe(choice.tokens_written / sum(choice.steps))

    @property
    def _cached_tokens(self) -> int:
        """Prompt tokens that had been read before, each prompt counted once, as its own tokens are."""
        # The first of a prompt's choices is admitted first: what the others find cached is its doing.
        return sum(choice.cached_tokens for choice in self.choices[:: self._prepared.num_choices])


def _constraint_info(report: ConstraintReport | None) -> ConstraintInfo | None:
    if report is None:
        return None
    # JSON has no infinity: a model may give a language no probability at all.
    log_mass = [max(round(mass, 2), MIN_LOG_MASS) for mass in report.log_mass]
    return ConstraintInfo(log_mass=log_mass, guided_steps=report.guided_steps, states=report.states)


def _repeat(prompts: tuple[ReadPrompt, ...], count: int) -> Iterator[ReadPrompt]:
    return itertools.chain.from_iterable(itertools.repeat(prompt, count) for prompt in prompts)


def answer_stream(
    within: Engine, request: engine.Request, prompt: ReadPrompt, prepared: PreparedRequest
) -> AnswerStream:
    model = within.model
    return AnswerStream(
        model.tokenizer,
        stop_ids=model.transformer.config.eos_ids if request.stop_ids is None else request.stop_ids,
        max_tokens=0 if prepared.is_cut else request.settings.max_new_tokens,
        stop_texts=prepared.stop_texts,
        parses_parts=True,
        delta_tokens=DELTA_TOKENS,
        forms=prompt.forms,
    )


def scored_tokens(event: engine.CanvasCommitted | engine.TokensScored, top_logprobs: int | None) -> list[ScoredToken]:
    if event.top is None or top_logprobs is None:
        return []
    ids, scores = event.top.ids.tolist(), event.top.log_probs.tolist()
    # The likeliest is what was written: a canvas commits its draft.
    own = event.log_probs if isinstance(event, engine.TokensScored) else [row[0] for row in scores]
    return [
        ScoredToken(token, log_prob, tuple(zip(others[:top_logprobs], row[:top_logprobs], strict=True)))
        for token, log_prob, others, row in zip(event.token_ids, own, ids, scores, strict=False)
    ]
