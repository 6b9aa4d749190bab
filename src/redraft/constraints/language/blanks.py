"""A text with blanks as a language: its fixed parts as they are, and anything between them."""

import re
from collections.abc import Sequence

from redraft.constraints.language.characters import EVERY, Characters, Ranges, without
from redraft.constraints.language.expression import ALL_BYTES, Expression

CONTROLS: Ranges = ((0, 0x1F), (0x7F, 0x7F))
"""What no blank holds: control characters, those that end lines included."""
LINES: Ranges = ((0, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x7F))
"""The same where a blank may have several lines."""
MAX_MARK = 8
"""Characters of a fixed part that end the blank in front of it."""
BLANK = "___"
"""What marks a blank, unless it is said otherwise; more of its characters are one blank too."""


def split_blanks(text: str, blank: str = BLANK) -> tuple[str, ...]:
    """Returns the parts of a text around its blanks. ValueError where it has none, or nothing between two of them."""
    if not isinstance(text, str):
        raise ValueError(f"the text is {text!r:.80}, must be a text with blanks")
    if not isinstance(blank, str) or not blank:
        raise ValueError(f"the mark of a blank is {blank!r:.80}, must be a text such as '___'")
    parts = tuple(re.split(f"{re.escape(blank)}_*" if blank == BLANK else re.escape(blank), text))
    if len(parts) < 2:
        raise ValueError(f"the text has no blank: mark it with {blank}")
    if not all(parts[1:-1]):
        raise ValueError("two blanks stand side by side: put something between them, or make them one")
    return parts


def filled_language(
    parts: Sequence[str], characters: Characters, *, limit: int | None, has_lines: bool = False
) -> Expression:
    """Returns the texts that have these parts in order, with a blank between each two.

    limit: characters that a blank has at most. A blank ends where the part behind it begins for the first time, so that
    what stands in each of them is never in doubt, and their automata follow one another. Raises ValueError for parts
    between which there is nothing.
    """
    if len(parts) < 2 or not all(parts[1:-1]):
        raise ValueError("the text needs at least one blank, and something fixed between each two")
    table = characters.table
    free = table.repeat(characters.any_of(without(EVERY, LINES if has_lines else CONTROLS)), 0, limit)
    something = table.sequence(table.byte(ALL_BYTES), table.anything)
    found = [characters.text(parts[0])]
    for part in parts[1:]:
        mark = characters.text(part[:MAX_MARK])
        blank = table.sequence(free, mark)
        if part:
            earlier = table.sequence(table.anything, mark, something)
            blank = table.intersection([blank, table.complement(earlier)])
        found += [blank, characters.text(part[MAX_MARK:])]
    return table.sequence(*found)


def read_blanks(parts: Sequence[str], text: str) -> tuple[str, ...]:
    """Returns what stands in the blanks of a text of the language."""
    at, found = len(parts[0]), []
    for part in parts[1:]:
        end = text.index(part[:MAX_MARK], at) if part else len(text)
        found.append(text[at:end])
        at = end + len(part)
    assert at == len(text)
    return tuple(found)
