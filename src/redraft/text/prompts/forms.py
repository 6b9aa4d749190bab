"""The forms of the prompts that a model was trained on, and what a prompt in one of them asks for.

A form is a text with slots: "Extract {fields} as JSON: {text}". `{text}` is anything; a form with `{fields}`, names
between commas, asks for a JSON object that has these keys, with values copied from the text.
"""

import re
from dataclasses import dataclass, field
from typing import Any

SLOTS = {"fields": r"(?P<fields>[^\n:{}]+?)", "text": r"(?P<text>(?s:.*))"}
_SLOT = re.compile(r"\s*\{(\w*)\}\s*")


@dataclass(frozen=True)
class PromptTask:
    """What a prompt asks for. fields: keys of a JSON object whose values stand in the text; none for another answer.

    text: empty where the prompt ends after its request; start: its first character in the prompt. names_missing: its
    list of fields names none.
    """

    fields: tuple[str, ...]
    text: str
    names_missing: bool = False
    start: int = field(default=0, compare=False)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of an answer with its fields, each of which is a text or null."""
        properties = {name: {"type": ["string", "null"]} for name in self.fields}
        return {"type": "object", "properties": properties, "required": list(properties)}


class PromptForm:
    """One form. Raises ValueError unless it has the slot {text} once, at most one {fields}, and no other."""

    def __init__(self, template: str) -> None:
        self.template = template
        names = [match[1] for match in _SLOT.finditer(template)]
        if names.count("text") != 1 or names.count("fields") > 1 or not SLOTS.keys() >= set(names):
            raise ValueError(
                f"a prompt form is {template!r}, must have {{text}} once, {{fields}} at most once, and no other slot"
            )
        pattern, end = "", 0
        for match in _SLOT.finditer(template):
            # Around the text line breaks are as good as spaces, or none.
            space = r"\s*" if match[1] == "text" else r"\s+"
            literal, around = template[end : match.start()], match[0].partition(f"{{{match[1]}}}")
            pattern += _words(literal) + (space if around[0] else "") + SLOTS[match[1]] + (space if around[2] else "")
            end = match.end()
        self._pattern = re.compile(pattern + _words(template[end:]))

    def read(self, prompt: str) -> PromptTask | None:
        """Returns what a prompt in this form asks for; None for any other prompt."""
        match = self._pattern.fullmatch(prompt.strip())
        if match is None:
            return None
        listed = match.groupdict().get("fields")
        names = tuple(name.strip() for name in (listed or "").split(",") if name.strip())
        before = prompt[: len(prompt) - len(prompt.lstrip())] + match.string[: match.start("text")]
        text = match["text"].lstrip()
        start = len(before) + len(match["text"]) - len(text)
        return PromptTask(names, text.rstrip(), names_missing=listed is not None and not names, start=start)


def _words(literal: str) -> str:
    return r"\s+".join(re.escape(part) for part in re.split(r"\s+", literal))
