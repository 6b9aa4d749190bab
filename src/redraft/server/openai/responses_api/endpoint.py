"""POST /v1/responses, https://platform.openai.com/docs/api-reference/responses: one answer's text, streamed or not."""

import functools
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterable
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
from redraft.server.openai.responses_api.protocol import (
    IncompleteDetails,
    InputTokensDetails,
    OutputMessage,
    OutputText,
    ResponseObject,
    ResponsesRequest,
    ResponseUsage,
)
from redraft.server.progress import ChoiceUpdate
from redraft.server.service import Service
from redraft.text import Content, Delta, End

EVENTS = (
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    "response.output_text.delta", "response.output_text.done", "response.content_part.done",
    "response.output_item.done", "response.completed", "response.incomplete", "error",
)  # fmt: skip
"""The types of a stream's events."""


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
        name = names.get(error.param or "", error.param)
        message = error.detail.replace(str(error.param), str(name))
        raise ApiError(error.status_code, message, param=name, code=error.code, headers=error.headers) from error


class ResponsesWriter(ResponseWriter):
    """The format of responses. Thoughts and tool calls have no place in their text part."""

    def __init__(self, model: str, request: ResponsesRequest) -> None:
        self._begun = ResponseObject(
            id=f"resp_{secrets.token_hex(12)}",
            created_at=int(time.time()),
            model=model,
            **request.model_dump(include={"instructions", "max_output_tokens", "temperature", "metadata"}),
        )
        self._item = OutputMessage(id=f"msg_{secrets.token_hex(12)}")

    def complete(self, updates: Iterable[ChoiceUpdate], session: GenerationSession) -> ResponseObject:
        ((_, deltas, finish),) = by_choice(updates, 1)
        return self._ended("".join(map(_text, deltas)), finish, session)

    async def stream(
        self, session: GenerationSession, prepared: PreparedRequest, options: StreamOptions
    ) -> AsyncIterator[bytes]:
        numbers, place = itertools.count(), {"output_index": 0, "content_index": 0, "item_id": self._item.id}

        def told(kind: str, **fields: Any) -> bytes:
            shown = {
                name: value.model_dump(exclude_none=True) if isinstance(value, BaseModel) else value
                for name, value in fields.items()
            }
            return event(json.dumps({"type": kind, "sequence_number": next(numbers), **shown}), kind)

        yield told("response.created", response=self._begun)
        yield told("response.in_progress", response=self._begun)
        yield told("response.output_item.added", output_index=0, item=self._item)
        yield told("response.content_part.added", **place, part=OutputText())
        text, finish = "", "length"
        try:
            async for update in session.updates():
                if isinstance(update.event, Delta) and (piece := _text(update.event)):
                    text += piece
                    yield told("response.output_text.delta", **place, delta=piece, logprobs=[])
                elif isinstance(update.event, End):
                    finish = update.event.finish_reason
        except Exception as error:
            failed = (error if isinstance(error, ApiError) else session.fail(error)).body.error
            yield told("error", code=failed.code, message=failed.message, param=failed.param)
            return
        ended = self._ended(text, finish, session)
        yield told("response.output_text.done", **place, text=text, logprobs=[])
        yield told("response.content_part.done", **place, part=OutputText(text=text))
        yield told("response.output_item.done", output_index=0, item=ended.output[0])
        yield told(f"response.{ended.status}", response=ended)

    def _ended(self, text: str, finish: str, session: GenerationSession) -> ResponseObject:
        usage, is_cut = session.usage, finish == "length"
        status = "incomplete" if is_cut else "completed"
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
                "status": status,
                "incomplete_details": IncompleteDetails() if is_cut else None,
                "output": [self._item.model_copy(update={"status": status, "content": [OutputText(text=text)]})],
                "usage": told,
                "canvas": session.canvas(0),
                "warnings": session.warnings,
                "trust": session.trust(0),
                "spans": session.spans(0),
            }
        )


def _text(delta: Delta) -> str:
    return delta.part.text if isinstance(delta.part, Content) else ""
