"""`redraft.Engine`: many prompts at once, text at this edge and token ids behind it."""

import asyncio
import itertools
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from redraft import engine
from redraft.engine import EngineLoop, Limits, QueueFull, Request, Shutdown
from redraft.facade import Committed, Draft, Model, Prompt, Result
from redraft.generation import cut_canvas
from redraft.text import Detokenizer

Told = Draft | Committed | Result
AHEAD = 2
"""`generate_many` keeps so many times as many prompts in the engine as that works on at once."""


@dataclass(frozen=True)
class Failure:
    """A prompt that could not be answered, in the place of its Result."""

    error: Exception


class CancelledAnswer(Exception):
    """What waiting for an answer raises that was cancelled, by its caller or because the engine was shut down."""


class Answer(Awaitable[Result]):
    """An answer under way, made by `Engine.submit`: await it for its Result, or iterate over its events.

    Both raise ValueError where the answer failed and CancelledAnswer where it was given up. An event is told once; the
    Result can be awaited again.
    """

    def __init__(self, id: str, told: "asyncio.Queue[engine.Event]", text: "_Text") -> None:
        self.id = id
        self._queue = told
        self._text = text
        self._end: Result | Exception | None = None

    def __aiter__(self) -> AsyncIterator[Told]:
        return self._told()

    def __await__(self) -> Generator[Any, None, Result]:
        return self._wait().__await__()

    async def _told(self) -> AsyncIterator[Told]:
        while self._end is None:
            event = await self._queue.get()
            try:
                told = list(self._text.take(event))
            except Exception as error:
                self._end = error
                raise
            if isinstance(told[-1], Result):
                self._end = told[-1]
            for one in told:
                yield one

    async def _wait(self) -> Result:
        if self._end is None:
            async for _ in self._told():
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
        request = self._request(await asyncio.to_thread(self.model.encode, prompt), settings, drafts, stops)
        told: asyncio.Queue[engine.Event] = asyncio.Queue()
        running = asyncio.get_running_loop()
        self._loop.submit(request, lambda event: _call(running, told, event))
        return Answer(request.id, told, _Text(self.model, request))

    async def stream(self, prompt: Prompt, **settings: Any) -> AsyncIterator[Told]:
        """Answers a prompt and shows how, as `Model.stream` does. Leaving the loop early cancels the answer."""
        answer = await self.submit(prompt, drafts=True, **settings)
        try:
            async for event in answer:
                yield event
        finally:
            self.cancel(answer)

    def cancel(self, answer: Answer) -> bool:
        """Gives an answer up before the next forward. False where it had already ended."""
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

    def _request(
        self, ids: list[int], settings: dict[str, Any], drafts: bool = False, stop_ids: tuple[int, ...] | None = None
    ) -> Request:
        return Request(
            id=str(next(self._numbers)),
            prompt=tuple(ids),
            settings=self.model.defaults.replace(**settings),
            stop_ids=stop_ids,
            drafts=drafts,
        )

    def _many(self, prompts: Iterator[Prompt], settings: dict[str, Any]) -> Iterator[Result | Failure]:
        told: queue.SimpleQueue[engine.Event] = queue.SimpleQueue()
        texts: dict[str, _Text] = {}
        ended: dict[str, Result | Failure] = {}
        order: list[str] = []
        ahead = min(AHEAD * self.limits.admitted_requests, self.limits.queued_requests)
        try:
            while True:
                while len(texts) < ahead and (prompt := next(prompts, None)) is not None:
                    name, text = self._take_on(prompt, settings, told.put)
                    order.append(name)
                    if isinstance(text, Failure):
                        ended[name] = text
                    else:
                        texts[name] = text
                while order and order[0] in ended:
                    yield ended.pop(order.pop(0))
                if not order:
                    return
                if not texts:
                    continue
                event = told.get()
                if (end := texts[event.id].end(event)) is not None:
                    ended[event.id] = end
                    del texts[event.id]
        finally:
            for name in texts:
                self._loop.cancel(name)

    def _take_on(
        self, prompt: Prompt, settings: dict[str, Any], sink: Callable[[engine.Event], None]
    ) -> "tuple[str, _Text | Failure]":
        try:
            request = self._request(self.model.encode(prompt), settings)
            self._loop.submit(request, sink)
        except (ValueError, QueueFull) as error:
            return f"refused {next(self._numbers)}", Failure(error)
        return request.id, _Text(self.model, request)


class _Text:
    """What the events of one request mean as text."""

    def __init__(self, model: Model, request: Request) -> None:
        eos_ids = model.transformer.config.eos_ids
        self._model = model
        self._stop_ids = eos_ids if request.stop_ids is None else request.stop_ids
        self._detokenizer: Detokenizer = model.tokenizer.detokenizer()
        self._room = request.settings.max_new_tokens
        self._text = ""

    def take(self, event: engine.Event) -> Iterator[Told]:
        """The events of the façade. Raises the error of a request that failed, CancelledAnswer for one given up."""
        if isinstance(event, engine.Failed):
            raise event.error
        if isinstance(event, engine.Cancelled):
            raise CancelledAnswer(f"answer {event.id} was cancelled")
        if isinstance(event, engine.Drafted):
            part, _ = cut_canvas(event.step.draft.tolist(), self._stop_ids, self._room)
            yield Draft(event.step, self._model.tokenizer.decode(part))
        elif isinstance(event, engine.Committed):
            self._room -= len(event.token_ids)
            yield self._committed(self._detokenizer.push(event.token_ids))
        else:
            if rest := self._detokenizer.finish():
                yield self._committed(rest)
            yield Result(self._text, event.generation, self._model.name)

    def end(self, event: engine.Event) -> Result | Failure | None:
        """The Result or Failure that an event is, if it is the last."""
        try:
            told = list(self.take(event))
        except Exception as error:
            return Failure(error)
        return told[-1] if isinstance(told[-1], Result) else None

    def _committed(self, text: str) -> Committed:
        self._text += text
        return Committed(text)


def _call(running: asyncio.AbstractEventLoop, told: "asyncio.Queue[engine.Event]", event: engine.Event) -> None:
    """From the engine's thread. Raises where the event loop is closed, which cancels the request."""
    running.call_soon_threadsafe(told.put_nowait, event)
