"""Decoding modes beside each other, likeliest tokens, and when a request was admitted."""

import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from redraft.diffusion.settings import SamplerSettings
from redraft.engine import (
    Admitted,
    Cancelled,
    CanvasCommitted,
    EngineCore,
    Failed,
    Finished,
    Limits,
    Request,
    StepTaken,
)
from redraft.generation.autoregressive import generate_autoregressive
from redraft.generation.loop import generate
from tests.fakes.models import broken_cache, tiny_model

PROMPT = (3, 4, 5, 6, 7)
SETTINGS = SamplerSettings(max_new_tokens=20, steps=4, seed=5)
GREEDY = SETTINGS.replace(temperature=0)


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_ids=())


def run(core: EngineCore) -> list:
    events = []
    while core.held:
        events += core.step()
    return events


def of(events: list, id: str, kind: type) -> list:
    return [event for event in events if event.id == id and isinstance(event, kind)]


def test_token_by_token_beside_a_canvas_each_as_it_would_be_alone(model):
    core = EngineCore(model)
    core.submit(Request(id="t", prompt=PROMPT, settings=GREEDY, mode="autoregressive"))
    core.submit(Request(id="c", prompt=PROMPT, settings=SETTINGS))
    assert core.held == ("t", "c")
    events = run(core)
    expected = generate_autoregressive(model, PROMPT, GREEDY)
    told = of(events, "t", CanvasCommitted)
    assert tuple(token for event in told for token in event.token_ids) == expected.token_ids
    assert len(told) == 20
    assert {event.steps for event in told} == {0}
    assert of(events, "t", Finished)[0].generation.token_ids == expected.token_ids
    assert of(events, "c", Finished)[0].generation.token_ids == generate(model, PROMPT, SETTINGS).token_ids


def test_token_by_token_can_be_cancelled_and_its_failure_is_its_own(model):
    core = EngineCore(model)
    for name in ("t", "u"):
        core.submit(Request(id=name, prompt=PROMPT, settings=GREEDY, mode="autoregressive"))
    with pytest.raises(ValueError, match="already holds a request 't'"):
        core.submit(Request(id="t", prompt=PROMPT, settings=GREEDY, mode="autoregressive"))
    core.step()
    assert core.cancel("t") == [Cancelled("t")]
    assert core.cancel("t") == []
    assert core.held == ("u",)

    # A cache that is broken breaks the answer that goes on from it, and no other.
    held = core.hold(Request(id="v", prompt=PROMPT, settings=GREEDY, mode="autoregressive"))
    core.submit(held)
    (sequence,) = held.sequences
    core.submit(Request(id="c", prompt=PROMPT, settings=SETTINGS))
    core.step()
    sequence.cache = broken_cache(model.config, sequence.cache)
    events = run(core)
    assert "not finite behind token" in str(of(events, "v", Failed)[0].error)
    assert of(events, "u", Finished)
    assert of(events, "c", Finished)


def test_many_autoregressive_answers_share_forwards_and_prompts_and_each_is_as_alone(model):
    rng = random.Random(0)
    system = tuple(rng.randrange(61) for _ in range(20))
    prompts = [system[: rng.choice((0, 20))] + tuple(rng.randrange(61) for _ in range(n)) for n in (1, 3, 9, 17, 30, 4)]
    core = EngineCore(model, Limits(forward_tokens=24))
    for round_ in range(2):
        for i, prompt in enumerate(prompts):
            mode = "autoregressive" if i % 3 else "diffusion"
            core.submit(Request(id=f"{round_} {i}", prompt=prompt, settings=SETTINGS, mode=mode))
        steps = 0
        events = []
        while core.held:
            events += core.step()
            steps += 1
        for i, prompt in enumerate(prompts):
            expected = (generate_autoregressive if i % 3 else generate)(model, prompt, SETTINGS)
            (finished,) = of(events, f"{round_} {i}", Finished)
            assert finished.generation.token_ids == expected.token_ids
            assert finished.generation.canvases == expected.canvases
            assert finished.generation.steps_per_canvas == expected.steps_per_canvas
        # Side by side: one after the other would take 4 × 21 forwards for the autoregressive ones alone.
        assert steps < 40


def test_token_by_token_has_no_drafts():
    with pytest.raises(ValueError, match="an autoregressive answer has no drafts"):
        Request(id="t", prompt=PROMPT, settings=SETTINGS, mode="autoregressive", drafts=True)


@pytest.mark.parametrize("mode", ["autoregressive", "verified", "auto", "scoring"])
def test_only_a_canvas_is_read_once_it_is_written(mode):
    with pytest.raises(ValueError, match="leave is_scored out"):
        Request(id="t", prompt=PROMPT, settings=SETTINGS, mode=mode, is_scored=True)


def test_a_prompt_without_room_is_refused_token_by_token_too(model):
    with pytest.raises(ValueError, match=r"tokens; the context holds 64: shorten the prompt$"):
        EngineCore(model).hold(Request(id="t", prompt=PROMPT * 13, settings=GREEDY, mode="autoregressive"))


def test_the_end_of_a_queue_is_told_with_what_had_been_read(model):
    core = EngineCore(model)
    long = PROMPT * 4
    core.submit(Request(id="a", prompt=long, settings=SETTINGS))
    first = run(core)
    core.submit(Request(id="b", prompt=(*long, 9), settings=SETTINGS))
    second = run(core)
    assert isinstance(first[0], Admitted)
    assert (first[0].cached_tokens, second[0].cached_tokens) == (0, len(long))
    assert first[0].at < second[0].at


def test_the_likeliest_tokens_come_with_drafts_and_with_what_is_committed(model):
    core = EngineCore(model)
    core.submit(Request(id="a", prompt=PROMPT, settings=SETTINGS, drafts=True, top=3))
    core.submit(Request(id="b", prompt=PROMPT, settings=SETTINGS, top=1))
    core.submit(Request(id="c", prompt=PROMPT, settings=SETTINGS))
    events = run(core)
    assert {event.step.top.ids.shape for event in of(events, "a", StepTaken)} == {(8, 3)}
    for event in of(events, "a", CanvasCommitted) + of(events, "b", CanvasCommitted):
        assert tuple(event.top.ids[: len(event.token_ids), 0].tolist()) == event.token_ids
        assert (event.top.log_probs <= 0).all()
    assert {event.top for event in of(events, "c", CanvasCommitted)} == {None}
    steps = [event.steps for event in of(events, "a", CanvasCommitted)]
    assert tuple(steps) == of(events, "a", Finished)[0].generation.steps_per_canvas


class Calls(TorchDispatchMode):
    """Counts calls: of the search for `top` likeliest tokens, and of the search in cumulated masses."""

    def __init__(self, top: int) -> None:
        super().__init__()
        self.top, self.searches, self.samples = top, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.searches += func is torch.ops.aten.topk.default and args[1] == self.top
        self.samples += func is torch.ops.aten.searchsorted.Tensor
        return func(*args, **(kwargs or {}))


def test_likeliest_tokens_without_drafts_are_looked_for_in_the_last_step_only(model):
    core = EngineCore(model)
    core.submit(Request(id="a", prompt=PROMPT, settings=SETTINGS, top=7))
    while core.held:
        with Calls(top=7) as calls:
            events = core.step()
        assert (calls.searches > 0) == bool(of(events, "a", CanvasCommitted))


def test_neighbours_of_a_request_for_likeliest_tokens_share_its_readout(model):
    samples = []
    for top in (0, 7):
        core = EngineCore(model)
        core.submit(Request(id="a", prompt=PROMPT, settings=SETTINGS, drafts=True, top=top))
        core.submit(Request(id="b", prompt=PROMPT, settings=SETTINGS))
        with Calls(top=7) as calls:
            core.step()
        samples.append(calls.samples)
    assert samples[0] == samples[1] > 0


def test_a_step_without_randomness_draws_no_samples(model):
    core = EngineCore(model)
    core.submit(Request(id="a", prompt=PROMPT, settings=SETTINGS.replace(temperature=0)))
    core.submit(Request(id="t", prompt=PROMPT, settings=GREEDY, mode="autoregressive"))
    with Calls(top=7) as calls:
        core.step()
    assert calls.samples == 0


@pytest.mark.parametrize("top", [-1, 21])
def test_more_likeliest_tokens_than_there_may_be(top):
    with pytest.raises(ValueError, match=f"top is {top}, must lie between 0 and 20"):
        Request(id="t", prompt=PROMPT, settings=SETTINGS, top=top)
