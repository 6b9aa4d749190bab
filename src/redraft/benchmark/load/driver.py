"""A load test: many prompts for an engine or a server, and how fast the answers come.

A closed loop keeps a fixed number of requests in flight: the next is sent when one is answered. An open loop sends them
at times that do not depend on answers, as people do (Poisson arrivals), and counts from when a request was due: one
that is sent late because the program was busy has waited.
"""

import asyncio
import itertools
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from redraft.answers import Committed
from redraft.async_engine import Engine
from redraft.client.errors import RequestFailed
from redraft.engine import QueueFull

if TYPE_CHECKING:
    from redraft.client.stream import EndpointConnection


@dataclass(frozen=True)
class AnswerSize:
    """The tokens of an answer and the denoising steps of all its canvases; None where the target does not say."""

    tokens: int | None
    canvas_steps: int | None = None


class Target(Protocol):
    """What answers the prompts of a load test."""

    async def answer(self, prompt: str, on_text: Callable[[], None]) -> AnswerSize:
        """Answers one prompt; calls `on_text` when a part of the answer's text has come. Raises RequestFailed."""
        ...


@dataclass(frozen=True)
class EngineTarget:
    """Our own engine in this process. settings: sampler settings of every request."""

    engine: Engine
    settings: Mapping[str, Any]

    async def answer(self, prompt: str, on_text: Callable[[], None]) -> AnswerSize:
        try:
            answer = await self.engine.submit(prompt, **self.settings)
            async for event in answer:
                if isinstance(event, Committed):
                    on_text()
            result = await answer
            return AnswerSize(len(result.token_ids), sum(result.generation.steps_per_canvas))
        except QueueFull as error:
            raise RequestFailed("queue full", str(error)) from error
        except Exception as error:
            # Whatever became of one request, the others are still measured.
            raise RequestFailed(type(error).__name__, str(error)) from error


@dataclass(frozen=True)
class EndpointTarget:
    """A server that speaks the OpenAI protocol. Tokens are its own count, if it reports usage.

    fields: of each request's body, beside the endpoint's own.
    """

    connection: "EndpointConnection"
    fields: Mapping[str, Any] = field(default_factory=dict)

    async def answer(self, prompt: str, on_text: Callable[[], None]) -> AnswerSize:
        tokens = None
        async for chunk in self.connection.stream(prompt, **self.fields):
            if chunk.content or chunk.reasoning:
                on_text()
            if chunk.usage:
                tokens = int(chunk.usage["completion_tokens"])
        return AnswerSize(tokens)


@dataclass(frozen=True)
class AnsweredRequest:
    """The seconds from when a request was due to its first text and to its end."""

    first_seconds: float
    seconds: float
    size: AnswerSize


@dataclass(frozen=True)
class LoadResult:
    """The outcome of every request, and the seconds from when the first was due to the last end."""

    outcomes: tuple[AnsweredRequest | RequestFailed, ...]
    seconds: float


@dataclass(frozen=True)
class Traffic:
    """The prompts of a load test and when they are sent: `concurrency` in flight, or `rate` a second.

    Raises ValueError without prompts, for a concurrency below 1, and for a rate that is not a finite number above 0.
    """

    prompts: Sequence[str]
    concurrency: int = 16
    rate: float | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("there are no prompts to send; give at least one")
        if self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}, must be at least 1")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"rate is {self.rate}, must be a finite number above 0")

    async def send(self, target: Target) -> LoadResult:
        start, waiting = time.perf_counter(), iter(self.prompts)

        async def worker() -> list[AnsweredRequest | RequestFailed]:
            return [await _ask(target, prompt, time.perf_counter()) for prompt in waiting]

        if self.rate is None:
            workers = (worker() for _ in range(min(self.concurrency, len(self.prompts))))
            outcomes = [*itertools.chain(*await asyncio.gather(*workers))]
        else:
            running = []
            for prompt, after in zip(self.prompts, arrivals(self.rate), strict=False):
                await asyncio.sleep(max(0.0, start + after - time.perf_counter()))
                running.append(asyncio.create_task(_ask(target, prompt, start + after)))
            outcomes = await asyncio.gather(*running)
        return LoadResult(tuple(outcomes), time.perf_counter() - start)


def arrivals(rate: float, seed: int = 0) -> Iterator[float]:
    """Yields the seconds from the start at which requests are due, the first at 0."""
    rng, at = random.Random(f"arrivals/{seed}"), 0.0
    while True:
        yield at
        at += rng.expovariate(rate)


def summarise_load(result: LoadResult) -> dict[str, Any]:
    """Returns throughput and percentiles; failures by kind, each with its first message. Unknown numbers are None.

    Throughputs are of answered requests over the seconds of the whole run. ms_per_token is a request's whole time over
    its tokens: a canvas comes in one piece, and the time between pieces would be 0 for an answer of one.
    """
    answered = [one for one in result.outcomes if isinstance(one, AnsweredRequest)]
    failed = [one for one in result.outcomes if isinstance(one, RequestFailed)]
    tokens = _total([one.size.tokens for one in answered])
    steps = _total([one.size.canvas_steps for one in answered])

    def per_second(total: int | None) -> float | None:
        return None if total is None else round(total / result.seconds, 3)

    return {
        "requests": len(result.outcomes),
        "answered": len(answered),
        "failed": dict(Counter(one.kind for one in failed)),
        "failures": {one.kind: str(one) for one in reversed(failed)},
        "seconds": round(result.seconds, 4),
        "answer_tokens": tokens,
        "tokens_per_second": per_second(tokens),
        "requests_per_second": per_second(len(answered)),
        "canvas_steps_per_second": per_second(steps),
        "first_canvas_ms": percentiles([1000 * one.first_seconds for one in answered]),
        "answer_ms": percentiles([1000 * one.seconds for one in answered]),
        "ms_per_token": percentiles([1000 * one.seconds / n for one in answered if (n := one.size.tokens)]),
    }


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Returns p50, p90 and p99, interpolated; None without values."""
    if not values:
        return None
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {f"p{share}": round(cuts[share - 1], 3) for share in (50, 90, 99)}


async def _ask(target: Target, prompt: str, due: float) -> AnsweredRequest | RequestFailed:
    texts: list[float] = []
    try:
        size = await target.answer(prompt, lambda: texts.append(time.perf_counter()))
    except RequestFailed as failure:
        return failure
    end = time.perf_counter()
    # An answer without text has its first canvas at its end.
    return AnsweredRequest((texts or [end])[0] - due, end - due, size)


def _total(counts: Sequence[int | None]) -> int | None:
    """Returns the sum; None without counts, or where one is not known."""
    known = [one for one in counts if one is not None]
    return sum(known) if counts and len(known) == len(counts) else None
