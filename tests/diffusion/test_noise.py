"""Statistics of uniform noise: what the corruption replaces, and with what."""

import pytest
import torch

from redraft.diffusion.noise import corrupt, initial_canvas, renoise
from redraft.diffusion.randomness import Counter, Purpose, tokens_of_many

VOCAB = 5


def test_initial_canvas_is_the_counters_noise():
    canvas = initial_canvas(Counter(3, canvas=1), 256, 61)
    assert torch.equal(canvas, Counter(3, canvas=1).random_tokens(256, 61, Purpose.INITIAL_CANVAS))
    assert canvas.dtype == torch.int64
    assert not torch.equal(canvas, initial_canvas(Counter(3, canvas=2), 256, 61))


def test_renoise_keeps_accepted_and_draws_the_rest():
    sample = torch.arange(100, 164)
    accepted = torch.arange(64) % 3 == 0
    noise = tokens_of_many([Counter(0, step=5)], 64, 61, Purpose.RENOISE)
    assert torch.equal(noise, Counter(0, step=5).random_tokens(64, 61, Purpose.RENOISE))
    renoised = renoise(sample, accepted, noise)
    assert torch.equal(renoised[accepted], sample[accepted])
    assert torch.equal(renoised[~accepted], noise[~accepted])
    assert renoised[~accepted].max() < 61
    assert renoised[~accepted].unique().numel() > 20


def test_renoise_noise_differs_from_step_to_step_and_from_the_first_canvas():
    canvases = [tokens_of_many([Counter(0, step=step)], 64, 61, Purpose.RENOISE) for step in (1, 2)]
    canvases.append(initial_canvas(Counter(0, step=1), 64, 61))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (canvases[i] == canvases[j]).float().mean() < 0.2


def test_share_of_changed_tokens_is_the_level_less_lucky_hits():
    levels = torch.tensor([0.02, 0.25, 0.5, 0.75, 0.98], dtype=torch.float64)
    n = 20_000
    tokens = torch.arange(n).remainder(VOCAB).expand(len(levels), n)
    changed = (corrupt(tokens, levels, Counter(8), VOCAB) != tokens).double().mean(dim=1)
    expected = levels * (1 - 1 / VOCAB)
    deviation = (expected * (1 - expected) / n).sqrt()
    assert ((changed - expected).abs() < 4.5 * deviation).all()


def test_replacements_are_uniform_over_the_vocabulary():
    n = 50_000
    noised = corrupt(torch.zeros(1, n, dtype=torch.int64), torch.tensor([0.5]), Counter(2), VOCAB)
    counts = torch.bincount(noised.flatten(), minlength=VOCAB).double()
    expected = torch.tensor([0.5 + 0.5 / VOCAB] + [0.5 / VOCAB] * (VOCAB - 1), dtype=torch.float64) * n
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


def test_what_is_replaced_says_nothing_of_what_replaces_it():
    n = 50_000
    marker = VOCAB  # outside the vocabulary, so every replacement shows
    noised = corrupt(torch.full((1, n), marker), torch.tensor([0.1]), Counter(2), VOCAB)
    replaced = noised[noised != marker]
    counts = torch.bincount(replaced, minlength=VOCAB).double()
    assert abs(len(replaced) - 0.1 * n) < 5 * (0.1 * 0.9 * n) ** 0.5
    assert ((counts - len(replaced) / VOCAB).abs() < 5 * (len(replaced) / VOCAB) ** 0.5).all()


def test_level_zero_changes_nothing_and_level_one_replaces_everything():
    tokens = torch.full((2, 4000), VOCAB)
    noised = corrupt(tokens, torch.tensor([0.0, 1.0]), Counter(1), VOCAB)
    assert torch.equal(noised[0], tokens[0])
    assert (noised[1] != VOCAB).all()
    assert noised[1].unique().tolist() == list(range(VOCAB))


def test_rows_and_counters_have_noise_of_their_own():
    tokens = torch.full((2, 512), 61)
    level = torch.ones(2)
    first, second = corrupt(tokens, level, Counter(1), 61)
    other = corrupt(tokens, level, Counter(1, step=1), 61)[0]
    assert (first == second).float().mean() < 0.1
    assert (first == other).float().mean() < 0.1
    assert torch.equal(corrupt(tokens, level, Counter(1), 61)[0], first)


def test_corruption_leaves_its_input_alone():
    tokens = torch.full((1, 64), VOCAB)
    corrupt(tokens, torch.ones(1), Counter(1), VOCAB)
    assert (tokens == VOCAB).all()


@pytest.mark.parametrize("length", [1, 7])
def test_canvas_of_any_length(length):
    assert initial_canvas(Counter(0), length, 61).shape == (length,)
