"""Requests on their way through the engine: places, events, what is counted, and an end when nobody waits."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redraft import engine
from redraft.async_engine import Engine
from redraft.server.asking import Asked
from redraft.server.choice import Choice, Delta, Ended, Told
from redraft.server.errors import ApiError, refused, retry_later
from redraft.server.metrics import Metrics
from redraft.server.told import CachedTokens, CanvasTold, Usage

log = logging.getLogger("redraft.server")


class Places:
    """How many answers may be held at a time, waiting ones included: counted before anything is done for them."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit, self._metrics = limit, metrics
        self._lasted = 1.0
        self._autoregressive = 0
        self.taken = 0

    @contextmanager
    def take(self, count: int, *, autoregressive: bool = False) -> Iterator[None]:
        """So many places until the end of the block. 429 where they are not there, 400 where they can never be.

        Token by token one answer is written at a time: beside the others, which each of its passes holds up.
        """
        if count > self._limit:
            raise refused(f"the request asks for {count} answers, this server holds {self._limit} at a time", "n")
        if autoregressive and self._autoregressive:
            self._metrics.rejected.labels("autoregressive").inc()
            raise retry_later(429, "another answer is being written token by token; one at a time", 1, "queue_full")
        if self.taken + count > self._limit:
            self._metrics.rejected.labels("queue_full").inc()
            raise retry_later(
                429, f"{self.taken} of {self._limit} places for answers are taken: ask again later", self._lasted,
                "queue_full",
            )  # fmt: skip
        begun = time.perf_counter()
        self.taken += count
        self._autoregressive += autoregressive
        try:
            yield
            # How long answers took of late is when a place may be free; what was refused or left says nothing of it.
            self._lasted += (time.perf_counter() - begun - self._lasted) / 8
        finally:
            self.taken -= count
            self._autoregressive -= autoregressive


MOST_TOLD = 256
"""Events that wait for a client that takes them slowly: beyond, drafts are left out, and nothing else."""


class _Events(asyncio.Queue[engine.Event]):
    """What the engine tells, without the drafts that would pile up."""

    def put_nowait(self, event: engine.Event) -> None:
        if not (isinstance(event, engine.StepTaken) and self.qsize() >= MOST_TOLD):
            super().put_nowait(event)


@dataclass(frozen=True)
class Happened:
    """What was told of the choice with this index."""

    index: int
    told: Told


class Answering:
    """The answers to one request of the API, in the engine from the start of a `with` block to its end at the latest.

    Entering raises ApiError where the engine does not take them on. Leaving cancels what is not finished. failure: the
    code of the error that ended them.
    """

    def __init__(self, within: Engine, asked: Asked, metrics: Metrics, request_id: str) -> None:
        self._engine, self._asked, self._metrics, self._request_id = within, asked, metrics, request_id
        self.failure: str | None = None
        self.choices = [Choice(within, request, asked.stops, asked.top) for request in asked.requests]
        self._index = {choice.request.id: at for at, choice in enumerate(self.choices)}
        self._told = _Events()
        self._started = time.perf_counter()
        self._ended: dict[int, float] = {}

    def __enter__(self) -> "Answering":
        try:
            for choice in self.choices:
                self._engine.events(choice.request, self._told)
        except BaseException as error:
            self._cancel()
            if isinstance(error, ValueError):
                raise refused(str(error), code="invalid_value") from error
            if isinstance(error, engine.QueueFull):
                raise retry_later(429, str(error), 1, "queue_full") from error
            if isinstance(error, RuntimeError):
                raise retry_later(503, str(error), 10, "draining") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel()
        counted = [choice.counted for choice in self.choices]
        self._metrics.prompt_tokens.inc(self._asked.prompt_tokens)
        self._metrics.cached_tokens.inc(self._cached)
        if self.failure is not None:
            self._metrics.failed.labels(self.failure).inc()
        self._metrics.answer_tokens.inc(sum(one.tokens for one in counted))
        for one in counted:
            if one.begun is not None:
                self._metrics.queued.observe(max(0.0, one.begun - self._started))

    async def events(self) -> AsyncIterator[Happened]:
        """What happens, as it happens. ApiError where an answer fails: the others end with it."""
        while len(self._ended) < len(self.choices):
            event = await self._told.get()
            at = self._index[event.id]
            if isinstance(event, engine.Cancelled):
                if at not in self._ended:
                    raise retry_later(503, "the server is being shut down", 10, "draining")
                continue
            for one in self._take(at, event):
                self._measure(at, one)
                yield Happened(at, one)

    def failed(self, error: Exception) -> ApiError:
        """What a client is told of an error that is not its own; the log is told the rest."""
        self.failure = "engine_error"
        log.error("request %s failed", self._request_id, exc_info=error, extra={"request_id": self._request_id})
        message = str(error) if isinstance(error, ValueError) else f"the log knows it as {self._request_id}"
        return ApiError(500, f"the answer failed: {message}", code=self.failure)

    def _cancel(self) -> None:
        for choice in self.choices:
            self._engine.cancel(choice.request)

    def _take(self, at: int, event: engine.Event) -> Iterator[Told]:
        choice = self.choices[at]
        try:
            for one in choice.take(event):
                if isinstance(one, Ended):
                    self._ended[at] = time.perf_counter()
                    # A stop text may end it before the model does.
                    self._engine.cancel(choice.request)
                yield one
        except Exception as error:
            raise self.failed(error) from error

    def _measure(self, at: int, told: Told) -> None:
        now, counted = time.perf_counter(), self.choices[at].counted
        if isinstance(told, Delta) and not counted.heard:
            counted.heard = True
            self._metrics.first_text.observe(now - self._started)
        if isinstance(told, Ended):
            self._metrics.whole.observe(now - self._started)
            if counted.begun is not None and counted.tokens:
                self._metrics.per_token.observe((now - counted.begun) / counted.tokens)
            for steps in counted.steps:
                self._metrics.steps.observe(steps)
            if counted.steps:
                self._metrics.per_forward.observe(counted.written / sum(counted.steps))

    @property
    def _cached(self) -> int:
        """Tokens of prompts that had been read before, each prompt counted once, as its own tokens are."""
        # The first of a prompt's choices is the first to be admitted: what the others find is its own doing.
        return sum(choice.counted.cached for choice in self.choices[:: self._asked.choices])

    @property
    def usage(self) -> Usage:
        """Of all choices."""
        counted = [choice.counted for choice in self.choices]
        tokens, steps = sum(one.tokens for one in counted), sum(itertools.chain(*(one.steps for one in counted)))
        return Usage(
            prompt_tokens=self._asked.prompt_tokens,
            completion_tokens=tokens,
            total_tokens=self._asked.prompt_tokens + tokens,
            prompt_tokens_details=CachedTokens(cached_tokens=self._cached),
            denoising_steps=steps,
            # Token by token no pass denoises, and each writes one.
            tokens_per_forward=round(sum(one.written for one in counted) / steps, 3) if steps else 1.0,
        )

    def canvas(self, index: int) -> CanvasTold:
        """How one choice came to be."""
        choice = self.choices[index]
        begun, ended = choice.counted.begun, self._ended.get(index)
        return CanvasTold(
            seed=choice.request.settings.seed,
            steps_per_canvas=choice.counted.steps,
            seconds=0.0 if begun is None or ended is None else round(max(0.0, ended - begun), 4),
        )
