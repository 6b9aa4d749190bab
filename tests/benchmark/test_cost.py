"""What answers cost: the arithmetic, over answers of every mode."""

import pytest

import redraft
from redraft.benchmark.cost import costs_of_modes
from redraft.evaluation.tasks import TASKS
from redraft.generation.modes import ANSWERING_MODES
from tests.fakes.checkpoints import tiny_checkpoint


def test_the_price_of_tokens_and_of_right_answers(tmp_path):
    model = redraft.load(tiny_checkpoint(tmp_path))
    cases = TASKS["normalize"].cases(2)
    score = lambda case, text: {"exact": float(case is cases[0])}  # noqa: E731
    found = costs_of_modes(model, cases, score, price_per_hour=36.0, concurrency=2, settings={"max_new_tokens": 6})
    assert tuple(one.mode for one in found) == ANSWERING_MODES
    for one in found:
        assert one.exact == 1 / len(cases)
        assert one.per_million_tokens == pytest.approx(0.01 * one.seconds / one.tokens * 1e6)
        assert one.per_thousand_exact == pytest.approx(0.01 * one.seconds * 1e3)
        assert one.tokens_per_second == pytest.approx(one.tokens / one.seconds)
    assert len({one.tokens for one in found if one.mode != "diffusion"}) == 1
