"""A conversation as its model's chat template reads it, and as token ids."""

import json
from collections.abc import Sequence
from typing import Any

from redraft.api import Model
from redraft.server.openai.errors import bad_request
from redraft.server.openai.preparation import check_length, encode
from redraft.server.openai.requests import ChatRequest, Message, RefusalPart
from redraft.server.service import Service
from redraft.text import ReadPrompt, TextTokenizer
from redraft.text.prompts.conversation import INSTRUCTIONS, UNREAD, text_of, without_empty_instructions

TEMPLATE_FIELDS = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning")
"""Fields of a message that only a chat template can make use of."""

THOUGHTS = ("reasoning_content", "reasoning")
"""What servers call the thoughts of an earlier answer; templates know the first."""

UNREADABLE = "unreadable"
"""The argument that holds, as text, what an earlier tool call has instead of a JSON object."""


def encode_conversation(service: Service, model: Model, messages: Sequence[Message], **variables: object) -> ReadPrompt:
    """Returns a conversation through the chat template, or one text where there is no template.

    Refuses what the template or the context cannot take. Renders and tokenizes: not for the event loop.
    """
    roles: list[dict[str, Any]] = [
        {
            "role": one.role, "at": at, "called": INSTRUCTIONS if one.id == INSTRUCTIONS else None,
            "content": None if one.content is None else content_text(one.content),
        }
        for at, one in enumerate(messages)
    ]  # fmt: skip
    if model.tokenizer.has_chat_template:
        warnings: list[str] = []
        chosen, left_out = model.card.select(roles)
        read_at = {one["at"] for one in chosen}
        rendered = [
            _template_message(message, at, model.tokenizer, warnings, is_read=at in read_at)
            for at, message in enumerate(messages)
        ]
        # What is left out takes no room, and is no reason for other warnings.
        kept = [message for at, message in enumerate(rendered) if at in read_at]
        check_length(service, "".join(map(text_of, kept)), "messages")
        read = encode(lambda: model.read(kept, **variables), "messages")
        return read.after(left_out or warnings)
    check_length(service, "".join(one["content"] or "" for one in roles), "messages")
    (said, *others) = without_empty_instructions(roles)
    if others or said["role"] != "user":
        raise bad_request("this model has no chat template: send one message of role user, or a completion", "messages")
    _check_unread(messages[said["at"]], said["at"])
    for name in TEMPLATE_FIELDS:
        if getattr(messages[said["at"]], name) is not None:
            param = f"messages.{said['at']}.{name}"
            raise bad_request(f"{param} requires a chat template, which this model does not have; leave it out", param)
    return encode(lambda: model.read(said["content"] or ""), "messages")


def template_variables(service: Service, request: ChatRequest) -> dict[str, object]:
    """Returns what the template gets beside the messages; refuses what it would not read."""
    variables: dict[str, object] = {}
    if request.tools and request.tool_choice != "none":
        tools = [tool.model_dump(exclude={"function": {"strict"}}) for tool in request.tools]
        for tool in tools:
            tool["function"]["description"] = tool["function"]["description"] or ""
            tool["function"]["parameters"] = tool["function"]["parameters"] or {"type": "object", "properties": {}}
        variables["tools"] = tools
    options = request.chat_template_kwargs
    if options is not None and options.enable_thinking is not None:
        variables["enable_thinking"] = options.enable_thinking
    for name in list(variables):
        if not service.engine.model.tokenizer.template_reads(name):
            if variables[name] is False:
                # A model whose template knows no thinking does none.
                del variables[name]
                continue
            param = "tools" if name == "tools" else f"chat_template_kwargs.{name}"
            message = f"this model's chat template does not support {name}; leave {param} out"
            raise bad_request(message, param, "unsupported_parameter")
    return variables


def _template_message(
    message: Message, at: int, tokenizer: TextTokenizer, warnings: list[str], *, is_read: bool
) -> dict[str, object]:
    """Returns a message as templates read it: texts joined, arguments of tool calls as objects.

    is_read: a message that is left out may have what the template does not read.

    What a model thought earlier may be left out by its template, as those of thinking models do; nothing else may. An
    answer may be without content: an EOS may have been all of it.
    """
    if is_read:
        _check_unread(message, at)
        _check_supported(message, at, tokenizer)
    rendered: dict[str, object] = {"role": message.role, "content": content_text(message.content)}
    if message.content is None and message.role != "assistant":
        raise bad_request(f"messages.{at}.content is missing", f"messages.{at}.content")
    if message.role == "tool" and message.tool_call_id is None:
        raise bad_request(f"messages.{at} has role tool and requires a tool_call_id", f"messages.{at}.tool_call_id")
    for name, role in (*dict.fromkeys(("tool_calls", *THOUGHTS), "assistant").items(), ("tool_call_id", "tool")):
        if getattr(message, name) not in (None, []) and message.role != role:
            raise bad_request(f"messages.{at}.{name} requires role {role}", f"messages.{at}.{name}")
    for name in ("name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            rendered[name] = value
    if (thoughts := next(filter(None, (getattr(message, name) for name in THOUGHTS)), None)) is not None:
        rendered["reasoning_content"] = thoughts
    if message.tool_calls:
        calls = [
            call.model_dump(exclude={"index": True, "function": {"parsed_arguments"}}) for call in message.tool_calls
        ]
        for number, call in enumerate(calls):
            arguments, is_readable = _arguments(call["function"]["arguments"])
            _check_surrogates(arguments, f"messages.{at}.tool_calls.{number}.function.arguments")
            call["function"]["arguments"] = arguments
            if not is_readable:
                warnings.append(
                    f"messages.{at}.tool_calls.{number}.function.arguments is not a JSON object, as text: the model "
                    f"reads it as the argument {UNREADABLE!r}"
                )
        rendered["tool_calls"] = calls
    return rendered


def _check_unread(message: Message, at: int) -> None:
    parts = message.content if isinstance(message.content, list) else ()
    refuses = any(isinstance(part, RefusalPart) and part.refusal for part in parts)
    for name, instead in UNREAD.items():
        if getattr(message, name) not in (None, "", {}) or (name == "refusal" and refuses):
            param = f"messages.{at}.{name}"
            raise bad_request(f"{param} is not read: {instead}", param, "unsupported_value")


def _check_supported(message: Message, at: int, tokenizer: TextTokenizer) -> None:
    for name in ("name", "tool_calls", "tool_call_id"):
        if getattr(message, name) not in (None, []) and not tokenizer.template_reads(name):
            param = f"messages.{at}.{name}"
            error = f"{param} is not supported by this model's chat template; leave it out"
            raise bad_request(error, param, "unsupported_value")


def _arguments(text: str) -> tuple[dict[str, object], bool]:
    """Returns the arguments of an earlier call, and whether they are a JSON object.

    Models write calls that are cut off or malformed, and whoever got one must be able to go on.
    """
    if not text.strip():
        return {}, True
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return (found, True) if isinstance(found, dict) else ({UNREADABLE: text}, False)


def _check_surrogates(arguments: dict[str, object], param: str) -> None:
    """Refuses escapes of half a character. Here, since what a single-turn model leaves out is never tokenized."""
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise bad_request(f"{param} holds a lone surrogate; send valid Unicode", param, "invalid_value") from error


def content_text(content: Any) -> str:
    """Returns the text of a message's content."""
    return content if isinstance(content, str) else "".join(part.text for part in content or ())
