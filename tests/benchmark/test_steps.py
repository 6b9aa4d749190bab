"""The measured step is the engine's: the same hidden states, every stage seen; speed itself is not asserted."""

import pytest
import torch

from redraft.benchmark.steps import STAGES, Step
from redraft.model.attention import SegmentedAttention
from redraft.model.batch import FlatBatch, Pass
from redraft.model.preparation import prepare
from tests.fakes.models import tiny_model


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8", "int4-weight-only"])
def test_every_stage_is_seen_and_they_add_up(precision):
    model = tiny_model()
    model = prepare(model if precision == "float32" else model.bfloat16(), precision)
    found = Step(model, batch=2, context=5).stages()
    assert found.keys() == {*STAGES, "step"}
    assert all(seconds > 0 for seconds in found.values())
    assert sum(found[stage] for stage in STAGES) == pytest.approx(found["step"])


@torch.no_grad()
def test_a_step_reads_each_canvas_with_its_own_cache():
    model = tiny_model()
    step = Step(model, batch=3, context=7)
    found = step.run()
    for slot, cache in enumerate(step.caches):
        assert cache.length == 7
        signal = step.state.soft_embedding[slot]
        flat = FlatBatch.single(step.state.tokens[slot], 7, Pass.DENOISER, soft_embedding=signal)
        hidden = model.run(flat, [cache]).hidden
        assert torch.equal(model.head.logits(hidden).argmax(dim=-1), found.draft[slot])


def test_steps_and_commits_leave_the_caches_as_they_were():
    step = Step(tiny_model(), batch=2, context=3)
    before = step.run().entropy
    step.commit()
    assert torch.equal(step.run().entropy, before)
    assert [cache.length for cache in step.caches] == [3, 3]


def test_the_measured_attention_is_the_engines(monkeypatch):
    """By kernels where the model was prepared with them, as a step without them would be another one."""
    seen = []
    attend = SegmentedAttention.attend
    monkeypatch.setattr(
        SegmentedAttention, "attend", lambda this, *rest: (seen.append(this.kernels), attend(this, *rest))[1]
    )
    for model in (tiny_model(), prepare(tiny_model(), "float32")):
        seen.clear()
        step = Step(model, 2, 5)
        step.run()
        step.commit()
        assert seen
        assert all(kernels is model.attention_kernels for kernels in seen)


def test_nothing_is_watched_after_measuring():
    step = Step(tiny_model(), batch=1, context=0)
    step.stages()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in step.model.modules())


@pytest.mark.parametrize(
    ("batch", "context", "message"),
    [(0, 5, "batch is 0, must be at least 1"), (1, 57, "context is 57, must lie between 0 and 56"), (1, -1, "is -1")],
)
def test_what_does_not_fit_is_refused(batch, context, message):
    with pytest.raises(ValueError, match=message):
        Step(tiny_model(), batch, context)
