"""Answers held to a language: the rest rule against enumeration, and what must hold whatever a model says."""

import dataclasses
import itertools
import json
from collections.abc import Iterator

import jsonschema_rs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import denoising_steps, generate
from redraft.generation.result import DenoisingStep, Generation
from redraft.model.batch import FlatBatch, Pass
from tests.fakes.constraints import END, VOCAB, VOCABULARY, anything, automaton, forbidding
from tests.fakes.models import tiny_model
from tests.generation.test_loop import filled_cache, sure_positions

CANVAS = 8
SCHEMAS = [
    {"type": "object", "properties": {"ab": {"type": "string"}, "n": {"type": "integer"}}, "required": ["ab", "n"]},
    {"type": "object", "properties": {"x": {"type": ["string", "null"], "maxLength": 3}}, "required": ["x"]},
    {"type": "array", "items": {"enum": ["abc", 10, True, None, "é"]}, "minItems": 2},
    {"anyOf": [{"type": "boolean"}, {"type": "number", "minimum": -3, "maximum": 12.5}]},
    {"type": "object", "properties": {"d": {"type": "string", "format": "date"}}, "required": ["d"]},
]
TEXTS = [json.dumps(schema) for schema in SCHEMAS]
PATTERNS = ["[a-c]{3,40}", "(é|aé){5}", "a|ab|abc{9}", "a{16}", "(ab|10)*"]


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_context=160)


def run(model, prompt, chosen, constraint=None) -> tuple[list[DenoisingStep], Generation]:
    steps, generator = [], denoising_steps(model, prompt, chosen, constraint)
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as end:
            return steps, end.value


def answer_of(generation: Generation) -> bytes:
    return VOCABULARY.text_of(generation.token_ids)


# What the constraint decides, against all canvases of the language.


def entropy_of(probs: np.ndarray) -> np.ndarray:
    return -(probs * np.log(np.where(probs > 0, probs, 1))).sum(axis=-1)


WAYS = [("[a-d]{2,9}", 1.0), ("(ab|b1|c)*", 0.0), ("(ab|b1|c)*", 1.0), ("e|10f.*", 0.0)]


@torch.no_grad()
@pytest.mark.parametrize("way", [(*way, is_filled) for way in WAYS for is_filled in (False, True)])
def test_every_step_is_what_enumeration_says(model, way, monkeypatch):
    """Recomputes drafts, log masses, stops and guided samples from all allowed ones of 61³ canvases of three tokens."""
    monkeypatch.setattr("redraft.generation.constrained.PATIENCE", 1)
    (pattern, temperature, is_filled), length, prompt = way, 3, (3, 4, 5)
    constraint = dataclasses.replace(automaton("regex", pattern), is_filled=is_filled)
    chosen = SamplerSettings.of(
        max_new_tokens=8, canvas_length=length, steps=6, seed=3, temperature=temperature, confidence_threshold=0.2
    )
    written: list[int] = []
    steps, generation = run(model, prompt, chosen, constraint)
    masses, guided_steps = [], 0
    for index, group in itertools.groupby(steps, key=lambda step: step.canvas):
        room = 8 - len(written)
        left = min(room - length, 160)
        start = constraint.state_after(written)
        members = np.array(list(canvases_of(constraint, start, length, room, left)))
        cache = filled_cache(model, [*prompt, *written])
        canvas = Counter(3, 0, index).random_tokens(length, VOCAB, Purpose.INITIAL_CANVAS)
        signal, own, is_guided, draft = None, None, False, None
        for step in group:
            hidden = model.run(FlatBatch.single(canvas, cache.length, Pass.DENOISER, soft_embedding=signal), [cache])
            logits = model.head.logits(hidden.hidden) / step.temperature
            log_probs = logits.double().log_softmax(-1).numpy()
            weights = log_probs[np.arange(length), members].sum(axis=1)
            log_mass = np.logaddexp.reduce(weights)
            assert step.log_mass == pytest.approx(log_mass, rel=1e-5, abs=1e-4)
            before, draft = draft, members[weights.argmax()].tolist()
            assert step.draft.tolist() == draft
            # Of the model alone: what it accepts.
            probs = np.exp(log_probs)
            np.testing.assert_allclose(step.entropy.numpy(), entropy_of(probs), atol=1e-4)
            assert step.accepted.tolist() == sure_positions(step.entropy.tolist(), 0.1)
            # The rest rule.
            last, own = own, log_probs.argmax(axis=1).tolist()
            is_inside = own in members.tolist()
            is_guided |= not is_inside and (own == last or 6 - step.step + 1 >= 3)
            # When it stops: by the conditional distribution, but not while the model's own draft moves or is outside,
            # unless blanks of a given text are filled.
            share = np.exp(weights - log_mass)
            marginals = np.array([np.bincount(members[:, i], share, VOCAB) for i in range(length)])
            may_stop = draft == before and (is_filled or is_guided or (is_inside and own == last))
            is_settled = may_stop and entropy_of(marginals).mean() < 0.2
            assert step.finished == (is_settled or step.step == 1)
            assert step.guided == is_guided
            guided_steps += is_guided
            kept = step.accepted.numpy()
            if is_guided and temperature:
                assert (members[:, kept] == step.renoised.numpy()[kept]).all(axis=1).any()
            elif is_guided:
                assert step.renoised[step.accepted].tolist() == np.array(draft)[kept].tolist()
            canvas, signal = step.renoised, model.head.soft_embedding(logits)
        masses.append(log_mass)
        written += draft
    assert generation.constraint.log_mass == pytest.approx(masses, rel=1e-5, abs=1e-4)
    assert generation.constraint.guided_steps == guided_steps
    assert generation.constraint.states == constraint.num_states
    assert generation.finish_reason == "stop"


def canvases_of(constraint, state, length, room, left) -> Iterator[tuple[int, ...]]:
    """Tries all tokens at each position; yields the canvases that begin or are a member, with room for the rest."""
    if not length:
        if state == constraint.done or constraint.distance[state] - 1 <= left:
            yield ()
        return
    for token in range(VOCAB) if room > 0 else [END]:
        following = constraint.next_state(state, token)
        if following is not None:
            for rest in canvases_of(constraint, following, length - 1, room - 1, left):
                yield token, *rest


# What changes nothing.


def told(steps: list[DenoisingStep]) -> list:
    return [[one.draft.tolist(), one.renoised.tolist(), one.accepted.tolist(), one.entropy.tolist()] for one in steps]


def test_a_language_that_allows_everything_changes_no_bit(model):
    for seed in range(10):
        chosen = SamplerSettings.of(max_new_tokens=3 * CANVAS, steps=7, seed=seed, confidence_threshold=0.2)
        prompt = [3, 4, seed]
        free, wanted = run(model, prompt, chosen)
        held, found = run(model, prompt, chosen, anything())
        assert told(held) == told(free)
        assert (found.canvases, found.token_ids, found.steps_per_canvas) == (
            (wanted.canvases, wanted.token_ids, wanted.steps_per_canvas)
        )
        assert found.constraint.guided_steps == 0
        assert found.constraint.log_mass == pytest.approx([0.0] * len(found.canvases), abs=1e-5)


def test_a_language_that_the_model_keeps_to_changes_nothing_before_it_stops(model):
    """Forbids all tokens that no draft of the free answer holds, but for those of the canvases' noise."""
    stopped_earlier = 0
    for seed in range(20):
        chosen = SamplerSettings.of(max_new_tokens=CANVAS, steps=9, seed=seed, confidence_threshold=0.05)
        free, _ = run(model, [3, 4, seed], chosen)
        drafted = {token for step in free for token in step.draft.tolist()}
        held, _ = run(model, [3, 4, seed], chosen, forbidding(set(range(VOCAB)) - drafted - {END}))
        assert len(held) <= len(free)
        assert told(held) == told(free[: len(held)])
        assert not any(step.guided for step in held)
        stopped_earlier += len(held) < len(free)
    assert stopped_earlier


# What always holds.


@pytest.mark.parametrize("text", TEXTS)
def test_every_answer_is_valid_at_every_length(model, text):
    constraint = automaton("json_schema", text)
    judge = jsonschema_rs.validator_for(json.loads(text), validate_formats=True)
    shortest = constraint.min_tokens
    lengths = {shortest, shortest + 1, CANVAS - 1, CANVAS, CANVAS + 1, 3 * CANVAS}
    for length in sorted(length for length in lengths if length >= shortest):
        chosen = SamplerSettings.of(max_new_tokens=length, steps=5, seed=length, confidence_threshold=0.2)
        generation = generate(model, [3, 4, 5], chosen, constraint)
        assert generation.finish_reason == "stop"
        assert len(generation.token_ids) <= length
        assert judge.is_valid(json.loads(answer_of(generation))), answer_of(generation)


@settings(deadline=None, max_examples=60)
@given(
    pattern=st.sampled_from(PATTERNS),
    extra=st.integers(0, 12),
    length=st.sampled_from([1, 2, 5, 8, 13]),
    canvases=st.integers(0, 2),
    steps=st.integers(1, 5),
    temperature=st.sampled_from([0.0, 1.0, 3.0]),
    seed=st.integers(0, 100),
)
def test_the_end_is_reached_inside_max_tokens_and_the_context(
    pattern, extra, length, canvases, steps, temperature, seed
):
    """The context has room for the canvases of a shortest answer, and for a few more or not a whole one."""
    constraint = automaton("regex", pattern)
    needed = -(-max(1, constraint.min_tokens) // length) + canvases
    model = tiny_model(max_context=3 + needed * length + min(extra, length - 1))
    chosen = SamplerSettings(
        max_new_tokens=max(1, constraint.min_tokens + extra),
        canvas_length=length,
        steps=steps,
        temperature=temperature,
        seed=seed,
    )
    generation = generate(model, [3, 4, 5], chosen, constraint)
    assert generation.finish_reason == "stop"
    assert len(generation.token_ids) <= chosen.max_new_tokens
    assert len(generation.canvases) <= needed
    state = constraint.state_after(generation.token_ids)
    assert state is not None
    assert constraint.distance[state] == 1
    answer_of(generation).decode()


def test_tokens_per_forward_counts_an_end_only_where_there_is_one(model):
    chosen = SamplerSettings(max_new_tokens=30, steps=1, seed=0)
    generation = generate(model, [3], chosen, automaton("regex", "a{16}"))
    assert [len(generation.token_ids), generation.steps_per_canvas] == [16, (1, 1)]
    assert generation.tokens_per_forward == 8.0
    generation = generate(model, [3], chosen, automaton("regex", "a{15}"))
    assert generation.tokens_per_forward == 8.0


# What is refused.


@pytest.mark.parametrize(
    ("constraint", "prompt", "changes", "message"),
    [
        (anything(62), 3, {}, "built for a vocabulary of 62 tokens, the model has 61"),
        (anything(ends=(1, 2)), 3, {}, "ends at the tokens 1, 2, but the answer at 1: build it with the stop ids"),
        (anything(ends=(2,)), 3, {}, "ends at the tokens 2, but the answer at 1"),
        (
            automaton("regex", "a{16}"),
            3,
            {"max_new_tokens": 15},
            "the shortest answer of this constraint has 16 tokens, max_tokens is 15",
        ),
        (
            automaton("regex", "a{17}"),
            138,
            {},
            "has 17 tokens, and behind a prompt of 138 the context of 160 has room for 2 canvases of 8",
        ),
    ],
)
def test_a_constraint_that_no_answer_can_meet_is_refused_before_any_work(model, constraint, prompt, changes, message):
    with pytest.raises(ValueError, match=message):
        generate(model, [3] * prompt, SamplerSettings.of(steps=2, **changes), constraint)


def test_a_constraint_that_would_hold_up_the_engine_is_refused(model, monkeypatch):
    held = automaton("regex", "[a-c]{3,40}")
    monkeypatch.setattr("redraft.generation.constrained.MAX_CANVAS_ARCS", held.num_arcs * CANVAS)
    assert generate(model, [3], SamplerSettings(steps=2), held).finish_reason == "stop"
    with pytest.raises(ValueError, match=rf"has {held.num_arcs} arcs, for canvases of 9 tokens the limit is \d+: give"):
        generate(model, [3], SamplerSettings.of(steps=2, canvas_length=9), held)


def test_logits_that_are_not_finite_are_told_as_ever():
    broken = tiny_model(max_context=160)
    with torch.no_grad():
        broken.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="logits are not finite in canvas 0, step 2"):
        generate(broken, [3], SamplerSettings(steps=2), automaton("regex", "a{3}"))
