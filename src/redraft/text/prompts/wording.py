"""Requests for fields in words that no form has: which fields, and of which text.

What is not clear is None: the prompt is then read as it is. Nothing here is trained; a request is taken apart by its
quotes, brackets, line breaks and the few words that such requests are made of.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from redraft.text.prompts import request_words as words
from redraft.text.prompts.forms import PromptTask, fits_form
from redraft.text.prompts.names import asks_for_numbers, find_schema, read_names

MAX_PROMPT = 200_000
"""Characters."""
MAX_REQUEST = 700
"""Characters of a request, without its schema and its text."""
MAX_SENTENCES = 3
"""Those of a request before it says what it is for; bullets beside."""
MAX_NAMES = 30
MIN_WORDS = 2
"""Of a text."""
MIN_FENCED = 0.4
"""The share of a prompt that its text has, where it stands between quotation marks or tags."""

_FENCES = (('"""', '"""'), ("'''", "'''"), ("```", "```"), ("„", "“"), ("„", "”"), ("“", "”"), ("«", "»"), ('"', '"'))
"""What a text may stand between."""
_TAG = re.compile(r"<(text|input|message|e?mail|document|note|content|data|article|passage|letter|log|ticket)>")
_DATA = re.compile(r"\"\s*[:,]\s*\"|\":")
"""What quotation marks of data have between them."""
_LIST_GOES_ON = re.compile(r"\s*[a-z][^\n.:;]*,[^\n:]*:")
"""How a text begins that may still be of the list: the description of its last name, and further names."""
_QUOTED = re.compile(
    r"`(?P<a>[^`\n]{1,60})`|\*\*(?P<b>[^*\n]{1,60})\*\*|(?<!\w)\"(?P<c>[^\"\n]{1,60})\"(?!\w)|“(?P<d>[^”\n]{1,60})”|"
    r"„(?P<e>[^“”\n]{1,60})[“”]|«\s?(?P<f>[^»\n]{1,60}?)\s?»|(?<!\w)'(?P<g>[^'\n]{1,60})'(?!\w)"
)
_BRACKETS = re.compile(r"\[(?P<square>[^\[\]]+)\]|\((?P<round>[^()]+)\)|\{(?P<curly>[^{}]+)\}")
_BULLETS = re.compile(r"(?:^[ \t]*(?:[-*•]|\d+[.)])[ \t]+\S.*(?:\n|\Z))+", re.MULTILINE)
_BULLET = re.compile(r"[ \t]*(?:[-*•]|\d+[.)])[ \t]+\S")
_BREAK = re.compile(r"(?<=[^\d.][.?!])[ \t]+(?=\S)|:[ \t]+(?=\S)|[ \t]*(?:->|=>|<-|→)[ \t]+|:?[ \t]*\n+")
"""Where a request may end."""
_SENTENCE = re.compile(r"(?<=[^\d.][.?!])[ \t]+(?=\S)|[ \t]*(?:->|=>|<-|→)[ \t]*|\n+")
_MARK = re.compile(r":(?=\s|$)|\s[-–—](?=\s|$)")
"""What stands between a name and what describes it, and also before a list."""
_DESCRIBED = re.compile(r"\s[-–]\s|:\s|\s?[(\[]")
_PLUS = re.compile(r"\s\+\s")


@dataclass(frozen=True)
class _Reading:
    """What may be the request of a prompt, and where the rest of it, its text, begins and ends."""

    request: str
    start: int
    end: int


def read_request(prompt: str) -> PromptTask | None:
    """Returns what a prompt asks for in words of its own; None where that is not clear, or it is very long."""
    if len(prompt) > MAX_PROMPT:
        return None
    schema = find_schema(prompt)
    if schema and asks_for_numbers(prompt[schema[0] : schema[1]]):
        # No form has a place for them.
        return None
    ways = [_around_schema(prompt, schema[0], schema[1])] if schema else _ways(prompt)
    return next((task for readings in ways if (task := _read(prompt, readings, schema)) is not None), None)


def read_fields(request: str) -> PromptTask | None:
    """Returns what a request without a text of its own asks for; None where that is not clear."""
    schema = find_schema(request)
    if schema and asks_for_numbers(request[schema[0] : schema[1]]):
        return None
    if len(request) - (schema[1] - schema[0] if schema else 0) > MAX_REQUEST:
        return None
    names = schema[2] if schema else _names(request) if words.JSON.search(request) else None
    if not names or not _are_names(names):
        return None
    return PromptTask(tuple(dict.fromkeys(names)), "", is_array=_asks_for_array(request, names))


def lead_of_next(message: str) -> int:
    """Returns where the text begins of a message that asks for the same again, as in "And this one: "; else 0."""
    found = words.AGAIN.match(message)
    return found.end() if found else 0


def _read(
    prompt: str, readings: Iterator[_Reading], schema: tuple[int, int, tuple[str, ...]] | None
) -> PromptTask | None:
    """Returns what the first of some readings asks for that names fields; None, too, where one is not clear."""
    for one in readings:
        label = words.LABEL.match(prompt[one.start : one.end])
        start = one.start + (label.end() if label else 0)
        text = prompt[start : one.end].strip()
        if len(text.split()) < MIN_WORDS or not words.JSON.search(one.request) or len(one.request) > MAX_REQUEST:
            continue
        names = schema[2] if schema else _names(one.request)
        if names is None or (one.request.rstrip().endswith(":") and _LIST_GOES_ON.match(text)):
            # A longer request is no clearer.
            return None
        if names and _are_names(names):
            is_array, at = _asks_for_array(one.request, names), prompt.index(text, start)
            return PromptTask(tuple(dict.fromkeys(names)), text, is_array=is_array, start=at, is_reworded=True)
    return None


def _asks_for_array(request: str, names: Sequence[str]) -> bool:
    said = _QUOTED.sub("", _BRACKETS.sub("", request))
    for name in sorted(names, key=len, reverse=True):
        said = said.replace(name, "")
    return bool(words.ARRAY.search(said))


def _are_names(names: Sequence[str]) -> bool:
    return (
        len(names) <= MAX_NAMES
        and fits_form(names)
        and all(
            re.search(r"[^\W\d_]", name)
            and not re.search(r"\d{3}|@|\n|\. |^(?:(?:or|and|nor)$|never |not |don't )", name.lower())
            for name in names
        )
    )


def _around_schema(prompt: str, begin: int, end: int) -> Iterator[_Reading]:
    """Yields the readings of a prompt with a schema: its text stands behind that, or before."""
    behind = prompt[end:]
    lead = re.match(r"[ \t]*[.,;]?(?:[^\n:]{0,100}:[ \t]+|[^\n]{0,120}:?[ \t]*\n|[ \t]*)", behind)
    said = lead[0] if lead else ""
    if not re.search(r"\w", behind[len(said) :]):
        said = ""
    if len(prompt[:begin]) <= MAX_REQUEST and len(behind.split()) > len(prompt[:begin].split()):
        # A schema speaks for JSON, whether or not its request does.
        yield _Reading(f"{prompt[:begin]} json {said}", end + len(said), len(prompt))
    for start in _starts(prompt[:begin]):
        yield _Reading(f"{prompt[start:begin]} json {behind}", 0, start)


def _ways(prompt: str) -> list[Iterator[_Reading]]:
    last = max(prompt.rfind("\n\n"), prompt.rfind("\n---"))
    says_it_last = last >= 0 and words.JSON.search(prompt, last) and not words.JSON.search(prompt, 0, last)
    others = [_last(prompt), _first(prompt)] if says_it_last else [_first(prompt), _last(prompt)]
    return [_fenced(prompt), *others]


def _fenced(prompt: str) -> Iterator[_Reading]:
    """Yields readings whose text stands between marks."""
    tag = _TAG.search(prompt)
    for opening, closing in (*([(tag[0], f"</{tag[1]}>")] if tag else []), *_FENCES):
        if (at := prompt.find(opening)) < 0 or (at and opening == '"' and prompt[at - 1] not in " \n\t:("):
            continue
        start, end = at + len(opening), prompt.rfind(closing)
        if opening == "```" and (language := re.match(r"\w{0,20}\n", prompt[start : start + 30])):
            start += language.end()
        if end < start and len(opening) == 3:
            # Somebody forgot to close it.
            end = len(prompt)
        behind = prompt[end + len(closing) :]
        if opening == '"' and (_DATA.search(prompt, start, end) or (behind and behind[0] not in " \n.,;:)")):
            continue
        if end - start >= MIN_FENCED * len(prompt):
            yield _Reading(f"{prompt[:at]}\n{behind}", start, end)


def _first(prompt: str) -> Iterator[_Reading]:
    """Yields requests that stand first: as few sentences and lines as have what it takes."""
    ends = [match.end() for match in _BREAK.finditer(prompt[:MAX_REQUEST])]
    parts = [prompt[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    for count, end in enumerate(ends, start=1):
        if sum(not _BULLET.match(part) for part in parts[:count]) > MAX_SENTENCES:
            return
        if not words.JSON.search(prompt[:end]) or prompt.count("(", 0, end) > prompt.count(")", 0, end):
            continue
        # Bullets, and what else is said of the answer, are of it.
        lists_none, reach = _names(prompt[:end]) == (), count
        while reach < len(parts) and (
            (_BULLET.match(parts[reach]) and lists_none) or words.GOES_ON.search(parts[reach])
        ):
            reach += 1
        for last in dict.fromkeys((reach, count)):
            yield _Reading(prompt[: ends[last - 1]], ends[last - 1], len(prompt))


def _last(prompt: str) -> Iterator[_Reading]:
    """Yields requests that stand last: a sentence, a line, a paragraph, the shortest first."""
    for start in _starts(prompt):
        if not (_BULLET.match(prompt, start) and _BULLET.match(prompt[:start].rstrip().rpartition("\n")[2])):
            yield _Reading(prompt[start:], 0, start)


def _starts(text: str) -> Iterator[int]:
    """Yields where the last sentences and lines of a text begin, the last first."""
    before = max(0, len(text) - MAX_REQUEST)
    found = re.finditer(r"\n\s*|(?<=[.?!\"])[ \t]+", text[before:])
    return reversed([before + match.end() for match in found])


def _names(request: str) -> tuple[str, ...] | None:
    """Returns the names that a request lists; () where it lists none, None where it is not clear which they are."""
    request = words.ASIDE.sub(lambda found: " json " if words.JSON.search(found[0]) else "", request)
    bullets = _BULLETS.search(request)
    if bullets is not None and (names := read_names(bullets[0].strip("\n"))):
        return names
    quoted = [next(filter(None, match.groups())) for match in _QUOTED.finditer(request)]
    # What describes a name may stand in its quotation marks too.
    quoted = [_DESCRIBED.split(one, maxsplit=1)[0].strip() for one in quoted if not words.JSON.search(one)]
    if quoted := [one for one in quoted if one]:
        return tuple(dict.fromkeys(quoted))
    if bullets is not None:
        return None
    for match in words.KEYS.finditer(request):
        if names := _keys(match["behind"] or match["before"]):
            return names
    for match in _BRACKETS.finditer(request):
        before, listed = request[: match.start()].split(), next(filter(None, match.groups())).strip("{}")
        # What stands behind a name describes it.
        is_list = "," in listed if match["round"] is None else not before or _plain(before[-1]) in words.INTRODUCING
        if is_list and (names := read_names(listed)):
            return names
    found, is_unclear = list[tuple[str, ...]](), False
    for clause in _clauses(request):
        names = None if clause is None else _listed(clause)
        is_unclear |= names is None
        found += [names] if names else []
    if found:
        return max(found, key=lambda names: (len(names), -sum(len(name.split()) for name in names)))
    return None if is_unclear else ()


def _keys(listed: str) -> tuple[str, ...] | None:
    """Returns the names behind a word such as "keys"; None where it is not clear which they are."""
    listed = words.ENDS.sub("", " ".join(_MARK.split(_PLUS.sub(", ", listed))[-1].split())).strip(" .;:?!,)")
    parts = (listed := words.KEYS_ARE.sub("", listed)).split()
    if len(parts) > 1 and all(re.fullmatch(r"[A-Za-z][\w-]*", one) for one in parts) and "_" in listed:
        return tuple(parts)
    return read_names(words.AND.sub(" and ", listed)) or None


def _clauses(request: str) -> Iterator[str | None]:
    """Yields the stretches of a request that may be its list; None for one in which names seem to be described."""
    for sentence in _SENTENCE.split(request):
        for part in words.JSON.split(sentence):
            before, *behind = _MARK.split(part)
            if not any(one.strip() for one in behind):
                yield before
            elif all(not one.split() or _is_frame(one.split()[-1]) for one in (before, *behind[:-1])):
                yield from (before, *behind)
            elif len(behind) == 1 and "," not in before and _are_short(names := read_names(behind[0].strip(" .;?!"))):
                # "About the parcel: sender, weight"
                yield f"keys {', '.join(names)}"
            else:
                yield None


def _are_short(names: tuple[str, ...] | None) -> TypeGuard[tuple[str, ...]]:
    return names is not None and len(names) > 1 and all(len(name.split()) < 4 for name in names)


def _listed(listed: str) -> tuple[str, ...] | None:
    """Returns the names of a stretch without the words around them: () for such words alone, None where not clear."""
    plain = " ".join(_PLUS.sub(", ", words.QUESTION.sub("get ", listed)).strip(" .;:?!-–—").split())
    first, *others = plain.split(",")
    while others and all(map(_is_frame, first.split())):
        first, *others = others
    kept, before = first.split(), list[str]()
    cues = [at for at, word in enumerate(kept[:-1]) if _plain(word) in words.CUES or words.ING.fullmatch(_plain(word))]
    if cues:
        before, kept = kept[: cues[-1] + 1], kept[cues[-1] + 1 :]
    # "the text language", but "in the text"
    while kept and (
        _plain(kept[0]) in words.FRAME or (_is_frame(kept[0]) and before[-1:] and _is_determiner(before[-1]))
    ):
        before, kept = [*before, kept[0]], kept[1:]
    text = words.ENDS.sub("", words.SURE_ENDS.sub("", ",".join([" ".join(kept), *others])))
    text = words.ARTICLE.sub(r"\1 ", text if re.search(r"\band\b|&", text) else words.AND.sub(" and ", text))
    left = text.strip(" ,.;:?!").split()
    while left and left[-1].strip(",.:;?!'\"") in words.CLOSING:
        left.pop()
    names = read_names(" ".join(left).strip(" ,.;:?!")) if left else ()
    if names is None or len(names) != 1:
        return names
    # A word that stands alone is a name only where somebody asks for just that.
    asked_by = next((word for word in reversed(before) if not _is_determiner(word)), "")
    return names if cues and _plain(asked_by) in words.ASKING else ()


def _is_determiner(word: str) -> bool:
    return _plain(word) in words.DETERMINERS


def _is_frame(word: str) -> bool:
    """Tells whether a word is of a request, not of its list."""
    plain = _plain(word)
    return plain in words.FRAME or plain in words.THINGS or bool(words.ING.fullmatch(plain))


def _plain(word: str) -> str:
    return word.lower().strip(",.:;?!*_`'\"")
