"""Acceptance rules against their definitions, written out slowly."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redraft.diffusion.acceptance import EntropyBound, LinearQuota

# Entropies and bounds in multiples of 1/64: their float32 sums are exact, so a bound can be met exactly.
GRAIN = 64
grains = st.lists(st.integers(0, 300), min_size=1, max_size=24)
bounds = st.integers(0, 400)


def to_go(step: int, steps: int, canvases: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((canvases,), step), torch.full((canvases,), steps)


def accept(grain_entropies: list[int], bound: int) -> list[bool]:
    entropy = torch.tensor(grain_entropies, dtype=torch.float32) / GRAIN
    return EntropyBound(bound=bound / GRAIN).accept(entropy[None], *to_go(1, 4))[0].tolist()


def brute_force(entropies: list[int], bound: int) -> list[bool]:
    """Tries every size of the set of surest positions, earlier ones first among equals; keeps the largest that fits."""
    order = sorted(range(len(entropies)), key=lambda i: (entropies[i], i))
    best: set[int] = set()
    for k in range(1, len(entropies) + 1):
        chosen = [entropies[i] for i in order[:k]]
        if sum(chosen) - max(chosen) <= bound:
            best = set(order[:k])
    return [i in best for i in range(len(entropies))]


@given(entropies=grains, bound=bounds)
def test_entropy_bound_is_its_definition(entropies, bound):
    assert accept(entropies, bound) == brute_force(entropies, bound)


@given(entropies=grains, bound=bounds)
def test_entropy_bound_accepts_the_surest_position(entropies, bound):
    accepted = accept(entropies, bound)
    assert accepted[entropies.index(min(entropies))]


@given(entropies=grains, bound=bounds, more=st.integers(0, 200))
def test_a_larger_bound_accepts_what_a_smaller_one_did(entropies, bound, more):
    fewer, larger = accept(entropies, bound), accept(entropies, bound + more)
    assert all(b for a, b in zip(fewer, larger, strict=True) if a)


@given(data=st.data(), entropies=st.lists(st.integers(0, 300), min_size=1, max_size=24, unique=True), bound=bounds)
def test_where_a_position_stands_does_not_matter_without_ties(data, entropies, bound):
    order = data.draw(st.permutations(range(len(entropies))))
    accepted = accept(entropies, bound)
    assert accept([entropies[i] for i in order], bound) == [accepted[i] for i in order]


def test_ties_go_to_the_earlier_position():
    # 0.25 each and a bound of 0.5: three fit, and nothing but the order tells them apart.
    assert accept([16] * 40, 32) == [True] * 3 + [False] * 37


def test_the_bound_is_met_when_it_is_equal():
    assert accept([10, 20, 500], 30) == [True, True, True]
    assert accept([10, 21, 500], 30) == [True, True, False]


def test_bound_zero_accepts_all_that_is_certain_and_one_more():
    assert accept([0, 7, 0, 5, 0], 0) == [True, False, True, True, True]
    assert accept([9, 7, 8], 0) == [False, True, False]


@pytest.mark.parametrize("bound", [-1e-9, -1.0, math.inf, math.nan])
def test_bad_bounds(bound):
    with pytest.raises(ValueError, match=r"entropy.bound is .*, must be at least 0"):
        EntropyBound(bound=bound)


@given(entropies=grains, steps=st.integers(1, 60), data=st.data())
def test_linear_quota_is_its_definition(entropies, steps, data):
    step = data.draw(st.integers(1, steps))
    accepted = LinearQuota().accept(torch.tensor([entropies], dtype=torch.float32), *to_go(step, steps))[0].tolist()
    quota = math.ceil(Fraction(len(entropies) * (steps - step + 1), steps))
    surest = sorted(range(len(entropies)), key=lambda i: (entropies[i], i))[:quota]
    assert accepted == [i in surest for i in range(len(entropies))]


def test_linear_quota_grows_evenly_to_everything():
    entropy = torch.rand(1, 256, generator=torch.Generator().manual_seed(0))
    counts = [int(LinearQuota().accept(entropy, *to_go(step, 48)).sum()) for step in range(48, 0, -1)]
    assert counts[0] == 6
    assert counts[-1] == 256
    assert {b - a for a, b in itertools.pairwise(counts)} == {5, 6}
