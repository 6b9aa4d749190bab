"""Load: many prompts for an engine or a server, and how fast the answers come.

A closed loop has so many requests on the way at any time: the next is sent when one is answered. An open loop sends
them at times that do not depend on answers, as people do (Poisson arrivals), and counts from when a request was due:
one that is sent late because the program was busy has waited.
"""

import asyncio
import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redraft.api import Committed, Result
from redraft.async_engine import Engine
from redraft.engine import QueueFull
from redraft.evaluation.needle import FILLING


class NotAnswered(Exception):
    """A request that failed: `kind` is what such failures are counted by, the message says more."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Amount:
    """How much an answer was: tokens and denoising steps of all its canvases. None where the target does not say."""

    tokens: int | None
    canvas_steps: int | None = None


class Target(Protocol):
    """What answers prompts."""

    async def answer(self, prompt: str, first: Callable[[], None]) -> Amount:
        """Answers one prompt; calls `first` when the first text of the answer is there. Raises NotAnswered."""
        ...


class EngineTarget:
    """Our own engine in this process. `settings` are fields of SamplerSettings."""

    def __init__(self, engine: Engine, settings: dict[str, Any]) -> None:
        self._engine, self._settings = engine, settings

    async def answer(self, prompt: str, first: Callable[[], None]) -> Amount:
        """As Target has it: the first canvas is the first text."""
        try:
            async for event in await self._engine.submit(prompt, **self._settings):
                if isinstance(event, Committed):
                    first()
                elif isinstance(event, Result):
                    return Amount(len(event.token_ids), sum(event.generation.steps_per_canvas))
        except QueueFull as error:
            raise NotAnswered("queue full", str(error)) from error
        except Exception as error:
            # Whatever became of one request, the others are still measured.
            raise NotAnswered(type(error).__name__, str(error)) from error
        raise NotAnswered("no end", "the answer's events ended without a result")


@dataclass(frozen=True)
class Answered:
    """Seconds from when a request was due to its first text and to its end."""

    first: float
    seconds: float
    amount: Amount


@dataclass(frozen=True)
class Load:
    """What became of every request, and the seconds from the first that was due to the last end."""

    outcomes: tuple[Answered | NotAnswered, ...]
    seconds: float


async def closed_loop(target: Target, prompts: Sequence[str], concurrency: int) -> Load:
    """Answers all prompts, `concurrency` of them at any time. ValueError for a number below 1 and no prompts."""
    check_prompts(prompts)
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}, must be at least 1")
    begun = time.perf_counter()
    waiting = iter(prompts)

    async def worker() -> list[Answered | NotAnswered]:
        return [await _ask(target, prompt, time.perf_counter()) for prompt in waiting]

    outcomes = await asyncio.gather(*(worker() for _ in range(min(concurrency, len(prompts)))))
    return Load(tuple(itertools.chain(*outcomes)), time.perf_counter() - begun)


async def open_loop(target: Target, prompts: Sequence[str], rate: float, seed: int = 0) -> Load:
    """Sends the prompts at `rate` a second, with the gaps of a Poisson process. ValueError for a rate not above 0."""
    check_prompts(prompts)
    check_rate(rate)
    begun = time.perf_counter()
    running = []
    for prompt, after in zip(prompts, arrivals(rate, seed), strict=False):
        due = begun + after
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(_ask(target, prompt, due)))
    outcomes = await asyncio.gather(*running)
    return Load(tuple(outcomes), time.perf_counter() - begun)


def check_rate(rate: float) -> None:
    """ValueError for a rate that is not a finite number above 0."""
    if not 0 < rate < float("inf"):
        raise ValueError(f"rate is {rate}, must be a finite number above 0")


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Seconds from the start at which requests are due, the first at 0."""
    rng, at = random.Random(f"arrivals/{seed}"), 0.0
    while True:
        yield at
        at += rng.expovariate(rate)


def filler_prompts(low: int, high: int, seed: int = 0) -> Iterator[str]:
    """Prompts without end, of `low` to `high` words of filling sentences, no two with a long beginning in common."""
    if not 1 <= low <= high:
        raise ValueError(f"prompts of {low} to {high} words: the first must be at least 1, the second not below it")
    rng = random.Random(f"prompts/{seed}")
    while True:
        wanted, words = rng.randint(low, high), [f"{rng.randrange(10**6)}:"]
        while len(words) < wanted:
            words += rng.choice(FILLING).split()
        yield " ".join(words[:wanted])


def summarise_load(load: Load) -> dict[str, Any]:
    """Throughput and percentiles; failures by kind, each with the first message. Numbers nobody told are None.

    Throughputs are of answered requests over the seconds of the whole run. ms_per_token of a request are its whole time
    over its tokens: a canvas comes as one piece, and the time between pieces would be 0 for an answer of one.
    """
    answered = [one for one in load.outcomes if isinstance(one, Answered)]
    failed = [one for one in load.outcomes if isinstance(one, NotAnswered)]
    tokens = _total(one.amount.tokens for one in answered)
    steps = _total(one.amount.canvas_steps for one in answered)

    def per_second(total: int | None) -> float | None:
        return None if total is None else round(total / load.seconds, 3)

    return {
        "requests": len(load.outcomes),
        "answered": len(answered),
        "failed": dict(Counter(one.kind for one in failed)),
        "failures": {one.kind: str(one) for one in reversed(failed)},
        "seconds": round(load.seconds, 4),
        "answer_tokens": tokens,
        "tokens_per_second": per_second(tokens),
        "requests_per_second": per_second(len(answered)),
        "canvas_steps_per_second": per_second(steps),
        "first_canvas_ms": percentiles([1000 * one.first for one in answered]),
        "answer_ms": percentiles([1000 * one.seconds for one in answered]),
        "ms_per_token": percentiles([1000 * one.seconds / n for one in answered if (n := one.amount.tokens)]),
    }


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p90 and p99, between neighbours where they fall there; None of nothing."""
    if not values:
        return None
    cuts = statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {f"p{share}": round(cuts[share - 1], 3) for share in (50, 90, 99)}


async def _ask(target: Target, prompt: str, due: float) -> Answered | NotAnswered:
    firsts: list[float] = []
    try:
        amount = await target.answer(prompt, lambda: firsts.append(time.perf_counter()))
    except NotAnswered as failure:
        return failure
    end = time.perf_counter()
    # An answer without text has its first canvas at its end.
    return Answered((firsts or [end])[0] - due, end - due, amount)


def _total(counts: Iterable[int | None]) -> int | None:
    """Their sum; None where there is none, or one is not known."""
    known = list(counts)
    return sum(one for one in known if one is not None) if known and None not in known else None


def check_prompts(prompts: Sequence[str]) -> None:
    """ValueError where there are none."""
    if not prompts:
        raise ValueError("there are no prompts to send; give at least one")
