"""The sampler with many canvases: each is decided as it would be alone, whatever lengths and rules are beside it."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.model.readout.query import Readout

VOCAB, SIZE = 7, 3
SAMPLER = Sampler(VOCAB)
TENSORS = ("tokens", "active", "draft", "unchanged", "accepted", "entropy", "soft_embedding")

rules = st.one_of(
    st.builds(lambda bound: {"entropy_bound": bound}, st.sampled_from([0.0, 0.1, 1.0])),
    st.just({"acceptance": "linear_quota"}),
)
stops = st.one_of(
    st.builds(
        lambda stability, confidence: {"stability_threshold": stability, "confidence_threshold": confidence},
        st.integers(0, 2),
        st.sampled_from([0.05, 0.5]),
    ),
    st.just({"stopping": "every_position_confident", "entropy_limit": 0.4}),
)
canvases = st.builds(
    lambda rule, stop, steps, temperature, length: (
        SamplerSettings.of(**rule, **stop, steps=steps, temperature=temperature),
        length,
    ),
    rules, stops, st.integers(1, 5), st.sampled_from([0.0, 1.0]), st.integers(1, 5),
)  # fmt: skip


def readout(rows: int, seed: int) -> Readout:
    """What a model might say: few tokens, so that drafts repeat, and entropies around the thresholds."""
    generator = torch.Generator().manual_seed(seed)
    return Readout(
        sample=torch.randint(2, (rows,), generator=generator),
        argmax=torch.randint(2, (rows,), generator=generator),
        entropy=torch.rand(rows, generator=generator) * 0.5,
        soft_embedding=torch.rand(rows, SIZE, generator=generator),
    )


def assert_same(one: CanvasState, other: CanvasState) -> None:
    assert (one.settings, one.counters) == (other.settings, other.counters)
    for name in TENSORS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@given(st.lists(canvases, min_size=1, max_size=6), st.integers(0, 1000))
def test_canvases_of_any_lengths_and_rules_are_decided_as_each_alone(chosen, seed):
    alone = [SAMPLER.init([one], [Counter(seed, i)], length) for i, (one, length) in enumerate(chosen)]
    together = alone
    ends = torch.tensor([length for _, length in chosen]).cumsum(0)
    for step in range(3):
        said = readout(int(ends[-1]), seed + step)
        parts = [said.select(slice(int(end) - one.length, int(end))) for end, one in zip(ends, alone, strict=True)]
        alone = [SAMPLER.step(state, part) for state, part in zip(alone, parts, strict=True)]
        together = SAMPLER.step_each(together, said)
        for one, other in zip(alone, together, strict=True):
            assert_same(one, other)
    assert SAMPLER.verdicts(*together) == [(True, bool(state.active)) for state in alone]


def test_a_state_of_its_own_holds_on_to_no_other():
    settings = SamplerSettings(steps=3)
    first = [SAMPLER.init([settings], [Counter(i)], 4) for i in range(3)]
    for state in SAMPLER.step_each(first, readout(12, 0)):
        assert state.soft_embedding.untyped_storage().nbytes() == 4 * SIZE * 4


def test_pinned_positions_hold_their_token_in_every_canvas_and_draft_and_cost_no_entropy():
    settings = SamplerSettings.of(steps=9, entropy_bound=0.0, confidence_threshold=0.2, stability_threshold=0)
    pinned = torch.tensor([[True, False, True, True]])
    given_tokens = torch.full((1, 4), 6)
    start = CanvasStart(tokens=(6, None, 6, 6), pinned=frozenset({0, 2, 3}))
    state = SAMPLER.init([settings], [Counter(3)], 4, starts=[start])
    free = SAMPLER.init([settings], [Counter(3)], 4)
    assert torch.equal(state.tokens, torch.where(pinned, given_tokens, free.tokens))
    said = Readout(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 4]), torch.full((4,), 0.5), torch.zeros(4, SIZE))
    state = SAMPLER.step(state, said)
    assert state.draft.tolist() == [[6, 2, 6, 6]]
    # With a bound of nothing only the certain positions and the surest other one are accepted.
    assert state.tokens.tolist() == [[6, 2, 6, 6]]
    assert state.entropy.tolist() == [[0.0, 0.5, 0.0, 0.0]]
    # The mean of all, 0.125, is below the threshold, that of the open position is not.
    assert state.active
    sure = dataclasses.replace(said, entropy=torch.tensor([0.5, 0.1, 0.5, 0.5]))
    assert not SAMPLER.step(state, sure).active
    assert SAMPLER.finalize(state).tolist() == [[6, 2, 6, 6]]


def test_a_quota_is_one_of_the_open_positions():
    settings = SamplerSettings.of(steps=4, acceptance="linear_quota")
    start = CanvasStart(tokens=(5,) * 4, pinned=frozenset(range(4)))
    state = SAMPLER.init([settings], [Counter(3)], 8, starts=[start])
    for count in (5, 6, 7, 8):
        state = SAMPLER.step(state, readout(8, count))
        assert state.accepted.sum() == count
        assert state.accepted[0, :4].all()


def test_a_strength_noises_its_share_of_the_given_tokens_and_runs_its_share_of_the_steps():
    settings, length = SamplerSettings.of(steps=10), 2000
    start = CanvasStart(tokens=(*[VOCAB] * length, None), pinned=frozenset(range(500)), strength=0.31)
    state = SAMPLER.init([settings] * 2, [Counter(3), Counter(4)], length + 2, starts=[start, None])
    assert (state.begun, [counter.step for counter in state.counters]) == ((4, 10), [4, 10])
    kept = state.tokens[0] == VOCAB
    assert kept[:500].all()
    assert kept[500:length].float().mean().item() == pytest.approx(0.69, abs=0.05)
    assert torch.equal(
        state.tokens[:, length:], SAMPLER.init([settings] * 2, [Counter(3), Counter(4)], length + 2).tokens[:, length:]
    )
    as_given = SAMPLER.init([settings], [Counter(3)], 3, starts=[CanvasStart(tokens=(None, 1, 2))])
    assert (as_given.begun, as_given.tokens[0, 1:].tolist(), as_given.pinned) == ((10,), [1, 2], None)


def test_a_start_that_cannot_be_is_refused():
    for message, fields in (
        ("strength is 1.5, must be above 0", {"tokens": (1,), "strength": 1.5}),
        ("strength is 0, must be above 0", {"tokens": (1,), "strength": 0}),
        ("position 1 is pinned, but no token", {"tokens": (1, None), "pinned": frozenset({1})}),
        ("position 2 is pinned, but no token", {"tokens": (1, None), "pinned": frozenset({0, 2})}),
    ):
        with pytest.raises(ValueError, match=message):
            CanvasStart(**fields)
    start = CanvasStart.holding([1, 2, 3])
    start.check(3, 4, 2)
    for message, numbers in (
        ("3 tokens are given, the canvas has 2", (2, 4, 2)),
        (r"tokens \[3\] of the canvas lie outside the vocabulary of 3", (3, 3, 2)),
        ("position 2 is pinned, max_new_tokens is 1", (3, 4, 1)),
    ):
        with pytest.raises(ValueError, match=message):
            start.check(*numbers)


def test_pinned_and_free_canvases_are_joined():
    settings = SamplerSettings()
    two = SAMPLER.init([settings] * 2, [Counter(0), Counter(1)], 3)
    pinned = torch.tensor([[False, True, False]])
    one = SAMPLER.init([settings], [Counter(2)], 3, starts=[CanvasStart(tokens=(None, 5), pinned=frozenset({1}))])
    assert torch.equal(one.pinned, pinned)
    joined = CanvasState.joined([two, one])
    assert joined.pinned.tolist() == [[False] * 3, [False] * 3, [False, True, False]]


def test_a_finished_canvas_stays_as_it_is():
    settings = SamplerSettings(steps=9)
    state = SAMPLER.step(SAMPLER.init([settings] * 2, [Counter(0), Counter(1)], 4), readout(8, 1))
    state = dataclasses.replace(state, active=torch.tensor([True, False]))
    after = SAMPLER.step(state, readout(8, 2))
    for name in ("tokens", "draft", "unchanged", "accepted", "entropy"):
        assert torch.equal(getattr(after, name)[1], getattr(state, name)[1])
    assert not torch.equal(after.entropy[0], state.entropy[0])
    assert after.active.tolist() == [True, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_canvas_that_is_not_finite_is_told_from_the_others(bad):
    settings = SamplerSettings(steps=9)
    said = readout(8, 1)
    said.entropy[5] = bad
    state = SAMPLER.step(SAMPLER.init([settings] * 2, [Counter(0), Counter(1)], 4), said)
    assert [is_finite for is_finite, _ in SAMPLER.verdicts(state)] == [True, False]
