"""POST /v1/completions, https://platform.openai.com/docs/api-reference/completions"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence

from fastapi import FastAPI, Request
from starlette.responses import Response

from redraft.constraints.build import ConstraintSpec
from redraft.constraints.language.blanks import MAX_MARK
from redraft.filling import head
from redraft.generation.result import check_prompt
from redraft.server.constraints import BuiltConstraint, Wanted
from redraft.server.generation import Echo, GenerationSession, PreparedRequest
from redraft.server.openai.answers import STREAM_RESPONSES, Asked, Chunk, Serializer, by_choice, generate
from redraft.server.openai.errors import bad_request
from redraft.server.openai.fields.constraint import wanted_constraint
from redraft.server.openai.fields.grounding import PromptText
from redraft.server.openai.preparation import check_length, encode, prepare, sampler_settings
from redraft.server.openai.requests import CompletionRequest, StreamOptions
from redraft.server.openai.responses import CompletionLogprobs, TextChoice, TextCompletion
from redraft.server.progress import ChoiceUpdate
from redraft.server.service import Service
from redraft.text import Content, Delta, End, ReadPrompt, ScoredToken
from redraft.utils.words import counted

WITHOUT_TEMPLATE = (
    "the prompt was continued as plain text, without the chat template that this model was trained with: send a task "
    "or a question to /v1/chat/completions"
)
SCORING = "echo with logprobs, or without an answer, scores the prompt by the causal pass"


def add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions", response_model=TextCompletion, responses=STREAM_RESPONSES)
    async def complete(http: Request, request: CompletionRequest) -> Response:
        """Continues a plain text."""
        return await generate(service, http, ask(service, request))


def ask(service: Service, request: CompletionRequest) -> Asked:
    num_answers = request.num_choices * len(request.prompts)
    serializer = CompletionSerializer(service, request)
    (text, *others) = request.prompts
    own = PromptText(service, request, "prompt", text if isinstance(text, str) and not others else None)
    wanted = wanted_constraint(request, own)
    if request.suffix:
        if wanted is not None:
            raise bad_request(f"suffix does not go with {wanted.param}: leave one of them out", "suffix")
        wanted = Wanted(_between(service, request), "suffix")
    if wanted is not None and request.scores_prompt:
        raise bad_request(f"{wanted.param} has no effect where {SCORING}; leave it out", wanted.param)
    return Asked(request, serializer, functools.partial(prepare_completion, service, request), num_answers, wanted)


def prepare_completion(
    service: Service, request: CompletionRequest, constraint: BuiltConstraint | None
) -> PreparedRequest:
    if request.scores_prompt:
        _check_scoring(request)
    elif request.max_tokens == 0:
        raise bad_request("max_tokens is 0, must be at least 1, or echo must be true", "max_tokens", "invalid_value")
    settings = sampler_settings(service, request, request.max_tokens or None)
    model = service.model(request.model)
    shown = _shown_suffix(service, request) if request.suffix else ""
    if shown and "max_new_tokens" in settings:
        settings["max_new_tokens"] += len(model.tokenizer.encode(shown))
    prompts = []
    for prompt in request.prompts:
        if isinstance(prompt, str):
            check_length(service, prompt, "prompt")
            prompts.append(encode(lambda text=prompt: model.read_plain(text), "prompt"))  # type: ignore[misc]
        else:
            # Its length is checked below, with the answer's.
            known = functools.partial(check_prompt, prompt, 0, model.transformer.config.vocab_size, len(prompt))
            encode(known, "prompt")
            prompts.append(ReadPrompt(prompt))
    if request.scores_prompt:
        prepared = prepare_scoring(service, request, prompts)
    else:
        # Token ids may be of the template's making; a text cannot.
        is_bare = model.tokenizer.has_chat_template and any(isinstance(prompt, str) for prompt in request.prompts)
        warnings = [WITHOUT_TEMPLATE] if is_bare else []
        if shown != request.suffix:
            warnings.append(f"of the suffix the model sees the first {counted(len(shown), 'character')} only")
        prepared = prepare(
            service, request, prompts, settings, top_logprobs=request.logprobs, param="prompt", constraint=constraint,
            warnings=warnings,
        )  # fmt: skip
    if shown:
        # Where it begins the answer ends; that is what tells a blank from what follows it.
        prepared = dataclasses.replace(prepared, stop_texts=(*prepared.stop_texts, shown[:MAX_MARK]))
    if not request.echo:
        return prepared
    # After the prompts have been found to fit, since each token is looked up.
    echoes = (_echo(service, request, at, prompt.ids) for at, prompt in enumerate(prompts))
    return dataclasses.replace(prepared, echoes=tuple(echoes))


def _between(service: Service, request: CompletionRequest) -> ConstraintSpec:
    """Returns the constraint of an answer that a suffix follows."""
    shown = _shown_suffix(service, request)
    if not shown:
        raise bad_request("the tokens of this model cannot write the suffix: send another", "suffix", "invalid_value")
    return ConstraintSpec(kind="filled", choices=("", shown), has_lines=True)


def _shown_suffix(service: Service, request: CompletionRequest) -> str:
    """Returns what of the suffix stands behind the answer in its canvas: at most a quarter of that."""
    model = service.model(request.model)
    length = request.canvas.canvas_length or model.transformer.config.canvas_length
    return head(request.suffix, max(1, length // 4), model.tokenizer, model.vocabulary)


def prepare_scoring(service: Service, request: CompletionRequest, prompts: Sequence[ReadPrompt]) -> PreparedRequest:
    """Returns the engine's requests for prompts that are scored. They may fill the context."""
    engine, num_tokens, adapter = service.engine, request.max_tokens or 0, service.model(request.model).adapter
    for prompt in prompts:
        if len(prompt.ids) + num_tokens > service.max_context:
            raise bad_request(
                f"the prompt has {len(prompt.ids)} tokens and max_tokens is {num_tokens}; the context holds "
                f"{service.max_context}: shorten the prompt", "prompt", "context_length_exceeded",
            )  # fmt: skip
    return PreparedRequest(
        requests=tuple(
            dataclasses.replace(
                engine.request(prompt, top=request.logprobs or 0, adapter=adapter, is_scored=False), mode="scoring"
            )
            for prompt in prompts
        ),
        prompts=tuple(prompts),
        num_choices=1,
        stop_texts=request.stop_texts,
        top_logprobs=request.logprobs,
        alternatives=0,
        is_cut=num_tokens == 0,
    )


def _check_scoring(request: CompletionRequest) -> None:
    """Refuses what a scored prompt cannot have: more than the one token behind it, the likeliest."""
    if request.max_tokens not in (0, 1):
        given = "is left out" if request.max_tokens is None else f"is {request.max_tokens}"
        message = f"max_tokens {given}, and {SCORING}: send 0 or 1, and ask for a text in a request of its own"
        raise bad_request(message, "max_tokens", "unsupported_value")
    canvas = request.canvas.model_dump(exclude_unset=True, exclude_none=True)
    # Of `canvas`, what is false or 0 by default says nothing.
    unused = {
        f"canvas.{name}": value
        for name, value in canvas.items()
        if name not in ("autoregressive", "mode") and value != 0
    }
    unused |= {"n": request.num_choices > 1, "ignore_eos": request.ignore_eos}
    unused |= {"temperature": request.max_tokens == 1 and bool(request.temperature)}
    for name, value in unused.items():
        if value:
            raise bad_request(f"{name} has no effect where {SCORING}; leave it out", name, "unsupported_value")


def _echo(service: Service, request: CompletionRequest, at: int, ids: list[int]) -> Echo:
    """Returns a prompt as it was sent; of token ids the text, control tokens as their names."""
    tokenizer, prompt = service.engine.model.tokenizer, request.prompts[at]
    try:
        text = prompt if isinstance(prompt, str) else tokenizer.decode(ids, skip_special=False)
    except ValueError as error:
        raise bad_request(str(error), "prompt", "invalid_value") from error
    if not (request.scores_prompt and request.logprobs is not None):
        return Echo(text)
    pieces = tokenizer.detokenizer(skip_special=isinstance(prompt, str))
    return Echo(text, tuple(itertools.accumulate(len(pieces.push([token])) for token in ids)))


class CompletionSerializer(Serializer):
    """The format of text completions."""

    prefix, draft_object, chunk_type = "cmpl", "text_completion.draft", TextCompletion

    def __init__(self, service: Service, request: CompletionRequest) -> None:
        super().__init__(service, request.model, logprobs=request.logprobs is not None)
        self._request = request
        self._offsets: Counter[int] = Counter()
        # What has to go before the next piece of each choice.
        self._unsent: dict[int, str] = {}

    async def stream(
        self, session: GenerationSession, prepared: PreparedRequest, options: StreamOptions
    ) -> AsyncIterator[bytes]:
        self._unsent = {index: session.echo(index).text for index in range(len(session.choices))}
        async for sent in super().stream(session, prepared, options):
            yield sent

    def delta(self, index: int, delta: Delta) -> Chunk:
        offset, text = self._offsets[index], _text(delta)
        self._offsets[index] += len(text)
        logprobs = None if self._request.scores_prompt else self._scored([delta], offset)
        return self.chunk(TextChoice(index=index, text=self._unsent.pop(index, "") + text, logprobs=logprobs))

    def end(self, index: int, end: End, session: GenerationSession) -> Chunk:
        choice = TextChoice(
            index=index,
            text=self._unsent.pop(index, ""),
            logprobs=self._prompt_logprobs(index, session),
            finish_reason=self._finish_reason(end.finish_reason),  # type: ignore[arg-type]
            canvas=session.canvas(index),
            warnings=session.warnings_of(index),
            trust=session.trust(index),
            spans=session.spans(index),
        )
        return self.last_chunk(choice, session)

    def complete(self, updates: Iterable[ChoiceUpdate], session: GenerationSession) -> Chunk:
        choices = [
            TextChoice(
                index=index,
                text=session.echo(index).text + "".join(map(_text, deltas)),
                logprobs=self._prompt_logprobs(index, session) or self._scored(deltas, 0),
                finish_reason=self._finish_reason(finish),  # type: ignore[arg-type]
                canvas=session.canvas(index),
                warnings=session.warnings_of(index),
                trust=session.trust(index),
                spans=session.spans(index),
            )
            for index, deltas, finish in by_choice(updates, len(session.choices))
        ]
        return self.chunk(*choices, usage=session.usage, warnings=session.warnings)

    def _prompt_logprobs(self, index: int, session: GenerationSession) -> CompletionLogprobs | None:
        """Returns those of a scored prompt's tokens and, last, of the one behind it, be it an EOS, if one was wanted.

        Clients cut off the last without looking.
        """
        if not (self._request.scores_prompt and self.logprobs):
            return None
        progress = session.choices[index]
        first = self.text_of(progress.request.prompt[0])
        found = CompletionLogprobs(tokens=[first], token_logprobs=[None], top_logprobs=[None], text_offset=[0])
        scores = progress.scores if self._request.max_tokens else progress.scores[:-1]
        for token, offset in zip(scores, session.echo(index).offsets, strict=False):
            self._add(found, token, offset, adds_own=True)
        return found

    def _scored(self, deltas: Sequence[Delta], offset: int) -> CompletionLogprobs | None:
        if not self.logprobs:
            return None
        found = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for delta in deltas:
            text = _text(delta)
            for token in delta.tokens:
                self._add(found, token, offset)
            if found.tokens and text.endswith(found.tokens[-1]):
                # Of several tokens the last is whole; those before it are parts of characters, or without text.
                found.text_offset[-1] += len(text) - len(found.tokens[-1])
            offset += len(text)
        return found

    def _add(self, found: CompletionLogprobs, token: ScoredToken, offset: int, *, adds_own: bool = False) -> None:
        """Adds a token. adds_own: list it in its place though it is not among the likeliest, as OpenAI does."""
        listed = [*token.top, *([(token.id, token.log_prob)] if adds_own else [])]
        found.tokens.append(self.text_of(token.id))
        found.token_logprobs.append(token.log_prob)
        # The likeliest last: of tokens that are written alike it is the one that stays.
        found.top_logprobs.append({self.text_of(other): score for other, score in reversed(listed)})
        found.text_offset.append(offset)

    def _finish_reason(self, reason: str) -> str:
        return "length" if self._request.max_tokens == 0 else "stop" if reason == "tool_calls" else reason


def _text(delta: Delta) -> str:
    """Returns the content of a delta: text completions have no place for thoughts and tool calls."""
    return delta.part.text if isinstance(delta.part, Content) else ""
