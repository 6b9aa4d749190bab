"""A small grammar as a language: rules with texts, patterns, groups, alternatives and repetitions.

    start: greeting ("," " " name)* "!"     # Lark's way; `start ::= ...` and a rule named root do as well
    greeting: "hello" | /good (day|night)/
    name: [A-Z] [a-z]{1,10}

A rule that leads into itself is followed so many times, and no further: what a user means as a repetition is better
written with `*`. Rules that begin with `%`, aliases and terminals with flags are refused by name.
"""

import json
import re
from collections.abc import Iterator

from redraft.constraints.language.characters import Characters
from redraft.constraints.language.expression import Expression
from redraft.constraints.language.regex import MAX_COUNT, regex_language

MAX_GRAMMAR = 64 * 1024
MAX_DEPTH = 16
STARTS = ("start", "root")
_RULE = re.compile(r"\s*[?!]?([A-Za-z_][\w-]*)\s*(?:::=|:)\s*", re.ASCII)
_LEXEME = re.compile(
    r"""\s*(?: (?P<name>[A-Za-z_][\w-]*) | (?P<text>"(?:[^"\\]|\\.)*") | (?P<pattern>/(?:[^/\\]|\\.)+/)
    | (?P<set>\[(?:[^\]\\]|\\.)+\]) | (?P<count>\{\d{1,5}(?:,\d{0,5})?\}) | (?P<mark>[()|*+?]) )""",
    re.VERBOSE | re.ASCII,
)
_COMMENT = re.compile(r"""("(?:[^"\\\n]|\\.)*"|/(?:[^/\\\n]|\\.)+/|\[(?:[^\]\\\n]|\\.)+\])|(?://|\#).*""")
Lexeme = tuple[str, str]


def grammar_language(grammar: str, characters: Characters, *, depth: int = 3) -> Expression:
    """Returns the texts of a grammar's rule `start` or `root`. depth: how often a rule is followed into itself.

    Raises ValueError, with the rule, for what is malformed or not supported.
    """
    if len(grammar) > MAX_GRAMMAR:
        raise ValueError(f"the grammar has {len(grammar):,} characters, the limit is {MAX_GRAMMAR:,}: shorten it")
    if not 1 <= depth <= MAX_DEPTH:
        raise ValueError(f"the depth of recursion is {depth}, must be 1 to {MAX_DEPTH}")
    rules = dict(_rules(grammar))
    start = next((name for name in STARTS if name in rules), None)
    if start is None:
        raise ValueError(f"the grammar has no rule named {' or '.join(STARTS)}, the one that the whole answer follows")
    try:
        return _Grammar(rules, characters, depth).language(start, ())
    except RecursionError:
        raise ValueError("the grammar is nested too deeply: use fewer rules, or a smaller depth") from None


class _Grammar:
    def __init__(self, rules: dict[str, list[Lexeme]], characters: Characters, depth: int) -> None:
        self._rules, self._characters, self._depth = rules, characters, depth
        self._table = characters.table
        self._known: dict[tuple[str, tuple[str, ...]], Expression] = {}
        self._recursive = {name: self._leads_to(name) for name in rules}

    def language(self, name: str, path: tuple[str, ...]) -> Expression:
        """Returns the texts of a rule; path: the recursive rules that led to it, each as often as it was followed."""
        if self._recursive[name]:
            if path.count(name) > self._depth:
                return self._table.empty
            path = (*path, name)
        if (name, path) not in self._known:
            lexemes = [*self._rules[name], ("end", "")]
            found, at = self._alternatives(name, lexemes, 0, path)
            if lexemes[at][0] != "end":
                raise _refusal(name, "a parenthesis is closed that was not opened")
            self._known[name, path] = found
        return self._known[name, path]

    def _alternatives(self, rule: str, lexemes: list[Lexeme], at: int, path: tuple[str, ...]) -> tuple[Expression, int]:
        options, sequence = [], [self._table.epsilon]
        while lexemes[at][0] != "end" and lexemes[at][1] != ")":
            if lexemes[at] == ("mark", "|"):
                options.append(self._table.sequence(*sequence))
                sequence, at = [self._table.epsilon], at + 1
                continue
            item, at = self._item(rule, lexemes, at, path)
            bounds = _bounds(rule, lexemes[at])
            if bounds is not None:
                item, at = self._table.repeat(item, *bounds), at + 1
            sequence.append(item)
        return self._table.alternative([*options, self._table.sequence(*sequence)]), at

    def _item(self, rule: str, lexemes: list[Lexeme], at: int, path: tuple[str, ...]) -> tuple[Expression, int]:
        kind, text = lexemes[at]
        match kind:
            case "name" if text not in self._rules:
                raise _refusal(rule, f"there is no rule named {text}")
            case "name":
                return self.language(text, path), at + 1
            case "text":
                return self._characters.text(_unquoted(rule, text)), at + 1
            case "pattern" | "set":
                pattern = text[1:-1].replace("\\/", "/") if kind == "pattern" else text
                try:
                    return regex_language(pattern, self._characters), at + 1
                except ValueError as error:
                    raise _refusal(rule, str(error)) from None
        if text != "(":
            raise _refusal(rule, f"{text} has nothing to repeat")
        found, at = self._alternatives(rule, lexemes, at + 1, path)
        if lexemes[at][0] == "end":
            raise _refusal(rule, "a parenthesis is not closed")
        return found, at + 1

    def _leads_to(self, name: str) -> bool:
        """Tells whether a rule can lead into itself."""
        seen: set[str] = set()
        pending = [name]
        while pending:
            for kind, text in self._rules[pending.pop()]:
                if kind == "name" and text in self._rules and text not in seen:
                    seen.add(text)
                    pending.append(text)
        return name in seen


def _rules(grammar: str) -> Iterator[tuple[str, list[Lexeme]]]:
    """Yields the name and the lexemes of each rule; a line that begins no rule goes on with the one before."""
    name, body = "", ""
    seen = set()
    for line in _COMMENT.sub(lambda found: found[1] or "", grammar).splitlines():
        if line.startswith("%"):
            raise ValueError(f"grammar: {line.split()[0]} is not supported; write the rules out")
        if begun := _RULE.match(line):
            if name:
                yield name, list(_lexemes(name, body))
            name, body = begun[1], line[begun.end() :]
            if name in seen:
                raise _refusal(name, "there are two of this name; join them with |")
            seen.add(name)
        elif line.strip() and not name:
            raise ValueError(f"grammar: {line.strip()[:20]!r} is not a rule; write name: and what it stands for")
        else:
            body += "\n" + line
    if name:
        yield name, list(_lexemes(name, body))


def _lexemes(rule: str, body: str) -> Iterator[Lexeme]:
    at = 0
    while match := _LEXEME.match(body, at):
        assert match.lastgroup is not None
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()
    if rest := body[at:].strip():
        raise _refusal(rule, f"{rest[:10]!r} is not supported")


def _bounds(rule: str, lexeme: Lexeme) -> tuple[int, int | None] | None:
    kind, text = lexeme
    if kind == "mark" and text in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[text]
    if kind != "count":
        return None
    low, comma, high = text[1:-1].partition(",")
    bounds = int(low), (int(high) if high else None) if comma else int(low)
    if max(bounds[0], bounds[1] or 0) > MAX_COUNT or (bounds[1] is not None and bounds[0] > bounds[1]):
        raise _refusal(rule, f"the repetition {text} is not one from few to many, up to {MAX_COUNT:,}")
    return bounds


def _unquoted(rule: str, text: str) -> str:
    try:
        found = str(json.loads(text, strict=False))
        found.encode()
    except ValueError:
        raise _refusal(rule, f"{text[:20]} is not a text with escapes as JSON has them") from None
    return found


def _refusal(rule: str, reason: str) -> ValueError:
    return ValueError(f"grammar, rule {rule}: {reason}")
