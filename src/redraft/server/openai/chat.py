"""POST /v1/chat/completions, https://platform.openai.com/docs/api-reference/chat"""

import functools
import secrets
from collections import Counter
from collections.abc import Iterable

from fastapi import FastAPI, Request
from starlette.responses import Response

from redraft.server.constraints import BuiltConstraint
from redraft.server.generation import GenerationSession, PreparedRequest
from redraft.server.openai.answers import STREAM_RESPONSES, Asked, Chunk, Serializer, by_choice, generate
from redraft.server.openai.errors import bad_request
from redraft.server.openai.fields.constraint import wanted_of_chat
from redraft.server.openai.messages import encode_conversation, template_variables
from redraft.server.openai.preparation import prepare, sampler_settings
from redraft.server.openai.requests import NOT_STORED, ChatRequest
from redraft.server.openai.responses import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChunkChoice,
    FunctionCall,
    Logprobs,
    MessageToolCall,
    TokenLogprob,
    TopLogprob,
)
from redraft.server.progress import ChoiceUpdate
from redraft.server.service import Service
from redraft.text import Content, Delta, End, Reasoning, ScoredToken, ToolCall


def add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=STREAM_RESPONSES)
    async def chat(http: Request, request: ChatRequest) -> Response:
        """Answers a conversation."""
        return await generate(service, http, ask(service, request))


def ask(service: Service, request: ChatRequest) -> Asked:
    serializer = ChatSerializer(service, request.model, logprobs=bool(request.logprobs))
    prepare = functools.partial(prepare_chat, service, request)
    return Asked(request, serializer, prepare, request.num_choices, wanted_of_chat(service, request))


def prepare_chat(service: Service, request: ChatRequest, constraint: BuiltConstraint | None) -> PreparedRequest:
    if request.top_logprobs and not request.logprobs:
        raise bad_request("top_logprobs requires logprobs=true", "top_logprobs")
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise bad_request("max_tokens and max_completion_tokens differ; send one of them", "max_tokens")
    settings = sampler_settings(service, request, max(limits, default=None))  # type: ignore[type-var]
    variables = template_variables(service, request)
    encoded = encode_conversation(service, service.model(request.model), request.messages, **variables)
    top_logprobs = (request.top_logprobs or 0) if request.logprobs else None
    warnings = [NOT_STORED] if request.store else []
    return prepare(
        service, request, [encoded], settings, top_logprobs=top_logprobs, param="messages", constraint=constraint,
        warnings=warnings,
    )  # fmt: skip


class ChatSerializer(Serializer):
    """The format of chat completions."""

    prefix, draft_object, chunk_type = "chatcmpl", "chat.completion.draft", ChatChunk

    def __init__(self, service: Service, model: str | None, *, logprobs: bool) -> None:
        super().__init__(service, model, logprobs=logprobs)
        self._started: set[int] = set()
        self._num_calls: Counter[int] = Counter()
        self.bytes_of = service.engine.model.tokenizer.token_bytes

    def delta(self, index: int, delta: Delta) -> Chunk:
        message = self._next_message(index)
        match delta.part:
            case Content(text):
                message.content = text
            case Reasoning(text):
                message.reasoning_content = text
            case ToolCall() as call:
                message.tool_calls = [self._call(call, self._num_calls[index])]
                self._num_calls[index] += 1
        return self.chunk(ChunkChoice(index=index, delta=message, logprobs=self._scored(delta.tokens)))

    def end(self, index: int, end: End, session: GenerationSession) -> Chunk:
        choice = ChunkChoice(
            index=index,
            delta=self._next_message(index),
            finish_reason=end.finish_reason,  # type: ignore[arg-type]
            canvas=session.canvas(index),
            warnings=session.warnings_of(index),
            trust=session.trust(index),
            spans=session.spans(index),
        )
        return self.last_chunk(choice, session)

    def complete(self, updates: Iterable[ChoiceUpdate], session: GenerationSession) -> ChatCompletion:
        choices = []
        for index, deltas, finish in by_choice(updates, len(session.choices)):
            parts = [delta.part for delta in deltas]
            message = AssistantMessage(
                role="assistant",
                content="".join(part.text for part in parts if isinstance(part, Content)),
                reasoning_content="".join(part.text for part in parts if isinstance(part, Reasoning)) or None,
                tool_calls=[self._call(part) for part in parts if isinstance(part, ToolCall)] or None,
            )
            choices.append(
                ChatChoice(
                    index=index,
                    message=message,
                    logprobs=self._scored(token for delta in deltas for token in delta.tokens),
                    finish_reason=finish,  # type: ignore[arg-type]
                    canvas=session.canvas(index),
                    warnings=session.warnings_of(index),
                    trust=session.trust(index),
                    spans=session.spans(index),
                )
            )
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=choices,
            usage=session.usage,
            warnings=session.warnings,
        )

    def _next_message(self, index: int) -> AssistantMessage:
        """Returns an empty piece of a choice's message; only the first has a role."""
        message = AssistantMessage(role=None if index in self._started else "assistant")
        self._started.add(index)
        return message

    def _call(self, call: ToolCall, index: int | None = None) -> MessageToolCall:
        function = FunctionCall(name=call.name, arguments=call.arguments)
        return MessageToolCall(index=index, id=f"call_{secrets.token_hex(12)}", function=function)

    def _scored(self, tokens: Iterable[ScoredToken]) -> Logprobs | None:
        if not self.logprobs:
            return None
        return Logprobs(
            content=[
                TokenLogprob(
                    **dict(self._top(token.id, token.log_prob)),
                    top_logprobs=[self._top(other, score) for other, score in token.top],
                )
                for token in tokens
            ]
        )

    def _top(self, token: int, log_prob: float) -> TopLogprob:
        return TopLogprob(token=self.text_of(token), logprob=log_prob, bytes=list(self.bytes_of(token)))
