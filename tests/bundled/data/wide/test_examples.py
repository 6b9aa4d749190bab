"""The records as token ids: what the chat template writes, in steps of texts of about equal length."""

import pytest

from redraft.bundled.data.families import FAMILIES
from redraft.bundled.data.record_examples import DATA_SEED
from redraft.bundled.data.wide.examples import LENGTHS, LONG_FROM_STEP, OLD_SHARES, Turns, WideExamples, old_record
from redraft.bundled.data.wide.records import training_record
from redraft.text import TextTokenizer
from redraft.weights.fetch import BUNDLED_FOLDER


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.load(BUNDLED_FOLDER)


def test_conversations_are_encoded_as_the_template_does(tokenizer: TextTokenizer):
    turns = Turns(tokenizer)
    for index in range(60):
        record = training_record(3, index)
        messages = [{"role": role, "content": content} for role, content in record.messages]
        assert list(turns.encode(record.messages)) == tokenizer.encode_chat(messages)


@pytest.mark.parametrize(
    "text", ["Łódź → 東京", "naïve “quoted” – Ωmega", "orderDate ORDER_DATE orderID2", "a\tb\r\nc"]
)
def test_any_character_is_kept(tokenizer: TextTokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_step_is_the_same_whatever_was_read_before_and_fits_its_class(tokenizer: TextTokenizer):
    source = WideExamples(12, tokenizer, easy_start=False)
    for step in range(40, 60):
        length, examples = source.length_class(step), source(step)
        assert len(examples) == 12 // length.divisor
        assert max(len(one.prompt) + len(one.answer) for one in examples) <= length.max_tokens
    assert source(50) == source(50) != source(51)


def test_what_the_bundled_model_was_trained_on_is_among_the_short_texts_only(tokenizer: TextTokenizer):
    source, count = WideExamples(24, tokenizer, easy_start=False), 2000
    olds = {index: old for index in range(count) if (old := old_record(index)) is not None}
    assert len(olds) == pytest.approx(sum(OLD_SHARES.values()) * count, rel=0.1)
    kinds = {name: family.training for name, family in FAMILIES.items()}
    for index in list(olds)[:40]:
        assert olds[index] in [kinds[name](DATA_SEED, index) for name in OLD_SHARES]
    steps = {source.length_class(step): step for step in range(40)}
    for length, step in steps.items():
        found = {source.example(old) for at in range(24 * step, 24 * step + 24) if (old := olds.get(at))}
        assert found
        assert bool(found & set(source(step))) is (length.words is None)


def test_a_run_from_scratch_begins_with_copies_and_short_texts(tokenizer: TextTokenizer):
    source = WideExamples(4, tokenizer)
    copied = source(0)[0]
    assert len(copied.answer) < 20
    assert all(source.length_class(step) is LENGTHS[0] for step in range(0, LONG_FROM_STEP, 100))
