"""The examples of each step."""

import pytest

from redraft.bundled import card
from redraft.bundled.data import record_examples
from redraft.bundled.data.extraction import task
from redraft.bundled.data.extraction.phrasings import KINDS
from redraft.bundled.data.extraction.records import list_record, training_record
from redraft.bundled.recipe import MODEL
from redraft.text import TextTokenizer
from redraft.weights.fetch import BUNDLED_FOLDER


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.load(BUNDLED_FOLDER)


def test_examples_are_what_the_chat_template_writes(tokenizer):
    source = task.ExtractionExamples(4, tokenizer)
    for index in range(200):
        record = training_record(record_examples.DATA_SEED, index)
        example = source.example(record)
        assert list(example.prompt) == tokenizer.encode_chat([{"role": "user", "content": record.prompt}])
        assert tokenizer.decode(example.answer) == record.answer
        assert example.answer[-1] in MODEL.eos_ids
        assert not set(example.answer[:-1]) & set(MODEL.eos_ids)


def test_steps_take_their_examples_in_turn(tokenizer):
    source, again = (task.ExtractionExamples(3, tokenizer) for _ in range(2))
    assert list(source(0)) == [source.copy(i) for i in (0, 1, 2)]
    late = record_examples.LIST_STEPS[1]
    records = [training_record(record_examples.DATA_SEED, 3 * late + i) for i in (0, 1, 2)]
    assert list(source(late)) == [source.example(record) for record in records]
    for step in (4, 150, 350, late + 4):
        assert list(again(step)) == list(source(step))


def test_a_run_begins_with_copies_then_lists_then_records(tokenizer):
    source = task.ExtractionExamples(16, tokenizer)

    def shares(step: int) -> tuple[float, float, float]:
        found = [source.at(step, index) for index in range(400)]
        copies = [source.copy(index) for index in range(400)]
        lists = [source.example(list_record(record_examples.DATA_SEED, index)) for index in range(400)]
        copied = sum(a == b for a, b in zip(found, copies, strict=True)) / 400
        listed = sum(a == b for a, b in zip(found, lists, strict=True)) / 400
        return copied, listed, 1 - copied - listed

    assert shares(0) == shares(99) == (1, 0, 0)
    assert shares(150) == pytest.approx((0.5, 0.5, 0), abs=0.1)
    assert shares(200) == (0, 1, 0)
    assert shares(350) == pytest.approx((0, 0.5, 0.5), abs=0.1)
    assert shares(500) == shares(9999) == (0, 0, 1)


def test_copies_are_of_ordinary_tokens(tokenizer):
    source = task.ExtractionExamples(16, tokenizer)
    copies = [source.copy(i) for i in range(2000)]
    after_a_prompt = tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": "x"}])).split("x")[1]
    for copy in copies:
        text = copy.answer[:-1]
        around = [
            copy.prompt[i + len(text) :] for i in range(len(copy.prompt)) if copy.prompt[i : i + len(text)] == text
        ]
        assert [tokenizer.decode(after) for after in around] == [after_a_prompt]
        assert copy.answer[-1] in MODEL.eos_ids
    assert {len(copy.answer) - 1 for copy in copies} == set(range(3, 17))
    tokens = {token for copy in copies for token in copy.answer[:-1]}
    assert (min(tokens), max(tokens)) == (16, tokenizer.vocab_size - 1)


def test_the_tokenizers_own_stream_is_not_trained_on():
    assert record_examples.DATA_SEED != 0
    assert training_record(record_examples.DATA_SEED, 0) != training_record(0, 0)


def test_examples_fit_the_model(tokenizer):
    model, source = MODEL, task.ExtractionExamples(16, tokenizer)
    for index in range(300):
        example = source.example(training_record(record_examples.DATA_SEED, index))
        assert len(example.prompt) + len(example.answer) + model.canvas_length <= model.max_context
        assert max(example.prompt + example.answer) < model.vocab_size


@pytest.mark.parametrize("prompt", card.EXTRACTION.examples)
def test_shipped_examples_ask_as_training_does(prompt):
    asked = prompt.removeprefix("Extract ").split(" as JSON: ")[0].split(", ")
    assert any(set(asked) <= set(fields) for fields in KINDS.values())
