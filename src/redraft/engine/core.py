"""The engine without a thread: requests go in, each `step` runs one forward, events come out."""

import time

from redraft.engine.autoregression import Autoregression
from redraft.engine.prefix_cache import PrefixCache
from redraft.engine.request import Admitted, Cancelled, Event, Failed, Finished, Phase, Request
from redraft.engine.runner import Denoised, run_forward
from redraft.engine.scheduler import Limits, Piece, Scheduler, Task
from redraft.engine.sequence import Progress
from redraft.model import Transformer

Part = tuple[Progress, Piece]


class EngineCore:
    """Many requests at once, each answered token for token as `generation.generate` would answer it alone.

    For one caller at a time; `EngineLoop` gives it a thread.
    """

    def __init__(self, model: Transformer, limits: Limits | None = None) -> None:
        self.model = model
        self.limits = limits or Limits()
        self.prefixes = PrefixCache(self.limits.prefix_tokens)
        self.scheduler = Scheduler(self.limits)
        self._held: dict[str, Progress] = {}
        self._by_task: dict[Task, Progress] = {}
        self._autoregressive: dict[str, Autoregression] = {}

    @property
    def held(self) -> tuple[str, ...]:
        """The ids of all requests that wait or are in work."""
        return (*self._held, *self._autoregressive)

    def check(self, request: Request) -> None:
        """ValueError for a request that cannot be answered, whatever else the engine holds."""
        if request.autoregressive:
            Autoregression(request, self.model)
        else:
            self.scheduler.check(Progress(request, self.model.config).task)

    def submit(self, request: Request) -> None:
        """Takes a request on. ValueError as `check` has it and for an id that is held; QueueFull where that is so."""
        if request.id in self.held:
            raise ValueError(f"the engine already holds a request {request.id!r}; give each an id of its own")
        if request.autoregressive:
            self._autoregressive[request.id] = Autoregression(request, self.model)
            return
        progress = Progress(request, self.model.config)
        self.scheduler.submit(progress.task)
        self._held[request.id] = self._by_task[progress.task] = progress

    def cancel(self, id: str) -> list[Event]:
        """Gives a request up and frees all it held; its last event, or nothing where no such request is held."""
        if id not in self.held:
            return []
        if id not in self._autoregressive:
            self._release(self._held[id])
        self._autoregressive.pop(id, None)
        return [Cancelled(id)]

    def step(self) -> list[Event]:
        """Runs one forward over what the scheduler chose; returns what happened, in order.

        Where a forward raises, each of its requests is run alone, and only those fail that raise again. What is decoded
        token by token has a pass of its own for its next one.
        """
        events: list[Event] = []
        for task in self.scheduler.admit():
            progress = self._by_task[task]
            progress.begin(*self.prefixes.find(progress.request.prompt))
            events.append(Admitted(progress.request.id, time.perf_counter(), progress.cache.length))
        parts: list[Part] = [(self._by_task[piece.task], piece) for piece in self.scheduler.plan()]
        events += self._run(parts) if parts else []
        for answer in tuple(self._autoregressive.values()):
            events.append(event := answer.step())
            if isinstance(event, Finished | Failed):
                del self._autoregressive[event.id]
        return events

    def _run(self, parts: list[Part]) -> list[Event]:
        try:
            outcomes = run_forward(self.model, parts)
        except Exception as error:
            if len(parts) == 1:
                return self._fail(parts[0][0], error)
            return [event for part in parts for event in self._run([part])]
        failed = {outcome.progress for outcome in outcomes if outcome.error is not None}
        for progress, piece in parts:
            if piece.encoded and progress.encoded(piece) and progress not in failed:
                tokens, prompt = progress.committed, len(progress.request.prompt)
                before = len(tokens) - progress.task.canvas_length
                self.prefixes.publish(tokens, progress.cache, instead_of=before if before > prompt else 0)
        return [event for outcome in outcomes for event in self._take(outcome)]

    def _take(self, outcome: Denoised) -> list[Event]:
        progress = outcome.progress
        if outcome.error is not None:
            return self._fail(progress, outcome.error)
        assert outcome.step is not None and outcome.state is not None
        events = list(progress.denoised(outcome.step, outcome.state))
        if progress.task.phase is Phase.DONE:
            self._release(progress)
        return events

    def _fail(self, progress: Progress, error: Exception) -> list[Event]:
        self._release(progress)
        return [Failed(progress.request.id, error)]

    def _release(self, progress: Progress) -> None:
        progress.task.phase = Phase.DONE
        self.scheduler.remove(progress.task)
        del self._held[progress.request.id], self._by_task[progress.task]
