"""Regular expressions as languages: the part of the syntax that has one meaning in ECMAScript and Python.

The parser gives texts that match from end to end, or that contain a match. `\\d`, `\\w` and `\\s` are ASCII, and so are
their complements: `\\S` is what neither ASCII nor Unicode calls a space. What it does not know is refused by position.
"""

from collections.abc import Sequence

from redraft.constraints.language.characters import EVERY, LAST, Characters, Ranges, ranges_of, without
from redraft.constraints.language.expression import Expression

MAX_PATTERN = 2_000
MAX_COUNT = 10_000
MAX_GROUPS = 50
"""How deep groups may be nested."""
DIGITS: Ranges = ((0x30, 0x39),)
WORD: Ranges = ranges_of([(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
SPACES: Ranges = ((0x09, 0x0D), (0x20, 0x20))
_OTHER_SPACES = ((0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029))
_WIDE_SPACES = ((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF))
UNICODE_SPACES: Ranges = ranges_of([*SPACES, *_OTHER_SPACES, *_WIDE_SPACES])
LINE_ENDS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
NAMED = {"d": (DIGITS, DIGITS), "w": (WORD, WORD), "s": (SPACES, UNICODE_SPACES)}
"""Letter of an escape: (what belongs to it, what does not belong to its complement)."""
CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D, "0": 0}
UNKNOWN_ESCAPES = {
    "b": "word borders",
    "B": "word borders",
    "p": "Unicode properties",
    "P": "Unicode properties",
    "k": "back-references",
    "A": "this anchor; write ^",
    "Z": "this anchor; write $",
    "z": "this anchor; write $",
} | dict.fromkeys("123456789", "back-references")

Anchored = dict[tuple[bool, bool], Expression]
"""Alternatives by what they are bound to: (the start of the text, its end)."""


def regex_language(pattern: str, characters: Characters, *, is_search: bool = False) -> Expression:
    """Returns the texts that match a pattern, or with `is_search` those that contain a match.

    Raises ValueError, with the position, for what is malformed or not supported.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"the pattern has {len(pattern):,} characters, the limit is {MAX_PATTERN:,}: shorten it")
    return _Parser(pattern, characters).language(is_search=is_search)


class _Parser:
    def __init__(self, pattern: str, characters: Characters) -> None:
        self._pattern, self._at = pattern, 0
        self._characters, self._table = characters, characters.table
        self._depth = 0

    def language(self, *, is_search: bool) -> Expression:
        found = self._alternatives()
        if self._at < len(self._pattern):
            raise self._refusal("a closing parenthesis that was not opened")
        around = self._table.repeat(self._characters.any_of(EVERY)) if is_search else self._table.epsilon
        epsilon = self._table.epsilon
        return self._table.alternative(
            self._table.sequence(epsilon if at_start else around, body, epsilon if at_end else around)
            for (at_start, at_end), body in found.items()
        )

    def _alternatives(self) -> Anchored:
        found: Anchored = {}
        while True:
            for bound, body in self._sequence().items():
                found[bound] = self._table.alternative([found.get(bound, self._table.empty), body])
            if not self._take("|"):
                return found

    def _sequence(self) -> Anchored:
        found: Anchored = {(False, False): self._table.epsilon}
        while self._peek() not in ("", "|", ")"):
            start = self._at
            found = self._joined(found, self._repeated(self._item(), start))
        return found

    def _joined(self, left: Anchored, right: Anchored) -> Anchored:
        """Returns one after the other: before the start of the text, and behind its end, there is nothing."""
        found: Anchored = {}
        for (left_start, left_end), before in left.items():
            for (right_start, right_end), behind in right.items():
                if (right_start and not before.is_nullable) or (left_end and not behind.is_nullable):
                    continue
                first = self._table.epsilon if right_start else before
                last = self._table.epsilon if left_end else behind
                bound = (left_start or right_start, left_end or right_end)
                body = self._table.sequence(first, last)
                found[bound] = self._table.alternative([found.get(bound, self._table.empty), body])
        return found

    def _item(self) -> Anchored:
        character = self._peek()
        if character in "*+?":
            raise self._refusal("nothing to repeat")
        self._at += 1
        match character:
            case "^":
                return {(True, False): self._table.epsilon}
            case "$":
                return {(False, True): self._table.epsilon}
            case "(":
                return self._group()
            case "[":
                return self._free(self._bracket())
            case ".":
                return self._free(without(EVERY, LINE_ENDS))
            case "\\":
                included, _ = self._escape()
                return self._free(included)
        return self._free(((ord(character), ord(character)),))

    def _free(self, ranges: Ranges) -> Anchored:
        return {(False, False): self._characters.any_of(ranges)}

    def _group(self) -> Anchored:
        start = self._at - 1
        self._depth += 1
        if self._depth > MAX_GROUPS:
            raise self._refusal(f"groups nested deeper than {MAX_GROUPS}", start)
        if self._take("?") and not self._take(":"):
            name = "P<" if self._take("P<") else "<" if self._take("<") else ""
            if not name or self._peek() in ("=", "!", ""):
                raise self._refusal("look-around, flags and conditions are not supported", start)
            end = self._pattern.find(">", self._at)
            if not self._pattern[self._at : max(end, self._at)].isidentifier():
                raise self._refusal("the name of a group is malformed", start)
            self._at = end + 1
        found = self._alternatives()
        if not self._take(")"):
            raise self._refusal("a group that is not closed", start)
        self._depth -= 1
        return found

    def _repeated(self, item: Anchored, start: int) -> Anchored:
        bounds = self._quantifier()
        if bounds is None:
            return item
        if self._take("+"):
            raise self._refusal("possessive quantifiers are not supported", self._at - 1)
        self._take("?")  # a lazy quantifier has the same language
        if self._peek() in ("*", "+", "?") or self._at_bounds():
            raise self._refusal("a quantifier behind a quantifier")
        if item.keys() == {(False, False)}:
            return {(False, False): self._table.repeat(item[False, False], *bounds)}
        if bounds == (0, 1):
            epsilon = self._table.epsilon
            return item | {(False, False): self._table.alternative([item.get((False, False), epsilon), epsilon])}
        raise self._refusal("an anchor inside a repetition", start)

    def _quantifier(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        if not self._at_bounds():
            if self._pattern.startswith("{,", self._at):
                raise self._refusal("a quantifier without its lower bound means two things; write {0,n}")
            return None
        start = self._at
        end = self._pattern.index("}", self._at)
        low, comma, high = self._pattern[self._at + 1 : end].partition(",")
        self._at = end + 1
        counts = [int(count) for count in (low, high) if count]
        if max(counts) > MAX_COUNT:
            raise self._refusal(f"a repetition of more than {MAX_COUNT:,}", start)
        if counts[0] > counts[-1]:
            raise self._refusal("a quantifier whose bounds are in the wrong order", start)
        return counts[0], counts[-1] if high or not comma else None

    def _at_bounds(self) -> bool:
        """Tells whether a quantifier in braces follows; other braces are characters."""
        end = self._pattern.find("}", self._at)
        if self._peek() != "{" or end < 0:
            return False
        low, _, high = self._pattern[self._at + 1 : end].partition(",")
        return _is_number(low) and (not high or _is_number(high))

    def _bracket(self) -> Ranges:
        start = self._at - 1
        is_negated = self._take("^")
        if self._peek() == "]":
            raise self._refusal("an empty class", start)
        inside: list[tuple[int, int]] = []
        outside: list[tuple[int, int]] = []
        while not self._take("]"):
            included, excluded = self._class_item(start)
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                at = self._at
                self._at += 1
                end, _ = self._class_item(start)
                if not _is_single(included) or not _is_single(end) or included[0][0] > end[0][0]:
                    raise self._refusal("a malformed range in a class", at)
                included = excluded = ((included[0][0], end[0][0]),)
            inside += included
            outside += excluded
        return without(EVERY, ranges_of(outside)) if is_negated else ranges_of(inside)

    def _class_item(self, start: int) -> tuple[Ranges, Ranges]:
        character = self._peek()
        if not character:
            raise self._refusal("a class that is not closed", start)
        self._at += 1
        if character == "\\":
            if self._take("b"):
                return ((8, 8),), ((8, 8),)
            return self._escape()
        return (single := ((ord(character), ord(character)),)), single

    def _escape(self) -> tuple[Ranges, Ranges]:
        """Returns what an escape matches, and what must not be taken for its complement."""
        start = self._at - 1
        letter = self._peek()
        if not letter:
            raise self._refusal("a backslash at the end", start)
        self._at += 1
        if letter.lower() in NAMED:
            included, excluded = NAMED[letter.lower()]
            if letter.islower():
                return included, excluded
            return without(EVERY, excluded), without(EVERY, included)
        if letter in UNKNOWN_ESCAPES:
            raise self._refusal(f"\\{letter} is not supported: {UNKNOWN_ESCAPES[letter]}", start)
        if letter in CONTROLS and not (letter == "0" and self._peek().isdigit()):
            code = CONTROLS[letter]
        elif letter in "xu":
            code = self._hexadecimal(2 if letter == "x" else 4, start)
        elif letter.isalnum():
            raise self._refusal(f"\\{letter} is not a known escape", start)
        else:
            code = ord(letter)
        return ((code, code),), ((code, code),)

    def _hexadecimal(self, length: int, start: int) -> int:
        if length == 4 and self._take("{"):
            length = self._pattern.find("}", self._at) - self._at
            code = self._digits(length, start)
            self._at += 1
        else:
            code = self._digits(length, start)
            if 0xD800 <= code < 0xDC00 and self._take("\\u"):
                low = self._digits(4, start)
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        if code > LAST or 0xD800 <= code <= 0xDFFF:
            raise self._refusal("an escape that is not a character", start)
        return code

    def _digits(self, length: int, start: int) -> int:
        digits = self._pattern[self._at : self._at + max(length, 0)]
        if len(digits) != length or not digits or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            raise self._refusal("an escape without its hexadecimal digits", start)
        self._at += length
        return int(digits, 16)

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        is_next = self._pattern.startswith(text, self._at)
        self._at += len(text) * is_next
        return is_next

    def _refusal(self, reason: str, at: int | None = None) -> ValueError:
        at = self._at if at is None else at
        shown = self._pattern[at : at + 10]
        return ValueError(f"pattern, character {at + 1} ({shown!r}): {reason}")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _is_single(ranges: Sequence[tuple[int, int]]) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]
