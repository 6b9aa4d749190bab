"""What both generating endpoints share: one request's life from slots to response, drafts, and streams."""

import asyncio
import dataclasses
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from redraft.server.constraints import BuiltConstraint, Wanted
from redraft.server.generation import GenerationSession, PreparedRequest
from redraft.server.middleware.sse import DONE, EventStream, event, run_until_disconnect
from redraft.server.openai.errors import ApiError
from redraft.server.openai.requests import GenerationRequest, StreamOptions
from redraft.server.openai.responses import (
    ChatChunk,
    DraftChunk,
    DraftStep,
    TextCompletion,
    Usage,
    VerifiedChunk,
    VerifiedRound,
)
from redraft.server.progress import ChoiceUpdate, RoundUpdate, StepUpdate
from redraft.server.service import Service
from redraft.text import Delta, End


def stream_responses(*events: str) -> dict[int | str, dict[str, Any]]:
    """Returns what the OpenAPI document says of a response that may be a stream of these types of events."""
    item = {
        "type": "object", "required": ["data"],
        "properties": {"data": {"type": "string"}, "event": {"enum": list(events)}},
    }  # fmt: skip
    return {200: {"content": {"text/event-stream": {"itemSchema": item}}, "description": "With stream=true, events"}}


STREAM_RESPONSES = stream_responses("draft", "message", "verified")
"""Those of completions."""


Chunk = ChatChunk | TextCompletion


class ResponseWriter(ABC):
    """The format of one request's response, whole or streamed."""

    @abstractmethod
    def complete(self, updates: Iterable[ChoiceUpdate], session: GenerationSession) -> BaseModel:
        """Returns the whole answer as one object."""

    @abstractmethod
    def stream(
        self, session: GenerationSession, prepared: PreparedRequest, options: StreamOptions
    ) -> AsyncIterator[bytes]:
        """Yields the events of a streamed answer. An error ends it, as an event."""


class Serializer(ResponseWriter):
    """The format of one answer in choices. Made for one request; refuses a model that is not there with 404."""

    prefix: str
    draft_object: str
    chunk_type: type[ChatChunk] | type[TextCompletion]

    def __init__(self, service: Service, model: str | None, *, logprobs: bool) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.model = service.name_of(service.model(model))
        self.text_of = service.token_text
        self.logprobs = logprobs

    @abstractmethod
    def delta(self, index: int, delta: Delta) -> Chunk:
        """Returns the chunk of the next part."""

    @abstractmethod
    def end(self, index: int, end: End, session: GenerationSession) -> Chunk:
        """Returns the chunk that ends a choice."""

    async def stream(
        self, session: GenerationSession, prepared: PreparedRequest, options: StreamOptions
    ) -> AsyncIterator[bytes]:
        """Yields the events of a streamed answer. An error ends it, as an event, without the last line."""

        def sent(body: Chunk) -> bytes:
            if options.continuous_usage_stats:
                body.usage = session.usage
            return event(body.model_dump_json(exclude_none=True))

        try:
            async for update in session.updates():
                match update.event:
                    case Delta() as delta:
                        yield sent(self.delta(update.index, delta))
                    case StepUpdate() as step:
                        draft = self.draft(update.index, step, prepared.alternatives)
                        yield event(draft.model_dump_json(exclude_none=True), "draft")
                    case RoundUpdate() as one:
                        yield event(self.verified(update.index, one).model_dump_json(exclude_none=True), "verified")
                    case End() as end:
                        yield sent(self.end(update.index, end, session))
        except ApiError as error:
            yield event(error.body.model_dump_json())
            return
        except Exception as error:
            # The head has been sent: whatever it is, the client is told where it looks.
            yield event(session.fail(error).body.model_dump_json())
            return
        if options.include_usage:
            yield sent(self.chunk(usage=session.usage))
        yield DONE

    def chunk(self, *choices: Any, usage: Usage | None = None, warnings: list[str] | None = None) -> Chunk:
        """Returns an object of `chunk_type` with some choices, or with the usage alone."""
        return self.chunk_type(
            id=self.id, created=self.created, model=self.model, choices=[*choices], usage=usage, warnings=warnings
        )

    def last_chunk(self, choice: Any, session: GenerationSession) -> Chunk:
        """Returns the chunk that ends a choice; the last of all has the warnings."""
        return self.chunk(choice, warnings=session.warnings if session.has_ended else None)

    def verified(self, index: int, update: RoundUpdate) -> VerifiedChunk:
        found = VerifiedRound(
            index=index, **{name: [self.text_of(token) for token in ids] for name, ids in vars(update).items()}
        )
        name: Any = self.draft_object.replace(".draft", ".verified")
        return VerifiedChunk(id=self.id, object=name, created=self.created, model=self.model, verified=found)

    def draft(self, index: int, update: StepUpdate, alternatives: int) -> DraftChunk:
        step, text_of = update.step, self.text_of
        entropies = step.entropy.tolist()
        listed = None
        if alternatives and step.top is not None:
            listed = [
                [(text_of(token), round(score, 4)) for token, score in zip(ids[:alternatives], scores, strict=False)]
                for ids, scores in zip(step.top.ids.tolist(), step.top.log_probs.tolist(), strict=True)
            ]
        draft = DraftStep(
            index=index,
            canvas=step.canvas,
            step=update.number,
            steps_left=step.step - 1,
            finished=step.finished,
            temperature=step.temperature,
            mean_entropy=round(sum(entropies) / len(entropies), 4),
            accepted=[int(one) for one in step.accepted.tolist()],
            entropies=[round(one, 4) for one in entropies],
            tokens=[text_of(token) for token in step.draft.tolist()],
            noisy=[text_of(token) for token in step.renoised.tolist()],
            alternatives=listed,
            forced=None if update.forced is None else [int(one) for one in update.forced],
            text=update.text,
        )
        return DraftChunk(id=self.id, object=self.draft_object, created=self.created, model=self.model, draft=draft)  # type: ignore[arg-type]


def by_choice(updates: Iterable[ChoiceUpdate], count: int) -> Iterator[tuple[int, list[Delta], str]]:
    deltas: list[list[Delta]] = [[] for _ in range(count)]
    finish = ["length"] * count
    for update in updates:
        if isinstance(update.event, Delta):
            deltas[update.index].append(update.event)
        elif isinstance(update.event, End):
            finish[update.index] = update.event.finish_reason
    yield from zip(range(count), deltas, finish, strict=True)


@dataclass(frozen=True)
class Asked:
    """What an endpoint makes of a request, before anything is read: the format of its response, and what prepares it.

    prepare: renders and tokenizes, not for the event loop. num_answers: slots that it takes. wanted: what its answers
    are held to, which is built before.
    """

    request: GenerationRequest
    writer: ResponseWriter
    prepare: Callable[[BuiltConstraint | None], PreparedRequest]
    num_answers: int
    wanted: Wanted | None


async def generate(service: Service, http: Request, asked: Asked) -> Response:
    """Answers a request, for as long as the client listens.

    Reserves slots, builds what the answers are held to, tokenizes, generates.
    """
    facts, request, writer = http.state.facts, asked.request, asked.writer
    if request.user is not None:
        facts["user"] = repr(request.user)
    if service.settings.log_prompts:
        facts["request"] = request.model_dump_json(include={"messages", "prompt"})
    with ExitStack() as held:
        held.enter_context(service.slots.reserve(asked.num_answers))
        held.enter_context(service.using(service.model(request.model).adapter))
        prepared = await _prepare(service, asked)
        session = GenerationSession(service.engine, prepared, service.metrics, http.state.request_id)
        held.callback(_log_usage, session, facts)
        held.enter_context(session)
        if not request.stream:
            response = json_response(await run_until_disconnect(http.receive, _collect(writer, session)))
        else:
            options = request.stream_options or StreamOptions()
            response = EventStream(writer.stream(session, prepared, options))
        # From here on the response holds them: what has not been sent has not ended.
        return _HoldingResponse(response, held.pop_all())


async def answer_whole(service: Service, asked: Asked, request_id: str) -> BaseModel:
    """Returns the whole response to a request that nobody waits for: it gives way to all others. Raises ApiError."""
    with service.using(service.model(asked.request.model).adapter):
        prepared = await _prepare(service, asked)
        patient = tuple(dataclasses.replace(request, is_background=True) for request in prepared.requests)
        prepared = dataclasses.replace(prepared, requests=patient)
        with GenerationSession(service.engine, prepared, service.metrics, request_id, is_watched=False) as session:
            return await _collect(asked.writer, session)


async def _prepare(service: Service, asked: Asked) -> PreparedRequest:
    constraint = None if asked.wanted is None else await service.constraints.get(asked.wanted)
    async with service.encoding:
        return await asyncio.to_thread(asked.prepare, constraint)


def json_response(body: BaseModel) -> Response:
    """Returns an object as a response; fields that are None are left out."""
    return Response(body.model_dump_json(exclude_none=True), media_type="application/json")


async def _collect(writer: ResponseWriter, session: GenerationSession) -> BaseModel:
    return writer.complete([update async for update in session.updates()], session)


class _HoldingResponse(Response):
    """A response that holds resources until it has been sent, or cannot be."""

    def __init__(self, response: Response, held: ExitStack) -> None:
        super().__init__()
        self._response, self._held = response, held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._held:
            await self._response(scope, receive, send)


def _log_usage(session: GenerationSession, facts: dict[str, Any]) -> None:
    if session.failure is not None:
        facts["error"] = session.failure
    facts |= session.usage.model_dump(include={"prompt_tokens", "completion_tokens", "denoising_steps"})
