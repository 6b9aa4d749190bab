"""Conversations: what a list of messages must be, and what of it a model of single turns can answer."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from redraft.text.checks import brief

ROLES = ("system", "developer", "user", "assistant", "model", "tool")
"""The roles of a message. "model" is what Gemma calls the assistant."""

INSTRUCTING_ROLES = ("system", "developer")
INSTRUCTIONS = "instructions"
"""What OpenAI's responses call the system message that a request has beside its conversation."""

NOTES = ("type", "id", "index", "status", "annotations", "parsed", "reasoning_content", "reasoning")
"""Keys of a message that need not be read: a client's own notes, and what a model thought earlier, by two names."""

UNREAD = {
    "refusal": "send it as content, which is what the model reads of an answer",
    "function_call": "send it as tool_calls, which have taken its place",
    "audio": "send its transcript as content: only text is read",
}
"""Keys that OpenAI's answers have and no chat template reads, and what to send instead."""

Message = TypeVar("Message", bound=Mapping[str, object])


def check_conversation(prompt: object) -> None:
    """Raises ValueError, with the message's number and the way out, unless `prompt` is a list of messages."""
    if isinstance(prompt, Mapping):
        raise ValueError(f"the prompt is one message, {brief(prompt)}; put it into a list: [message]")
    if not isinstance(prompt, list | tuple):
        raise ValueError(
            f'the prompt is {brief(prompt)}, must be text or a list of messages [{{"role": "user", "content": "..."}}]'
        )
    if not prompt:
        raise ValueError("the conversation is empty; it needs at least one message")
    for at, message in enumerate(prompt):
        _check_message(at, message)
    last = without_empty_instructions(prompt)[-1]
    if last.get("content") is not None and not text_of(last).strip():
        raise ValueError("the last message is empty; write something to answer")


def without_empty_instructions(messages: Sequence[Message]) -> list[Message]:
    """Returns a conversation without the instructions that say nothing; its last message if there is nothing else."""
    said = [
        message
        for message in messages
        if message["role"] not in INSTRUCTING_ROLES or message.get("content") is None or text_of(message).strip()
    ]
    return said or list(messages[-1:])


def last_request(messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
    """Returns what a single-turn model can answer of a conversation, its last user message, and warnings.

    There is a warning, in words, if anything was left out. Without a user message the last message is what remains.
    A message that its sender knows by another name than its role has that under the key "called".
    """
    last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=len(messages) - 1)
    others = Counter(
        str(message.get("called") or (message["role"] if message["role"] in INSTRUCTING_ROLES else "other"))
        for at, message in enumerate(messages)
        if at != last
    )
    if not others:
        return list(messages), []
    instructions = ["the instructions"] if others.pop(INSTRUCTIONS, 0) else []
    left_out = [f"{others[kind]} {kind}" for kind in (*INSTRUCTING_ROLES, "other") if others[kind]]
    if left_out:
        left_out[-1] += " message" if others.total() == 1 else " messages"
    warning = (
        f"left out {' and '.join([*instructions, *left_out])}: this model was trained on a single user message, and "
        "answers only the last one"
    )
    return [messages[last]], [warning]


def check_read(message: Mapping[str, object], reads: Callable[[str], bool]) -> None:
    """Raises ValueError if a message says something under a key that nobody reads. reads: whether the template does."""
    for key, value in message.items():
        if key in ("role", "content", *NOTES) or value in (None, "", [], {}, ()):
            continue
        of = f"{key!r} of a message of role {message['role']}"
        if key in UNREAD:
            raise ValueError(f"{of} is not read: {UNREAD[key]}")
        if not reads(key):
            raise ValueError(f"{of} is not supported by this model's chat template; leave it out")


def text_of(message: Mapping[str, object]) -> str:
    """Returns a message's text: its content, or the texts of its content's parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    texts = (part.get("text") if isinstance(part, Mapping) else None for part in parts)
    return "".join(text for text in texts if isinstance(text, str))


def joined(message: Mapping[str, object]) -> dict[str, object]:
    """Returns a message with its content as one text: a chat template may read parts as it likes, or write them out.

    Its thoughts have the name that templates know, also where another server gave them their own.
    """
    found = dict(message)
    if isinstance(message.get("content"), list | tuple):
        found["content"] = text_of(message)
    if message.get("reasoning") and not message.get("reasoning_content"):
        found["reasoning_content"] = message["reasoning"]
    return found


def _check_message(at: int, message: object) -> None:
    if not isinstance(message, Mapping):
        raise ValueError(f'message {at} is {brief(message)}, must be a dict {{"role": ..., "content": ...}}')
    if "role" not in message:
        raise ValueError(f"message {at} has no role; give it one of {', '.join(ROLES)}")
    if message["role"] not in ROLES:
        raise ValueError(f"message {at} has the role {brief(message['role'])}, must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if content is None:
        # What else an assistant says, such as tool calls, may be the whole message.
        if not any(value is not None for key, value in message.items() if key not in ("role", "content")):
            raise ValueError(f"message {at}, of role {message['role']}, has no content; give it a text")
    elif not isinstance(content, str | list | tuple):
        raise ValueError(f"message {at} has the content {brief(content)}, must be text")
    for part in () if isinstance(content, str | None) else content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError(
                f'message {at} has the part {brief(part)}, must be {{"type": "text", "text": ...}}: only text is read'
            )


def check_prompts(name: str, prompts: object) -> None:
    """Raises ValueError unless `prompts`, given to the method called `name`, can be a list of prompts."""
    if isinstance(prompts, str | bytes | Mapping):
        kind = "one string" if isinstance(prompts, str) else f"a {type(prompts).__name__}"
        raise ValueError(f"{name} takes a list of prompts, got {kind}; use generate, or put it into a list")
    if not isinstance(prompts, Iterable):
        raise ValueError(f"{name} takes a list of prompts, got {brief(prompts)}")
