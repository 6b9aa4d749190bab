"""Letters with accents, composed and decomposed: read composed, and given back in the prompt's own form."""

import time
import unicodedata

import pytest

from redraft.text import AnswerStream, Delta, TextTokenizer
from redraft.text.accents import compose, own_forms
from tests.fakes.tokenizers import CHAT_TEMPLATE, NAMED_TOKENS, gemma_tokenizer

ACUTE_E, UMLAUT_O = "e\u0301", "o\u0308"


def none(_: str) -> bool:
    return False


@pytest.mark.parametrize("text", ["", "abc", "caf\u00e9", "\u0301", "x\u0301", "\U0001f600"])
def test_what_has_no_composed_form_stays(text):
    assert compose(text, none) == text
    assert own_forms([text], none) == {}


def test_decomposed_letters_are_composed_unless_their_marks_have_tokens():
    assert compose(f"caf{ACUTE_E} w{UMLAUT_O}rld", none) == "caf\u00e9 w\u00f6rld"
    assert compose(f"caf{ACUTE_E} w{UMLAUT_O}rld", lambda mark: mark == "\u0301") == f"caf{ACUTE_E} w\u00f6rld"


def test_a_letter_that_stands_in_two_forms_is_not_given_back():
    assert own_forms([f"caf{ACUTE_E}", "w\u00f6rld", f"{UMLAUT_O}"], none) == {0xE9: ACUTE_E}
    swapped = ["a\u0323\u0302", "a\u0302\u0323"]
    assert own_forms(swapped, none) == {}
    assert own_forms(swapped[:1], none) == {0x1EAD: swapped[0]}


def test_piled_up_marks_take_no_longer_than_others():
    begun = time.process_time()
    compose("a" + "\u0301\u0323" * 300_000, none)
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
