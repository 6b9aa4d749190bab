"""Given and pinned tokens in the engine: what is held, token for token as the readable loop, and what is refused."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.engine import EngineCore, Finished, Request
from redraft.generation.loop import denoising_steps, generate
from tests.engine.test_equality import Answers, assert_equal_in_random_schedules
from tests.fakes.constraints import END, TOKENS, VOCAB, automaton
from tests.fakes.models import tiny_model

CANVAS = 8
LETTERS = [TOKENS.index(b"a"), TOKENS.index(b"b"), TOKENS.index(b"c")]
WORDS = automaton("regex", "[a-c]{0,30}")


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_context=160)


def random_start(rng: random.Random, length: int, room: int, tokens: list[int]) -> CanvasStart:
    given_tokens = [rng.choice([None, rng.choice(tokens)]) for _ in range(rng.randint(1, length))]
    places = [at for at, token in enumerate(given_tokens) if token is not None and at < room]
    pinned = frozenset(at for at in places if rng.random() < 0.5)
    return CanvasStart(tokens=tuple(given_tokens), pinned=pinned, strength=rng.choice([None, 0.3, 1.0]))


class StartedAnswers(Answers):
    """Requests whose first canvas begins as something, some of them under a constraint, and some without either."""

    @staticmethod
    def _request(rng: random.Random, i: int) -> Request:
        request, kind = Answers._request(rng, i), rng.choice(["none", "free", "held"])
        if kind == "none":
            return request
        length, room = request.settings.canvas_length or CANVAS, request.settings.max_new_tokens
        tokens = LETTERS if kind == "held" else [token for token in range(VOCAB) if token != END]
        start = random_start(rng, length, min(room, 30), tokens)
        return dataclasses.replace(request, start=start, constraint=WORDS if kind == "held" else None)


def test_mixed_batches_are_the_loop_token_for_token(model):
    answers = StartedAnswers(model, 40)
    assert len({(one.start is None, one.constraint is None) for one in answers.requests}) == 3
    assert_equal_in_random_schedules(answers, 12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0]))
def test_pinned_tokens_are_in_every_canvas_every_draft_and_the_answer(model, seed, temperature):
    rng = random.Random(seed)
    start = random_start(rng, CANVAS, 20, list(range(VOCAB)))
    stops = [at for at in start.pinned if start.tokens[at] == END]
    pinned = {at for at in start.pinned if not stops or at <= stops[0] or start.tokens[at] == END}
    start = dataclasses.replace(start, pinned=frozenset(pinned))
    chosen = SamplerSettings.of(max_new_tokens=20, steps=5, seed=seed, temperature=temperature)
    steps = denoising_steps(model, [3, 4], chosen, start=start)
    taken = []
    while True:
        try:
            taken.append(next(steps))
        except StopIteration as end:
            generation = end.value
            break
    first = [step for step in taken if step.canvas == 0]
    for number, step in enumerate(first, 1):
        assert step.number == number
        for at in pinned:
            assert step.draft[at] == step.renoised[at] == start.tokens[at]
            assert step.accepted[at]
            assert step.entropy[at] == 0
    assert generation.steps_per_canvas[0] == len(first) <= start.first_step(5)
    answer = [*generation.token_ids, END]
    for at in pinned:
        assert at >= len(generation.token_ids) or answer[at] == start.tokens[at]
        assert at < len(answer) or start.tokens[at] == END


def test_a_canvas_that_begins_as_the_noise_it_would_be_is_the_same(model):
    chosen = SamplerSettings.of(max_new_tokens=20, steps=5, seed=3)
    free = generate(model, [3, 4], chosen)
    noise = CanvasStart(tokens=(LETTERS[0],) * CANVAS, strength=1.0)
    assert generate(model, [3, 4], chosen, start=noise).canvases == free.canvases


def test_an_answer_with_pins_and_without_a_constraint_ends_as_others_do(model):
    """Where its room is over, and nothing has ended it, it is cut; without tokens that end it, it always is."""
    core, chosen = EngineCore(model), SamplerSettings.of(max_new_tokens=CANVAS, canvas_length=CANVAS, steps=4, seed=0)
    start, found = CanvasStart.holding([LETTERS[0]] * (CANVAS - 2)), {}
    for name, stop_ids in (("usual", None), ("endless", ())):
        core.submit(Request(id=name, prompt=(3, 4), settings=chosen, start=start, stop_ids=stop_ids))
    while core.held:
        found |= {event.id: event.generation for event in core.step() if isinstance(event, Finished)}
    for generation in found.values():
        assert generation.token_ids[: CANVAS - 2] == tuple(LETTERS[:1] * (CANVAS - 2))
        assert generation.finish_reason == ("length" if len(generation.token_ids) == CANVAS else "stop")
    assert found["endless"].finish_reason == "length"
    assert generate(model, (3, 4), chosen, start=start).finish_reason == found["usual"].finish_reason


def test_pins_that_no_answer_can_have_are_refused_before_work(model):
    core, chosen = EngineCore(model), SamplerSettings(max_new_tokens=5, steps=2)
    a, digit = LETTERS[0], TOKENS.index(b"1")
    pins = CanvasStart.holding

    def refusal(**fields) -> str:
        request = Request(id="a", settings=chosen, prompt=(3,), **fields)
        with pytest.raises(ValueError, match=r"pinned|canvas") as caught:
            core.submit(request)
        if request.mode == "diffusion":
            with pytest.raises(ValueError, match=r"pinned|canvas") as in_loop:
                generate(model, request.prompt, chosen, request.constraint, start=request.start)
            assert str(in_loop.value) == str(caught.value)
        assert not core.held
        return str(caught.value)

    assert "the pinned tokens do not fit the constraint" in refusal(start=pins([a, digit]), constraint=WORDS)
    assert "the pinned tokens do not fit the constraint" in refusal(start=pins([a, END, a]))
    assert "the pinned tokens do not fit the constraint" in refusal(start=pins([a, END, a]), constraint=WORDS)
    # Behind the fifth token only the end has room.
    assert "the pinned tokens do not fit the constraint" in refusal(start=pins([a] * 6), constraint=WORDS)
    assert "position 6 is pinned, max_new_tokens is 5" in refusal(start=pins([a] * 7))
    assert "9 tokens are given, the canvas has 8" in refusal(start=CanvasStart(tokens=(a,) * 9))
    assert "tokens [61] of the canvas lie outside" in refusal(start=CanvasStart(tokens=(61,)))
    for mode in ("autoregressive", "verified", "scoring"):
        request = {"id": "a", "prompt": (3,), "settings": chosen, "mode": mode}
        with pytest.raises(ValueError, match=f"mode '{mode}' takes no start"):
            Request(**request, start=pins([a]))
