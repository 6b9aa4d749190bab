"""The engine at steady load beside the bare step: how many of the step's canvas-steps a second it keeps.

What it loses goes to prompts, commits and its own work between forwards.
"""

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redraft.benchmark.steps import Step
from redraft.benchmark.timing import Spread, ratio
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import EngineLoop, Event, Failed, Finished, Limits, Request, StepTaken
from redraft.model import ModelConfig, Transformer


@dataclass(frozen=True)
class Efficiency:
    """Canvas-steps a second of the engine and of the bare step, and the engine's over the step's, round by round."""

    engine: Spread
    step: Spread
    ratio: Spread


def efficiency(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    settings: SamplerSettings,
    concurrency: int,
    *,
    rounds: int,
    seconds: float,
) -> Efficiency:
    """`concurrency` requests in the engine at any time, and as many canvases in one step, each for `seconds` in turn.

    The step's canvases stand behind as many tokens as the prompts have on average. Prompts are used again when all have
    been, but no prefix is kept of them. ValueError for a request that cannot be answered.
    """
    context = round(sum(map(len, prompts)) / len(prompts))
    bare = Step(model, concurrency, context, length=settings.canvas_length)
    engine, step = [], []
    for number in range(-1, rounds):
        kept = steady_rate(model, prompts, settings, concurrency, seconds)
        alone = concurrency * _steps_per_second(bare, seconds)
        if number >= 0:
            engine.append(kept)
            step.append(alone)
    return Efficiency(Spread.of(engine), Spread.of(step), ratio(engine, step))


def steady_rate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    settings: SamplerSettings,
    concurrency: int,
    seconds: float,
) -> float:
    """Canvas-steps a second while there are always `concurrency` requests, from when the first of them has ended."""
    canvas = settings.canvas_length or model.config.canvas_length
    held = most_held(max(map(len, prompts)), settings, model.config, concurrency)
    limits = Limits(
        forward_tokens=max(Limits().forward_tokens, 2 * concurrency * canvas),
        admitted_requests=concurrency,
        admitted_tokens=max(Limits().admitted_tokens, held),
        queued_requests=max(Limits().queued_requests, concurrency),
        prefix_tokens=0,
    )
    loop = EngineLoop(model, limits)
    crowd = _Crowd(loop, prompts, settings)
    try:
        for _ in range(concurrency):
            crowd.send()
        crowd.wait_for_end()
        before, begun = crowd.steps, time.perf_counter()
        time.sleep(seconds)
        after, ended = crowd.steps, time.perf_counter()
        crowd.check()
    finally:
        crowd.closed = True
        loop.shutdown(finish=False)
    return (after - before) / (ended - begun)


def most_held(prompt: int, settings: SamplerSettings, config: ModelConfig, requests: int) -> int:
    """Tokens that the caches of so many requests may come to hold, with prompts of at most `prompt` tokens."""
    canvas = settings.canvas_length or config.canvas_length
    longest = prompt + -(-settings.max_new_tokens // canvas) * canvas
    return requests * min(longest, config.max_context)


class _Crowd:
    """Requests of which each is followed by the next. Its sink runs in the engine's thread."""

    def __init__(self, loop: EngineLoop, prompts: Sequence[Sequence[int]], settings: SamplerSettings) -> None:
        self._loop, self._settings = loop, settings
        self._prompts = itertools.cycle(prompts)
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._error: Exception | None = None
        self.steps = 0
        self.closed = False

    def send(self) -> None:
        """Hands in the next request."""
        number = next(self._numbers)
        settings = self._settings.replace(seed=number)
        prompt = tuple(next(self._prompts))
        self._loop.submit(Request(id=str(number), prompt=prompt, settings=settings, drafts=True), self._hear)

    def wait_for_end(self) -> None:
        """Until the first request has ended. Raises the error of one that failed."""
        self._ended.wait()
        self.check()

    def check(self) -> None:
        """Raises the error of a request that failed."""
        if self._error is not None:
            raise self._error

    def _hear(self, event: Event) -> None:
        if isinstance(event, StepTaken):
            self.steps += 1
        elif isinstance(event, Failed):
            self._error = event.error
            self._ended.set()
        elif isinstance(event, Finished):
            try:
                if not self.closed:
                    self.send()
            except Exception as error:
                # Where it would be raised nobody hears of it.
                self._error = error
            self._ended.set()


def _steps_per_second(step: Step, seconds: float) -> float:
    begun, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds or not count:
        step.run()
        count += 1
    return count / spent
