"""The items of a text: the rows of a table, the points of a list, records, lines or sentences.

What a text says before and after its items is not always told from them: a reader's answers have to show it.
"""

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

MIN_ITEMS = 2
_POINT = re.compile(r"\s*(?:[-*•‣–]|\(?\d{1,3}[.)]|#\d+:?)\s+(?=\S)")
"""How a point of a list begins."""
_KEYED = re.compile(
    r"[\s*_<>\[•\-|]*(?P<key>[^\W\d](?:[\w .()/&'-]{0,38}\w)?)[*_>\]]{0,4}\s*(?::(?!//)|=(?!=)|->|\.{3,}|\t|\s[-|]\s)"
)
"""How a line begins that gives a value its name."""
_RULE = re.compile(r"\s*([-=_*~#])\1{2,}\s*")
"""A line that parts records."""
_OPENING = re.compile(r"<(?P<tag>[A-Za-z][\w-]*)[^<>]*>")
_DELIMITERS = tuple(re.compile(text) for text in (r"\|", r"\t", r";", r",", r",(?!\d{3}\b)", r" {2,}"))
_CLEAR_DELIMITERS = _DELIMITERS[:2]
"""Those that prose does not have. A comma may also be one of thousands."""
_NUMBER_INSIDE = re.compile(r"(?:^|(?<=[\s;]))\(?(\d{1,3})[.)]\s+(?=\S)")
_SALUTATION = re.compile(
    r"\A\s*(?:dear|hi|hello|hey|good (?:morning|afternoon)|hallo|liebe[rs]?|guten tag|sehr geehrte[rs]?|bonjour|cher|"
    r"chère|hola|estimad[oa]s?|ciao|gentile|beste|geachte|olá|caro|cara|dzień dobry)\b[^\n.:;]{0,60}[,!]?[ \t]*\n",
    re.IGNORECASE,
)
_CLOSE = re.compile(
    r"^[ \t]*(?:(?:(?:with )?(?:best|kind|warm)(?:est)? )?(?:wishes|regards)|best|cheers|thanks(?: again| a lot)?|"
    r"thank you|yours \w+|(?:viele|liebe|beste) grüße|mit freundlichen grüßen|cordialement|bien à vous|saludos|"
    r"atentamente|cordiali saluti|groeten|met vriendelijke groet(?:en)?|abraços|atenciosamente|pozdrawiam|"
    r"z poważaniem)[ \t]*[,.!]?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
"""How a letter begins and ends."""
MAX_SIGNATURE = 6
"""Lines behind a letter's close."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\sa-z])")
_ABBREVIATION = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|Mag|Sr|Sra|St|No|Nr|Inc|Ltd|Co|vs|approx|Tel|tel|Ave|Blvd|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|"
    r"Oct|Nov|Dec|[A-Z])\.$|(?<!\w)\d{1,2}\.$"
)
"""What ends with a point that ends no sentence."""
LONGEST_ABBREVIATION = 8
"""With its point and what stands before it."""


@dataclass(frozen=True)
class Items:
    """The items of a text, in order. are_certain: whether each is one by its form; else what says nothing may be none.

    are_statements: whether they are sentences, of which any may be about something else. head: what each of them is
    read below, as the names of a table's columns; "" for nothing.
    """

    texts: tuple[str, ...]
    are_certain: bool = False
    are_statements: bool = False
    head: str = ""

    def shown(self) -> tuple[str, ...]:
        """Returns the items as they are read, each below its head."""
        return tuple(f"{self.head}\n{text}" if self.head else text for text in self.texts)


def split_items(text: str, fields: Sequence[str] = ()) -> Items:
    """Returns the items of a text; the text itself where it has only one. fields: what is asked of each of them."""
    asked = frozenset(map(_comparable, fields))
    ways: tuple[Callable[[str], Items | None], ...] = (
        _objects, _elements, functools.partial(_table, asked=asked), _blocks, _points, _record, _lines, _passages,
    )  # fmt: skip
    text = _without_letter(text)
    found = (way(text) for way in ways) if text else iter(())
    return next((items for items in found if items is not None), Items((text,), are_certain=True))


def _comparable(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _objects(text: str) -> Items | None:
    """JSON objects, one behind the other or in an array."""
    found, at, decoder = list[str](), text.find("{"), json.JSONDecoder()
    while at != -1:
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        found.append(text[at:end])
        at = text.find("{", end)
    is_one = len(found) == 1 and len(found[0]) * 2 > len(text)
    return Items(tuple(found), are_certain=True) if is_one or len(found) >= MIN_ITEMS else None


def _elements(text: str) -> Items | None:
    """Elements of XML or HTML that have the same name; the first is the head where it is a table's."""
    found = _closed(text)
    if len(found) == 1:
        (_, start, end) = found[0]
        found = _closed(text[text.index(">", start) + 1 : end])
        text = text[text.index(">", start) + 1 : end]
    if len(found) < MIN_ITEMS or len({tag for tag, *_ in found}) > 1:
        return None
    items = [text[start:end] for _, start, end in found]
    head = items.pop(0) if "<th" in items[0] else ""
    return Items(tuple(items), are_certain=True, head=head)


def _closed(text: str) -> list[tuple[str, int, int]]:
    """Returns the elements of a text that are in no other: name, start and end. What is never closed is none."""
    found, unclosed, at = list[tuple[str, int, int]](), set[str](), 0
    for match in _OPENING.finditer(text):
        if match.start() < at or (tag := match["tag"]) in unclosed:
            continue
        closing = f"</{tag}>"
        if (close := text.find(closing, match.end())) < 0:
            unclosed.add(tag)
            continue
        at = close + len(closing)
        found.append((tag, match.start(), at))
    return found


def _table(text: str, *, asked: Collection[str]) -> Items | None:
    """Rows of as many cells below the names of their columns. asked: fields, as `_comparable` writes them.

    Without such names rows are lines like others.
    """
    lines = text.splitlines()
    found = [items for one in _DELIMITERS if (items := _rows(lines, one, asked)) is not None]
    return max(found, key=lambda items: len(items.texts), default=None)


def _rows(lines: Sequence[str], delimiter: re.Pattern[str], asked: Collection[str]) -> Items | None:
    start, end = _longest_run([_cells(line, delimiter) for line in lines])
    rows = lines[start:end]
    is_ruled = len(rows) > 1 and "--" in rows[1] and set(rows[1]) <= set("-|:+ \t")
    body = rows[1 + is_ruled :]
    if body and (is_ruled or _is_head(rows, delimiter, asked)):
        return Items(tuple(body), are_certain=True, head="\n".join(rows[: 1 + is_ruled]))
    are_all = len(rows) == sum(map(bool, map(str.strip, lines)))
    if len(rows) >= MIN_ITEMS and are_all and delimiter in _CLEAR_DELIMITERS:
        return Items(tuple(rows), are_certain=True)
    return None


def _cells(line: str, delimiter: re.Pattern[str]) -> int:
    line = line.strip()
    return len(delimiter.findall(line)) + 1 if line and delimiter.search(line) else 0


def _longest_run(counts: Sequence[int]) -> tuple[int, int]:
    """Returns where the longest run of equal counts above one begins and ends."""
    runs, at = [(0, 0)], 0
    for count, run in itertools.groupby(counts):
        end = at + len(list(run))
        runs += [(at, end)] if count > 1 else []
        at = end
    return max(runs, key=lambda run: run[1] - run[0])


def _is_head(rows: Sequence[str], delimiter: re.Pattern[str], asked: Collection[str]) -> bool:
    """Tells whether a table's first row names its columns.

    It does where it has what is asked for, is written as identifiers, or has no numbers above a column of them.
    """
    names, *below = ([cell.strip() for cell in delimiter.split(row.strip().strip("|"))] for row in rows)
    if not all(re.fullmatch(r"[\w .()/%#'-]+", name) and len(name.split()) < 5 for name in names):
        return False
    if len(set(names)) < len(names) or any(re.search(r"\d", name) for name in names):
        return False
    if any(_comparable(name) in asked for name in names):
        return True
    are_identifiers = all(re.fullmatch(r"[a-z]+(?:[_-]?[A-Za-z]+)*", name) for name in names) and len(names) > 1
    columns = zip(*below, strict=False)
    has_numbers = len(below) > 1 and any(all(re.search(r"\d", cell) for cell in column) for column in columns)
    return are_identifiers or has_numbers


def _points(text: str) -> Items | None:
    """The points of a list with bullets or numbers, with the lines that go on below them."""
    lines = text.splitlines()
    starts = [at for at, line in enumerate(lines) if _POINT.match(line)]
    # What stands further in is of the point above.
    least = min((_indent(lines[at]) for at in starts), default=0)
    starts = [at for at in starts if _indent(lines[at]) == least]
    if len(starts) < MIN_ITEMS:
        return None
    keys = [_key(_POINT.sub("", lines[at], count=1)) for at in starts]
    are_bullets = not any(re.match(r"\s*\(?#?\d", lines[at]) for at in starts)
    record = _record("\n".join(lines[at] for at in starts))
    if all(keys) and are_bullets and (keys[0] in keys[1:] or record is not None) and len(set(keys)) > 1:
        # Each point gives one value its name.
        return None
    last = starts[-1]
    # Behind the last point only what is indented is still of it.
    own = itertools.takewhile(lambda line: line.startswith((" ", "\t")), lines[last + 1 :])
    blocks = [lines[at:end] for at, end in itertools.pairwise(starts)]
    blocks = [[block[0], *itertools.takewhile(_goes_on, block[1:])] for block in blocks]
    return Items(tuple("\n".join(block) for block in [*blocks, [lines[last], *own]]), are_certain=True)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _goes_on(line: str) -> bool:
    """Tells whether a line below a point is of it: no blank line, and no head of what follows."""
    return bool(line.strip()) and (line[0] in " \t" or not line.rstrip().endswith(":"))


def _key(line: str) -> str:
    match = _KEYED.match(line)
    return match["key"].strip().casefold() if match else ""


def _blocks(text: str) -> Items | None:
    """Blocks of lines, apart by blank lines or rules: several that have as many lines, or names for their values."""
    blocks, block = list[list[str]](), list[str]()
    for line in [*text.splitlines(), ""]:
        if line.strip() and not _RULE.fullmatch(line):
            block.append(line)
        elif block:
            blocks.append(block)
            block = []
    lengths = Counter(len(one) for one in blocks if len(one) > 1)
    names = {_key(line) for one in blocks if len(one) > 1 for line in one} - {""}

    found = [one for one in blocks if sum(_key(line) in names for line in one) * 2 > len(one)]
    if len(found) < MIN_ITEMS:
        found = [one for one in blocks if len(one) > 1 and lengths[len(one)] >= MIN_ITEMS]
    if len(found) < MIN_ITEMS or max(map(len, found)) == 1:
        return None
    return Items(tuple("\n".join(one) for one in found), are_certain=True)


def _record(text: str) -> Items | None:
    """Lines that each give a value its name: of one record, or of several that begin with the same name."""
    lines = [line for line in text.splitlines() if line.strip() and not _RULE.fullmatch(line)]
    keys = [_key(line) for line in lines]
    named = [key for key in keys if key]
    if len(named) < MIN_ITEMS or len(named) * 2 < len(lines):
        return None
    first = named[0]
    if len(set(named)) > 1 and named.count(first) >= MIN_ITEMS:
        starts = [at for at, key in enumerate(keys) if key == first]
        ends = itertools.pairwise([*starts, len(lines)])
        return Items(tuple("\n".join(lines[at:end]) for at, end in ends), are_certain=True)
    values = [line[_KEYED.match(line).end() :].strip() for line, key in zip(lines, keys, strict=True) if key]  # type: ignore[union-attr]
    if len(set(named)) < len(named) or any(len(one.split()) > 6 or re.search(r"[;|]", one) for one in values):
        return None
    # Values that look alike are one of each item; those of a record do not.
    kinds = {(bool(re.search(r"\d", one)), bool(re.search(r"[^\W\d]{3}", one))) for one in values}
    are_below = not any(values)
    return Items((text,), are_certain=True) if len(kinds) > 1 or are_below else None


def _lines(text: str) -> Items | None:
    """Lines, or paragraphs of two; what stands beside them in a line is apart where there are few."""
    paragraphs = [one.strip() for one in re.split(r"\n\s*\n", text) if one.strip()]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _RULE.fullmatch(line)]
    are_wrapped = MIN_ITEMS < len(paragraphs) < len(lines) and all(one.count("\n") < 2 for one in paragraphs)
    found = paragraphs if are_wrapped else lines
    if len(found) < MIN_ITEMS:
        return None
    longest = max(found, key=len)
    if len(longest) * 2 > len(text):
        # An introduction, what it introduces in one line, and a closing.
        parts = (part for one in found for part in (_apart(one) if one == longest else [one]))
        return Items(tuple(parts), are_statements=True)
    return Items(tuple(part for one in found for part in _numbered(one) or [one]))


def _without_letter(text: str) -> str:
    """Returns a text without the salutation and the close of a letter, where something is left."""
    close = _CLOSE.search(text)
    if close and len(re.findall(r"\S.*", text[close.end() :])) <= MAX_SIGNATURE and not _POINT.match(text, close.end()):
        text = text[: close.start()]
    left = _SALUTATION.sub("", text, count=1).strip()
    return left if re.search(r"\w", left) else text.strip()


def _passages(text: str) -> Items | None:
    found = _apart(text)
    return Items(tuple(found), are_statements=True) if len(found) >= MIN_ITEMS else None


def _apart(line: str) -> list[str]:
    """Returns the items that stand in one line: numbered, of the same beginning, between semicolons, or sentences."""
    return (
        _numbered(line) or _repeated(line) or _clauses(line) or _bracketed(line) or _cut(line, _sentence_starts(line))
    )


def _numbered(text: str) -> list[str]:
    starts, wanted = list[int](), 1
    for match in _NUMBER_INSIDE.finditer(text):
        if int(match[1]) == wanted:
            starts.append(match.start())
            wanted += 1
    return _cut(text, starts) if len(starts) >= MIN_ITEMS else []


def _repeated(text: str) -> list[str]:
    """Items that begin with the same two words, or, as sentences or clauses, with the same word."""
    first, *_ = text.split(maxsplit=1)
    opening = re.match(r"\S+\s+\S+", text)
    pairs = re.finditer(rf"(?<!\S){re.escape(opening[0])}(?!\w)", text) if opening else ()
    words = re.compile(rf"{re.escape(first)}(?!\w)")
    pieces = sorted({*_sentence_starts(text), *(match.end() for match in re.finditer(r";\s+", text))})
    singles = [at for at in pieces if words.match(text, at)] if len(first) > 2 else []
    starts = max([match.start() for match in pairs], singles, key=len)
    return _cut(text, starts) if len(starts) >= MIN_ITEMS else []


def _clauses(text: str) -> list[str]:
    """What stands between semicolons, unless sentences end there: then it is parts of these."""
    found = [one.strip() for one in text.split("; ") if one.strip()]
    return [] if len(found) < MIN_ITEMS or any(len(_sentence_starts(one)) > 1 for one in found) else found


def _bracketed(text: str) -> list[str]:
    """What stands between commas, where each has something in brackets at its end."""
    found = re.split(r"(?<=\)),\s+", text)
    return found if len(found) >= MIN_ITEMS and all(re.search(r"\([^()]*\)\W*$", one) for one in found) else []


def _sentence_starts(text: str) -> list[int]:
    ends = (match.span() for match in _SENTENCE_END.finditer(text))
    return [
        0,
        *(end for start, end in ends if not _ABBREVIATION.search(text[max(0, start - LONGEST_ABBREVIATION) : start])),
    ]


def _cut(text: str, starts: Sequence[int]) -> list[str]:
    """Returns what begins at some places of a text, each up to the next."""
    parts = (text[at:end].strip().rstrip(";") for at, end in itertools.pairwise([*starts, len(text)]))
    return [part for part in parts if part]
