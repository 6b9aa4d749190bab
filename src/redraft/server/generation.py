"""Answers in progress: slots for them, the engine's events as text, metrics, and cancellation when nobody waits."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from redraft import engine
from redraft.async_engine import Engine
from redraft.server.constraints import constraint_info, forced_tokens
from redraft.server.metrics import Metrics
from redraft.server.openai.errors import ApiError, bad_request, retry_later
from redraft.server.openai.responses import CanvasInfo, PromptTokensDetails, TrustInfo, Usage
from redraft.server.progress import ChoiceProgress, ChoiceUpdate, NewsOfAnswer
from redraft.text import AnswerStream, Content, Delta, End, ReadPrompt
from redraft.text.prompts.grounding import SourceText, Span

log = logging.getLogger("redraft.server")

DELTA_TOKENS = 8
"""A canvas becomes final at once, and is sent in deltas of this many tokens."""

MAX_QUEUED_EVENTS = 256
"""Events that wait for a client that receives slowly: beyond it, drafts are dropped, and nothing else."""


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
    source: the text that the answers' spans are of.
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
    source: SourceText | None = None

    @property
    def prompt_tokens(self) -> int:
        """The tokens of all prompts, each counted once."""
        return sum(prompt.num_tokens for prompt in self.prompts)


class GenerationSession:
    """The answers to one API request, in the engine from the start of a `with` block to its end at the latest.

    Entering raises ApiError if the engine refuses them. Leaving cancels what is not finished. is_watched: whether
    anybody reads an answer before it is whole. failure: the code of the error that ended them, or None.
    """

    def __init__(
        self, within: Engine, prepared: PreparedRequest, metrics: Metrics, request_id: str, *, is_watched: bool = True
    ) -> None:
        self.failure: str | None = None
        self.choices = [
            ChoiceProgress(
                request,
                prompt,
                within.model.with_adapter(request.adapter),
                answer_stream(within, request, prompt, prepared),
                prepared.top_logprobs,
                forced=forced_tokens(request, within.model),
                source=prepared.source,
            )
            for prompt, request in zip(_repeat(prepared.prompts, prepared.num_choices), prepared.requests, strict=True)
        ]
        self._engine, self._prepared, self._metrics, self._request_id = within, prepared, metrics, request_id
        # A stop text ends an answer as soon as it is read.
        self._at_once = not is_watched and not prepared.stop_texts
        self._index = {choice.request.id: at for at, choice in enumerate(self.choices)}
        self._events = EventQueue()
        self._started = time.perf_counter()

    def __enter__(self) -> "GenerationSession":
        try:
            for choice in self.choices:
                self._engine.events(choice.request, self._events, at_once=self._at_once)
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

    def spans(self, index: int) -> dict[str, Span] | None:
        """Where each text of a grounded answer stands; None of others."""
        return self.choices[index].spans

    @property
    def usage(self) -> Usage:
        tokens = sum(choice.stream.num_tokens for choice in self.choices)
        forwards = sum(choice.forwards for choice in self.choices)
        return Usage(
            prompt_tokens=self._prepared.prompt_tokens,
            completion_tokens=tokens,
            total_tokens=self._prepared.prompt_tokens + tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._cached_tokens),
            denoising_steps=sum(choice.denoiser_passes for choice in self.choices),
            causal_passes=sum(choice.causal_passes for choice in self.choices) or None,
            # Of a prompt that is scored each pass reads one token.
            tokens_per_forward=(
                round(sum(choice.tokens_written for choice in self.choices) / forwards, 3) if forwards else 1.0
            ),
        )

    def echo(self, index: int) -> Echo:
        """Returns what goes before an answer."""
        echoes = self._prepared.echoes
        return echoes[index // self._prepared.num_choices] if echoes else Echo()

    def canvas(self, index: int) -> CanvasInfo:
        choice = self.choices[index]
        admitted, ended, verified = choice.admitted_at, choice.ended_at, choice.verification
        if verified is not None:
            verified = replace(verified, kept_per_round=round(verified.kept_per_round, 3))
        return CanvasInfo(
            seed=choice.request.settings.seed,
            mode=choice.request.mode,
            steps_per_canvas=choice.steps,
            parts=len(choice.prompt.parts) if len(choice.prompt.parts) > 1 else None,
            verification=verified,
            seconds=0.0 if admitted is None or ended is None else round(max(0.0, ended - admitted), 4),
            constraint=constraint_info(choice.constraint),
        )

    def _cancel(self) -> None:
        for choice in self.choices:
            self._engine.cancel(choice.request)

    def _read(self, choice: ChoiceProgress, event: engine.Event) -> Iterator[NewsOfAnswer]:
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
        mode = choice.request.mode
        for steps in choice.steps if mode == "diffusion" else ():
            self._metrics.steps.observe(steps)
        if choice.forwards:
            self._metrics.per_forward.observe(choice.tokens_written / choice.forwards)
        self._metrics.answers.labels(mode).inc()
        self._metrics.passes.labels(mode, "denoiser").inc(choice.denoiser_passes)
        self._metrics.passes.labels(mode, "causal").inc(choice.causal_passes)
        if (found := choice.verification) is not None:
            self._metrics.kept.observe(found.kept_per_round)

    @property
    def _cached_tokens(self) -> int:
        """Prompt tokens that had been read before, each prompt counted once, as its own tokens are."""
        # The first of a prompt's choices is admitted first: what the others find cached is its doing.
        return sum(choice.cached_tokens for choice in self.choices[:: self._prepared.num_choices])


def _repeat(prompts: tuple[ReadPrompt, ...], count: int) -> Iterator[ReadPrompt]:
    return itertools.chain.from_iterable(itertools.repeat(prompt, count) for prompt in prompts)


def answer_stream(
    within: Engine, request: engine.Request, prompt: ReadPrompt, prepared: PreparedRequest
) -> AnswerStream:
    model = within.model
    return AnswerStream(
        model.tokenizer,
        stop_ids=model.transformer.config.eos_ids if request.stop_ids is None else request.stop_ids,
        max_tokens=0 if prepared.is_cut else prompt.room(request.settings.max_new_tokens),
        stop_texts=prepared.stop_texts,
        parses_parts=True,
        delta_tokens=DELTA_TOKENS,
        forms=prompt.answer_forms(is_held=request.constraint is not None),
    )
