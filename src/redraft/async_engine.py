"""`redraft.Engine`: many prompts at once, from text to text; the engine behind it knows only token ids."""

import asyncio
import functools
import itertools
import os
import queue
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Unpack

from redraft import engine
from redraft.answers import AnswerReader, Committed, Draft, Failure, HoldingArguments, Result, check_held, pop_holding
from redraft.api import Model, Prompt
from redraft.constraints.tokens import TokenAutomaton
from redraft.diffusion.settings import SamplerArguments
from redraft.diffusion.start import CanvasStart
from redraft.engine import EngineThread, Limits, QueueFull, Request, Shutdown
from redraft.generation.modes import Mode, chosen_mode, settings_of_mode
from redraft.held import may_be_parted
from redraft.loading import load
from redraft.model.transformer import Transformer
from redraft.parts import engine_parts
from redraft.text import ReadPrompt
from redraft.text.prompts.conversation import check_prompts
from redraft.utils.forks import check_not_forked, is_forked

AnswerEvent = Draft | Committed | Result

PREFETCH_FACTOR = 2
"""`generate_many` keeps this many times `admitted_requests` prompts in the engine, so that it never runs dry."""

MAX_HELD_FACTOR = 8
"""`generate_many` holds at most this many times the prompts in the engine: answers wait for the ones before them."""

POLL_SECONDS = 0.01


class EngineArguments(SamplerArguments, HoldingArguments, total=False):
    """The keyword arguments of an answer by the engine: sampler settings, and what it is held to."""


class Answer(Awaitable[Result]):
    """An answer in progress, made by `Engine.submit`: await it for its Result, or iterate over its events.

    Both raise the error of an answer that failed (ValueError if the request is to blame), CancelledAnswer if it was
    cancelled. Each event goes to one reader, the first to ask; many may await the Result, and again. The engine gives
    the answer up if the last task that waits for it is cancelled, as by `asyncio.wait_for`.
    """

    def __init__(
        self, id: str, queue: "asyncio.Queue[engine.Event]", reader: AnswerReader, cancel: Callable[[], object]
    ) -> None:
        self.id = id
        self._queue = queue
        self._reader = reader
        self._cancel = cancel
        self._waiting = 0
        self._end: Result | Exception | None = None

    def has_ended(self) -> bool:
        """Returns whether the last event has been read."""
        return self._end is not None

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        return self._events()

    def __await__(self) -> Generator[Any, None, Result]:
        return self._wait().__await__()

    async def _events(self) -> AsyncIterator[AnswerEvent]:
        while not self.has_ended():
            event = await self._next_event()
            if isinstance(event, engine.ENDS):
                # For the others that wait for it.
                self._queue.put_nowait(event)
                if self.has_ended():
                    return
            try:
                read = list(self._reader.read(event))
            except Exception as error:
                self._end = error
                raise
            if read and isinstance(read[-1], Result):
                self._end = read[-1]
            for one in read:
                yield one

    async def _next_event(self) -> engine.Event:
        self._waiting += 1
        try:
            return await self._queue.get()
        except asyncio.CancelledError:
            if self._waiting == 1:
                self._cancel()
            raise
        finally:
            self._waiting -= 1

    async def _wait(self) -> Result:
        async for _ in self._events():
            pass
        if isinstance(self._end, Exception):
            raise self._end
        assert self._end is not None
        return self._end


class Engine:
    """An engine that answers many prompts at once, each with the tokens that `Model.generate` gives for its seed.

    It runs in a thread of its own until `shutdown`, or until the end of a `with` or `async with` block, which cancels
    what is left. `model` may be a name or a folder, which is loaded. Limits are fields of redraft.engine.Limits;
    ValueError for one that is unknown or out of range, RuntimeError in a process forked after a model was loaded.
    """

    def __init__(self, model: Model | str | os.PathLike[str], **limits: Any) -> None:
        check_not_forked()
        known = Limits.__dataclass_fields__
        if unknown := sorted(limits.keys() - known.keys()):
            raise ValueError(f"unknown limit {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
        chosen = Limits(**limits)
        if isinstance(model, str | os.PathLike):
            model = load(model)
        elif not isinstance(getattr(model, "transformer", None), Transformer):
            raise ValueError(f'the model is {model!r}, must be one that redraft.load made, or a name like "bundled"')
        if (length := model.transformer.config.canvas_length) > chosen.forward_tokens:
            raise ValueError(
                f"forward_tokens is {chosen.forward_tokens}, must be at least the model's canvas of {length}"
            )
        self.model = model
        self.limits = chosen
        self._loop = EngineThread(model.transformer, chosen)
        self._numbers = itertools.count()

    @staticmethod
    def context_limits(model: Model, settings: Mapping[str, Any]) -> dict[str, int]:
        """Returns the limits of an engine that refuses no request which the model's context can hold."""
        config, usual = model.transformer.config, Limits()
        canvas = max(config.canvas_length, model.defaults.replace(**settings).canvas_length or 0)
        return {
            "forward_tokens": max(usual.forward_tokens, canvas),
            "admitted_tokens": max(usual.admitted_tokens, config.max_context),
        }

    async def submit(
        self,
        prompt: Prompt,
        *,
        drafts: bool = False,
        stop_ids: Sequence[int] | None = None,
        mode: Mode | None = None,
        adapter: str | None = None,
        **settings: Unpack[EngineArguments],
    ) -> Answer:
        """Takes a prompt on. `settings` are fields of SamplerSettings; `drafts` asks for a Draft for each step.

        stop_ids: tokens that end the answer and are cut; None is the model's EOS ids. mode: as `Model.generate` has it;
        "autoregressive" has no drafts. adapter: the name of one that the model has loaded. What the answer is held to
        is given, and built, as for `Model.generate`. Raises what that raises, ValueError for a request that can never
        fit the limits, QueueFull if too many wait, and RuntimeError if the engine is shut down.
        """
        stops = None if stop_ids is None else tuple(stop_ids)
        request, reader = await asyncio.to_thread(
            self._asked, prompt, drafts=drafts, stop_ids=stops, mode=mode, adapter=adapter, **settings
        )
        return Answer(request.id, self.events(request), reader, functools.partial(self.cancel, request))

    def _asked(self, prompt: Prompt, *, adapter: str | None, **settings: Any) -> tuple[Request, AnswerReader]:
        """Returns a prompt as a request, and what reads its answer."""
        model = self.model.with_adapter(adapter)
        read, holding = model.read(prompt), pop_holding(settings)
        if settings.get("start") is not None or settings.get("stop_ids") is not None or not may_be_parted(holding):
            read = read.whole
        held = model.hold(prompt, read, **holding)
        request = self.request(read, adapter=adapter, constraint=held.automaton, **settings)
        stops = model.transformer.config.eos_ids if request.stop_ids is None else request.stop_ids
        return request, AnswerReader(
            model.name, model.tokenizer, read, request.settings, stop_ids=stops, mode=request.mode,
            schema=held.schema, is_held=held.automaton is not None, calibration=model.calibration, source=held.source,
        )  # fmt: skip

    def request(
        self,
        prompt: ReadPrompt,
        *,
        drafts: bool = False,
        top: int = 0,
        mode: Mode | None = None,
        stop_ids: tuple[int, ...] | None = None,
        constraint: TokenAutomaton | None = None,
        adapter: str | None = None,
        is_scored: bool | None = None,
        start: CanvasStart | None = None,
        **settings: Unpack[SamplerArguments],
    ) -> Request:
        """Returns a request, with the fields of redraft.engine.Request; is_scored: None as `Model.generate` has it."""
        check_not_forked()
        check_held(constraint, start)
        model = self.model.with_adapter(adapter)
        chosen = chosen_mode(mode, model.usual_mode, settings, has_start=start is not None)
        asked = model.defaults.replace(**settings_of_mode(chosen, settings))
        parts = engine_parts(model, prompt, asked, chosen)
        return Request(
            id=str(next(self._numbers)), prompt=tuple(prompt.ids), settings=asked, stop_ids=stop_ids,
            drafts=drafts, top=top, parts=parts, mode=chosen,
            constraint=constraint, adapter=model.adapter, start=start,
            is_scored=chosen == "diffusion" and model.is_scored(is_scored),
        )  # fmt: skip

    def events(
        self, request: Request, events: "asyncio.Queue[engine.Event] | None" = None, *, at_once: bool = False
    ) -> "asyncio.Queue[engine.Event]":
        """Submits a request and returns the queue, new or given, that receives its events.

        at_once: all of them with the last one, for an answer that nobody watches: many answers that are written token
        by token would keep the event loop busy. For use in the running event loop. Raises what `submit` raises.
        """
        events = asyncio.Queue() if events is None else events
        running, held = asyncio.get_running_loop(), list[engine.Event]()

        def take(event: engine.Event) -> None:
            held.append(event)
            if not at_once or isinstance(event, engine.ENDS):
                # Raises if the event loop is closed, which cancels the request.
                running.call_soon_threadsafe(_put_all, events, tuple(held))
                held.clear()

        self._loop.submit(request, take)
        return events

    def call(self, work: Callable[[], Any]) -> "asyncio.Future[Any]":
        """Has the engine's thread do something between two forwards. Raises what `EngineThread.call` raises."""
        return asyncio.wrap_future(self._loop.call(work))

    @property
    def broken(self) -> BaseException | None:
        """The bug that ended the engine's thread, or None; after it nothing is answered."""
        return self._loop.broken

    @property
    def state(self) -> engine.EngineState:
        """The numbers of running and waiting requests and of cached tokens."""
        return self._loop.state

    async def stream(
        self,
        prompt: Prompt,
        *,
        mode: Mode | None = None,
        adapter: str | None = None,
        **settings: Unpack[EngineArguments],
    ) -> AsyncIterator[AnswerEvent]:
        """Yields drafts (but of an autoregressive answer), text and result. Leaving the loop cancels the answer."""
        mode = chosen_mode(mode, self.model.with_adapter(adapter).usual_mode, settings, has_start=False)
        answer = await self.submit(prompt, drafts=mode != "autoregressive", mode=mode, adapter=adapter, **settings)
        try:
            async for event in answer:
                yield event
        finally:
            self.cancel(answer)

    def cancel(self, answer: Answer | Request) -> bool:
        """Cancels an answer, or a submitted request, before the next forward. False if it had already ended."""
        return self._loop.cancel(answer.id)

    def generate_many(
        self,
        prompts: Iterable[Prompt],
        *,
        mode: Mode | None = None,
        adapter: str | None = None,
        **settings: Unpack[EngineArguments],
    ) -> Iterator[Result | Failure]:
        """Answers many prompts at once and yields their results in order, a Failure in the place of one that failed.

        Reads prompts only as far ahead as the engine can work. Closing the iterator cancels the answers in progress.
        ValueError, at once, for settings and modes that are unknown or out of range, and for a wrong constraint.
        """
        check_prompts("generate_many", prompts)
        named: Any = dict(settings)
        self.model.check_holding(**pop_holding(named))
        self.request(ReadPrompt([0]), mode=mode, adapter=adapter, **named)
        return self._many(_Batch(self, iter(prompts), {"mode": mode, "adapter": adapter, **settings}))

    def shutdown(self, *, finish: bool = True) -> Shutdown:
        """Refuses new requests and waits until all held ones are answered or, without `finish`, cancelled.

        Returns the ids of the answers that finished and of those that were cancelled.
        """
        if is_forked():
            return Shutdown(finished=(), cancelled=())  # it runs in the parent, and goes on
        return self._loop.shutdown(finish=finish)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.shutdown(finish=False)

    async def __aenter__(self) -> "Engine":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.shutdown, finish=False)

    @staticmethod
    def _many(work: "_Batch") -> Iterator[Result | Failure]:
        try:
            while True:
                work.submit_next()
                yield from work.pop_in_order()
                if work.done:
                    return
                work.wait()
        finally:
            work.cancel()


class _Batch:
    """The state of one `generate_many`: prompts submitted, answers that have ended, and their order."""

    def __init__(self, within: Engine, prompts: Iterator[Prompt], settings: dict[str, Any]) -> None:
        self._engine, self._prompts, self._settings = within, prompts, settings
        self._ahead = min(PREFETCH_FACTOR * within.limits.admitted_requests, within.limits.queued_requests)
        self._events: queue.SimpleQueue[engine.Event] = queue.SimpleQueue()
        self._readers: dict[str, AnswerReader] = {}
        self._ended: dict[str, Result | Failure] = {}
        self._order: list[str] = []
        # Refused because other callers filled the engine's queue: retried after the next event.
        self._retry: tuple[Request, AnswerReader] | None = None
        self._exhausted = False

    @property
    def done(self) -> bool:
        return self._exhausted and not self._order and self._retry is None

    def submit_next(self) -> None:
        while len(self._readers) < self._ahead and len(self._order) < MAX_HELD_FACTOR * self._ahead:
            if (work := self._retry or self._next()) is None:
                if self._exhausted:
                    return
                continue
            request, reader = work
            try:
                self._engine._loop.submit(request, self._events.put)
            except QueueFull:
                self._retry = work
                return
            except ValueError as error:
                self._ended[request.id] = Failure(error)
            else:
                self._readers[request.id] = reader
            self._retry = None
            self._order.append(request.id)

    def pop_in_order(self) -> Iterator[Result | Failure]:
        while self._order and self._order[0] in self._ended:
            yield self._ended.pop(self._order.pop(0))

    def wait(self) -> None:
        """Waits for the next event, or until a queue that other callers filled may have room again."""
        if not self._readers:
            if self._retry is not None:
                time.sleep(POLL_SECONDS)
            return
        event = self._events.get()
        if (end := self._readers[event.id].read_end(event)) is not None:
            self._ended[event.id] = end
            del self._readers[event.id]

    def cancel(self) -> None:
        """Cancels the answers in progress."""
        for name in self._readers:
            self._engine._loop.cancel(name)

    def _next(self) -> "tuple[Request, AnswerReader] | None":
        """Returns the next prompt as a request, and what reads its answer; None if there is none, or if it failed."""
        try:
            prompt = next(self._prompts)
        except StopIteration:
            self._exhausted = True
            return None
        try:
            return self._engine._asked(prompt, **self._settings)
        except Exception as error:  # whatever is wrong with it, the others are answered
            name = f"refused {next(self._engine._numbers)}"
            self._order.append(name)
            self._ended[name] = Failure(error)
            return None


def _put_all(events: "asyncio.Queue[engine.Event]", told: Sequence[engine.Event]) -> None:
    for event in told:
        events.put_nowait(event)
