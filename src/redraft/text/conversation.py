"""Conversations for a model that was trained on single requests."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

Message = TypeVar("Message", bound=Mapping[str, object])


def last_request(messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
    """Returns what a single-turn model can answer of a conversation, its last user message, and warnings.

    There is a warning, in words, if anything was left out. Without a user message the last message is what remains.
    """
    last = max((at for at, message in enumerate(messages) if message["role"] == "user"), default=len(messages) - 1)
    others = [message["role"] for at, message in enumerate(messages) if at != last]
    if not others:
        return list(messages), []
    instructions = sum(role in ("system", "developer") for role in others)
    turns = len(others) - instructions
    left_out = [f"{count} {kind}" for count, kind in ((instructions, "system"), (turns, "other")) if count]
    noun = "message" if len(others) == 1 else "messages"
    warning = (
        f"left out {' and '.join(left_out)} {noun}: this model was trained on a single user message, and answers only "
        "the last one"
    )
    return [messages[last]], [warning]
