"""A prompt's template: text with a row's {columns}."""

import json
import string
from collections.abc import Mapping
from typing import Any


class PromptTemplate:
    """A text with {column}s, literal braces doubled. Raises ValueError for unmatched braces, and for no column."""

    def __init__(self, text: str) -> None:
        self.parts = parse_template(text)

    def fill(self, columns: Mapping[str, Any]) -> str:
        """Returns the prompt of a row. Raises ValueError for a column it lacks, and for a prompt that is empty."""
        prompt = "".join(text + ("" if name is None else column_text(columns, name)) for text, name in self.parts)
        if not prompt.strip():
            raise ValueError("the prompt is empty")
        return prompt


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """Splits a template into (text, the column that follows it or None). Raises ValueError for unmatched braces."""
    parts: list[tuple[str, str | None]] = []
    try:
        for text, name, specification, conversion in string.Formatter().parse(template):
            if specification or conversion:
                raise ValueError(f"{{{name}}} may hold only a column's name")
            if name == "":
                raise ValueError("{} names no column")
            parts.append((text, name))
    except ValueError as error:
        raise ValueError(f"the template {template!r}: {error}; write {{{{ and }}}} for literal braces") from None
    if all(name is None for _, name in parts):
        raise ValueError(f"the template {template!r} names no column: every row would be the same prompt")
    return parts


def column_text(columns: Mapping[str, Any], name: str) -> str:
    """Returns a column's text, of a number as JSON writes it. Raises ValueError where there is neither."""
    if name not in columns:
        raise ValueError(f"no column {name!r}; there are {', '.join(map(repr, columns)) or 'none'}")
    value = columns[name]
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    # Tables have values that JSON has not, as dates.
    raise ValueError(f"{name!r} is {json.dumps(value, default=str)[:40]}, must be text or a number")
