"""The bundled tokenizer: a value is the same tokens in the text and in the JSON, and no text is lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.bundled.data.extraction.tokenizer import RESERVED_TOKENS, SPECIAL_TOKENS, save_tokenizer, train_tokenizer
from redraft.bundled.recipe import MODEL
from redraft.text import TextTokenizer


def run_of(tokenizer, text: str, value: str, at: int) -> list[int]:
    """The tokens of `text` that lie within the value at `at`."""
    encoding = tokenizer.encode(text)
    end = at + len(value)
    return [
        token
        for token, (first, last) in zip(encoding.ids, encoding.offsets, strict=True)
        if first < end and last > at  # also those that reach across its ends
    ]


def contains(tokens: list[int], run: list[int]) -> bool:
    return any(tokens[i : i + len(run)] == run for i in range(len(tokens) - len(run) + 1))


def assert_copies(tokenizer, record) -> int:
    prompt, answer, checked = tokenizer.encode(record.prompt).ids, record.answer, 0
    at = 0
    for field, value in json.loads(answer).items():
        at = answer.index(f'"{field}": ', at) + len(f'"{field}": ')
        if value is None:
            continue
        run = run_of(tokenizer, answer, value, at + 1)
        assert tokenizer.decode(run, skip_special_tokens=False) == value, record
        assert contains(prompt, run), (value, record)
        checked += 1
    return checked


def test_a_value_is_the_same_tokens_in_prompt_and_answer(records, tokenizer):
    assert sum(assert_copies(tokenizer, record) for record in records[:500]) > 1000


def test_so_is_a_value_that_training_never_saw(exam_records, tokenizer):
    assert sum(assert_copies(tokenizer, record) for record in exam_records) > 1000


def test_json_glue_is_one_token_each(tokenizer):
    encoding = tokenizer.encode('{"name": "Ada", "date": null, "city": "X"}')
    assert [encoding.tokens[0], encoding.tokens[-1]] == ['{"', '"}']
    assert encoding.tokens.count('":Ġ"') == 2
    assert encoding.tokens.count('",Ġ"') == 1
    assert encoding.tokens.count('":Ġnull') == 1


PIECES = [
    *SPECIAL_TOKENS,
    '{"',
    '": "',
    '", "',
    '"}',
    '": null',
    ', "',
    " the",
    " of",
    " to@x.org",
    " ",
    "\n",
    "  ",
    "Ġ",
    "é",
    "🦊",
]
texts_of_pieces = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=12).map("".join)


@given(text=st.one_of(st.text(), texts_of_pieces))
def test_no_text_is_lost(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert all(0 <= token < tokenizer.get_vocab_size() for token in ids)


def test_the_same_texts_give_the_same_tokenizer(texts):
    first = train_tokenizer(texts[:1500]).to_str()
    assert train_tokenizer(iter(texts[:1500])).to_str() == first
    assert train_tokenizer(texts[1500:3000]).to_str() != first


@pytest.mark.parametrize("size", [300, 1000])
def test_vocabulary_size(texts, size):
    assert train_tokenizer(texts, size).get_vocab_size() == size


def test_special_tokens_stand_where_the_recipe_expects_them(tokenizer):
    model = MODEL
    assert tokenizer.get_vocab_size() == model.vocab_size
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(6))
    first = len(SPECIAL_TOKENS)
    reserved = [tokenizer.token_to_id(f"<unused{i}>") for i in range(RESERVED_TOKENS)]
    assert reserved == list(range(first, first + RESERVED_TOKENS))
    assert model.pad_id == tokenizer.token_to_id("<pad>")
    assert model.bos_id == tokenizer.token_to_id("<bos>")
    assert model.eos_ids == (tokenizer.token_to_id("<eos>"), tokenizer.token_to_id("<turn|>"))


def test_a_saved_tokenizer_writes_conversations(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "model")
    loaded = TextTokenizer.load(tmp_path / "model")
    ids = loaded.encode_chat([{"role": "user", "content": "Extract name as JSON: Ada <turn|> é"}])
    text = loaded.decode(ids, skip_special=False)
    assert text == "<bos><|turn>user\nExtract name as JSON: Ada <turn|> é<turn|>\n<|turn>model\n"
    turn = tokenizer.token_to_id("<turn|>")
    assert ids.count(turn) == 1  # the one in the message is only text
    assert loaded.eos_id == turn
    assert loaded.encode("Ada") == tokenizer.encode("Ada").ids
