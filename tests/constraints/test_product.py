"""The product with a vocabulary, against texts put together from tokens."""

import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.constraints.automaton import build_automaton
from redraft.constraints.language.characters import Characters
from redraft.constraints.language.expression import Expression, Expressions
from redraft.constraints.language.regex import regex_language
from redraft.constraints.limits import Budget, BuildLimits, LimitExceeded
from redraft.constraints.product import token_automaton
from redraft.constraints.tokens import NEVER, TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary
from tests.constraints.test_expression import expression_of, trees

END = 0
LETTERS = Vocabulary([None, b"a", b"b", b"ab", b"ba", b"aab", b"a", b"", None, b"c"], end_ids=[END, 8])
TOKENS = range(1, 8)


def automaton_of(pattern: str, vocabulary: Vocabulary, *, limits: BuildLimits | None = None) -> TokenAutomaton:
    budget = Budget(limits or BuildLimits(seconds=60))
    table = Expressions(budget)
    return token_automaton(build_automaton(table, regex_language(pattern, Characters(table))), vocabulary, budget)


def accepts(automaton: TokenAutomaton, token_ids: tuple[int, ...]) -> bool:
    state = automaton.state_after(token_ids)
    return state is not None and automaton.next_state(state, END) == automaton.done


def check_invariants(automaton: TokenAutomaton) -> None:
    sources = np.repeat(np.arange(automaton.num_states), np.diff(automaton.first))
    by_source = list(zip(sources.tolist(), automaton.arc_class.tolist(), strict=True))
    assert by_source == sorted(set(by_source))
    best = np.full(automaton.num_states, 10**9)
    np.minimum.at(best, sources, automaton.distance[automaton.target] + 1)
    best[automaton.done] = 0
    assert (best == automaton.distance).all()
    behaviours = {
        tuple(zip(sources[arcs].tolist(), automaton.target[arcs].tolist(), strict=True))
        for arcs in (automaton.arc_class == token_class for token_class in range(automaton.num_classes))
    }
    assert len(behaviours) == automaton.num_classes
    assert () not in behaviours


@settings(max_examples=150)
@given(trees)
def test_tokens_are_allowed_where_their_texts_are(tree: object):
    table = Expressions(Budget(BuildLimits(seconds=60)))
    expression: Expression = expression_of(table, tree)
    # Only texts of the vocabulary's letters, one of which is no token of its own.
    letters = table.repeat(table.byte(0b11 << ord("a")))
    language = table.intersection([expression, letters])
    members = {ids for n in range(4) for ids in product(TOKENS, repeat=n) if 7 not in ids}
    expected = {ids for ids in members if table.contains(language, LETTERS.text_of(ids))}
    try:
        automaton = token_automaton(build_automaton(table, language), LETTERS)
    except ValueError:
        assert not expected
        return
    check_invariants(automaton)
    assert {ids for ids in members if accepts(automaton, ids)} == expected
    shortest = automaton.shortest()
    assert len(shortest) == automaton.min_tokens == min(map(len, expected), default=automaton.min_tokens)
    assert accepts(automaton, tuple(shortest))
    for seed in range(3):
        member = automaton.random_member(random.Random(seed), 6)
        assert len(member) <= max(6, automaton.min_tokens)
        assert accepts(automaton, tuple(member))


def test_tokens_that_act_alike_are_one_class():
    automaton = automaton_of("[ab]{2}c?", LETTERS)
    classes = automaton.class_of_token
    assert classes[1] == classes[2] == classes[6]
    assert classes[3] == classes[4]
    assert classes[0] == classes[8]
    assert classes[5] == classes[7] == NEVER
    assert automaton.num_classes == 4
    assert automaton.tokens_of(classes[1]).tolist() == [1, 2, 6]


def test_after_the_end_only_the_end_repeats():
    automaton = automaton_of("ab", LETTERS)
    assert automaton.next_state(automaton.done, END) == automaton.done
    assert automaton.next_state(automaton.done, 8) == automaton.done
    assert all(automaton.next_state(automaton.done, token) is None for token in TOKENS)
    assert automaton.next_state(automaton.start, END) is None


def test_a_text_that_the_vocabulary_cannot_write_is_refused():
    with pytest.raises(ValueError, match="vocabulary"):
        automaton_of("d", LETTERS)
    # Only what it can write is left.
    assert automaton_of("d|ab+", LETTERS).min_tokens == 1


def test_half_characters_are_joined_over_tokens():
    fox = "🦊".encode()
    vocabulary = Vocabulary([None, fox[:1], fox[1:3], fox[3:], fox[1:], b"\x00", "é".encode()], end_ids=[END])
    automaton = automaton_of(".", vocabulary)
    assert accepts(automaton, (1, 2, 3))
    assert accepts(automaton, (1, 4))
    assert accepts(automaton, (6,))
    assert accepts(automaton, (5,))
    assert not accepts(automaton, (1, 2))
    assert not accepts(automaton, (1, 6))


@pytest.mark.parametrize("pattern", [" ?a b?", "ab", "  a", "", " *"])
def test_a_space_that_decoding_loses_is_free_at_the_start(pattern: str):
    pieces = Vocabulary([None, b"a", b" a", b"b", b" b", b" ", b"  "], end_ids=[END], strips_first_space=True)
    automaton = automaton_of(pattern, pieces)
    table = Expressions()
    language = regex_language(pattern, Characters(table))
    for length in range(4):
        for ids in product(range(1, 7), repeat=length):
            assert accepts(automaton, ids) == table.contains(language, pieces.text_of(ids)), ids


def test_an_automaton_travels_as_bytes():
    automaton = automaton_of("(ab|ba)*c?", LETTERS)
    copy = TokenAutomaton.from_bytes(automaton.to_bytes())
    assert (copy.start, copy.done) == (automaton.start, automaton.done)
    assert (copy.target == automaton.target).all()
    assert copy.class_of_token.dtype == copy.first.dtype == np.int32
    assert copy.num_bytes == automaton.num_bytes


@pytest.mark.parametrize("limits", [{"token_states": 5}, {"arcs": 5}, {"bytes": 10}])
def test_a_product_that_is_too_large_is_refused(limits: dict[str, int]):
    table = Expressions(Budget(BuildLimits(seconds=60)))
    letters = build_automaton(table, regex_language("[ab]{20}", Characters(table)))
    with pytest.raises(LimitExceeded) as caught:
        token_automaton(letters, LETTERS, Budget(BuildLimits(seconds=60, **limits)))
    assert caught.value.limit == next(iter(limits))


@pytest.mark.parametrize("end_ids", [[], [7], [-1]])
def test_a_vocabulary_needs_tokens_that_end(end_ids: list[int]):
    with pytest.raises(ValueError, match="end an answer"):
        Vocabulary([None, b"a"], end_ids=end_ids)


def test_vocabularies_of_equal_tokens_have_equal_hashes():
    one, two = Vocabulary([None, b"a"], end_ids=[0]), Vocabulary([b"x", b"a"], end_ids=[0])
    assert one.hash == two.hash
    assert one.hash != Vocabulary([None, b"b"], end_ids=[0]).hash


@given(st.lists(st.one_of(st.none(), st.binary(max_size=5)), max_size=30))
def test_every_token_is_in_the_trie(tokens: list[bytes | None]):
    vocabulary = Vocabulary([None, *tokens], end_ids=[0])
    found: dict[int, bytes] = {}
    texts = [b""]
    for level in vocabulary.levels:
        texts = [texts[parent] + bytes([byte]) for parent, byte in zip(level.parent, level.byte, strict=True)]
        assert len(set(texts)) == len(texts)
        found |= {int(t): texts[node] for t, node in zip(level.tokens, level.token_nodes, strict=True)}
    assert found == {token_id: text for token_id, text in enumerate([None, *tokens]) if text}
