"""llguidance as a second judge: another engine, written for masks and not for automata, takes what ours writes."""

import json
import random

import pytest

from redraft.constraints.automaton import build_automaton
from redraft.constraints.language.characters import Characters
from redraft.constraints.language.expression import Expressions
from redraft.constraints.language.regex import regex_language
from redraft.constraints.limits import Budget
from redraft.constraints.product import token_automaton
from tests.constraints.judges import AMPLE, BYTES, Compiled
from tests.constraints.test_json_schema import KEPT

llguidance = pytest.importorskip("llguidance", reason="llguidance, of the dev extra, is not installed")
PATTERNS = [r"a|ab", r"(?:a|ab)(?:c|bc)?", r"[^a-y]{2,4}", r"(\d{1,3}\.){3}\d{1,3}", r"x(é|🦊)*y?", r"(a{2,3}b?){2}"]
UNSUPPORTED = (
    "exclusiveMaximum",
    "uniqueItems",
    "not",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "oneOf",
    "multipleOf",
    "$schema",
)


def accepts(grammar: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar)
    assert not matcher.get_error(), matcher.get_error()
    return bool(matcher.consume_tokens(list(text.encode()))) and bool(matcher.is_accepting())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_members_of_patterns_are_members_there(pattern: str):
    table = Expressions(Budget(AMPLE))
    letters = build_automaton(table, regex_language(pattern, Characters(table)))
    automaton = token_automaton(letters, BYTES, Budget(AMPLE))
    grammar = llguidance.LLMatcher.grammar_from_regex(pattern)
    for seed in range(20):
        text = BYTES.text_of(automaton.random_member(random.Random(seed), 12)).decode()
        assert accepts(grammar, text), text


def _is_known(schema: object) -> bool:
    """Not known there: keywords it refuses, ranges of numbers written with zeros at the end, and booleans."""
    text = json.dumps(schema)
    return isinstance(schema, dict) and not any(f'"{word}"' in text for word in UNSUPPORTED)


SCHEMAS = [schema for schema, written, _ in KEPT if written and _is_known(schema)]


@pytest.mark.parametrize("schema", SCHEMAS, ids=[json.dumps(schema)[:60] for schema in SCHEMAS])
def test_members_of_schemas_are_members_there(schema: object):
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_flexible": True})
    error = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar).get_error()
    if error:
        pytest.skip(f"llguidance refuses this schema: {error.splitlines()[0]}")
    for text in Compiled(schema).members(20):
        assert accepts(grammar, text), text
