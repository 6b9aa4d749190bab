"""Requests that are answered in parts: one for the engine's caller, several sequences inside."""

import dataclasses
from collections.abc import Sequence

import pytest

from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.engine import (
    Admitted,
    Cancelled,
    CanvasCommitted,
    EngineCore,
    Failed,
    Finished,
    Limits,
    QueueFull,
    Request,
    StepTaken,
)
from redraft.engine.parts import Parts
from redraft.generation.loop import generate
from redraft.generation.result import Generation
from tests.fakes.models import broken_cache, tiny_model

PROMPTS = ((3, 4, 5), (6, 7), (8, 9, 10, 11))
SETTINGS = SamplerSettings(max_new_tokens=16, steps=3, seed=5)


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_ids=())


def end_to_end(answers: Sequence[Generation]) -> Generation:
    """The tokens of all parts, one after the other."""
    return dataclasses.replace(
        answers[0],
        token_ids=tuple(token for one in answers for token in one.token_ids),
        steps_per_canvas=tuple(steps for one in answers for steps in one.steps_per_canvas),
    )


def parted(id: str, join=end_to_end, prompts=PROMPTS, **fields) -> Request:
    return Request(id=id, prompt=(1, 2), settings=SETTINGS, parts=Parts(prompts, join), **fields)


def run(core: EngineCore) -> list:
    events = []
    while core.held:
        events += core.step()
    return events


@pytest.mark.parametrize("mode", ["diffusion", "autoregressive", "verified", "auto"])
def test_one_answer_is_made_of_those_to_the_parts_as_each_would_be_alone(model, mode):
    settings = SETTINGS if mode == "diffusion" else SETTINGS.replace(temperature=0)
    alone = EngineCore(model)
    for at, prompt in enumerate(PROMPTS):
        alone.submit(Request(id=str(at), prompt=prompt, settings=settings, mode=mode))
    ended = {event.id: event.generation for event in run(alone) if isinstance(event, Finished)}
    core = EngineCore(model)
    core.submit(dataclasses.replace(parted("p"), settings=settings, mode=mode))
    core.submit(Request(id="c", prompt=PROMPTS[0], settings=SETTINGS))
    assert core.held == ("p", "c")
    events = run(core)
    told = [event for event in events if event.id == "p"]
    assert [type(event) for event in told[:1] + told[-2:]] == [Admitted, CanvasCommitted, Finished]
    expected = tuple(token for at in range(3) for token in ended[str(at)].token_ids)
    assert told[-1].generation.token_ids == told[-2].token_ids == expected
    # Nothing is told before.
    assert len(told) == 3
    (other,) = [event for event in events if event.id == "c" and isinstance(event, Finished)]
    assert other.generation.token_ids == generate(model, PROMPTS[0], SETTINGS).token_ids


def test_more_parts_than_may_be_admitted_or_queued_are_still_one_request(model):
    core = EngineCore(model, Limits(admitted_requests=1, queued_requests=2))
    core.submit(parted("p", prompts=PROMPTS * 4))
    core.submit(parted("q"))
    assert core.scheduler.requests_waiting == 2
    with pytest.raises(QueueFull, match="the queue holds 2 requests, the limit is 2"):
        core.submit(parted("r"))
    assert core.held == ("p", "q")
    ended = [event.id for event in run(core) if isinstance(event, Finished)]
    assert ended == ["p", "q"]
    assert core.scheduler.requests_waiting == 0


def test_with_drafts_one_part_comes_after_the_other_on_canvases_of_its_own(model):
    core = EngineCore(model, Limits(queued_requests=1))
    core.submit(parted("p", drafts=True))
    events = run(core)
    steps = [event.step for event in events if isinstance(event, StepTaken)]
    assert [step.canvas for step in steps] == sorted(step.canvas for step in steps)
    ended = events[-1].generation
    counts = [sum(step.canvas == canvas for step in steps) for canvas in range(len(ended.steps_per_canvas))]
    assert tuple(counts) == ended.steps_per_canvas
    alone = EngineCore(model)
    alone.submit(parted("p"))
    assert run(alone)[-1].generation.token_ids == ended.token_ids
    core.submit(parted("q", drafts=True))
    core.step()
    assert core.cancel("q") == [Cancelled("q")]
    assert (core.held, core.scheduler.admitted) == ((), [])


def test_a_cancelled_request_frees_all_its_parts(model):
    core = EngineCore(model, Limits(admitted_requests=2))
    core.submit(parted("p"))
    core.step()
    assert core.cancel("p") == [Cancelled("p")]
    assert not core.held
    assert not core.scheduler.waiting
    assert not core.scheduler.admitted
    # Its name is free again.
    core.submit(parted("p"))
    assert isinstance(run(core)[-1], Finished)


def test_a_part_that_fails_is_the_end_of_its_request_and_of_no_other(model):
    core = EngineCore(model)
    held = core.hold(parted("p"))
    core.submit(held)
    core.submit(Request(id="c", prompt=PROMPTS[0], settings=SETTINGS))
    events = core.step()
    for sequence in held.sequences[1:]:
        sequence.cache = broken_cache(model.config, sequence.cache)
    events += run(core)
    ends = [event for event in events if isinstance(event, Finished | Failed)]
    assert sorted((event.id, type(event)) for event in ends) == [("c", Finished), ("p", Failed)]
    assert not core.scheduler.admitted


def test_what_cannot_be_joined_fails_its_request_alone(model):
    def refuse(answers: Sequence[Generation]) -> Generation:
        raise LookupError(f"no place for {len(answers)} answers")

    core = EngineCore(model)
    core.submit(parted("p", refuse))
    core.submit(parted("q"))
    ends = {event.id: event for event in run(core) if isinstance(event, Finished | Failed)}
    assert str(ends["p"].error) == "no place for 3 answers"
    assert isinstance(ends["q"], Finished)


@pytest.mark.parametrize("fields", [{"start": CanvasStart(tokens=(1, 2))}, {"mode": "scoring"}], ids=str)
def test_what_a_whole_prompt_alone_has_is_refused(fields):
    with pytest.raises(ValueError, match="an answer in parts has no start of a canvas, and no prompt to score"):
        parted("p", **fields)


def test_a_part_without_room_is_refused_before_any_is_taken_on(model):
    core = EngineCore(model)
    with pytest.raises(ValueError, match="the context holds 64: shorten the prompt"):
        core.submit(parted("p", prompts=((3, 4), (5,) * 64)))
    assert not core.held
    assert not core.scheduler.waiting
