"""`redraft.Engine`: many prompts at once, text at this edge and token ids behind it."""

import asyncio
import itertools
import queue
import time
from collections.abc import AsyncIterator, Awaitable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from redraft import engine
from redraft.api import AnswerText, Committed, Draft, Model, Prompt, Result
from redraft.engine import EngineLoop, Limits, QueueFull, Request, Shutdown

AnswerEvent = Draft | Committed | Result

PREFETCH_FACTOR = 2
"""`generate_many` keeps this many times `admitted_requests` prompts in the engine, so that it never runs dry."""

MAX_HELD_FACTOR = 8
"""`generate_many` holds at most this many times the prompts in the engine: answers wait for the ones before them."""

POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Failure:
    """A prompt that could not be answered, in the place of its Result."""

    error: Exception


class CancelledAnswer(Exception):
    """What waiting for an answer raises that was cancelled, by its caller or because the engine was shut down."""


class Answer(Awaitable[Result]):
    """An answer under way, made by `Engine.submit`: await it for its Result, or iterate over its events.

    Both raise its error where the answer failed (ValueError for what the request is to blame for) and CancelledAnswer
    where it was given up. An event is told once, to whoever asks first; the Result can be awaited by many, and again.
    """

    def __init__(self, id: str, queue: "asyncio.Queue[engine.Event]", reader: "_AnswerReader") -> None:
        self.id = id
        self._queue = queue
        self._reader = reader
        self._end: Result | Exception | None = None

    def has_ended(self) -> bool:
        """Whether the last event has been taken."""
        return self._end is not None

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        return self._events()

    def __await__(self) -> Generator[Any, None, Result]:
        return self._wait().__await__()

    async def _events(self) -> AsyncIterator[AnswerEvent]:
        while not self.has_ended():
            event = await self._queue.get()
            if isinstance(event, engine.Finished | engine.Failed | engine.Cancelled):
                # For whoever else waits for it.
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

    async def _wait(self) -> Result:
        if self._end is None:
            async for _ in self._events():
                pass
        if isinstance(self._end, Exception):
            raise self._end
        assert self._end is not None
        return self._end


class Engine:
    """Answers many prompts at once, each with the tokens that `Model.generate` would give it alone with its seed.

    Runs in a thread of its own until `shutdown`, or the end of a `with` or `async with` block, which cancels what is
    left. Limits are fields of redraft.engine.Limits; ValueError for one that is unknown or out of range.
    """

    def __init__(self, model: Model, **limits: Any) -> None:
        known = Limits.__dataclass_fields__
        if unknown := sorted(limits.keys() - known.keys()):
            raise ValueError(f"unknown limit {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
        chosen = Limits(**limits)
        if (length := model.transformer.config.canvas_length) > chosen.forward_tokens:
            raise ValueError(
                f"forward_tokens is {chosen.forward_tokens}, must be at least the model's canvas of {length}"
            )
        self.model = model
        self.limits = chosen
        self._loop = EngineLoop(model.transformer, chosen)
        self._numbers = itertools.count()

    async def submit(
        self, prompt: Prompt, *, drafts: bool = False, stop_ids: Sequence[int] | None = None, **settings: Any
    ) -> Answer:
        """Takes a prompt on. `settings` are fields of SamplerSettings; `drafts` asks for a Draft for each step.

        stop_ids: tokens that end the answer and are cut off with what follows; None is the model's EOS ids.

        ValueError as `Model.generate` has it, and where it can never fit the limits; QueueFull where too many wait;
        RuntimeError where the engine is shut down.
        """
        stops = None if stop_ids is None else tuple(stop_ids)
        request = self.request(
            await asyncio.to_thread(self.model.encode, prompt), drafts=drafts, stop_ids=stops, **settings
        )
        return Answer(request.id, self.events(request), _AnswerReader(self.model, request))

    def request(
        self,
        ids: Sequence[int],
        *,
        drafts: bool = False,
        top: int = 0,
        autoregressive: bool = False,
        stop_ids: tuple[int, ...] | None = None,
        **settings: Any,
    ) -> Request:
        """A request of token ids, for those who keep to tokens; the fields are redraft.engine.Request's."""
        return Request(
            id=str(next(self._numbers)),
            prompt=tuple(ids),
            settings=self.model.defaults.replace(**settings),
            stop_ids=stop_ids,
            drafts=drafts,
            top=top,
            autoregressive=autoregressive,
        )

    def events(
        self, request: Request, told: "asyncio.Queue[engine.Event] | None" = None
    ) -> "asyncio.Queue[engine.Event]":
        """Takes a request on and gives the queue, or fills the one that is given, with its events as they happen.

        For use in the running event loop. Raises what `submit` raises.
        """
        told = asyncio.Queue() if told is None else told
        running = asyncio.get_running_loop()
        self._loop.submit(request, lambda event: _call(running, told, event))
        return told

    @property
    def broken(self) -> BaseException | None:
        """What ended its thread, if it was a bug: then it answers nothing any more."""
        return self._loop.broken

    @property
    def state(self) -> engine.EngineState:
        """What is in work and what waits, as of now."""
        return self._loop.state

    async def stream(self, prompt: Prompt, **settings: Any) -> AsyncIterator[AnswerEvent]:
        """Answers a prompt and shows how, as `Model.stream` does. Leaving the loop early cancels the answer."""
        answer = await self.submit(prompt, drafts=True, **settings)
        try:
            async for event in answer:
                yield event
        finally:
            self.cancel(answer)

    def cancel(self, answer: Answer | Request) -> bool:
        """Gives an answer, or a request that was taken on, up before the next forward. False where it had ended."""
        return self._loop.cancel(answer.id)

    def generate_many(self, prompts: Iterable[Prompt], **settings: Any) -> Iterator[Result | Failure]:
        """Answers prompts at once and yields their results in order, a Failure in the place of one that failed.

        Takes prompts only as far ahead as the engine works. Closing the iterator cancels what is under way.
        ValueError for settings that are unknown or out of range, at once.
        """
        if isinstance(prompts, str):
            raise ValueError("generate_many takes a list of prompts, got one string; put it into a list")
        self.model.defaults.replace(**settings)
        return self._many(iter(prompts), settings)

    def shutdown(self, *, finish: bool = True) -> Shutdown:
        """Takes on nothing more and waits: for all that is held, or, without `finish`, only for its cancellation.

        Returns the ids of the answers that were finished and of those that were cancelled.
        """
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

    def _many(self, prompts: Iterator[Prompt], settings: dict[str, Any]) -> Iterator[Result | Failure]:
        work = _Batch(self, prompts, settings)
        try:
            while True:
                work.take_on()
                yield from work.in_order()
                if work.done:
                    return
                work.wait()
        finally:
            work.cancel()


class _Batch:
    """What `generate_many` has under way: prompts taken, answers that have ended, and the order they came in."""

    def __init__(self, within: Engine, prompts: Iterator[Prompt], settings: dict[str, Any]) -> None:
        limits = within.limits
        self._engine, self._prompts, self._settings = within, prompts, settings
        self._ahead = min(PREFETCH_FACTOR * limits.admitted_requests, limits.queued_requests)
        self._told: queue.SimpleQueue[engine.Event] = queue.SimpleQueue()
        self._readers: dict[str, _AnswerReader] = {}
        self._ended: dict[str, Result | Failure] = {}
        self._order: list[str] = []
        # Refused by a queue that others have filled: asked again after the next event.
        self._again: Request | None = None
        self._exhausted = False

    @property
    def done(self) -> bool:
        """Whether there is nothing left to take on, to wait for or to yield."""
        return self._exhausted and not self._order and self._again is None

    def take_on(self) -> None:
        """Takes prompts as far ahead as there is room."""
        while len(self._readers) < self._ahead and len(self._order) < MAX_HELD_FACTOR * self._ahead:
            if (request := self._again or self._next()) is None:
                if self._exhausted:
                    return
                continue
            try:
                self._engine._loop.submit(request, self._told.put)
            except QueueFull:
                self._again = request
                return
            except ValueError as error:
                self._ended[request.id] = Failure(error)
            else:
                self._readers[request.id] = _AnswerReader(self._engine.model, request)
            self._again = None
            self._order.append(request.id)

    def in_order(self) -> Iterator[Result | Failure]:
        """The answers that have ended and wait for no other."""
        while self._order and self._order[0] in self._ended:
            yield self._ended.pop(self._order.pop(0))

    def wait(self) -> None:
        """Waits for the next event, or where others have filled the queue until it may have room again."""
        if not self._readers:
            if self._again is not None:
                time.sleep(POLL_SECONDS)
            return
        event = self._told.get()
        if (end := self._readers[event.id].read_end(event)) is not None:
            self._ended[event.id] = end
            del self._readers[event.id]

    def cancel(self) -> None:
        """Gives up what is under way."""
        for name in self._readers:
            self._engine._loop.cancel(name)

    def _next(self) -> Request | None:
        """The next prompt as a request; None where there is none, or it cannot be one and has failed."""
        try:
            prompt = next(self._prompts)
        except StopIteration:
            self._exhausted = True
            return None
        try:
            return self._engine.request(self._engine.model.encode(prompt), **self._settings)
        except (ValueError, TypeError) as error:
            name = f"refused {next(self._engine._numbers)}"
            self._order.append(name)
            self._ended[name] = Failure(error)
            return None


class _AnswerReader:
    """The façade's events of one request, from the engine's."""

    def __init__(self, model: Model, request: Request) -> None:
        self._text = AnswerText(model, request.settings, request.stop_ids)

    def read(self, event: engine.Event) -> Iterator[AnswerEvent]:
        """Yields what an event means. Raises the error of a failed request, CancelledAnswer for a cancelled one."""
        if isinstance(event, engine.Failed):
            raise event.error
        if isinstance(event, engine.Cancelled):
            raise CancelledAnswer(f"answer {event.id} was cancelled")
        if isinstance(event, engine.StepTaken):
            yield self._text.draft(event.step)
        elif isinstance(event, engine.CanvasCommitted):
            yield self._text.commit(event.token_ids)
        elif isinstance(event, engine.Finished):
            yield from self._text.finish(event.generation)

    def read_end(self, event: engine.Event) -> Result | Failure | None:
        """Returns the Result or Failure that an event is, or None if it is not the last."""
        try:
            read = list(self.read(event))
        except Exception as error:
            return Failure(error)
        return read[-1] if read and isinstance(read[-1], Result) else None


def _call(running: asyncio.AbstractEventLoop, told: "asyncio.Queue[engine.Event]", event: engine.Event) -> None:
    """From the engine's thread. Raises where the event loop is closed, which cancels the request."""
    running.call_soon_threadsafe(told.put_nowait, event)
