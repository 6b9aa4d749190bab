"""Expressions and byte automata against sets of short texts, which are written down by the definition."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.constraints.automaton import build_automaton
from redraft.constraints.language.characters import EVERY, Characters, JsonCharacters, common, ranges_of, without
from redraft.constraints.language.expression import Expression, Expressions
from redraft.constraints.limits import Budget, BuildLimits, LimitExceeded

LONGEST = 4
TEXTS = [bytes(text) for length in range(LONGEST + 1) for text in product(b"ab", repeat=length)]

leaves = st.sampled_from(["", "a", "b", "[ab]", "nothing"])
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["sequence", "alternative", "intersection"]), inner, inner),
        st.tuples(st.just("complement"), inner),
        st.tuples(st.just("repeat"), inner, st.integers(0, 2), st.one_of(st.none(), st.integers(0, 2))),
    ),
    max_leaves=8,
)


def texts_of(tree: object) -> set[bytes]:
    """The members of up to LONGEST bytes."""
    match tree:
        case "":
            return {b""}
        case "nothing":
            return set()
        case "[ab]":
            return {b"a", b"b"}
        case str(letter):
            return {letter.encode()}
        case ("sequence", left, right):
            return {text for a in texts_of(left) for b in texts_of(right) if len(text := a + b) <= LONGEST}
        case ("alternative", left, right):
            return texts_of(left) | texts_of(right)
        case ("intersection", left, right):
            return texts_of(left) & texts_of(right)
        case ("complement", inner):
            return set(TEXTS) - texts_of(inner)
        case ("repeat", inner, low, more):
            found, grown = set(), {b""}
            for count in range(LONGEST + low + 1 if more is None else low + more + 1):
                found |= grown if count >= low else set()
                grown = {text for a in grown for b in texts_of(inner) if len(text := a + b) <= LONGEST}
            return found
    raise AssertionError(tree)


def expression_of(table: Expressions, tree: object) -> Expression:
    match tree:
        case "nothing":
            return table.empty
        case "[ab]":
            return table.byte(1 << ord("a") | 1 << ord("b"))
        case str(letter):
            return table.literal(letter.encode())
        case ("repeat", inner, low, more):
            return table.repeat(expression_of(table, inner), low, None if more is None else low + more)
        case ("complement", inner):
            return table.complement(expression_of(table, inner))
        case ("sequence", left, right):
            return table.sequence(expression_of(table, left), expression_of(table, right))
        case (kind, left, right):
            return getattr(table, kind)([expression_of(table, left), expression_of(table, right)])
    raise AssertionError(tree)


@settings(max_examples=400)
@given(trees)
def test_expressions_have_the_members_that_their_definition_gives(tree: object):
    # How fast the machine is right now is not what is tested.
    table = Expressions(Budget(BuildLimits(seconds=60)))
    expression = expression_of(table, tree)
    expected = texts_of(tree)
    assert {text for text in TEXTS if table.contains(expression, text)} == expected
    if expected:
        automaton = build_automaton(table, expression)
        assert {text for text in TEXTS if automaton.contains(text)} == expected


def test_an_empty_language_has_no_automaton():
    table = Expressions()
    a, b = table.repeat(table.literal(b"a"), 1), table.repeat(table.literal(b"b"), 1)
    with pytest.raises(ValueError, match="contradict"):
        build_automaton(table, table.intersection([a, b]))


def test_equal_expressions_are_one_object():
    table = Expressions()
    a, b = table.literal(b"a"), table.literal(b"bb")
    assert table.alternative([a, b, a]) is table.alternative([b, a])
    assert table.sequence(table.sequence(a, b), a) is table.sequence(a, table.sequence(b, a))
    assert table.complement(table.complement(b)) is b
    assert table.repeat(table.repeat(a)) is table.repeat(a)


def test_a_count_is_not_written_out():
    table = Expressions()
    table.repeat(table.literal(b"a"), 0, 10**9)
    assert table.sequence(*[table.epsilon] * 5) is table.epsilon
    two = table.repeat(table.literal(b"a"), 2, 2)
    assert build_automaton(table, two).num_states == 3


def test_counts_that_follow_each_other_grow_by_their_sum_only():
    table = Expressions()
    letter, digit = table.byte(0b11 << ord("a")), table.byte(1 << ord("a"))
    automaton = build_automaton(table, table.sequence(table.repeat(letter, 0, 50), table.repeat(digit, 0, 50)))
    assert automaton.num_states <= 151


def test_many_literals_share_their_beginnings():
    texts = [b"", b"1", b"10", b"100", b"\x00\xff", *(f"word {n}".encode() for n in range(1000))]
    table = Expressions()
    automaton = build_automaton(table, table.literals(texts))
    assert all(automaton.contains(text) for text in texts)
    assert not any(automaton.contains(text) for text in (b"1000", b"0", b"word", b"word 1000", b"\x00"))
    assert automaton.num_states < 30
    assert table.literals([]) is table.empty


def test_a_language_that_is_nested_deeply_is_no_trouble():
    table = Expressions(Budget(BuildLimits(seconds=60)))
    language = table.literal(b"x")
    for _ in range(1_500):
        language = table.sequence(table.optional(table.literal(b"a")), language)
    assert table.contains(language, b"aaax")


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (BuildLimits(seconds=0.2), "seconds"),
        (BuildLimits(byte_states=100), "byte_states"),
        (BuildLimits(bytes=100_000), "bytes"),
    ],
)
def test_a_build_ends_at_its_limits(limits: BuildLimits, name: str):
    table = Expressions(Budget(limits))
    letter = table.literal(b"a")
    hostile = table.repeat(table.repeat(letter, 1, 1000), 1, 1000)
    with pytest.raises(LimitExceeded, match="shorten") as caught:
        build_automaton(table, hostile)
    assert caught.value.limit == name


def test_a_build_can_be_cancelled():
    budget = Budget()
    table = Expressions(budget)
    budget.cancel()
    with pytest.raises(LimitExceeded, match="cancelled"):
        build_automaton(table, table.literal(b"a"))


@given(st.text())
def test_characters_are_those_of_utf8(text: str):
    table = Expressions()
    every = table.repeat(Characters(table).any_of(EVERY))
    assert table.contains(every, text.encode())
    assert table.contains(Characters(table).text(text), text.encode())


@pytest.mark.parametrize("broken", [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xe2\x82", b"\xff"])
def test_what_is_not_utf8_is_no_character(broken: bytes):
    table = Expressions()
    assert not table.contains(table.repeat(Characters(table).any_of(EVERY)), broken)


code_points = st.integers(0, 0x10FFFF).filter(lambda code: not 0xD800 <= code <= 0xDFFF)


@given(code_points, code_points, st.lists(code_points, max_size=5))
def test_a_range_has_its_ends_and_nothing_outside(a: int, b: int, others: list[int]):
    low, high = sorted((a, b))
    table = Expressions()
    language = Characters(table).any_of(((low, high),))
    for code in (low, high, low - 1, high + 1, (low + high) // 2, *others):
        if 0 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            assert table.contains(language, chr(code).encode()) == (low <= code <= high)


def test_a_json_string_writes_each_character_in_one_way():
    table = Expressions()
    characters = JsonCharacters(table)
    one = characters.any_of(EVERY)
    for spelling in ("a", "é", "🦊", "/", r"\"", r"\\", r"\n", r"\t"):
        assert table.contains(one, spelling.encode()), spelling
    for spelling in ('"', "\\", "\n", "\x00", "\x7f", r"\/", r"\u0041", r"\a", ""):
        assert not table.contains(one, spelling.encode()), spelling
    assert table.contains(characters.text('a"\n\x01'), rb"a\"\n\u0001")


def test_sets_of_characters():
    assert ranges_of([(5, 6), (1, 2), (3, 3)]) == ((1, 3), (5, 6))
    assert without(((0, 9),), ((2, 3), (9, 20))) == ((0, 1), (4, 8))
    assert common(((0, 5),), ((3, 9),)) == ((3, 5),)
