"""The façade: text in, text out, with what a program relies on."""

import gc
import json

import pytest
from tokenizers import decoders

import redraft
from redraft.evaluation.tasks import TASKS
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.tokenizers import gemma_tokenizer, save_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    return redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


def test_committed_parts_join_to_the_result(model):
    canvases = set()
    for seed in range(12):
        events = list(model.stream("hello", seed=seed, max_new_tokens=24))
        result = events[-1]
        assert isinstance(result, redraft.Result)
        canvases.add(len(result.generation.steps_per_canvas))
        assert "".join(event.text for event in events if isinstance(event, redraft.Committed)) == result.text
        assert result.text == model.tokenizer.decode(list(result.token_ids))
    assert max(canvases) > 1


def test_no_text_is_lost_where_the_context_is_full(tmp_path):
    # No answer of this model ends by itself, and its decoder is certain of nothing before the end.
    folder = tiny_checkpoint(tmp_path / "endless")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": []}))
    raw = gemma_tokenizer()
    raw.decoder = decoders.BPEDecoder(suffix="e")
    save_checkpoint(folder, raw)
    model = redraft.load(folder)
    *_, rest, result = model.stream("hello", seed=3, max_new_tokens=10_000)
    assert result.finish_reason == "length"
    assert len(result.token_ids) > 200
    assert result.text == rest.text == model.tokenizer.decode(list(result.token_ids)) != ""


def test_steps_are_freed_while_an_answer_is_generated(tmp_path):
    model = redraft.load(tiny_checkpoint(tmp_path / "counted"))
    alive = []

    def count(*_):
        gc.collect()
        alive.append(sum(type(one) is redraft.DenoisingStep for one in gc.get_objects()))

    # Other tests may hold some.
    count()
    model.transformer.layers[0].register_forward_pre_hook(count)
    result = model.generate("hello", seed=7, max_new_tokens=24)
    assert sum(result.generation.steps_per_canvas) > 10
    assert max(alive) <= alive[0] + 2


def test_map_answers_in_order_as_generate_would(model):
    results = model.map(["hello", "good bye"], seed=3)
    assert [result.text for result in results] == [model.generate(p, seed=3).text for p in ("hello", "good bye")]
    with pytest.raises(ValueError, match="takes a list of prompts"):
        next(model.map("hello"))


@pytest.mark.parametrize("prompt", ["", " \n", [], [{"role": "user", "content": " "}]])
def test_empty_prompts_are_refused(model, prompt):
    with pytest.raises(ValueError, match="is empty"):
        model.generate(prompt)


def test_options_are_checked_before_anything_is_fetched():
    with pytest.raises(ValueError, match="precision is 'half'"):
        redraft.load("no-such-owner/no-such-model", precision="half")


def test_more_cases_than_there_are_are_refused():
    assert len(TASKS["extract"].cases(per_split=250)) == 500
    with pytest.raises(ValueError, match=r"examples is 251, but extract\.jsonl has 250 of each kind"):
        TASKS["extract"].cases(per_split=251)
