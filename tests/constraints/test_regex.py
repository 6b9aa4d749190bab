"""The regex front end against Python's `re`, and spans against all substrings."""

import re
import sys

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from redraft.constraints.automaton import ByteAutomaton, build_automaton
from redraft.constraints.language.characters import Characters, JsonCharacters
from redraft.constraints.language.expression import Expressions
from redraft.constraints.language.regex import MAX_PATTERN, regex_language
from redraft.constraints.language.spans import MAX_TEXT, span_language
from redraft.constraints.limits import Budget, BuildLimits

ALPHABET = "ab1_- é🦊\n."

atoms = st.sampled_from(
    [
        *("a", "b", "1", "é", "🦊", r"\.", ".", r"\d", r"\w", r"\s", r"\n", r"\x61", r"\u00e9", r"\-", "]", "}"),
        *("[ab]", "[^a]", "[^a\\d]", "[a-c1]", "[a-]", r"[\w-]", r"[^\n]", "[🦊é]", "[.^$]", r"[\]\\]", "", "^", "$"),
    ]
)
quantifiers = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}", "{2,}", "*?", "+?", "??", "{1,2}?"])


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, min_size=2, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join),
        st.builds(lambda body, kind, quantifier: f"({kind}{body}){quantifier}", inner, _kinds, quantifiers),
    )


_kinds = st.sampled_from(["", "?:", "?P<name>"])
_atoms = st.builds(lambda atom, times: atom + (times if atom not in ("", "^", "$") else ""), atoms, quantifiers)
patterns = st.recursive(_atoms, _combined, max_leaves=6)


def automaton_of(pattern: str, *, is_search: bool = False) -> ByteAutomaton:
    table = Expressions(Budget(BuildLimits(seconds=60)))
    return build_automaton(table, regex_language(pattern, Characters(table), is_search=is_search))


def python_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern in Python's words: its `.` matches more, and its `$` also before a last line feed."""
    translated, in_class, at = "", False, 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            translated, at = translated + pattern[at : at + 2], at + 2
            continue
        in_class = character == "[" or (in_class and character != "]")
        outside = {".": "[^\n\r\u2028\u2029]", "$": r"\Z"}
        translated += character if in_class else outside.get(character, character)
        at += 1
    return re.compile(translated, re.ASCII)


@settings(max_examples=500)
@given(patterns, st.lists(st.text(ALPHABET, max_size=6), min_size=5, max_size=12), st.booleans())
@example("^a|b$", ["a", "xb", "ax", "bx", "b\n"], True)
@example("(^a|b)c$|^$", ["", "ac", "bc", "xbc", "xac"], True)
def test_a_pattern_matches_what_python_says(pattern: str, texts: list[str], is_search: bool):
    try:
        expected = python_pattern(pattern)
    except re.error:
        assume(False)
    table = Expressions(Budget(BuildLimits(seconds=60)))
    try:
        language = regex_language(pattern, Characters(table), is_search=is_search)
    except ValueError as error:
        assume("an anchor inside a repetition" not in str(error))
        raise
    for text in texts:
        found = expected.search(text) if is_search else expected.fullmatch(text)
        assert table.contains(language, text.encode()) == (found is not None), text


def test_an_alternative_that_begins_another_is_not_lost():
    assert [text for text in ("a", "ab", "abc", "ac") if automaton_of("a|ab").contains(text.encode())] == ["a", "ab"]
    both = automaton_of("(?:a|ab)(?:c|bc)?")
    assert all(both.contains(text) for text in (b"a", b"ab", b"ac", b"abc", b"abbc"))
    assert automaton_of("1|10|100").contains(b"100")


def test_space_and_its_complement_leave_out_what_engines_dispute():
    for space in ("\u00a0", "\ufeff", "\u2003"):
        assert not automaton_of(r"\s").contains(space.encode())
        assert not automaton_of(r"\S").contains(space.encode())
        assert not automaton_of(r"[^\s]").contains(space.encode())
    assert automaton_of(r"\S").contains("é".encode())


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a(?=b)", r"character 2 .*look-around"),
        ("(?<!a)b", r"character 1 .*look-around"),
        ("(?i)a", r"character 1 .*flags"),
        (r"(a)\1", r"character 4 .*back-references"),
        (r"\bword", r"character 1 .*word borders"),
        (r"\p{L}", r"character 1 .*Unicode properties"),
        (r"\Aa", r"write \^"),
        (r"a\q", r"character 2 .*not a known escape"),
        ("a**", r"character 3 .*behind a quantifier"),
        ("a*+", r"character 3 .*possessive"),
        ("*a", r"character 1 .*nothing to repeat"),
        ("(a", r"character 1 .*not closed"),
        ("a)", r"character 2 .*not opened"),
        ("[a", r"character 1 .*not closed"),
        ("[]", r"character 1 .*empty class"),
        ("[z-a]", r"malformed range"),
        (r"[\d-z]", r"malformed range"),
        ("a{3,2}", r"wrong order"),
        ("a{,3}", r"write \{0,n\}"),
        ("a{1,99999}", r"more than 10,000"),
        ("(^a)*", r"character 1 .*anchor inside a repetition"),
        (r"\x4", r"hexadecimal"),
        (r"\ud800", r"not a character"),
        ("a\\", r"backslash at the end"),
        ("(" * 60 + ")" * 60, r"deeper than 50"),
        ("a" * (MAX_PATTERN + 1), r"limit is 2,000"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_position(pattern: str, message: str):
    with pytest.raises(ValueError, match=message):
        automaton_of(pattern)


def test_a_pattern_inside_a_json_string_sees_the_characters_that_it_stands_for():
    table = Expressions()
    language = regex_language(r'[^"]"\\\n\u{1f98a}', JsonCharacters(table))
    assert table.contains(language, rb"a\"\\\n" + "🦊".encode())
    assert not table.contains(language, b'a"\\\n' + "🦊".encode())


def test_a_pattern_that_contradicts_itself_has_no_automaton():
    with pytest.raises(ValueError, match="contradict"):
        automaton_of("a^b")


texts = st.text("abcé🦊 '\"", min_size=1, max_size=12)


@given(texts, st.text("abcé🦊 '\"", max_size=4))
def test_spans_are_the_substrings_of_a_text(text: str, other: str):
    table = Expressions()
    language = span_language(text, Characters(table))
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            assert table.contains(language, text[start:end].encode())
    assert table.contains(language, other.encode()) == (other != "" and other in text)
    assert build_automaton(table, language).num_states <= 2 * len(text.encode()) + 1


def test_spans_at_words_cut_no_word():
    text = "Total: 9,50 € for naïve cafés"
    table = Expressions()
    language = span_language(text, Characters(table), at_words=True)
    for stretch in ("Total", "Total:", "9,50 €", "50", "€", "naïve cafés", text):
        assert table.contains(language, stretch.encode()), stretch
    for stretch in ("otal", "Tot", " 9,50", "9,50 ", "caf", "na", ""):
        assert not table.contains(language, stretch.encode()), stretch


def test_spans_of_a_text_stand_in_a_json_string_as_it_writes_them():
    table = Expressions()
    language = span_language('say "no"\n\x01', JsonCharacters(table))
    assert table.contains(language, rb"y \"no\"\n\u0001")
    assert not table.contains(language, b'"no"')


@pytest.mark.parametrize("text", ["a" * MAX_TEXT, "".join(chr(0x4E00 + n % 999) for n in range(MAX_TEXT))])
def test_the_longest_text_has_two_states_a_character(text: str):
    table = Expressions(Budget(BuildLimits(seconds=60)))
    assert build_automaton(table, span_language(text, Characters(table))).num_states <= 2 * len(text.encode()) + 1


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="window"):
        span_language("a" * (MAX_TEXT + 1), Characters(Expressions()))


def test_recursion_stays_far_from_pythons_limit():
    assert sys.getrecursionlimit() >= 1000
    assert automaton_of("(" * 50 + "a" + ")" * 50).contains(b"a")
