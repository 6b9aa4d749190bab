"""POST /v1/completions, https://platform.openai.com/docs/api-reference/completions"""

from collections import Counter
from collections.abc import Iterable, Sequence

from fastapi import FastAPI, Request
from starlette.responses import Response

from redraft.server.generation import ChoiceUpdate, GenerationSession, PreparedRequest
from redraft.server.openai.answers import STREAM_RESPONSES, Chunk, Serializer, by_choice, generate
from redraft.server.openai.preparation import check_length, check_model, encode, prepare, sampler_settings
from redraft.server.openai.requests import CompletionRequest
from redraft.server.openai.responses import CompletionLogprobs, TextChoice, TextCompletion
from redraft.server.service import Service
from redraft.text import Content, Delta, End, ReadPrompt

WITHOUT_TEMPLATE = (
    "the prompt was continued as plain text, without the chat template that this model was trained with: send a task "
    "or a question to /v1/chat/completions"
)


def add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions", response_model=TextCompletion, responses=STREAM_RESPONSES)
    async def complete(http: Request, request: CompletionRequest) -> Response:
        """Continues a plain text."""
        check_model(request.model, service.name)
        serializer = CompletionSerializer(service, logprobs=request.logprobs is not None)
        num_answers = request.num_choices * len(request.prompts)
        return await generate(
            service, http, request, serializer, lambda: prepare_completion(service, request), num_answers
        )


def prepare_completion(service: Service, request: CompletionRequest) -> PreparedRequest:
    settings = sampler_settings(service, request, request.max_tokens)
    model = service.engine.model
    prompts = []
    for prompt in request.prompts:
        if isinstance(prompt, str):
            check_length(service, prompt, "prompt")
            ids = encode(lambda text=prompt: model.encode_plain(text), "prompt")  # type: ignore[misc]
            prompts.append(ReadPrompt(ids, task=model.card.task_of(prompt)))
        else:
            prompts.append(ReadPrompt(prompt))
    # Token ids may be of the template's making; a text cannot.
    is_bare = model.tokenizer.has_chat_template and any(isinstance(prompt, str) for prompt in request.prompts)
    warnings = [WITHOUT_TEMPLATE] if is_bare else []
    return prepare(
        service, request, prompts, settings, top_logprobs=request.logprobs, param="prompt", warnings=warnings
    )


class CompletionSerializer(Serializer):
    """The format of text completions."""

    prefix, draft_object, chunk_type = "cmpl", "text_completion.draft", TextCompletion

    def __init__(self, service: Service, *, logprobs: bool) -> None:
        super().__init__(service, logprobs=logprobs)
        self._offsets: Counter[int] = Counter()

    def delta(self, index: int, delta: Delta) -> Chunk:
        offset, text = self._offsets[index], _text(delta)
        self._offsets[index] += len(text)
        return self.chunk(TextChoice(index=index, text=text, logprobs=self._scored([delta], offset)))

    def end(self, index: int, end: End, session: GenerationSession) -> Chunk:
        choice = TextChoice(
            index=index,
            text="",
            finish_reason=_finish_reason(end.finish_reason),  # type: ignore[arg-type]
            canvas=session.canvas(index),
            warnings=session.warnings_of(index),
        )
        return self.last_chunk(choice, session)

    def complete(self, updates: Iterable[ChoiceUpdate], session: GenerationSession) -> Chunk:
        choices = [
            TextChoice(
                index=index,
                text="".join(map(_text, deltas)),
                logprobs=self._scored(deltas, 0),
                finish_reason=_finish_reason(finish),  # type: ignore[arg-type]
                canvas=session.canvas(index),
                warnings=session.warnings_of(index),
            )
            for index, deltas, finish in by_choice(updates, len(session.choices))
        ]
        return self.chunk(*choices, usage=session.usage, warnings=session.warnings)

    def _scored(self, deltas: Sequence[Delta], offset: int) -> CompletionLogprobs | None:
        if not self.logprobs:
            return None
        found = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for delta in deltas:
            text = _text(delta)
            for token in delta.tokens:
                found.tokens.append(self.text_of(token.id))
                found.token_logprobs.append(token.log_prob)
                found.top_logprobs.append({self.text_of(other): score for other, score in token.top})
                found.text_offset.append(offset)
            if found.tokens and text.endswith(found.tokens[-1]):
                # Of several tokens the last is whole; those before it are parts of characters, or without text.
                found.text_offset[-1] += len(text) - len(found.tokens[-1])
            offset += len(text)
        return found


def _text(delta: Delta) -> str:
    """Returns the content of a delta: text completions have no place for thoughts and tool calls."""
    return delta.part.text if isinstance(delta.part, Content) else ""


def _finish_reason(reason: str) -> str:
    return "stop" if reason == "tool_calls" else reason
