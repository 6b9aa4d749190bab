"""The engine in a thread of its own: submit and cancel from anywhere, events come to a request's own sink."""

import atexit
import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from redraft.engine.core import EngineCore
from redraft.engine.events import ENDS, Cancelled, Event, Failed
from redraft.engine.parts import HeldRequest
from redraft.engine.request import QueueFull, Request
from redraft.engine.scheduler import Limits
from redraft.model.transformer import Transformer
from redraft.utils.words import counted

Outcome = TypeVar("Outcome")
Sink = Callable[[Event], None]
"""Gets the events of one request, in the engine's thread: it must not wait. One that raises cancels its request."""


@dataclass(frozen=True)
class Shutdown:
    """What an engine that was shut down still held: the ids that it finished (failures included) and cancelled."""

    finished: tuple[str, ...]
    cancelled: tuple[str, ...]


@dataclass(frozen=True)
class EngineState:
    """Requests in work, requests that wait, and tokens kept for later prompts that begin with them."""

    running: int
    waiting: int
    cached_tokens: int


class EngineThread:
    """Runs an EngineCore until it is shut down; may be used from any number of threads."""

    def __init__(self, model: Transformer, limits: Limits | None = None) -> None:
        self.core = EngineCore(model, limits)
        self._changed = threading.Condition()
        self._submitted: deque[HeldRequest] = deque()
        self._work: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._cancelled: set[str] = set()
        self._sinks: dict[str, Sink] = {}
        self._closing: bool | None = None
        self._given_up: set[str] = set()
        self._broken: BaseException | None = None
        self._threads = torch.get_num_threads()
        if model.kernels is not None:
            model.kernels.release_workers()
        self._thread = threading.Thread(target=self._run, name="redraft-engine", daemon=True)
        self._thread.start()
        # A thread that computes while the interpreter goes away ends the process by a signal.
        atexit.register(self.shutdown, finish=False)
        # A forked child has no such thread to shut down at its end, and perhaps its lock for ever held.
        os.register_at_fork(after_in_child=functools.partial(_forget_at_exit, weakref.ref(self)))

    @property
    def state(self) -> EngineState:
        """What is in work and what waits, as of now."""
        core = self.core
        with self._changed:
            held = len(self._sinks)
            waiting = len(self._submitted) + core.scheduler.requests_waiting
        return EngineState(running=max(0, held - waiting), waiting=waiting, cached_tokens=core.prefixes.tokens)

    @property
    def broken(self) -> BaseException | None:
        """What ended it, if it was a bug: then it answers nothing any more."""
        return self._broken

    @property
    def held(self) -> tuple[str, ...]:
        """The ids of all requests that have not had their last event."""
        with self._changed:
            return tuple(self._sinks)

    def submit(self, request: Request, sink: Sink) -> None:
        """Takes a request on; returns at once.

        ValueError for one that cannot be answered or whose id is held, QueueFull where too many wait, RuntimeError
        where the engine is shut down.
        """
        made = self.core.hold(request)
        with self._changed:
            if self._broken is not None:
                raise RuntimeError(f"the engine has stopped: {self._broken!r}") from self._broken
            if self._closing is not None:
                raise RuntimeError("the engine is shut down; start another one")
            if request.id in self._sinks:
                raise ValueError(f"the engine already holds a request {request.id!r}; give each an id of its own")
            limit = self.core.limits.queued_requests
            # The engine's thread may shorten its queue meanwhile, and lengthens it only where this lock is held.
            if (waiting := len(self._submitted) + self.core.scheduler.requests_waiting) >= limit:
                raise QueueFull(f"the queue holds {counted(waiting, 'request')}, the limit is {limit}: ask again later")
            self._sinks[request.id] = sink
            self._submitted.append(made)
            self._changed.notify_all()

    def call(self, work: Callable[[], Outcome]) -> "Future[Outcome]":
        """Has the engine's thread do something with the model between two forwards; returns what will come of it.

        QueueFull where too much waits, RuntimeError where the engine is shut down.
        """
        future: Future[Outcome] = Future()
        with self._changed:
            if self._broken is not None or self._closing is not None:
                raise RuntimeError("the engine is shut down; start another one")
            if len(self._work) >= self.core.limits.queued_requests:
                raise QueueFull(f"{counted(len(self._work), 'piece')} of work wait: ask again later")
            self._work.append((work, future))
            self._changed.notify_all()
        return future

    def cancel(self, id: str) -> bool:
        """Gives a request up before the next forward. False where no such request is held."""
        with self._changed:
            if id not in self._sinks:
                return False
            self._cancelled.add(id)
            self._changed.notify_all()
            return True

    def shutdown(self, *, finish: bool = True) -> Shutdown:
        """Takes on nothing more and ends: after all it holds is answered, or, without `finish`, cancelled at once."""
        with self._changed:
            held = tuple(self._sinks)
            self._closing = finish if self._closing is None else self._closing and finish
            self._changed.notify_all()
        self._thread.join()
        atexit.unregister(self.shutdown)
        return Shutdown(
            finished=tuple(id for id in held if id not in self._given_up),
            cancelled=tuple(id for id in held if id in self._given_up),
        )

    def _run(self) -> None:
        # What the one who made the engine set holds for their thread; and bits depend on it.
        torch.set_num_threads(self._threads)
        try:
            while self._turn():
                pass
        except BaseException as error:
            # A bug, since what a request can do wrong fails that request alone. Nobody may wait for ever.
            with self._changed:
                self._broken = error
                held = tuple(self._sinks)
                work, self._work = self._work, deque()
            for _, future in work:
                future.cancel()
            for id in held:
                self._tell(Failed(id, RuntimeError(f"the engine has stopped: {error!r}")))

    def _turn(self) -> bool:
        """One round: what came in, one forward, what happened. False when the engine is to end."""
        with self._changed:
            while not (self._submitted or self._work or self._cancelled or self.core.held or self._closing is not None):
                self._changed.wait()
            # Not outside: a request between the two queues would be counted in neither.
            while self._submitted:
                self.core.submit(self._submitted.popleft())
            cancelled, self._cancelled = self._cancelled, set()
            closing = self._closing
            # One at a time: those who wait for an answer wait no longer than for a forward more.
            work = self._work.popleft() if self._work else None
        if work is not None:
            _do(*work, is_wanted=closing is not False)
        if closing is False:
            cancelled = set(self.core.held)
        for id in cancelled:
            for event in self.core.cancel(id):
                self._tell(event)
        for event in self.core.step():
            self._tell(event)
        if closing is None or self.core.held or self._work:
            return True
        self.core.prefixes.clear()
        return False

    def _tell(self, event: Event) -> None:
        last = isinstance(event, ENDS)
        with self._changed:
            sink = self._sinks.get(event.id)
            if isinstance(event, Cancelled) and self._closing is not None:
                self._given_up.add(event.id)
            if last:
                # Whoever cancelled it a moment too late does not mean the next request of that name.
                self._sinks.pop(event.id, None)
                self._cancelled.discard(event.id)
        if sink is None:
            return
        try:
            sink(event)
        except Exception:
            if not last:
                # Nobody listens any more, so nobody shall be worked for.
                with self._changed:
                    self._sinks[event.id] = lambda _: None
                self.cancel(event.id)


def _do(work: Callable[[], Any], future: "Future[Any]", *, is_wanted: bool) -> None:
    if not is_wanted:
        future.cancel()
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)


def _forget_at_exit(thread: "weakref.ref[EngineThread]") -> None:
    if (found := thread()) is not None:
        atexit.unregister(found.shutdown)
