"""What the engine does beside denoising: token by token for comparison, likeliest tokens, and when a request began."""

import pytest
import torch

from redraft.engine import Admitted, Cancelled, CanvasCommitted, EngineCore, Failed, Finished, Request, StepTaken
from redraft.generation import SamplerSettings, generate, generate_autoregressive
from redraft.model import FlatBatch, KVCache, OutputHead, Pass, ReadoutQuery, streamed_readout
from tests.fakes.models import tiny_model

PROMPT = (3, 4, 5, 6, 7)
SETTINGS = SamplerSettings(max_new_tokens=20, steps=4, seed=5)


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
    core.submit(Request(id="t", prompt=PROMPT, settings=SETTINGS, autoregressive=True))
    core.submit(Request(id="c", prompt=PROMPT, settings=SETTINGS))
    assert core.held == ("c", "t")
    events = run(core)
    expected = generate_autoregressive(model, PROMPT, SETTINGS)
    told = of(events, "t", CanvasCommitted)
    assert tuple(token for event in told for token in event.token_ids) == expected.token_ids
    assert len(told) == 20
    assert {event.steps for event in told} == {0}
    assert of(events, "t", Finished)[0].generation.token_ids == expected.token_ids
    assert of(events, "c", Finished)[0].generation.token_ids == generate(model, PROMPT, SETTINGS).token_ids


def test_token_by_token_can_be_cancelled_and_its_failure_is_its_own(model, monkeypatch):
    core = EngineCore(model)
    for name in ("t", "u"):
        core.submit(Request(id=name, prompt=PROMPT, settings=SETTINGS, autoregressive=True))
    with pytest.raises(ValueError, match="already holds a request 't'"):
        core.submit(Request(id="t", prompt=PROMPT, settings=SETTINGS, autoregressive=True))
    core.step()
    assert core.cancel("t") == [Cancelled("t")]
    assert core.cancel("t") == []
    assert core.held == ("u",)

    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(OutputHead, "logits", fail)
    core.submit(Request(id="c", prompt=PROMPT, settings=SETTINGS))
    events = run(core)
    assert str(of(events, "u", Failed)[0].error) == "broken"
    assert of(events, "c", Finished)


@pytest.mark.parametrize("more", [{"drafts": True}, {"top": 1}, {"stop_ids": (3,)}])
def test_token_by_token_has_nothing_else_to_ask_for(more):
    with pytest.raises(ValueError, match="token by token there are no drafts"):
        Request(id="t", prompt=PROMPT, settings=SETTINGS, autoregressive=True, **more)


def test_a_prompt_without_room_is_refused_token_by_token_too(model):
    with pytest.raises(ValueError, match="the context holds 64"):
        EngineCore(model).check(Request(id="t", prompt=PROMPT * 13, settings=SETTINGS, autoregressive=True))


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


@torch.inference_mode()
def test_the_likeliest_tokens_are_those_of_the_whole_distribution(model):
    batch = FlatBatch.single(torch.arange(3, 3 + 130) % 60, 0, Pass.ENCODER)
    hidden = model.run(batch, [KVCache(model.config)]).hidden
    top = streamed_readout(model.head, hidden, ReadoutQuery(0.7, torch.zeros(130).double(), top=100)).top
    expected = model.head.logits(hidden).double().log_softmax(dim=-1).sort(dim=-1, descending=True)
    assert top.ids.shape == (130, model.config.vocab_size)
    assert torch.equal(top.ids[:, :5], expected.indices[:, :5])
    torch.testing.assert_close(top.log_probs.double(), expected.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("top", [-1, 21])
def test_more_likeliest_tokens_than_there_may_be(top):
    with pytest.raises(ValueError, match=f"top is {top}, must lie between 0 and 20"):
        Request(id="t", prompt=PROMPT, settings=SETTINGS, top=top)
