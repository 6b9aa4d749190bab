"""Pinned positions in the objective: held in every step, counted in no loss, given in validation."""

import dataclasses

import pytest
import torch

from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import generate
from redraft.model.batch import FlatBatch, Pass
from redraft.training import objective
from redraft.training.attention import PrefixAttention
from redraft.training.data.examples import Example, TrainingBatch, make_batch
from redraft.training.objective import denoise, losses
from redraft.training.validation import make_validator
from tests.fakes.models import tiny_model

CANVAS, VOCAB = 8, 61
PINS = (frozenset({0, 3, 4}), frozenset({1}), frozenset())
EXAMPLES = [
    Example((5, 9, 30, 7), (11, 12, 13, 14, 15, 16, 17, 1), PINS[0]),
    Example((8, 6), (40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 1), PINS[1]),
    Example((3,), (20, 21, 1), PINS[2]),
]


def make(**settings: object) -> TrainingBatch:
    return make_batch(EXAMPLES, CANVAS, VOCAB, Counter(7), **{"self_conditioning": 0.0, **settings})


def test_only_the_first_canvas_holds_pins_and_they_are_not_noised():
    batch = make(canvases_per_example=4)
    starts = batch.canvas_starts - torch.tensor([[len(one.prompt)] for one in EXAMPLES])
    assert set(starts[1].tolist()) == {0, CANVAS}
    for pinned, row, pins in zip(batch.pinned, starts, PINS, strict=True):
        for found, start in zip(pinned, row.tolist(), strict=True):
            assert {*found.nonzero().flatten().tolist()} == (set() if start else pins)
    assert torch.equal(batch.noised[batch.pinned], batch.clean[batch.pinned])
    # All else is as without pins.
    plain = make_batch(
        [dataclasses.replace(one, pinned=frozenset()) for one in EXAMPLES], CANVAS, VOCAB, Counter(7),
        self_conditioning=0.0, canvases_per_example=4,
    )  # fmt: skip
    assert torch.equal(batch.noised[~batch.pinned], plain.noised[~batch.pinned])
    assert batch.open_positions == plain.open_positions - int(batch.pinned.sum())


@torch.no_grad()
def test_the_loss_is_the_mean_over_open_positions():
    model, batch = tiny_model(), make()
    prefix = PrefixAttention(model.config, batch.lengths)
    positions = torch.cat([torch.arange(length) for length in batch.lengths])
    model(FlatBatch(batch.tokens, positions, FlatBatch.single(batch.tokens, 0, Pass.ENCODER).segments), prefix)
    logits = denoise(model, batch, prefix).view(*batch.clean.shape, VOCAB)
    wanted = -logits.log_softmax(-1).gather(-1, batch.clean[..., None]).squeeze(-1)[~batch.pinned].mean()
    torch.testing.assert_close(losses(model, batch).canvas, wanted)


@torch.no_grad()
def test_unrolled_canvases_hold_their_pins_in_every_step(monkeypatch):
    model = tiny_model()
    batch = make(self_conditioning=1.0, unrolling=1.0, unrolling_steps=3, unrolling_from_noise=1.0)
    assert batch.first_passes == 3
    read = []
    plain = objective._denoise
    monkeypatch.setattr(objective, "_denoise", lambda *args: (read.append((args[1], args[2])), plain(*args))[1])
    losses(model, batch)
    held = batch.clean[batch.pinned].tolist()
    assert len(read) == 4
    assert read[0][0][batch.pinned].tolist() == read[-1][0][batch.pinned].tolist() == held
    assert not torch.equal(read[-1][0], read[0][0])


def test_parts_of_a_batch_weigh_as_much_as_they_have_open_positions():
    model, batch = tiny_model(), make(canvases_per_example=2)
    parts = batch.split(3)
    with torch.no_grad():
        whole = losses(model, batch).canvas
        mean = sum(losses(model, part).canvas * part.open_positions for part in parts) / batch.open_positions
    torch.testing.assert_close(mean, whole)


def test_validation_gives_what_is_pinned():
    given = []

    def answer(model, prompt, settings, start):
        given.append(start)
        return generate(model, prompt, settings, start=start)

    model = tiny_model()
    settings = SamplerSettings.of(steps=2, t_min=0.1, t_max=0.1)
    make_validator(EXAMPLES, settings, answer=answer)(model)
    assert [None if start is None else start.pinned for start in given] == [PINS[0], PINS[1], None]
    assert given[0].tokens == (11, None, None, 14, 15)


@pytest.mark.parametrize(
    ("answer", "pinned", "message"),
    [
        ((7, 8, 1), {3}, "position 3 of an example is pinned, the first canvas of its answer has 3 tokens"),
        ((*range(10, 20), 1), {8}, "position 8 of an example is pinned, the first canvas of its answer has 8 tokens"),
        ((7, 8, 1), {-1}, "position -1 of an example is pinned"),
        ((*range(10, 17), 1), set(range(8)), "all 8 positions of an example's canvas are pinned"),
    ],
)
def test_pins_that_cannot_be(answer, pinned, message):
    with pytest.raises(ValueError, match=message):
        make_batch([Example((5,), answer, frozenset(pinned))], CANVAS, VOCAB, Counter(0))
