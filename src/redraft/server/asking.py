"""From what the API is asked to requests for the engine: settings, token ids, and every refusal there can be."""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redraft.async_engine import Engine
from redraft.engine import Request
from redraft.server.asked import ChatRequest, CompletionRequest, Generating, Message, Tool
from redraft.server.errors import ApiError, refused
from redraft.server.settings import LARGEST_SEED
from redraft.text import TextTokenizer

MESSAGE_FIELDS = ("name", "tool_calls", "tool_call_id", "reasoning_content")
CANVAS_SETTINGS = ("steps", "entropy_bound", "t_min", "t_max", "canvas_length")


@dataclass(frozen=True)
class Asked:
    """What is to be generated: requests for the engine, one for each choice, and how they are told.

    choices: answers to each prompt. prompt_tokens: of all prompts together, each counted once. top: likeliest tokens
    told of each, None for no log-probabilities. alternatives: with each draft.
    """

    requests: tuple[Request, ...]
    choices: int
    prompt_tokens: int
    stops: tuple[str, ...]
    top: int | None
    drafts: bool
    alternatives: int


def settings_of(engine: Engine, asked: Generating, max_tokens: int | None, max_context: int) -> dict[str, Any]:
    """The sampler settings that are asked for. Refuses what is out of range, by the API's own names."""
    canvas = asked.canvas
    given = {name: getattr(canvas, name) for name in CANVAS_SETTINGS}
    given |= {"temperature": asked.temperature, "seed": asked.seed}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if max_tokens is not None:
        if max_tokens > max_context:
            name = "max_completion_tokens" if asked.max_tokens is None else "max_tokens"
            raise refused(f"{name} is {max_tokens}, the context holds {max_context}", name, "invalid_value")
        settings["max_new_tokens"] = max_tokens
    if asked.stream_options is not None and not asked.stream:
        raise refused("stream_options go with stream; leave them out", "stream_options")
    if canvas.stream_drafts and not asked.stream:
        raise refused("canvas.stream_drafts goes with stream; leave it out", "canvas.stream_drafts")
    if canvas.alternatives and not canvas.stream_drafts:
        raise refused("canvas.alternatives come with drafts: ask for canvas.stream_drafts", "canvas.alternatives")
    if canvas.autoregressive:
        _check_autoregressive(asked)
    elif asked.seed is None:
        # One for all choices, and told, so that each can be had again.
        settings["seed"] = secrets.randbelow(LARGEST_SEED)
    try:
        engine.model.defaults.replace(**settings)
    except ValueError as error:
        name = str(error).split(" ", 1)[0]
        param = f"canvas.{name}" if name in CANVAS_SETTINGS else name
        raise refused(f"{param.removesuffix(name)}{error}", param, "invalid_value") from error
    return settings


GREEDY_HAS_NONE = ("seed", "temperature", "n", "logprobs", "top_logprobs", "ignore_eos")
SAID_ANYWAY = {
    "ignore_eos": False,
    "n": 1,
    "temperature": 0.0,
    "logprobs": False,
    "canvas.alternatives": 0,
    "canvas.stream_drafts": False,
}
"""What may be said of an answer that is written token by token, because it is so."""


def _check_autoregressive(asked: Generating) -> None:
    """Token by token the likeliest is taken each time: nothing else can be asked of it."""
    given = asked.model_dump(exclude_unset=True)
    ours = {f"canvas.{name}": value for name, value in given.get("canvas", {}).items() if name != "autoregressive"}
    ours |= {name: given[name] for name in GREEDY_HAS_NONE if name in given}
    for name, value in ours.items():
        # Zero log-probabilities of text completions are a number, and not none.
        anyway = name in SAID_ANYWAY and value == SAID_ANYWAY[name] and type(value) is type(SAID_ANYWAY[name])
        if value is not None and not anyway:
            raise refused(
                f"{name} has no meaning token by token: leave it out, or canvas.autoregressive",
                name,
                "unsupported_value",
            )


class Asking:
    """Makes requests for one engine. `max_context` bounds prompt and answer together, in tokens."""

    def __init__(self, engine: Engine, max_context: int) -> None:
        self._engine, self._max_context = engine, max_context

    def chat(self, asked: ChatRequest) -> Asked:
        """Refuses what the template, the context or the settings cannot do. Renders and tokenizes: not for the loop."""
        if asked.top_logprobs is not None and not asked.logprobs:
            raise refused("top_logprobs goes with logprobs: set that to true", "top_logprobs")
        limits = {asked.max_tokens, asked.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise refused("max_tokens and max_completion_tokens differ; send one of them", "max_tokens")
        settings = settings_of(self._engine, asked, max(limits, default=None), self._max_context)  # type: ignore[type-var]
        ids = self.conversation(asked.messages, **self._variables(asked))
        top = (asked.top_logprobs or 0) if asked.logprobs else None
        return self._asked(asked, [ids], settings, top)

    def completion(self, asked: CompletionRequest) -> Asked:
        """The same for text as it stands; token ids are taken as they are."""
        settings = settings_of(self._engine, asked, asked.max_tokens, self._max_context)
        prompts = []
        for prompt in asked.prompts:
            if isinstance(prompt, str):
                self.check_length(prompt, "prompt")
                prompts.append(self._encoded(lambda text=prompt: self._engine.model.encode_plain(text), "prompt"))
            else:
                prompts.append(prompt)
        return self._asked(asked, prompts, settings, asked.logprobs)

    def conversation(self, messages: Sequence[Message], **variables: object) -> list[int]:
        """Token ids of a conversation through the chat template, or of one text where there is no template."""
        model = self._engine.model
        self.check_length("".join(_text(message.content) for message in messages), "messages")
        if model.tokenizer.has_chat_template:
            rendered = [_for_template(message, at, model.tokenizer) for at, message in enumerate(messages)]
            return self._encoded(lambda: model.encode(rendered, **variables), "messages")
        if len(messages) > 1 or messages[0].role != "user":
            raise refused("this model has no chat template: send one message of role user, or a completion", "messages")
        for name in MESSAGE_FIELDS:
            if getattr(messages[0], name) is not None:
                raise refused(f"this model has no chat template, and so no messages.0.{name}", f"messages.0.{name}")
        return self._encoded(lambda: model.encode(_text(messages[0].content)), "messages")

    def check_length(self, text: str, param: str) -> None:
        """Refuses what is too long whatever its tokens are, before they are counted."""
        longest = self._engine.model.tokenizer.longest_token
        if (least := len(text) // longest) > self._max_context:
            raise refused(
                f"the prompt has {len(text)} characters, which are {least} tokens at least; the context holds "
                f"{self._max_context}: shorten the prompt", param, "context_length_exceeded",
            )  # fmt: skip

    def _variables(self, asked: ChatRequest) -> dict[str, object]:
        """What the template is told beside the messages; refused where it would not listen."""
        tokenizer = self._engine.model.tokenizer
        variables: dict[str, object] = {}
        if asked.tools and asked.tool_choice != "none":
            if not tokenizer.template_reads("tools"):
                raise refused(
                    "this model's chat template knows no tools; leave them out", "tools", "unsupported_parameter"
                )
            variables["tools"] = [_tool(tool) for tool in asked.tools]
        thinking = asked.chat_template_kwargs and asked.chat_template_kwargs.enable_thinking
        if thinking is not None:
            if not tokenizer.template_reads("enable_thinking"):
                raise refused(
                    "this model's chat template knows no enable_thinking; leave it out",
                    "chat_template_kwargs.enable_thinking", "unsupported_parameter",
                )  # fmt: skip
            variables["enable_thinking"] = thinking
        return variables

    def _encoded(self, encode: Any, param: str) -> list[int]:
        try:
            ids: list[int] = encode()
        except ValueError as error:
            raise refused(str(error), param, "invalid_value") from error
        return ids

    def _asked(
        self, asked: Generating, prompts: Sequence[list[int]], settings: dict[str, Any], top: int | None
    ) -> Asked:
        canvas, place = asked.canvas, "messages" if isinstance(asked, ChatRequest) else "prompt"
        requests: list[Request] = []
        for prompt in prompts:
            fitting = settings | {"max_new_tokens": self._room(prompt, settings, place)}
            # Its own draw for every choice, and for every prompt as if it were alone.
            requests += [
                self._engine.request(
                    prompt,
                    drafts=canvas.stream_drafts,
                    top=max(canvas.alternatives, 0 if top is None else max(top, 1)),
                    mode="autoregressive" if canvas.autoregressive else "diffusion",
                    stop_ids=() if asked.ignore_eos else None,
                    choice=choice,
                    **fitting,
                )
                for choice in range(asked.choices)
            ]
        return Asked(
            requests=tuple(requests),
            choices=asked.choices,
            prompt_tokens=sum(map(len, prompts)),
            stops=asked.stops,
            top=top,
            drafts=canvas.stream_drafts,
            alternatives=canvas.alternatives,
        )

    def _room(self, prompt: list[int], settings: dict[str, Any], place: str) -> int:
        """The tokens an answer may have: as many as are asked for, and whole canvases of what the context leaves."""
        model = self._engine.model
        chosen = model.defaults.replace(**settings)
        canvas = chosen.canvas_length or model.transformer.config.canvas_length
        room = (self._max_context - len(prompt)) // canvas * canvas
        if room <= 0:
            raise refused(
                f"the prompt has {len(prompt)} tokens and a canvas {canvas}; the context holds {self._max_context}: "
                "shorten the prompt or the canvas", place, "context_length_exceeded",
            )  # fmt: skip
        return min(room, chosen.max_new_tokens)


def _for_template(message: Message, at: int, tokenizer: TextTokenizer) -> dict[str, object]:
    """A message as templates read it: texts joined, arguments of tool calls as objects.

    What a model thought before may be left out by its template, as those of thinking models do; nothing else may.
    """
    for name in ("name", "tool_calls", "tool_call_id"):
        if getattr(message, name) is not None and not tokenizer.template_reads(name):
            place = f"messages.{at}.{name}"
            raise refused(
                f"{place} is not read by this model's chat template: leave it out", place, "unsupported_value"
            )
    rendered: dict[str, object] = {"role": message.role, "content": _text(message.content)}
    if message.content is None and not message.tool_calls:
        raise refused(f"messages.{at} has no content", f"messages.{at}.content")
    if message.role == "tool" and message.tool_call_id is None:
        raise refused(f"messages.{at} is of role tool and needs a tool_call_id", f"messages.{at}.tool_call_id")
    for name, role in (("tool_calls", "assistant"), ("reasoning_content", "assistant"), ("tool_call_id", "tool")):
        if getattr(message, name) is not None and message.role != role:
            raise refused(f"messages.{at}.{name} belongs to role {role}", f"messages.{at}.{name}")
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            rendered[name] = value
    if message.tool_calls is not None:
        rendered["tool_calls"] = [
            {
                "id": call.id,
                "type": call.type,
                "function": {
                    "name": call.function.name,
                    "arguments": _arguments(call.function.arguments, f"messages.{at}.tool_calls.{number}"),
                },
            }
            for number, call in enumerate(message.tool_calls)
        ]
    return rendered


def _arguments(text: str, place: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise refused(f"{place}.function.arguments must be a JSON object, as text", f"{place}.function.arguments")
    return found


def _tool(tool: Tool) -> dict[str, object]:
    function = tool.function
    return {
        "type": "function",
        "function": {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or {"type": "object", "properties": {}},
        },
    }


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


def check_model(asked: str | None, served: str) -> None:
    """404 for a model that is not the one there is. The name is compared and never looked up."""
    if asked is not None and asked != served:
        shown = re.sub(r"[^\x20-\x7e]", "?", asked[:100])
        raise ApiError(404, f"there is no model {shown!r}, only {served!r}", param="model", code="model_not_found")
