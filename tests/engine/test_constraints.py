"""Constraints in the engine: mixed batches token for token as the readable loop, and what is refused."""

import dataclasses
import random

import pytest

from redraft.diffusion.settings import SamplerSettings
from redraft.engine import CanvasCommitted, EngineCore, Failed, Finished, Request, StepTaken
from redraft.generation.loop import generate
from tests.engine.test_equality import Answers, assert_equal_in_random_schedules, check_events, untimed
from tests.fakes.constraints import END, anything, automaton
from tests.fakes.models import broken_cache, tiny_model

AUTOMATA = [
    automaton("regex", "[a-c]{0,30}"),
    automaton("regex", "(é|b)*"),
    automaton("json_schema", '{"type": "array", "items": {"enum": ["abc", 10, true, null]}}'),
    automaton("json_schema", '{"type": ["integer", "null"]}'),
    anything(),
]
SCHEDULES = 40


class MixedAnswers(Answers):
    """Requests under several constraints, and some under none."""

    @staticmethod
    def _request(rng: random.Random, i: int) -> Request:
        request, constraint = Answers._request(rng, i), rng.choice([None, None, *AUTOMATA])
        if constraint is None or constraint.min_tokens <= request.settings.max_new_tokens:
            return dataclasses.replace(request, constraint=constraint)
        longer = request.settings.replace(max_new_tokens=constraint.min_tokens)
        return dataclasses.replace(request, constraint=constraint, settings=longer)


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_context=160)


@pytest.fixture(scope="module")
def answers(model):
    return MixedAnswers(model, 40)


def test_mixed_batches_are_the_loop_token_for_token(answers):
    """Several automata, neighbours without, cancelled ones, prompts in chunks, prefixes that others share."""
    kinds = {id(request.constraint) for request in answers.requests}
    assert len(kinds) == len(AUTOMATA) + 1
    assert any(one.constraint and one.constraint.guided_steps for one in answers.expected)
    assert any(len(one.canvases) > 1 for one in answers.expected if one.constraint)
    assert_equal_in_random_schedules(answers, SCHEDULES)


def test_a_neighbour_without_a_constraint_keeps_its_bits(model):
    settings = SamplerSettings(max_new_tokens=16, steps=5, seed=3)
    alone = tell(model, [Request(id="free", prompt=(3, 4, 5), settings=settings, drafts=True)])
    held = [
        Request(id=f"held{i}", prompt=(3, 4, i), settings=settings, constraint=one) for i, one in enumerate(AUTOMATA)
    ]
    beside = tell(model, [held[0], Request(id="free", prompt=(3, 4, 5), settings=settings, drafts=True), *held[1:]])
    for one, other in zip(alone, beside, strict=True):
        assert type(one) is type(other)
        if isinstance(one, StepTaken):
            for name in ("draft", "renoised", "accepted", "entropy"):
                assert getattr(one.step, name).equal(getattr(other.step, name))
            assert (other.step.guided, other.step.log_mass) == (False, None)
        if isinstance(one, Finished):
            assert untimed(one.generation) == untimed(other.generation)


def tell(model, requests: list[Request]) -> list:
    """Returns what happens to the request "free" among these."""
    core, events = EngineCore(model), []
    for request in requests:
        core.submit(request)
    while core.held:
        events += core.step()
    told = (CanvasCommitted, StepTaken, Finished)
    return [event for event in events if event.id == "free" and isinstance(event, told)]


def test_its_steps_say_whether_they_were_guided(model):
    settings = SamplerSettings(max_new_tokens=16, steps=6, seed=3)
    request = Request(id="a", prompt=(3, 4), settings=settings, constraint=AUTOMATA[1], drafts=True)
    core, events = EngineCore(model), []
    core.submit(request)
    while core.held:
        events += core.step()
    generation = events[-1].generation
    steps = [event.step for event in events if isinstance(event, StepTaken)]
    assert generation.constraint.guided_steps == sum(step.guided for step in steps) > 0
    assert generation.constraint.log_mass == tuple(step.log_mass for step in steps if step.finished)
    check_events(events, generate(model, (3, 4), settings, AUTOMATA[1]), request)


def test_a_step_that_fails_has_changed_nothing_of_the_others(model):
    settings = SamplerSettings(max_new_tokens=16, steps=6, seed=3)
    core = EngineCore(model)
    requests = [
        Request(id=str(i), prompt=(3, i), settings=settings, constraint=one) for i, one in enumerate(AUTOMATA[:3])
    ]
    for request in requests:
        core.submit(request)
    events = core.step()
    (sequence,) = core._held["1"].sequences
    sequence.cache = broken_cache(model.config, sequence.cache)
    while core.held:
        events += core.step()
    ends = {event.id: event for event in events if isinstance(event, Finished | Failed)}
    assert "logits are not finite" in str(ends["1"].error)
    for i in ("0", "2"):
        wanted = generate(model, requests[int(i)].prompt, settings, AUTOMATA[int(i)])
        assert untimed(ends[i].generation) == untimed(wanted)


def test_what_cannot_be_met_is_refused_before_it_is_queued(model):
    core, settings = EngineCore(model), SamplerSettings(max_new_tokens=5, steps=2)

    def refusal(**fields) -> str:
        with pytest.raises(ValueError, match="constraint") as caught:
            core.submit(Request(id="a", settings=settings, **({"prompt": (3,)} | fields)))
        assert not core.held
        return str(caught.value)

    short = automaton("regex", "a{6}")
    assert "the shortest answer of this constraint has 6 tokens, max_tokens is 5" in refusal(constraint=short)
    assert "built for a vocabulary of 62 tokens, the model has 61" in refusal(constraint=anything(62))
    assert "but the answer at 1, 2" in refusal(constraint=anything(), stop_ids=(END, 2))
    for mode in ("autoregressive", "verified"):
        assert "the shortest answer of this constraint has 6 tokens" in refusal(constraint=short, mode=mode)
    assert "has no drafts, no constraint and no stop ids" in refusal(constraint=anything(), mode="scoring")


def test_stop_ids_that_the_language_never_holds_are_no_matter(model):
    core = EngineCore(model)
    settings = SamplerSettings(max_new_tokens=9, steps=2, seed=0)
    core.submit(
        Request(id="a", prompt=(3,), settings=settings, constraint=automaton("regex", "a{3}"), stop_ids=(0, END))
    )
    events = []
    while core.held:
        events += core.step()
    assert len(events[-1].generation.token_ids) == 3
