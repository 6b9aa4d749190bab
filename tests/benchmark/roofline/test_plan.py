"""Plans: the roofline's corners, against hand-made numbers."""

import dataclasses
import math

import pytest

from redraft.benchmark.roofline.plan import DEVICES, Device, plan
from redraft.weights.sizes import ModelSizes
from tests.fakes.models import tiny_config

FAST = Device(name="x", flops={"bf16": 1e30}, bandwidth=1e6, memory=1e9, source="made up")
WIDE = Device(name="x", flops={"bf16": 1e6}, bandwidth=1e30, memory=1e9, source="made up")


def test_where_reading_takes_the_time_a_step_is_its_bytes():
    # Enough tokens that every expert is touched.
    config = tiny_config(canvas_length=64)
    found = plan(config, FAST, "bf16", tokens_per_forward=8, context=0)
    assert found.denoising_seconds == pytest.approx(ModelSizes.of(config).weight_bytes["bfloat16"] / 1e6, rel=1e-6)
    assert found.commit_seconds < found.denoising_seconds
    # 8 steps and a commit write 64 tokens.
    assert found.tokens_per_second == pytest.approx(64 / (8 * found.denoising_seconds + found.commit_seconds))
    assert found.autoregressive_tokens_per_second == pytest.approx(1 / found.autoregressive_seconds)


@pytest.mark.parametrize("context", [0, 3, 50])
def test_where_products_take_the_time_a_step_is_its_flops(context):
    config = tiny_config()
    for requests in (1, 5):
        found = plan(config, WIDE, "bf16", tokens_per_forward=2, context=context, requests=requests)
        assert found.denoising_seconds == pytest.approx(requests * ModelSizes.of(config).step_flops(context) / 1e6)


def test_a_token_alone_touches_its_own_experts_only():
    config = tiny_config()
    alone = plan(config, FAST, "bf16", tokens_per_forward=2).autoregressive_seconds
    dense = dataclasses.replace(config, experts_per_token=config.num_experts)
    assert alone < plan(dense, FAST, "bf16", tokens_per_forward=2).autoregressive_seconds


def test_at_the_break_even_both_ways_write_as_fast():
    config = tiny_config(canvas_length=64)
    even = plan(config, FAST, "bf16", tokens_per_forward=8).break_even
    found = plan(config, FAST, "bf16", tokens_per_forward=even)
    assert found.tokens_per_second == pytest.approx(found.autoregressive_tokens_per_second)


def test_at_its_break_even_verified_drafts_are_as_fast_as_token_by_token():
    config = tiny_config(canvas_length=64)
    found = plan(config, FAST, "bf16", tokens_per_forward=8, kept_per_round=3, passes_per_round=2)
    assert found.verified_tokens_per_second == pytest.approx(
        3 / found.verified_break_even * found.autoregressive_tokens_per_second
    )
    # Where reading the weights takes all the time, a round is its passes, with about as many bytes each.
    assert 3 < found.verified_break_even < 3 * found.denoising_seconds / found.autoregressive_seconds
    for bad in ({"kept_per_round": 0.5}, {"kept_per_round": 26}, {"passes_per_round": -1}):
        with pytest.raises(ValueError, match="tokens kept of a round"):
            plan(config, FAST, "bf16", tokens_per_forward=8, **bad)


def test_without_a_break_even_a_plan_is_still_json():
    found = plan(tiny_config(), FAST, "bf16", tokens_per_forward=2)
    assert found.to_json()["break_even"] == found.break_even
    assert dataclasses.replace(found, break_even=math.inf).to_json()["break_even"] is None


def test_a_share_of_the_peaks_takes_longer():
    whole = plan(tiny_config(), WIDE, "bf16", tokens_per_forward=2)
    half = plan(tiny_config(), WIDE, "bf16", tokens_per_forward=2, share=0.5)
    assert half.denoising_seconds == pytest.approx(2 * whole.denoising_seconds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp4"}, "h100 has no peak for 'fp4'; it has bf16, fp8, int8, int4"),
        ({"share": 0.0}, "share is 0.0, must lie above 0"),
        ({"tokens_per_forward": 9.0}, "tokens per forward is 9.0, must lie above 0 and be at most 8"),
        ({"requests": 0}, "0 requests with 1000 tokens"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    given = {"precision": "bf16", "tokens_per_forward": 2.0} | arguments
    with pytest.raises(ValueError, match=message):
        plan(tiny_config(), DEVICES["h100"], given.pop("precision"), **given)
