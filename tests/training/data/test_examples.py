"""Batches: which canvas, what is in it, and how much of it is noise."""

import pytest
import torch

from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.training.data.examples import Example, make_batch

CANVAS, VOCAB, EOS = 4, 61, 1


def example(prompt: int, answer: int) -> Example:
    """`prompt` tokens 10, 11, … and `answer` tokens 30, 31, …, the last of them EOS."""
    return Example(tuple(range(10, 10 + prompt)), (*range(30, 29 + answer), EOS))


def batch_of(examples, seed=0, **changes):
    return make_batch(examples, CANVAS, VOCAB, Counter(seed), **changes)


def test_tokens_are_prompts_and_answers_without_padding():
    batch = batch_of([example(3, 2), example(1, 6)])
    assert batch.tokens.tolist() == [10, 11, 12, 30, 1, 10, 30, 31, 32, 33, 34, 1]
    assert batch.lengths == (5, 7)
    assert batch.noised.dtype == batch.clean.dtype == batch.tokens.dtype == torch.int64
    assert batch.conditioned.dtype == torch.bool


@pytest.mark.parametrize(
    ("answer", "canvases"),
    [
        (1, [[1, 1, 1, 1]]),
        (3, [[30, 31, 1, 1]]),
        (4, [[30, 31, 32, 1]]),
        (5, [[30, 31, 32, 33], [1, 1, 1, 1]]),
        (10, [[30, 31, 32, 33], [34, 35, 36, 37], [38, 1, 1, 1]]),
    ],
)
def test_canvases_of_an_answer(answer, canvases):
    seen = {}
    for seed in range(40):
        batch = batch_of([example(3, answer)], seed)
        seen[int(batch.canvas_starts)] = batch.clean.flatten().tolist()
    assert [seen[start] for start in sorted(seen)] == canvases
    assert sorted(seen) == [3 + i * CANVAS for i in range(len(canvases))]


def test_each_non_empty_canvas_is_as_likely():
    batch = batch_of([example(2, 3 * CANVAS + 1)] * 4000)
    counts = torch.bincount((batch.canvas_starts.flatten() - 2) // CANVAS, minlength=4).double()
    assert counts.numel() == 4
    assert ((counts - 1000).abs() < 5 * (1000 * 0.75) ** 0.5).all()


def test_noise_levels_are_uniform_over_the_unit_interval():
    length = 400
    answer = Example((10,), (VOCAB,) * length)  # no noise is VOCAB, so every replacement shows
    batch = make_batch([answer] * 1500, length, VOCAB, Counter(3))
    shares = (batch.noised != VOCAB).double().mean(dim=2).flatten().sort().values
    # Kolmogorov-Smirnov distance to U(0, 1); 1.95 / √n is its 0.999 quantile, the shares' own noise adds a little.
    expected = (torch.arange(1500) + 0.5) / 1500
    assert (shares - expected).abs().max() < 1.95 / 1500**0.5 + 0.02


def test_canvas_level_mask_and_self_conditioning_are_independent():
    length, count = 40, 3000
    batch = make_batch([Example((10,), (VOCAB,) * 2 * length)] * count, length, VOCAB, Counter(1))
    facts = torch.stack(
        (
            batch.canvas_starts.flatten().double(),
            (batch.noised != VOCAB).double().mean(dim=2).flatten(),
            batch.conditioned.double(),
        )
    )
    correlation = torch.corrcoef(facts) - torch.eye(3)
    assert correlation.abs().max() < 4.5 / count**0.5


def test_canvases_of_an_example_stand_evenly_apart_and_are_uniform_each():
    length, count, each = 400, 600, 4
    answer = Example((10,), (VOCAB,) * 2 * length)
    batch = make_batch([answer] * count, length, VOCAB, Counter(3), canvases_per_example=each)
    shares = (batch.noised != VOCAB).double().mean(dim=2)
    # Levels a quarter apart round the unit interval; each share is its level up to a few standard deviations.
    gaps = shares.sort(dim=1).values.diff(dim=1)
    assert (gaps - 1 / each).abs().max() < 6 * (0.5 / length) ** 0.5
    expected = (torch.arange(count) + 0.5) / count
    for one in shares.T:
        assert (one.sort().values - expected).abs().max() < 1.95 / count**0.5 + 0.02
    # Both canvases of the answer, twice each.
    assert (batch.canvas_starts.sort(dim=1).values == torch.tensor([1, 1, 1 + length, 1 + length])).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_share_of_self_conditioning(share):
    conditioned = batch_of([example(2, 3)] * 4000, self_conditioning=share).conditioned.double().mean()
    assert abs(conditioned - share) <= 5 * (share * (1 - share) / 4000) ** 0.5


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_unrolling_is_of_the_self_conditioned(share):
    batch = batch_of([example(2, 3)] * 4000, unrolling=share, unrolling_steps=3)
    assert not batch.unrolled[~batch.conditioned].any()
    count = int(batch.conditioned.sum())
    for steps in (1, 2, 3):
        assert (
            abs((batch.unrolled == steps).sum() / count - share / 3) <= 5 * (share / 3 * (1 - share / 3) / count) ** 0.5
        )
    assert 0.4 <= batch.temperature.min() < 0.41
    assert 0.79 < batch.temperature.max() <= 0.8


def test_half_of_the_unrolled_canvases_begin_as_generation_does():
    length, count = 400, 600
    answer = Example((10,), (VOCAB,) * length)
    batch = make_batch(
        [answer] * count, length, VOCAB, Counter(3), canvases_per_example=4, unrolling=0.5, unrolling_from_noise=0.5
    )
    shares = (batch.noised != VOCAB).double().mean(dim=2)
    unrolled = batch.unrolled > 0
    noise = shares == 1
    assert (noise[unrolled].sum(dim=1) >= 2).all()
    assert 0.5 <= noise[unrolled].double().mean() < 0.56
    # The others are as without unrolling.
    expected = (torch.arange(int((~unrolled).sum()) * 4) + 0.5) / int((~unrolled).sum()) / 4
    assert (shares[~unrolled].flatten().sort().values - expected).abs().max() < 0.03


def test_every_canvas_begins_at_the_step_with_as_much_noise_and_at_a_place_of_its_own():
    answer = Example((10,), (VOCAB,) * 400)
    batch = make_batch([answer] * 20, 400, VOCAB, Counter(3, step=9), canvases_per_example=2, unrolling=1.0)
    shares = (batch.noised != VOCAB).double().mean(dim=2).flatten().tolist()
    for place, share in zip(batch.places, shares, strict=True):
        assert abs(place.step - 48 * share) < 6
        assert (place.seed, place.index) == (3, 9)
    assert [place.canvas for place in batch.places] == list(range(40))
    parts = batch.split(3)
    assert tuple(place for part in parts for place in part.places) == batch.places
    assert [len(part.places) for part in parts] == [14, 14, 12]


def test_unrolled_canvases_show_a_share_of_the_right_tokens():
    for share in (0.25, 0.5):
        batch = batch_of([example(2, 3)] * 4000, unrolling=0.5, unrolling_shown=share)
        unrolled = batch.unrolled > 0
        assert not batch.shown[~unrolled].any()
        shares = batch.shown[unrolled].double().mean(dim=-1)
        assert abs(shares.mean() - share) < 0.02
        # Each canvas has its own, from none to all.
        assert shares.min() == 0
        assert shares.max() == 1
    assert not batch_of([example(2, 3)] * 400, unrolling=0.5).shown.any()


def test_default_share_of_self_conditioning_is_a_half():
    assert 0.45 < batch_of([example(2, 3)] * 4000).conditioned.double().mean() < 0.55


def differences(a, b) -> set[str]:
    names = ("noised", "clean", "conditioned")
    return {name for name in names if not torch.equal(getattr(a, name), getattr(b, name))}


def test_the_counter_decides_everything_random():
    examples = [example(2, 9)] * 64
    torch.manual_seed(0)
    first = batch_of(examples)
    torch.manual_seed(1)
    assert differences(first, batch_of(examples)) == set()
    assert torch.equal(batch_of(examples).canvas_starts, first.canvas_starts)
    for other in (Counter(1), Counter(0, step=1)):
        assert differences(first, make_batch(examples, CANVAS, VOCAB, other)) == {"noised", "clean", "conditioned"}


def test_only_the_canvas_is_noised():
    batch = batch_of([example(3, 9)] * 32)
    assert torch.equal(batch.tokens, batch_of([example(3, 9)] * 32, seed=9).tokens)
    assert not torch.equal(batch.noised, batch.clean)


@pytest.mark.parametrize("bad", [Example((), (1,)), Example((5,), ())])
def test_empty_parts_are_refused(bad):
    with pytest.raises(ValueError, match="at least one token in its prompt and one in its answer"):
        batch_of([example(2, 2), bad])


def test_unrolled_canvases_have_temperatures_of_the_samplers_schedule():
    batch = batch_of([example(2, 3)] * 4000, sampler=SamplerSettings.of(t_min=0.1, t_max=0.3))
    assert 0.1 <= batch.temperature.min() < 0.11
    assert 0.29 < batch.temperature.max() <= 0.3
