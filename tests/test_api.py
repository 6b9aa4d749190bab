"""The façade: text in, text out, with what a program relies on."""

import pytest

import redraft
from redraft.evaluation.tasks import TASKS
from redraft.generation import loop
from tests.fakes.checkpoints import tiny_checkpoint


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


def test_no_text_is_lost_where_the_context_is_full(model, monkeypatch):
    # A detokenizer that is certain of nothing before the end, as for decoders we do not know.
    class Late:
        def __init__(self) -> None:
            self.ids: list[int] = []

        def push(self, ids) -> str:
            self.ids += ids
            return ""

        def finish(self) -> str:
            text, self.ids = model.tokenizer.decode(self.ids), []
            return text

    monkeypatch.setattr(model.tokenizer, "detokenizer", Late)
    # No answer of these ends by itself.
    monkeypatch.setattr(loop, "cut_canvas", lambda canvas, _eos, room: (list(canvas), None))
    monkeypatch.setattr(redraft.api, "cut_canvas", lambda canvas, _eos, room: (list(canvas), None))
    result = model.generate("hello", seed=3, max_new_tokens=10_000)
    assert result.finish_reason == "length"
    assert result.text
    assert result.text == model.tokenizer.decode(list(result.token_ids))


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
    with pytest.raises(ValueError, match=r"251 examples of each kind are asked for, extract\.jsonl has 250"):
        TASKS["extract"].cases(per_split=251)
