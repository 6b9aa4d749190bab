"""Builds from what a user asks for, and the cache of them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from redraft.constraints.build import AutomatonCache, ConstraintSpec, build
from redraft.constraints.limits import Budget, BuildLimits, LimitExceeded
from redraft.constraints.tokens import TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary
from tests.constraints.judges import AMPLE, BYTES


def pattern(text: str) -> ConstraintSpec:
    return ConstraintSpec(kind="regex", text=text)


def allows(automaton: TokenAutomaton, text: str) -> bool:
    state = automaton.state_after([1 + byte for byte in text.encode()])
    return state is not None and automaton.distance[state] == 1


@pytest.mark.parametrize(
    ("spec", "allowed", "other"),
    [
        (pattern("a+"), "aa", "b"),
        (ConstraintSpec(kind="choice", choices=("1", "10", "é<eos>\x00")), "é<eos>\x00", "é"),
        (ConstraintSpec(kind="json_schema", text='{"type": "null"}'), "null", "1"),
        (ConstraintSpec(kind="grammar", text='start: "a" start | "b"'), "ab", "a"),
        (ConstraintSpec(kind="json_object"), '{"a": 1}', "[]"),
    ],
)
def test_every_kind_is_built(spec: ConstraintSpec, allowed: str, other: str):
    automaton = build(spec, BYTES, Budget(AMPLE))
    assert allows(automaton, allowed)
    assert not allows(automaton, other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "choice"}, "at least one"),
        ({"kind": "regex", "text": "a", "choices": ("a",)}, "only a choice"),
        ({"kind": "json_schema", "text": "1" * 300_000}, "limit is 262,144"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ConstraintSpec(**given)


def test_equal_constraints_are_built_once():
    cache = AutomatonCache(limits=AMPLE)
    first = cache.get(pattern("a|b"), BYTES)
    assert cache.get(pattern("a|b"), BYTES) is first
    other = Vocabulary([None, b"a"], end_ids=[0])
    assert cache.get(pattern("a|b"), other) is not first
    assert (cache.builds, cache.hits) == (2, 1)


def test_the_cache_forgets_what_was_not_used_longest():
    cache = AutomatonCache(limits=AMPLE, max_automata=2)
    first = cache.get(pattern("a"), BYTES)
    second = cache.get(pattern("b"), BYTES)
    cache.get(pattern("a"), BYTES)
    cache.get(pattern("c"), BYTES)
    assert cache.get(pattern("a"), BYTES) is first
    assert cache.get(pattern("b"), BYTES) is not second
    small = AutomatonCache(limits=AMPLE, max_bytes=first.num_bytes)
    small.get(pattern("a"), BYTES)
    small.get(pattern("b"), BYTES)
    small.get(pattern("a"), BYTES)
    assert small.builds == 3


def test_who_asks_at_the_same_time_shares_the_build():
    begun, may_end = threading.Event(), threading.Event()

    def slow(spec: ConstraintSpec, vocabulary: Vocabulary, budget: Budget) -> TokenAutomaton:
        begun.set()
        assert may_end.wait(30)
        return build(spec, vocabulary, budget)

    cache = AutomatonCache(build=slow, limits=AMPLE)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(cache.get, pattern("a"), BYTES) for _ in range(4)]
        assert begun.wait(30)
        may_end.set()
        found = [future.result() for future in asked]
    assert all(automaton is found[0] for automaton in found)
    assert cache.builds == 1


def test_a_refusal_is_not_kept():
    cache = AutomatonCache(limits=BuildLimits(seconds=60, token_states=1))
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            cache.get(pattern("abc"), BYTES)
    assert cache.builds == 2
