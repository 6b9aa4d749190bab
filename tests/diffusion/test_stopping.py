"""Stopping rules against the reference's rolling history of drafts (transformers, generation_diffusion_gemma.py)."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import Sampler
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.stopping import EveryPositionConfident, StableAndConfident, Stopping
from redraft.model.readout.plain import Readout

CANVAS = 3


def finished(rule: Stopping, steps: list[tuple[torch.Tensor, torch.Tensor]]) -> list[bool]:
    """Whether a canvas with this rule is finished after each of the steps (draft, entropy), were it not before."""
    settings = SamplerSettings(steps=4096, stopping=rule)
    sampler = Sampler(7)
    state = sampler.init([settings], [Counter(0)], len(steps[0][0]))
    found = []
    for draft, entropy in steps:
        state = sampler.step(state, Readout(draft, draft, entropy, torch.zeros(len(draft), 1)))
        found.append(not state.active)
        state = dataclasses.replace(state, active=torch.ones_like(state.active))
    return found


class RollingHistory:
    """The reference, literally: a tensor of the last drafts, at first all -1, rolled by one at each step."""

    def __init__(self, stability: int, confidence: float) -> None:
        self.stability, self.confidence = stability, confidence
        self.history = torch.full((stability, CANVAS), -1) if stability else None

    def stops(self, draft: torch.Tensor, entropy: torch.Tensor) -> bool:
        if self.history is None:
            stable = True
        else:
            stable = bool((self.history == draft).all(dim=-1).all(dim=0))
            self.history = torch.roll(self.history, shifts=-1, dims=0)
            self.history[-1] = draft
        return stable and bool(entropy.mean() < self.confidence)


# Few different drafts and entropies around the threshold, so that both conditions hold and fail often.
steps = st.lists(
    st.tuples(
        st.lists(st.integers(0, 1), min_size=CANVAS, max_size=CANVAS).map(lambda x: [0, 0, x[2]]),
        st.lists(st.sampled_from([0.0, 0.125, 0.25]), min_size=CANVAS, max_size=CANVAS),
    ),
    min_size=1,
    max_size=8,
)


@given(steps=steps, stability=st.integers(0, 4), confidence=st.sampled_from([0.125, 0.2]))
def test_stable_and_confident_is_the_rolling_history(steps, stability, confidence):
    reference = RollingHistory(stability, confidence)
    rule = StableAndConfident(stability=stability, confidence=confidence)
    taken = [(torch.tensor(tokens), torch.tensor(entropies)) for tokens, entropies in steps]
    assert finished(rule, taken) == [reference.stops(draft, entropy) for draft, entropy in taken]


SURE, UNSURE = torch.zeros(2), torch.ones(2)
A, B = torch.tensor([4, 5]), torch.tensor([4, 6])


@pytest.mark.parametrize(
    ("stability", "drafts", "stops"),
    [
        (0, [A], True),
        (1, [A], False),
        (1, [A, A], True),
        (1, [B, A], False),
        (1, [A, B, A], False),
        (2, [A, A], False),
        (2, [A, A, A], True),
        (2, [A, B, A, A], False),
        (2, [B, A, A, A], True),
    ],
)
def test_draft_must_equal_the_ones_before_it(stability, drafts, stops):
    rule = StableAndConfident(stability=stability)
    assert finished(rule, [(draft, SURE) for draft in drafts])[-1] is stops
    assert finished(rule, [(draft, UNSURE) for draft in drafts])[-1] is False


def test_confidence_is_strict_and_of_the_mean():
    rule = StableAndConfident(stability=0, confidence=0.5)
    entropy = torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.0, 0.75]])
    assert rule.stops(entropy, torch.zeros(3)).tolist() == [False, False, True]


@pytest.mark.parametrize("stability", [-1, -7])
def test_bad_stability(stability):
    with pytest.raises(ValueError, match=rf"stability.threshold is {stability}, must be at least 0"):
        StableAndConfident(stability=stability)


@pytest.mark.parametrize("confidence", [0.0, -0.1, math.inf, math.nan])
def test_bad_confidence(confidence):
    with pytest.raises(ValueError, match=r"confidence.threshold is .*, must be above 0"):
        StableAndConfident(confidence=confidence)


def test_every_position_confident_looks_at_the_least_sure():
    rule = EveryPositionConfident(limit=0.25)
    entropy = torch.tensor([[0.0, 0.25], [0.0, 0.26], [0.26, 0.0]])
    assert rule.stops(entropy, torch.tensor([0, 0, 3])).tolist() == [True, False, False]


@pytest.mark.parametrize("limit", [0.0, -1.0, math.inf, math.nan])
def test_bad_limit(limit):
    with pytest.raises(ValueError, match=r"entropy.limit is .*, must be above 0"):
        EveryPositionConfident(limit=limit)
