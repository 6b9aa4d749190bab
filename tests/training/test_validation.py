"""Validation: exact answers of the plain generation loop, and losses as training computes them."""

import dataclasses

import pytest
import torch

from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import generate
from redraft.training.data.examples import Example, make_batch
from redraft.training.objective import losses
from redraft.training.validation import make_validator
from tests.fakes.models import tiny_model

SETTINGS = SamplerSettings.of(steps=3, seed=None, t_min=0.1, t_max=0.1)


def answered(model, prompt: tuple[int, ...], seed: int) -> Example:
    """An example whose answer is what the model writes anyway."""
    made = generate(model, prompt, SETTINGS.replace(seed=seed, max_new_tokens=8))
    return Example(prompt, (*made.token_ids[:4], 1))


def test_an_answer_is_exact_only_if_all_its_tokens_and_its_end_are():
    model = tiny_model()
    written = {(5,): ((7, 8), "stop"), (6,): ((7, 8), "length"), (9,): ((7,), "stop"), (10,): ((), "stop")}

    def answer(_model, prompt, settings, start):
        assert start is None
        assert settings.seed is not None
        token_ids, reason = written[tuple(prompt)]
        return dataclasses.replace(generate(model, prompt, settings), token_ids=token_ids, finish_reason=reason)

    def exact(prompt: int, *tokens: int) -> float:
        return make_validator([Example((prompt,), (*tokens, 1))], SETTINGS, answer=answer)(model).exact

    assert exact(5, 7, 8) == 1
    assert exact(6, 7, 8) == 0  # it did not end there
    assert exact(9, 7, 8) == 0
    assert exact(5, 7, 8, 9) == 0
    assert exact(10) == 1
    both = make_validator([Example((5,), (7, 8, 1)), Example((9,), (7, 8, 1))], SETTINGS, answer=answer)
    assert both(model).exact == 0.5


def test_losses_are_means_over_all_examples_and_always_the_same():
    model = tiny_model()
    examples = [answered(model, tuple(range(3, 5 + size)), size) for size in range(3)]
    validate = make_validator(examples, SETTINGS, answers=1, prompt_weight=0.5, batch_size=2)
    first = validate(model)
    assert validate(model) == first
    with torch.no_grad():
        config, parts = model.config, []
        for at in (0, 2):
            batch = make_batch(examples[at : at + 2], config.canvas_length, config.vocab_size, Counter(0, step=at))
            parts.append((losses(model, batch, prompt_weight=0.5), batch))
    count = sum(len(batch.lengths) for _, batch in parts)
    weight = sum(batch.encoder_weight(0.5) for _, batch in parts)
    canvas = sum(float(loss.canvas) * len(batch.lengths) for loss, batch in parts) / count
    encoder = sum(float(loss.encoder) * batch.encoder_weight(0.5) for loss, batch in parts) / weight
    assert first.canvas_loss == pytest.approx(canvas, rel=1e-5)
    assert first.encoder_loss == pytest.approx(encoder, rel=1e-5)
    assert 1 <= first.steps_per_canvas <= 3


def test_there_must_be_something_to_validate_on():
    with pytest.raises(ValueError, match="nothing to validate on"):
        make_validator([], SETTINGS)
