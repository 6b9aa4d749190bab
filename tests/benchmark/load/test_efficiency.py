"""The engine beside a bare step: both have the same canvases, and nothing that fails is lost."""

import pytest

from redraft.benchmark.load.efficiency import (
    bare_step,
    constant_load_limits,
    max_cached_tokens,
    measure_efficiency,
    measure_engine_rate,
)
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import Limits
from tests.fakes.models import tiny_model


def test_the_engine_beside_a_step():
    model = tiny_model(eos_ids=())
    settings = SamplerSettings(max_new_tokens=10, steps=3)
    prompts = [(3, 4, 5), (6, 7, 8, 9, 10), (11,)]
    found = measure_efficiency(model, prompts, settings, 3, rounds=2, seconds=0.2)
    assert found.ours.median > 0
    assert (found.ours.count, found.ratio.count) == (2, 2)


def test_under_constant_load_all_requests_are_admitted():
    settings, config = SamplerSettings(max_new_tokens=10, steps=3), tiny_model().config
    limits = constant_load_limits(config, [(3,) * 20], settings, 5000)
    assert (limits.admitted_requests, limits.admitted_tokens, limits.queued_requests) == (5000, 5000 * (20 + 16), 5000)
    assert limits.forward_tokens >= 5000 * config.canvas_length
    assert constant_load_limits(config, [(3,)], settings, 1).admitted_tokens >= Limits().admitted_tokens
    assert max_cached_tokens(60, settings, config, 2) == 2 * 64


def test_the_step_has_the_canvases_of_the_engine():
    settings = SamplerSettings(max_new_tokens=10, steps=3, canvas_length=4)
    step = bare_step(tiny_model(eos_ids=()), [(3, 4, 5), (3,)], settings, 2)
    assert step.run().tokens.shape == (2, 4)
    assert step.context == 2


def test_a_request_that_fails_under_constant_load_is_told():
    model = tiny_model()
    model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        measure_engine_rate(model, [(3, 4)], SamplerSettings(max_new_tokens=8), 2, 0.1)
    with pytest.raises(ValueError, match="the context holds 64"):
        measure_engine_rate(tiny_model(), [(3,) * 60], SamplerSettings(), 2, 0.1)
