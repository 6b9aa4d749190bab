"""The forms of the prompts that a model was trained on, and what a prompt in one of them asks for.

A form is a text with slots: "Extract {fields} as JSON: {text}". `{text}` is anything; a form with `{fields}`, names
between commas, asks for a JSON object that has these keys, with values copied from the text. `{names}` is such a list
as prose has it, `{items}` one for each object of a JSON array, `{schema}` a JSON schema or a template of the object.
`{a|b|}` is a choice between texts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redraft.text.prompts.names import asks_for_numbers, find_schema, read_names

SLOTS = {
    "fields": r"(?P<fields>[^\n:{}]+?)",
    "names": r"(?P<names>[^\s{}][^{}]{0,600}?)",
    "items": r"(?P<items>[^\s{}][^{}]{0,600}?)",
    "schema": "\0",
    "text": r"(?P<text>(?s:.*))",
}
LISTS = SLOTS.keys() - {"text"}
MAX_READ = 4_000
"""Characters of a prompt beyond which only forms with `{fields}` are tried: the others take longer on long texts."""
_SLOT = re.compile(r"\s*\{(\w*)\}\s*")
_GOES_ON = re.compile(r"\s*[a-z][^\n.:;]*,[^\n:]*:")
"""How a text begins that may still be of the list: the description of its name, and further names."""
_NOT_COMMAS = re.compile(r"[\n()\[\];|/\"'`*]")
"""What a list has that is more than names between commas: descriptions, bullets, other separators, quotes."""
_PART = re.compile(r"\{([^{}]*\|[^{}]*)\}")


@dataclass(frozen=True)
class PromptTask:
    """What a prompt asks for. fields: keys of a JSON object whose values stand in the text; none for another answer.

    text: empty where the prompt ends after its request; start: its first character in the prompt. names_missing: its
    list of fields names none. is_array: whether it asks for an array of such objects. list_span: the characters of the
    prompt that list the fields, None where they are not names between commas alone. is_reworded: whether it is in no
    form, so that the model is asked in another. has_numbers: whether its schema asks for numbers.
    """

    fields: tuple[str, ...]
    text: str
    names_missing: bool = False
    is_array: bool = False
    start: int = field(default=0, compare=False)
    list_span: tuple[int, int] | None = field(default=None, compare=False)
    is_reworded: bool = field(default=False, compare=False)
    has_numbers: bool = field(default=False, compare=False)

    def of_text(self, message: str, start: int = 0) -> "PromptTask":
        """Returns what it asks for of the text of another message, which begins at `start` there or behind."""
        text = message[start:].strip()
        return PromptTask(self.fields, text, is_array=self.is_array, start=message.index(text, start), is_reworded=True)

    @property
    def has_repeated_list(self) -> bool:
        """Whether a field is listed more than once, in a list that can be written anew."""
        return self.list_span is not None and len(set(self.fields)) < len(self.fields)

    def tidied(self, prompt: str) -> str:
        """Returns its prompt with each field listed once, and no comma too many.

        A model answers twice what it is asked for twice, and waits for what follows a comma.
        """
        if self.list_span is None:
            return prompt
        start, end = self.list_span
        if not self.has_repeated_list and all(part.strip() for part in prompt[start:end].split(",")):
            return prompt
        return f"{prompt[:start]}{', '.join(dict.fromkeys(self.fields))}{prompt[end:]}"

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of an answer with its fields, each of which is a text or null."""
        return {"type": "array", "items": self.item_schema} if self.is_array else self.item_schema

    @property
    def item_schema(self) -> dict[str, Any]:
        """That of an object with its fields."""
        properties = {name: {"type": ["string", "null"]} for name in self.fields}
        return {"type": "object", "properties": properties, "required": list(properties)}


def has_words(text: str) -> bool:
    """Returns whether a text says anything: it has a letter or a digit."""
    return bool(re.search(r"\w", text))


def fits_form(fields: Sequence[str]) -> bool:
    """Returns whether some fields can be listed between commas, so that each is read as it is meant."""
    return not any(re.search(r"[,:{}\n]", name) for name in fields)


class PromptForm:
    """One form. Raises ValueError unless it has the slot {text} once, at most one list of fields, and no other."""

    def __init__(self, template: str) -> None:
        self.template = template
        names = [match[1] for match in _SLOT.finditer(template)]
        lists = [name for name in names if name in LISTS]
        if names.count("text") != 1 or len(lists) > 1 or not SLOTS.keys() >= set(names):
            raise ValueError(
                f"a prompt form is {template!r}, must have {{text}} once, at most one of {{fields}}, {{names}}, "
                "{items} and {schema}, and no other slot"
            )
        self._list = lists[0] if lists else ""
        pattern, end = "", 0
        for match in _SLOT.finditer(template):
            literal, (before, _, behind) = template[end : match.start()], match[0].partition(f"{{{match[1]}}}")
            pattern += _words(literal) + self._space(before, match[1]) + SLOTS[match[1]] + self._space(behind, match[1])
            end = match.end()
        self._pattern = re.compile(pattern + _words(template[end:]))

    def _space(self, space: str, slot: str) -> str:
        """Returns the pattern of white space beside a slot."""
        if not space:
            return ""
        if self._list not in ("names", "items"):
            # Around the text line breaks are as good as spaces, or none.
            return r"\s*" if slot != "fields" else r"\s+"
        # Where a list in prose ends is told by line breaks too.
        needed = r"\s*" + r"\n\s*" * min(2, space.count("\n")) if "\n" in space else r"\s+"
        # A prompt may end before its text.
        return rf"(?:{needed}|\Z)" if slot == "text" else needed

    def fill(self, fields: Sequence[str], text: str) -> str:
        """Returns the prompt in this form, one with `{fields}`, that asks for some of a text."""
        before, _, after = self.template.partition("{text}")
        listed = ", ".join(fields)
        return before.replace("{fields}", listed) + text + after.replace("{fields}", listed)

    def read(self, prompt: str) -> PromptTask | None:
        """Returns what a prompt in this form asks for; None for any other prompt, and for a list that is not clear."""
        before = len(prompt) - len(prompt.lstrip())
        prompt = prompt.strip()
        listed: tuple[str, ...] | None = ()
        has_numbers = False
        if self._list == "schema":
            if len(prompt) > MAX_READ or (found := find_schema(prompt)) is None:
                return None
            begin, end, listed = found
            has_numbers = asks_for_numbers(prompt[begin:end])
            prompt = f"{prompt[:begin]}\0{prompt[end:]}"
        elif self._list in ("names", "items") and len(prompt) > MAX_READ:
            return None
        match = self._pattern.fullmatch(prompt)
        if match is None:
            return None
        if self._list == "fields":
            listed = tuple(name.strip() for name in match["fields"].split(",") if name.strip())
        elif self._list in ("names", "items"):
            listed = read_names(match[self._list])
        if listed is None or (self._list in ("names", "items") and _GOES_ON.match(match["text"])):
            return None
        slot = self._list if self._list in ("fields", "names", "items") else ""
        is_plain = bool(slot) and not _NOT_COMMAS.search(match[slot])
        span = (before + match.start(slot), before + match.end(slot)) if is_plain else None
        text = match["text"].lstrip()
        start = match.end("text") - len(text)
        if self._list == "schema" and start > begin:
            start += end - begin - 1
        return PromptTask(
            listed,
            text.rstrip(),
            names_missing=bool(self._list) and not listed,
            is_array=self._list == "items",
            start=before + start,
            list_span=span,
            has_numbers=has_numbers,
        )


def _words(literal: str) -> str:
    """Returns the pattern of a text with choices, in which white space is as good as any other."""
    parts = _PART.split(literal)
    choices = ("|".join(map(_plain, part.split("|"))) if at % 2 else _plain(part) for at, part in enumerate(parts))
    return "".join(f"(?:{choice})" if at % 2 else choice for at, choice in enumerate(choices))


def _plain(literal: str) -> str:
    return r"\s+".join(re.escape(part) for part in re.split(r"\s+", literal))
