"""Whatever runs beside a request, it is answered token for token as the readable loop answers it alone."""

import dataclasses
import random

import pytest

from redraft.diffusion.acceptance import EntropyBound, LinearQuota
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.stopping import EveryPositionConfident, StableAndConfident
from redraft.engine import Cancelled, CanvasCommitted, EngineCore, Failed, Finished, Limits, Request, StepTaken
from redraft.generation.loop import generate
from redraft.generation.result import Generation
from redraft.model import attention
from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from tests.fakes.models import broken_cache, tiny_model

SECONDS = ("prefill_seconds", "denoising_seconds", "commit_seconds")
SYSTEM = tuple(range(2, 22))
SCHEDULES = 44


@pytest.fixture(scope="module", params=["plain", "float32", "bf16", "int8"])
def model(request):
    """The plain model, and prepared ones."""
    model = tiny_model(max_context=160)
    if request.param == "plain":
        return model
    return prepare(model.to(Precision.named(request.param).dtype), request.param)


@pytest.fixture(autouse=True)
def small_query_blocks(monkeypatch):
    # So that the short prompts here have several.
    monkeypatch.setattr(attention, "QUERY_BLOCK", 8)


def untimed(generation: Generation) -> Generation:
    return dataclasses.replace(generation, **dict.fromkeys(SECONDS, 0.0), entropies=(), log_probs=())


def scores(generation: Generation) -> list[float]:
    """What a generation says of its tokens; a row's last bits may depend on the kernels of torch's own products."""
    return [1.0 if one is None else one for one in (*generation.entropies, *generation.log_probs)]


class Answers:
    """Requests by number, and their answers as the readable loop gives them, each computed once."""

    def __init__(self, model, count: int) -> None:
        self.model = model
        rng = random.Random(0)
        self.requests = [self._request(rng, i) for i in range(count)]
        self.expected = [
            generate(model, r.prompt, r.settings, r.constraint, start=r.start, is_scored=r.is_scored)
            for r in self.requests
        ]

    @staticmethod
    def _request(rng: random.Random, i: int) -> Request:
        prompt = [rng.randrange(61) for _ in range(rng.choice((1, 2, 5, 9, 17, 40, 90)))]
        if rng.random() < 0.5:
            prompt = [*SYSTEM, *prompt]
        length = rng.choice((None, 1, 3, 8, 13))
        acceptance = rng.choice((EntropyBound(bound=rng.choice((0.1, 0.5))), EntropyBound(bound=0.1), LinearQuota()))
        confident = StableAndConfident(stability=rng.choice((0, 1, 2)), confidence=rng.choice((0.1, 0.3)))
        settings = SamplerSettings(
            max_new_tokens=rng.choice((1, 7, 16, 24)) if length != 1 else 3,
            canvas_length=length,
            steps=rng.choice((1, 3, 6)),
            temperature=rng.choice((0.0, 1.0, 1.0, 1.7)),
            acceptance=acceptance,
            stopping=rng.choice((confident, EveryPositionConfident(limit=0.5))),
            seed=rng.randrange(2**63),
            index=rng.choice((0, 3)),
        )
        drafts, is_scored = rng.random() < 0.5, rng.random() < 0.5
        return Request(id=f"r{i}", prompt=tuple(prompt), settings=settings, drafts=drafts, is_scored=is_scored)


@pytest.fixture(scope="module")
def answers(model):
    return Answers(model, 40)


def check_events(events: list, expected: Generation, request: Request) -> None:
    """The events of one request tell one story."""
    finished = events[-1]
    assert isinstance(finished, Finished), finished
    assert untimed(finished.generation) == untimed(expected)
    assert scores(finished.generation) == pytest.approx(scores(expected), abs=1e-4)
    assert len(expected.log_probs) == (len(expected.entropies) if request.is_scored else 0)
    committed = [event for event in events if isinstance(event, CanvasCommitted)]
    assert tuple(token for event in committed for token in event.token_ids) == expected.token_ids
    drafted = [event.step for event in events if isinstance(event, StepTaken)]
    assert len(drafted) == (sum(expected.steps_per_canvas) if request.drafts else 0)
    assert [step.draft.tolist() for step in drafted if step.finished] == [
        list(canvas) for canvas in expected.canvases if request.drafts
    ]


def test_alone(model, answers):
    for request, expected in list(zip(answers.requests, answers.expected, strict=True))[:12]:
        core = EngineCore(model, Limits(prefix_tokens=0))
        core.submit(request)
        events = []
        while core.held:
            events += core.step()
        check_events(events, expected, request)


@pytest.mark.parametrize("schedules", [SCHEDULES, pytest.param(5 * SCHEDULES, marks=pytest.mark.slow)])
def test_random_schedules(answers, schedules):
    assert_equal_in_random_schedules(answers, schedules)


def assert_equal_in_random_schedules(answers: Answers, schedules: int) -> None:
    """Random arrivals, cancellations, lengths, settings, budgets and limits.

    Every tenth schedule is a batch of 33, in the first of which all come at once.
    """
    rng = random.Random(1)
    done, cancelled, forwards, most = 0, 0, 0, 0
    for round_ in range(schedules):
        large = round_ % 10 == 0
        limits = Limits(
            forward_tokens=2048 if large else rng.choice((13, 40, 200, 2048)),
            admitted_requests=33 if large else rng.choice((1, 3, 32)),
            admitted_tokens=10_000 if large else rng.choice((200, 10_000)),
            prefix_tokens=rng.choice((0, 60, 1000)),
        )
        core = EngineCore(answers.model, limits)
        coming = list(range(33)) if large else rng.sample(range(40), rng.randint(2, 4))
        story: dict[str, list] = {f"r{i}": [] for i in coming}
        gone: set[str] = set()
        while coming or core.held:
            while coming and (not round_ or not core.held or rng.random() < (0.9 if large else 0.5)):
                core.submit(answers.requests[coming.pop()])
            if core.held and rng.random() < 0.03:
                (event,) = core.cancel(victim := rng.choice(core.held))
                assert event == Cancelled(victim)
                gone.add(victim)
            most = max(most, len(core.held))
            forwards += 1
            for event in core.step():
                assert event.id not in gone
                assert not isinstance(event, Failed), event
                story[event.id].append(event)
        for name in story.keys() - gone:
            i = int(name[1:])
            check_events(story[name], answers.expected[i], answers.requests[i])
            done += 1
        cancelled += len(gone)
        assert not core.scheduler.admitted
        assert not core.scheduler.waiting
        assert core.prefixes.tokens <= limits.prefix_tokens
    print(f"{done} answers equal, {cancelled} cancelled, {forwards} forwards, up to {most} requests at once")
    assert done > 2 * schedules
    assert cancelled > schedules // 6
    assert most == 33


def test_a_request_that_is_not_finite_fails_alone(model, answers):
    core = EngineCore(model)
    held = [core.hold(request) for request in answers.requests[:3]]
    for one in held:
        core.submit(one)
    sequences = [sequence for one in held for sequence in one.sequences]
    events = core.step()
    sequence = next(one for one in sequences if one.canvas is not None)
    victim, (place,) = sequence.request.id, sequence.canvas.counters
    sequence.cache = broken_cache(model.config, sequence.cache)
    while core.held:
        events += core.step()
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.id == victim
    assert isinstance(failed.error, ValueError)
    assert f"the model's logits are not finite in canvas {place.canvas}, step {place.step}: " in str(failed.error)
    finished = {event.id: untimed(event.generation) for event in events if isinstance(event, Finished)}
    others = {r.id: untimed(e) for r, e in zip(answers.requests[:3], answers.expected, strict=False) if r.id != victim}
    assert finished == others
