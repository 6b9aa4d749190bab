"""The task as a run sees it: companion files, and the examples of each step."""

import json

import pytest

from redraft.generation import SamplerSettings
from redraft.text import TextTokenizer
from redraft.training.extraction import task
from redraft.training.extraction.phrasings import KINDS
from redraft.training.extraction.records import training_record
from redraft.training.recipes import extract


@pytest.fixture(scope="module")
def companions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("companions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "TOKENIZER_RECORDS", 1500)
        task.prepare_companions(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(companions) -> TextTokenizer:
    return TextTokenizer.load(companions)


def test_companions(companions):
    assert {path.name for path in companions.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "redraft.json",
    }
    config = json.loads((companions / "generation_config.json").read_text())
    assert SamplerSettings.from_generation_config(config) == task.SHIPPED_SETTINGS
    model = extract().model
    assert (config["bos_token_id"], config["pad_token_id"]) == (model.bos_id, model.pad_id)
    assert tuple(config["eos_token_id"]) == model.eos_ids
    described = json.loads((companions / "redraft.json").read_text())
    assert described["examples"] == list(task.EXAMPLES)


def test_a_tokenizer_that_is_there_is_kept(companions, monkeypatch):
    before = (companions / "tokenizer.json").read_bytes()
    (companions / "redraft.json").unlink()
    monkeypatch.setattr(task, "train_tokenizer", lambda _: pytest.fail("trained again"))
    task.prepare_companions(companions)
    assert (companions / "tokenizer.json").read_bytes() == before
    assert (companions / "redraft.json").exists()


def test_examples_are_what_the_chat_template_writes(tokenizer):
    source = task.ExtractionExamples(extract(batch_size=4), tokenizer)
    for index in range(200):
        record, example = training_record(task.DATA_SEED, index), source.example(index)
        assert list(example.prompt) == tokenizer.encode_chat([{"role": "user", "content": record.prompt}])
        assert tokenizer.decode(example.answer) == record.answer
        assert example.answer[-1] in extract().model.eos_ids
        assert not set(example.answer[:-1]) & set(extract().model.eos_ids)


def test_steps_take_their_records_in_turn(tokenizer):
    source = task.ExtractionExamples(extract(batch_size=3), tokenizer)
    assert list(source(0)) == [source.example(i) for i in (0, 1, 2)]
    assert list(source(5)) == [source.example(i) for i in (15, 16, 17)]
    again = task.ExtractionExamples(extract(batch_size=3), tokenizer)
    assert list(again(5)) == list(source(5))


def test_the_tokenizers_own_stream_is_not_trained_on():
    assert task.DATA_SEED != 0
    assert training_record(task.DATA_SEED, 0) != training_record(0, 0)


def test_examples_fit_the_model(tokenizer):
    model, source = extract().model, task.ExtractionExamples(extract(), tokenizer)
    for index in range(300):
        example = source.example(index)
        assert len(example.prompt) + len(example.answer) + model.canvas_length <= model.max_context
        assert max(example.prompt + example.answer) < model.vocab_size


@pytest.mark.parametrize("prompt", task.EXAMPLES)
def test_shipped_examples_ask_as_training_does(prompt):
    asked = prompt.removeprefix("Extract ").split(" as JSON: ")[0].split(", ")
    assert any(set(asked) <= set(fields) for fields in KINDS.values())
