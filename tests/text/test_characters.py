"""Characters that a vocabulary lacks: read in their plainer form, letters given back in the prompt's own."""

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redraft.text import AnswerStream, Delta, TextTokenizer
from redraft.text.characters import comparable, own_forms, writable
from tests.fakes.tokenizers import CHAT_TEMPLATE, NAMED_TOKENS, gemma_tokenizer

ACUTE_E, UMLAUT_O = "e\u0301", "o\u0308"


def none(_: str) -> bool:
    return False


@pytest.mark.parametrize("text", ["", "abc", "caf\u00e9", "\u0301", "x\u0301", "\U0001f600"])
def test_what_has_no_composed_form_stays(text):
    assert writable(text, none) == text
    assert own_forms([text], none) == {}


def test_decomposed_letters_are_composed_unless_their_marks_have_tokens():
    assert writable(f"caf{ACUTE_E} w{UMLAUT_O}rld", none) == "caf\u00e9 w\u00f6rld"
    assert writable(f"caf{ACUTE_E} w{UMLAUT_O}rld", lambda mark: mark == "\u0301") == f"caf{ACUTE_E} w\u00f6rld"


def test_a_letter_that_stands_in_two_forms_is_not_given_back():
    assert own_forms([f"caf{ACUTE_E}", "w\u00f6rld", f"{UMLAUT_O}"], none) == {0xE9: ACUTE_E}
    swapped = ["a\u0323\u0302", "a\u0302\u0323"]
    assert own_forms(swapped, none) == {}
    assert own_forms(swapped[:1], none) == {0x1EAD: swapped[0]}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a\r\nb\r\n", "a\nb\n"), ("a\rb", "a\rb"), ("a\u2028b", "a\nb"),
        ("1\u202f200,00\u00a0\u20ac", "1 200,00 \u20ac"), ("\u200bkey\u00adboard\ufeff", "keyboard"),
        ("\u221212\u20115", "-12-5"), ("I\u2019m \u201cAna\u201d", "I'm \"Ana\""), ("\uff11\uff12\uff21", "12A"),
        ("o\ufb03ce", "office"), ("\U0001f469\u200d\U0001f467", "\U0001f469\u200d\U0001f467"),
        ("a \u2013 b \u2014 c\u2026", "a \u2013 b \u2014 c\u2026"),
    ],
)  # fmt: skip
def test_what_has_no_token_is_read_plain(text, plain):
    assert writable(text, none) == comparable(text) == plain
    assert writable(text, lambda _: True) == text


def test_an_apostrophe_is_given_back_where_the_prompt_has_one_form_of_it():
    assert own_forms(["Extract name: Sara O\u2019Brien"], none) == {ord("'"): "\u2019"}
    assert own_forms(["Sara O\u2019Brien"], lambda _: True) == {}
    for ambiguous in (["O\u2019Brien isn't"], ["\u2018Ana\u2019"], ["O\u2019Brien", "isn't"]):
        assert own_forms(ambiguous, none) == {}
    assert own_forms(["\u201cAna\u201d \u2212 1\u00a0\u20ac\r\n"], none) == {}


@example(["\r\r\n"])
@given(
    st.lists(st.text(alphabet="ae'\u2019\u2018\"\u201c -\u2212\u00a0\u0301\u0308\u00e9\r\n", max_size=20), max_size=3)
)
def test_what_is_given_back_stands_in_the_prompt(texts):
    table = own_forms(texts, none)
    assert all(own in "\0".join(texts) for own in table.values())
    assert not any(chr(code) in "\0".join(texts) for code in table)
    for text in texts:
        assert comparable(writable(text, none).translate(table)) == comparable(text)


def test_piled_up_marks_take_no_longer_than_others():
    begun = time.process_time()
    writable("a" + "\u0301\u0323" * 300_000, none)
    assert time.process_time() - begun < 2


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(gemma_tokenizer(), named_tokens=NAMED_TOKENS, chat_template=CHAT_TEMPLATE)


def test_a_conversation_is_read_composed_and_a_plain_text_as_it_is(tokenizer):
    text = f"h{ACUTE_E}llo w{UMLAUT_O}rld"
    composed = unicodedata.normalize("NFC", text)
    conversation, expected = (tokenizer.encode_chat([{"role": "user", "content": one}]) for one in (text, composed))
    assert conversation == expected
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_answer_has_the_letters_of_its_prompt(tokenizer):
    text = f"h{ACUTE_E}llo"
    ids = tokenizer.encode("h\u00e9llo w\u00f6rld")
    stream = AnswerStream(
        tokenizer, stop_ids=(), max_tokens=99, stop_texts=[f"never {ACUTE_E}"], forms=tokenizer.own_forms([text])
    )
    assert stream.draft(ids) == f"{text} w\u00f6rld"
    deltas = [*stream.commit(ids), *stream.finish("stop")]
    assert "".join(delta.part.text for delta in deltas if isinstance(delta, Delta)) == f"{text} w\u00f6rld"
