"""From what a user asks for to an automaton over tokens, once for each that is asked for."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from redraft.constraints.automaton import build_automaton
from redraft.constraints.json_schema.compiler import (
    SchemaOptions,
    any_object,
    read_schema,
    schema_language,
    write_schema,
)
from redraft.constraints.labels import MAX_LABELS, LabelSet
from redraft.constraints.language.blanks import filled_language
from redraft.constraints.language.characters import Characters
from redraft.constraints.language.expression import Expression, Expressions
from redraft.constraints.language.grammar import grammar_language
from redraft.constraints.language.regex import regex_language
from redraft.constraints.limits import MIB, Budget, BuildLimits
from redraft.constraints.product import token_automaton
from redraft.constraints.tokens import TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary

Kind = Literal["json_schema", "json_object", "regex", "choice", "grammar", "filled"]
MAX_TEXT = 256 * 1024


class Spec(Protocol):
    """What an answer must be, hashable: a `ConstraintSpec`, or a `tool_calls.ChatSpec`."""

    def language(self, table: Expressions) -> Expression:
        """Returns the language of the answers. ValueError for what is malformed or not supported."""


@dataclass(frozen=True, kw_only=True)
class ConstraintSpec:
    """What an answer must be. text: the schema as JSON, the pattern or the grammar. choices: the texts of a choice, or
    of "filled" those between which there are blanks; limit: the characters that a blank has at most; has_lines: whether
    it may have several lines. options: of "json_schema" and "json_object"; the depth also of "grammar".
    """

    kind: Kind
    text: str = ""
    choices: tuple[str, ...] = ()
    limit: int | None = None
    has_lines: bool = False
    options: SchemaOptions = field(default_factory=SchemaOptions)

    def __post_init__(self) -> None:
        size = len(self.text) + sum(map(len, self.choices))
        if size > MAX_TEXT:
            raise ValueError(f"the constraint has {size:,} characters, the limit is {MAX_TEXT:,}: shorten it")
        if (self.kind in ("choice", "filled")) != bool(self.choices):
            raise ValueError(
                "a choice needs at least one text" if self.kind == "choice" else "only a choice has choices"
            )

    def language(self, table: Expressions) -> Expression:
        """Returns the language of the answers. ValueError for what is malformed or not supported."""
        match self.kind:
            case "json_schema":
                return schema_language(read_schema(self.text), table, self.options)
            case "json_object":
                return any_object(table, self.options)
            case "regex":
                return regex_language(self.text, Characters(table))
            case "grammar":
                return grammar_language(self.text, Characters(table), depth=self.options.depth)
            case "choice":
                return table.literals(choice.encode() for choice in self.choices)
            case "filled":
                return filled_language(self.choices, Characters(table), limit=self.limit, has_lines=self.has_lines)


def spec_of(
    *,
    schema: Mapping[str, Any] | bool | None = None,
    regex: str | None = None,
    choice: Sequence[str] | None = None,
    grammar: str | None = None,
    options: SchemaOptions | None = None,
) -> ConstraintSpec | None:
    """Returns the constraint that is given, None where none is. ValueError for more than one.

    schema: a JSON Schema. regex: a pattern that the whole answer matches. choice: the texts that it may be. grammar:
    rules, one of them named start or root. options: of a schema.
    """
    given = {"schema": schema, "regex": regex, "choice": choice, "grammar": grammar}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} are given: an answer has one constraint")
    for name, text in (("regex", regex), ("grammar", grammar)):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"the {name} is {text!r:.80}, must be a text")
    if regex is not None:
        return ConstraintSpec(kind="regex", text=regex)
    if choice is not None:
        if not isinstance(choice, list | tuple) or not all(isinstance(one, str) for one in choice):
            raise ValueError(f"the choice is {choice!r:.80}, must be a list of texts")
        return ConstraintSpec(kind="choice", choices=tuple(choice))
    if grammar is not None:
        return ConstraintSpec(kind="grammar", text=grammar)
    if schema is None:
        return None
    return ConstraintSpec(kind="json_schema", text=write_schema(schema), options=options or SchemaOptions())


def build(spec: Spec, vocabulary: Vocabulary, budget: Budget | None = None) -> TokenAutomaton:
    """Builds the automaton of a constraint. ValueError where it is refused, LimitExceeded where it takes too much."""
    table = Expressions(budget)
    return described(
        token_automaton(build_automaton(table, spec.language(table)), vocabulary, table.budget), spec, vocabulary
    )


def described(automaton: TokenAutomaton, spec: Spec, vocabulary: Vocabulary) -> TokenAutomaton:
    """Returns an automaton with what its constraint says beside its language."""
    if not isinstance(spec, ConstraintSpec):
        return automaton
    if spec.kind == "filled":
        # What has nothing before its first blank is written as freely as any other answer.
        return replace(automaton, is_filled=bool(spec.choices[0]))
    texts = tuple(dict.fromkeys(spec.choices))
    if spec.kind != "choice" or len(texts) > MAX_LABELS or vocabulary.strips_first_space:
        return automaton
    return replace(automaton, labels=LabelSet.of(texts, vocabulary))


class AutomatonCache:
    """The automata that were used last, by content. Those who ask for one at the same time share its build.

    builds, hits: how often one was built, and how often one was there.
    """

    def __init__(
        self,
        *,
        build: Callable[[Spec, Vocabulary, Budget], TokenAutomaton] = build,
        limits: BuildLimits | None = None,
        max_automata: int = 128,
        max_bytes: int = 256 * MIB,
    ) -> None:
        self.builds = self.hits = 0
        self._build, self._limits = build, limits or BuildLimits()
        self._max_automata, self._max_bytes = max_automata, max_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[Spec, str], Future[TokenAutomaton]] = OrderedDict()

    def find(self, spec: Spec, vocabulary: Vocabulary) -> TokenAutomaton | None:
        """Returns the automaton if it is there, and does not wait for one that is being built."""
        key = (spec, vocabulary.hash)
        with self._lock:
            future = self._held.get(key)
            if future is None or not future.done() or future.exception() is not None:
                return None
            self._held.move_to_end(key)
            self.hits += 1
        return future.result()

    def get(self, spec: Spec, vocabulary: Vocabulary) -> TokenAutomaton:
        """Returns the automaton, built if need be. A refusal is raised to all who wait for it, and is not kept."""
        key = (spec, vocabulary.hash)
        with self._lock:
            future = self._held.get(key)
            is_mine = future is None
            if future is None:
                future = self._held[key] = Future()
            self._held.move_to_end(key)
            self.builds += is_mine
            self.hits += not is_mine
        if is_mine:
            try:
                future.set_result(self._build(spec, vocabulary, Budget(self._limits)))
            except BaseException as error:
                with self._lock:
                    del self._held[key]
                future.set_exception(error)
            self._evict()
        return future.result()

    def _evict(self) -> None:
        with self._lock:
            sizes = {key: future.result().num_bytes for key, future in self._held.items() if future.done()}
            total = sum(sizes.values())
            for key, size in sizes.items():
                if len(self._held) <= self._max_automata and total <= self._max_bytes:
                    break
                del self._held[key]
                total -= size
