"""The two shapes in which OpenAI's API tells an answer: chat completions and text completions."""

import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Protocol

from pydantic import BaseModel

from redraft.server.answering import Answering, Happened
from redraft.server.asked import StreamOptions
from redraft.server.choice import Delta, Ended, StepTold, TokenTold
from redraft.server.errors import ApiError
from redraft.server.sending import DONE, event
from redraft.server.told import (
    CallTold,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChunkChoice,
    Draft,
    DraftTold,
    FunctionTold,
    Logprobs,
    MessageTold,
    OldLogprobs,
    TextChoice,
    TextCompletion,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from redraft.text import Content, Reasoning, TextTokenizer, ToolCall


class Shape(Protocol):
    """How one answer of the API is told. Made for one request."""

    def delta(self, index: int, told: Delta) -> ChatChunk | TextCompletion:
        """The event of the next part."""
        ...

    def end(self, index: int, ended: Ended, answering: Answering) -> ChatChunk | TextCompletion:
        """The event of a choice's end."""
        ...

    def usage(self, usage: Usage) -> ChatChunk | TextCompletion:
        """The event of what the answer took."""
        ...

    def whole(self, happened: Iterable[Happened], answering: Answering) -> BaseModel:
        """All in one."""
        ...

    def draft(self, index: int, told: StepTold, alternatives: int) -> Draft:
        """The event of a denoising step."""
        ...


class TokenTexts:
    """Texts of single tokens; control tokens show as their names."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __getitem__(self, token: int) -> str:
        if (text := self._known.get(token)) is None:
            text = self._known[token] = self._tokenizer.token_text(token)
        return text

    def scored(self, token: int, log_prob: float) -> TopLogprob:
        """As log-probabilities are told."""
        return TopLogprob(token=self[token], logprob=log_prob, bytes=list(self._tokenizer.token_bytes(token)))


class _Told:
    """What both shapes have in common: names, and drafts."""

    prefix: str
    draft_object: str

    def __init__(self, model: str, texts: TokenTexts) -> None:
        self.id = f"{self.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.model = model
        self.texts = texts

    def draft(self, index: int, told: StepTold, alternatives: int) -> Draft:
        step, texts = told.step, self.texts
        entropies = step.entropy.tolist()
        listed = None
        if alternatives and step.top is not None:
            listed = [
                [(texts[token], round(score, 4)) for token, score in zip(ids[:alternatives], scores, strict=False)]
                for ids, scores in zip(step.top.ids.tolist(), step.top.log_probs.tolist(), strict=True)
            ]
        draft = DraftTold(
            index=index,
            canvas=step.canvas,
            step=told.number,
            steps_left=step.step - 1,
            finished=step.finished,
            temperature=step.temperature,
            mean_entropy=round(sum(entropies) / len(entropies), 4),
            accepted=[int(one) for one in step.accepted.tolist()],
            entropies=[round(one, 4) for one in entropies],
            tokens=[texts[token] for token in step.draft.tolist()],
            noisy=[texts[token] for token in step.renoised.tolist()],
            alternatives=listed,
            text=told.text,
        )
        return Draft(id=self.id, object=self.draft_object, created=self.created, model=self.model, draft=draft)  # type: ignore[arg-type]


class ChatShape(_Told):
    """https://platform.openai.com/docs/api-reference/chat"""

    prefix, draft_object = "chatcmpl", "chat.completion.draft"

    def __init__(self, model: str, texts: TokenTexts, *, logprobs: bool) -> None:
        super().__init__(model, texts)
        self._logprobs = logprobs
        self._begun: set[int] = set()
        self._calls: dict[int, int] = {}

    def delta(self, index: int, told: Delta) -> ChatChunk:
        delta = MessageTold(role=None if index in self._begun else "assistant")
        self._begun.add(index)
        match told.part:
            case Content(text):
                delta.content = text
            case Reasoning(text):
                delta.reasoning_content = text
            case ToolCall() as call:
                delta.tool_calls = [self._call(call, self._calls.get(index, 0))]
                self._calls[index] = self._calls.get(index, 0) + 1
        return self._chunk([ChunkChoice(index=index, delta=delta, logprobs=self._scored(told.tokens))])

    def end(self, index: int, ended: Ended, answering: Answering) -> ChatChunk:
        delta = MessageTold(role=None if index in self._begun else "assistant")
        return self._chunk(
            [
                ChunkChoice(
                    index=index,
                    delta=delta,
                    finish_reason=ended.finish_reason,  # type: ignore[arg-type]
                    canvas=answering.canvas(index),
                )
            ]
        )

    def usage(self, usage: Usage) -> ChatChunk:
        chunk = self._chunk([])
        chunk.usage = usage
        return chunk

    def whole(self, happened: Iterable[Happened], answering: Answering) -> ChatCompletion:
        choices = []
        for index, deltas, finish in _by_choice(happened, len(answering.choices)):
            parts = [delta.part for delta in deltas]
            calls = [part for part in parts if isinstance(part, ToolCall)]
            content = "".join(part.text for part in parts if isinstance(part, Content))
            thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
            message = MessageTold(
                role="assistant",
                content=content,
                reasoning_content=thought or None,
                tool_calls=[self._call(call) for call in calls] or None,
            )
            tokens = tuple(token for delta in deltas for token in delta.tokens)
            choices.append(
                ChatChoice(
                    index=index,
                    message=message,
                    logprobs=self._scored(tokens),
                    finish_reason=finish,  # type: ignore[arg-type]
                    canvas=answering.canvas(index),
                )
            )
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=choices, usage=answering.usage
        )

    def _chunk(self, choices: list[ChunkChoice]) -> ChatChunk:
        return ChatChunk(id=self.id, created=self.created, model=self.model, choices=choices)

    def _call(self, call: ToolCall, index: int | None = None) -> CallTold:
        return CallTold(
            index=index,
            id=f"call_{secrets.token_hex(12)}",
            function=FunctionTold(name=call.name, arguments=call.arguments),
        )

    def _scored(self, tokens: Iterable[TokenTold]) -> Logprobs | None:
        if not self._logprobs:
            return None
        scored = self.texts.scored
        return Logprobs(
            content=[
                TokenLogprob(
                    **dict(scored(token.id, token.log_prob)),
                    top_logprobs=[scored(other, score) for other, score in token.top],
                )
                for token in tokens
            ]
        )


class TextShape(_Told):
    """https://platform.openai.com/docs/api-reference/completions"""

    prefix, draft_object = "cmpl", "text_completion.draft"

    def __init__(self, model: str, texts: TokenTexts, *, logprobs: bool) -> None:
        super().__init__(model, texts)
        self._logprobs = logprobs
        self._offset: dict[int, int] = {}

    def delta(self, index: int, told: Delta) -> TextCompletion:
        scored = self._scored([told], self._offset.get(index, 0))
        self._offset[index] = self._offset.get(index, 0) + len(_text(told))
        return self._chunk([TextChoice(index=index, text=_text(told), logprobs=scored)])

    def end(self, index: int, ended: Ended, answering: Answering) -> TextCompletion:
        finish = _plain(ended.finish_reason)
        return self._chunk(
            [TextChoice(index=index, text="", finish_reason=finish, canvas=answering.canvas(index))]  # type: ignore[arg-type]
        )

    def usage(self, usage: Usage) -> TextCompletion:
        chunk = self._chunk([])
        chunk.usage = usage
        return chunk

    def whole(self, happened: Iterable[Happened], answering: Answering) -> TextCompletion:
        whole = self._chunk([])
        for index, deltas, finish in _by_choice(happened, len(answering.choices)):
            whole.choices.append(
                TextChoice(
                    index=index,
                    text="".join(map(_text, deltas)),
                    logprobs=self._scored(deltas, 0),
                    finish_reason=_plain(finish),  # type: ignore[arg-type]
                    canvas=answering.canvas(index),
                )
            )
        whole.usage = answering.usage
        return whole

    def _chunk(self, choices: list[TextChoice]) -> TextCompletion:
        return TextCompletion(id=self.id, created=self.created, model=self.model, choices=choices)

    def _scored(self, deltas: Sequence[Delta], offset: int) -> OldLogprobs | None:
        if not self._logprobs:
            return None
        told = OldLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for delta in deltas:
            text = _text(delta)
            for token in delta.tokens:
                told.tokens.append(self.texts[token.id])
                told.token_logprobs.append(token.log_prob)
                told.top_logprobs.append({self.texts[other]: score for other, score in token.top})
                told.text_offset.append(offset)
            if told.tokens and text.endswith(told.tokens[-1]):
                # Of several the last is whole; those before it are parts of characters, or without text.
                told.text_offset[-1] += len(text) - len(told.tokens[-1])
            offset += len(text)
        return told


async def streamed(
    shape: Shape, answering: Answering, alternatives: int, options: StreamOptions
) -> AsyncIterator[bytes]:
    """The events of a streamed answer. An error ends it, told as an event, without the last line."""

    def chunk(told: ChatChunk | TextCompletion) -> bytes:
        if options.continuous_usage_stats:
            told.usage = answering.usage
        return event(told.model_dump_json(exclude_none=True))

    try:
        async for one in answering.events():
            index, told = one.index, one.told
            match told:
                case Delta():
                    yield chunk(shape.delta(index, told))
                case StepTold():
                    yield event(shape.draft(index, told, alternatives).model_dump_json(exclude_none=True), "draft")
                case Ended():
                    yield chunk(shape.end(index, told, answering))
    except ApiError as error:
        yield event(error.body.model_dump_json())
        return
    except Exception as error:
        # The head has been sent: whatever it is, the client is told where it looks.
        yield event(answering.failed(error).body.model_dump_json())
        return
    if options.include_usage:
        yield chunk(shape.usage(answering.usage))
    yield DONE


async def gathered(shape: Shape, answering: Answering) -> BaseModel:
    """The whole answer."""
    return shape.whole([one async for one in answering.events()], answering)


def _by_choice(happened: Iterable[Happened], count: int) -> Iterator[tuple[int, list[Delta], str]]:
    """(index, deltas, finish reason) of each choice."""
    deltas: list[list[Delta]] = [[] for _ in range(count)]
    finish = ["length"] * count
    for one in happened:
        if isinstance(one.told, Delta):
            deltas[one.index].append(one.told)
        elif isinstance(one.told, Ended):
            finish[one.index] = one.told.finish_reason
    yield from zip(range(count), deltas, finish, strict=True)


def _text(delta: Delta) -> str:
    """Text completions have no place for thoughts and calls of tools: only what is meant to be read is."""
    return delta.part.text if isinstance(delta.part, Content) else ""


def _plain(finish_reason: str) -> str:
    return "stop" if finish_reason == "tool_calls" else finish_reason
