"""Lists of names as requests have them: in prose, in bullets, with descriptions, or as the keys of a schema.

What is not clear is None: a name that nobody asked for is worse than none.
"""

import itertools
import json
import re
from collections.abc import Iterator

MAX_NAMES = 40
MAX_WORDS = 6
"""Of one name."""

_BULLET = re.compile(r"\s*(?:[-*•]|\d+[.)])\s+")
_DESCRIPTION = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])$")
_OUTSIDE_BRACKETS = r"(?![^(\[]*[)\]])"
_SEPARATORS = tuple(re.compile(text + _OUTSIDE_BRACKETS) for text in (";", r"\s\|\s", r"\s/\s", ","))
_LAST = re.compile(r"\s*(?:,\s*)?(?:\band\b|&)\s*" + _OUTSIDE_BRACKETS)
_QUOTES = "\"'`*"
_NOT_IN_NAMES = frozenset(
    "please me you your i i'm im my we our us json this that these those the with as is are a an can could would "
    "should using only from: text: following below each every".split()
)
_NOT_FIRST = frozenset(
    "extract get give return find pull parse convert turn read tell what which pick out identify task fill need want "
    "show output produce provide kindly grab help make write answer reply act respond "
    # In the languages that the bundled model is trained on.
    "bitte extrahiere gib extrais extraire donne-moi merci extrae extraiga dame estrai estrarre dammi extraia extrair "
    "dá-me haal geef graag wyodrębnij podaj wyciągnij proszę".split()
)
_BLANKS = ("", "...", "string", None, 0, "number", "int", "str")
_NUMBER = re.compile(r"\"(?:integer|number)\"|:\s*(?:int|number|float|0)\b")
_TYPE = re.compile(r"\{\s*+(?:\"?\w++\"?: ?\w++\s*+[;,]?\s*+)++\}|class \w++:(?:\n ++\w++: ?\w++)++")
"""Each part takes all it can and gives none back: what does not fit is found out at once."""


def read_names(listed: str) -> tuple[str, ...] | None:
    """Returns the names of a list; None where it is not clear what they are, and () where it has none."""
    listed = listed.strip()
    lines = [line for line in listed.split("\n") if line.strip()]
    if len(lines) > 1 or _BULLET.match(listed):
        if not all(_BULLET.match(line) for line in lines):
            return None
        parts = [_BULLET.sub("", line, count=1) for line in lines]
    else:
        if listed.startswith("[") and listed.endswith("]"):
            listed = listed[1:-1]
        separator = next((one for one in _SEPARATORS if one.search(listed)), None)
        parts = [listed] if separator is None else separator.split(listed)
        parts += _LAST.split(parts.pop(), maxsplit=1)
    names = [_name(part) for part in parts if part.strip()]
    if len(names) > MAX_NAMES or any(name is None for name in names):
        return None
    return tuple(name for name in names if name is not None)


def find_schema(prompt: str) -> tuple[int, int, tuple[str, ...]] | None:
    """Returns where a schema or a template of an object begins and ends in a prompt, and its keys; None without one."""
    for begin in _braces(prompt):
        try:
            value, end = json.JSONDecoder().raw_decode(prompt, begin)
        except (ValueError, RecursionError):
            continue
        if isinstance(keys := value.get("properties"), dict):
            return begin, end, tuple(keys)
        is_template = value and all(isinstance(one, str | int | None) and one in _BLANKS for one in value.values())
        return (begin, end, tuple(value)) if is_template else None
    if (found := _TYPE.search(prompt)) is None:
        return None
    return found.start(), found.end(), tuple(re.findall(r"(\w+)\"?: ?\w+", found[0]))


def asks_for_numbers(schema: str) -> bool:
    """Returns whether a schema or a template asks for values that are numbers, not texts."""
    return bool(_NUMBER.search(schema))


def _braces(prompt: str) -> Iterator[int]:
    return (match.start() for match in itertools.islice(re.finditer(r"\{", prompt), 3))


def _name(part: str) -> str | None:
    """Returns a name without quotes and description; None where that is not clear."""
    name = _DESCRIPTION.sub("", part.strip()).strip()
    if len(name) > 2 and name[0] in _QUOTES and name[0] == name[-1]:
        name = name.strip(name[0])
    words = name.lower().split()
    is_clear = (
        0 < len(words) <= MAX_WORDS
        and words[0] not in _NOT_FIRST
        and _NOT_IN_NAMES.isdisjoint(words)
        and not re.search(r"[\n:{}()\[\]\"`<>!?]|\s[-–]\s|\.$", name)
    )
    return name if is_clear else None
