"""Decoding many requests at once gives each the tokens that it gets alone from generation's plain loop."""

import pytest
import torch

from redraft.benchmark.autoregressive import compare_autoregressive
from redraft.benchmark.compare import EngineTokens, random_prompts
from redraft.benchmark.verified import LoadPhase, compare_verified
from redraft.diffusion.settings import SamplerSettings
from redraft.generation.autoregressive import generate_autoregressive
from redraft.model.preparation import prepare
from tests.fakes.models import tiny_model


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(("vocab_size", "length"), [(61, 3), (61, 9), (128, 1), (150, 30)])
def test_tokens_are_those_of_the_plain_loop(prepared, vocab_size, length):
    model = tiny_model(vocab_size=vocab_size, eos_ids=(), seed=length)
    prompts = random_prompts(vocab_size, 3, length)
    settings = SamplerSettings(max_new_tokens=20, temperature=0)
    alone = [generate_autoregressive(model, prompt.tolist(), settings).token_ids for prompt in prompts]
    decoding = EngineTokens(prepare(model, "float32") if prepared else model, prompts, 20)
    together = torch.tensor([decoding.token() for _ in range(20)]).T
    assert together.tolist() == [list(tokens) for tokens in alone]
    assert len({tuple(tokens) for tokens in alone}) == 3


def test_at_the_break_even_a_canvas_takes_as_long_as_its_tokens():
    found = compare_autoregressive(tiny_model(), 2, 5, rounds=1, tokens=2)
    c = tiny_model().config.canvas_length
    assert found.break_even.median * found.step.median + found.commit.median == pytest.approx(c * found.token.median)


@pytest.mark.parametrize("mode", ["verified", "auto"])
def test_verified_answers_are_counted_as_equal(mode):
    model = tiny_model(eos_ids=())
    phases = [LoadPhase(random_prompts(61, 5, 7).tolist(), 2)]
    found = compare_verified(model, phases, SamplerSettings(max_new_tokens=9), rounds=1, mode=mode)
    assert (found.equal, found.answers, found.tokens) == (5, 5, 9.0)
    assert found.rounds >= 1
    speed = {one: spread.median for one, spread in found.tokens_per_second.items()}
    assert found.ratio.median == pytest.approx(speed[mode] / speed["autoregressive"])
    best = max(speed["autoregressive"], speed["verified"])
    assert [one.median for one in found.ratio_to_best] == (
        [] if mode == "verified" else [pytest.approx(speed["auto"] / best)]
    )


def test_each_phase_of_a_changing_load_is_compared_for_itself():
    prompts = random_prompts(61, 6, 7).tolist()
    phases = [LoadPhase(prompts[:1], 1), LoadPhase(prompts[1:5], 4), LoadPhase(prompts[5:], 1)]
    model = tiny_model(eos_ids=())
    found = compare_verified(model, phases, SamplerSettings(max_new_tokens=9), rounds=1, mode="auto")
    assert (found.equal, found.answers, len(found.ratio_to_best)) == (6, 6, 3)
