"""What rules look at: a request's model, its prompt and whether its answer is held to a form, read from the body."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redraft.server.routing.rules import RoutingRule, RoutingRules

CHAT_PATH, COMPLETIONS_PATH, RESPONSES_PATH = "/v1/chat/completions", "/v1/completions", "/v1/responses"
ROUTED_PATHS = (CHAT_PATH, COMPLETIONS_PATH, RESPONSES_PATH)

HELD_FIELDS = ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")


@dataclass(frozen=True)
class RoutedRequest:
    """A request as the rules see it. Values of a wrong type are nothing: whoever answers the request refuses them.

    model: the name that it asks for. texts: of a conversation what the user said last; of a completion each prompt;
    none where prompts are token ids. characters: of everything that is sent to be read, None for token ids. is_held:
    whether the answer is held to a form.
    """

    model: str | None
    texts: tuple[str, ...]
    characters: int | None
    is_held: bool


def read_request(path: str, body: Mapping[str, Any]) -> RoutedRequest:
    """Returns what the rules look at of the body of a request to one of ROUTED_PATHS."""
    model = body.get("model")
    texts, characters = _prompt(path, body)
    return RoutedRequest(model if isinstance(model, str) else None, texts, characters, _is_held(path, body))


def choose(rules: RoutingRules, request: RoutedRequest) -> tuple[RoutingRule, str] | None:
    """Returns the first rule whose conditions all hold, and why it is taken, in words; None where there is none."""
    for rule in rules.rules:
        found = [CONDITION_CHECKS[name](value, request) for name, value in rule.conditions]
        reasons = [reason for reason in found if reason is not None]
        if len(reasons) == len(found):
            return rule, ", ".join(reasons) or "it takes every request"
    return None


def _models(names: tuple[str, ...], request: RoutedRequest) -> str | None:
    return f"the model asked for is {request.model!r}" if request.model in names else None


def _words(words: tuple[str, ...], request: RoutedRequest) -> str | None:
    folded = [" ".join(text.split()).casefold() for text in request.texts]
    found = [next((word for word in words if " ".join(word.split()).casefold() in text), None) for text in folded]
    if not found or None in found:
        return None
    return f"the prompt has {' and '.join(map(repr, dict.fromkeys(found)))}"


def _pattern(pattern: str, request: RoutedRequest) -> str | None:
    is_found = bool(request.texts) and all(re.search(pattern, text) for text in request.texts)
    return f"the prompt matches {pattern!r}" if is_found else None


def _min_characters(least: int, request: RoutedRequest) -> str | None:
    length = request.characters
    return f"it has {length} characters, at least {least}" if length is not None and length >= least else None


def _max_characters(most: int, request: RoutedRequest) -> str | None:
    length = request.characters
    return f"it has {length} characters, at most {most}" if length is not None and length <= most else None


def _constraint(is_held: bool, request: RoutedRequest) -> str | None:
    if request.is_held != is_held:
        return None
    return "its answer is held to a form" if is_held else "its answer is free"


CONDITION_CHECKS: Mapping[str, Callable[[Any, RoutedRequest], str | None]] = {
    "models": _models,
    "words": _words,
    "pattern": _pattern,
    "min_characters": _min_characters,
    "max_characters": _max_characters,
    "constraint": _constraint,
}
"""Of each condition, what says why a request meets it, or None if it does not."""


def _prompt(path: str, body: Mapping[str, Any]) -> tuple[tuple[str, ...], int | None]:
    """Returns the texts that words are looked for in, and the number of characters of all that is read."""
    if path == COMPLETIONS_PATH:
        given = body.get("prompt")
        prompts = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        texts = tuple(one for one in prompts if isinstance(one, str))
        return (texts, sum(map(len, texts))) if texts and len(texts) == len(prompts) else ((), None)
    given = body.get("messages" if path == CHAT_PATH else "input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    messages = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    said = [(message.get("role"), "".join(_content(message.get("content")))) for message in messages]
    last = [text for role, text in said if role == "user"][-1:]
    instructions = body.get("instructions") if path == RESPONSES_PATH else None
    read = len(instructions) if isinstance(instructions, str) else 0
    return tuple(last), read + sum(len(text) for _, text in said)


def _content(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def _is_held(path: str, body: Mapping[str, Any]) -> bool:
    form: Any = body.get("response_format")
    if path == RESPONSES_PATH:
        text = body.get("text")
        form = text.get("format") if isinstance(text, dict) else None
    if isinstance(form, dict) and form.get("type") != "text":
        return True
    if any(body.get(name) is not None for name in HELD_FIELDS):
        return True
    tools = body.get("tools")
    if not isinstance(tools, list) or not tools or body.get("tool_choice") == "none":
        return False
    functions = [one.get("function") for one in tools if isinstance(one, dict)]
    is_strict = any(isinstance(one, dict) and one.get("strict") is True for one in functions)
    choice = body.get("tool_choice")
    return choice == "required" or isinstance(choice, dict) or is_strict or body.get("parallel_tool_calls") is False
