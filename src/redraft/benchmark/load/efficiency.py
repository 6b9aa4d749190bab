"""The engine's efficiency: the share of a bare step's canvas-steps a second that it keeps under constant load.

The rest goes to prompts, commits and its own work between forwards.
"""

import itertools
import threading
import time
from collections.abc import Sequence

from redraft.benchmark.steps import Step
from redraft.benchmark.timing import Comparison, Spread, alternate, ratio
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import EngineThread, Event, Failed, Finished, Limits, Request, StepTaken
from redraft.model.config import ModelConfig
from redraft.model.transformer import Transformer


def measure_efficiency(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    settings: SamplerSettings,
    concurrency: int,
    *,
    rounds: int,
    seconds: float,
) -> Comparison:
    """Measures the engine with `concurrency` requests in flight and one step of as many canvases, alternating.

    Returns canvas-steps a second. Each side of a round takes `seconds`. Prompts are used again when all have been, but
    no prefix of them is kept. Raises ValueError for a request that cannot be answered.
    """
    bare = bare_step(model, prompts, settings, concurrency)
    engine, step = alternate(
        rounds,
        lambda: measure_engine_rate(model, prompts, settings, concurrency, seconds),
        lambda: concurrency * _steps_per_second(bare, seconds),
    )
    return Comparison(Spread.of(engine), Spread.of(step), ratio(engine, step))


def bare_step(
    model: Transformer, prompts: Sequence[Sequence[int]], settings: SamplerSettings, concurrency: int
) -> Step:
    """Returns a step of as many canvases as requests, each behind the prompts' mean number of tokens."""
    context = round(sum(map(len, prompts)) / len(prompts))
    return Step(model, concurrency, context, length=settings.canvas_length)


def measure_engine_rate(
    model: Transformer, prompts: Sequence[Sequence[int]], settings: SamplerSettings, concurrency: int, seconds: float
) -> float:
    """Measures canvas-steps a second with always `concurrency` requests, from when the first of them has ended."""
    thread = EngineThread(model, constant_load_limits(model.config, prompts, settings, concurrency))
    load = _ConstantLoad(thread, prompts, settings)
    try:
        for _ in range(concurrency):
            load.send()
        load.wait_for_first_end()
        steps, start = load.steps, time.perf_counter()
        time.sleep(seconds)
        rate = (load.steps - steps) / (time.perf_counter() - start)
        load.check()
    finally:
        load.closed = True
        thread.shutdown(finish=False)
    return rate


def constant_load_limits(
    config: ModelConfig, prompts: Sequence[Sequence[int]], settings: SamplerSettings, concurrency: int
) -> Limits:
    """Returns the limits of an engine that admits all `concurrency` requests at once and keeps no prefixes."""
    canvas, usual = settings.canvas_length or config.canvas_length, Limits()
    cached = max_cached_tokens(max(map(len, prompts)), settings, config, concurrency)
    return Limits(
        forward_tokens=max(usual.forward_tokens, 2 * concurrency * canvas),
        admitted_requests=concurrency,
        admitted_tokens=max(usual.admitted_tokens, cached),
        queued_requests=max(usual.queued_requests, concurrency),
        prefix_tokens=0,
    )


def max_cached_tokens(prompt_tokens: int, settings: SamplerSettings, config: ModelConfig, requests: int) -> int:
    """Returns the most tokens in the caches of this many requests, with prompts of at most `prompt_tokens`."""
    canvas = settings.canvas_length or config.canvas_length
    longest = prompt_tokens + -(-settings.max_new_tokens // canvas) * canvas
    return requests * min(longest, config.max_context)


class _ConstantLoad:
    """Requests of which each is followed by the next. Its event handler runs in the engine's thread."""

    def __init__(self, thread: EngineThread, prompts: Sequence[Sequence[int]], settings: SamplerSettings) -> None:
        self._thread, self._settings = thread, settings
        self._numbered_prompts = enumerate(itertools.cycle(prompts))
        self._first_end = threading.Event()
        self._error: Exception | None = None
        self.steps = 0
        self.closed = False

    def send(self) -> None:
        number, prompt = next(self._numbered_prompts)
        settings = self._settings.replace(seed=number)
        request = Request(id=str(number), prompt=tuple(prompt), settings=settings, drafts=True)
        self._thread.submit(request, self._handle)

    def wait_for_first_end(self) -> None:
        self._first_end.wait()
        self.check()

    def check(self) -> None:
        """Raises the error of a request that failed."""
        if self._error is not None:
            raise self._error

    def _handle(self, event: Event) -> None:
        if isinstance(event, StepTaken):
            self.steps += 1
        elif isinstance(event, Failed | Finished):
            try:
                if isinstance(event, Failed):
                    raise event.error
                if not self.closed:
                    self.send()
            except Exception as error:
                # In the engine's thread nobody would see it.
                self._error = error
            self._first_end.set()


def _steps_per_second(step: Step, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or not count:
        step.run()
        count += 1
    return count / spent
