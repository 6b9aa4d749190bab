"""POST /v1/responses, https://platform.openai.com/docs/api-reference/responses: one answer, streamed or not."""

import functools
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import Response

from redraft.server.constraints import BuiltConstraint
from redraft.server.generation import GenerationSession, PreparedRequest
from redraft.server.middleware.sse import event
from redraft.server.openai.answers import Asked, ResponseWriter, by_choice, generate, stream_responses
from redraft.server.openai.chat import prepare_chat
from redraft.server.openai.errors import ApiError, bad_request
from redraft.server.openai.fields.constraint import wanted_of_chat
from redraft.server.openai.requests import ChatRequest, StreamOptions
from redraft.server.openai.responses_api.items import (
    FlatChoice,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputText,
    Status,
)
from redraft.server.openai.responses_api.protocol import (
    IncompleteDetails,
    InputTokensDetails,
    ResponseObject,
    ResponsesRequest,
    ResponseUsage,
)
from redraft.server.progress import ChoiceUpdate
from redraft.server.service import Service
from redraft.text import Content, Delta, End, ToolCall

EVENTS = (
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    "response.output_text.delta", "response.output_text.done", "response.content_part.done",
    "response.function_call_arguments.delta", "response.function_call_arguments.done", "response.output_item.done",
    "response.completed", "response.incomplete", "error",
)  # fmt: skip
"""The types of a stream's events."""

Told = tuple[str, dict[str, Any]]
"""An event of a stream: its type and its fields."""


def add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/responses", response_model=ResponseObject, responses=stream_responses(*EVENTS))
    async def respond(http: Request, request: ResponsesRequest) -> Response:
        """Answers a conversation, in OpenAI's newer protocol."""
        return await generate(service, http, ask(service, request))


def ask(service: Service, request: ResponsesRequest) -> Asked:
    served = service.name_of(service.model(request.model))
    if request.canvas.stream_drafts or request.canvas.alternatives:
        raise bad_request("canvas.stream_drafts needs /v1/chat/completions; leave it out", "canvas.stream_drafts")
    chat = request.to_chat()
    prepare = functools.partial(prepare_response, service, chat)
    wanted = wanted_of_chat(service, chat, "text.format", "input")
    return Asked(chat, ResponsesWriter(served, request), prepare, 1, wanted)


def prepare_response(service: Service, chat: ChatRequest, constraint: BuiltConstraint | None) -> PreparedRequest:
    """Returns what the chat request asks the engine for. Errors have this protocol's names."""
    try:
        return prepare_chat(service, chat, constraint)
    except ApiError as error:
        names = {"messages": "input", **dict.fromkeys(("max_completion_tokens", "max_tokens"), "max_output_tokens")}
        field, _, inside = (error.param or "").partition(".")
        name = names.get(field, error.param)
        # Messages have other numbers than the items that they were made of.
        shown = f"{inside.rpartition('.')[2]} in {name}" if field == "messages" and inside else str(name)
        message = error.detail.replace(str(error.param), shown)
        raise ApiError(error.status_code, message, param=name, code=error.code, headers=error.headers) from error


class ResponsesWriter(ResponseWriter):
    """The format of responses. Thoughts have no place in it."""

    def __init__(self, model: str, request: ResponsesRequest) -> None:
        choice = request.tool_choice
        self._begun = ResponseObject(
            id=f"resp_{secrets.token_hex(12)}",
            created_at=int(time.time()),
            model=model,
            tools=[tool.model_dump() for tool in request.tools or ()],
            tool_choice=choice.model_dump() if isinstance(choice, FlatChoice) else choice or "auto",
            parallel_tool_calls=request.parallel_tool_calls is not False,
            top_p=1 if request.top_p is None else request.top_p,
            **request.model_dump(include={"instructions", "max_output_tokens", "temperature", "metadata"}),
        )
        self._items: list[OutputItem] = []

    def complete(self, updates: Iterable[ChoiceUpdate], session: GenerationSession) -> ResponseObject:
        ((_, deltas, finish),) = by_choice(updates, 1)
        for delta in deltas:
            for _ in self._take(delta):
                pass
        return self._ended(finish, session)

    async def stream(
        self, session: GenerationSession, prepared: PreparedRequest, options: StreamOptions
    ) -> AsyncIterator[bytes]:
        numbers = itertools.count()

        def told(kind: str, fields: dict[str, Any]) -> bytes:
            shown = {
                name: value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
                for name, value in fields.items()
            }
            return event(json.dumps({"type": kind, "sequence_number": next(numbers), **shown}), kind)

        yield told("response.created", {"response": self._begun})
        yield told("response.in_progress", {"response": self._begun})
        finish = "length"
        try:
            async for update in session.updates():
                if isinstance(update.event, Delta):
                    for one in self._take(update.event):
                        yield told(*one)
                elif isinstance(update.event, End):
                    finish = update.event.finish_reason
        except Exception as error:
            failed = (error if isinstance(error, ApiError) else session.fail(error)).body.error
            yield told("error", {"code": failed.code, "message": failed.message, "param": failed.param})
            return
        for one in itertools.chain(() if self._items else self._open(), self._close(_status(finish))):
            yield told(*one)
        ended = self._ended(finish, session)
        yield told(f"response.{ended.status}", {"response": ended})

    def _take(self, delta: Delta) -> Iterator[Told]:
        """Takes the next part of the answer into its items; yields the events that tell of it."""
        match delta.part:
            case Content(text) if text:
                if not self._items or isinstance(self._items[-1], OutputCall):
                    yield from self._open()
                self._message.content[0].text += text
                yield "response.output_text.delta", {**self._place, "delta": text, "logprobs": []}
            case ToolCall(name, arguments):
                yield from self._close("completed")
                call = OutputCall(id=f"fc_{secrets.token_hex(12)}", call_id=f"call_{secrets.token_hex(12)}", name=name)
                self._items.append(call)
                at = {"output_index": len(self._items) - 1}
                yield "response.output_item.added", {**at, "item": call}
                call.arguments, call.status = arguments, "completed" if delta.part.complete else "incomplete"
                at_item = {**at, "item_id": call.id}
                yield "response.function_call_arguments.delta", {**at_item, "delta": arguments}
                done = {**at_item, "name": name, "arguments": arguments}
                yield "response.function_call_arguments.done", done
                yield "response.output_item.done", {**at, "item": call}

    def _open(self) -> Iterator[Told]:
        """Begins a message."""
        self._items.append(OutputMessage(id=f"msg_{secrets.token_hex(12)}"))
        yield "response.output_item.added", {"output_index": len(self._items) - 1, "item": self._message}
        self._message.content = [OutputText()]
        yield "response.content_part.added", {**self._place, "part": OutputText()}

    def _close(self, status: Status) -> Iterator[Told]:
        """Ends the message that is being written, if one is."""
        if not self._items or isinstance(self._items[-1], OutputCall):
            return
        self._message.status = status
        part = self._message.content[0]
        yield "response.output_text.done", {**self._place, "text": part.text, "logprobs": []}
        yield "response.content_part.done", {**self._place, "part": part}
        yield "response.output_item.done", {"output_index": len(self._items) - 1, "item": self._message}

    @property
    def _message(self) -> OutputMessage:
        last = self._items[-1]
        assert isinstance(last, OutputMessage)
        return last

    @property
    def _place(self) -> dict[str, Any]:
        return {"output_index": len(self._items) - 1, "content_index": 0, "item_id": self._message.id}

    def _ended(self, finish: str, session: GenerationSession) -> ResponseObject:
        # A stream has told of these; nothing is left of them there.
        for _ in itertools.chain(() if self._items else self._open(), self._close(_status(finish))):
            pass
        usage = session.usage
        told = ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            denoising_steps=usage.denoising_steps,
            tokens_per_forward=usage.tokens_per_forward,
        )
        return self._begun.model_copy(
            update={
                "status": _status(finish),
                "incomplete_details": IncompleteDetails() if finish == "length" else None,
                "output": self._items,
                "usage": told,
                "canvas": session.canvas(0),
                "warnings": session.warnings,
                "trust": session.trust(0),
                "spans": session.spans(0),
            }
        )


def _status(finish: str) -> Status:
    return "incomplete" if finish == "length" else "completed"
