"""Decisions: the probabilities of labels against all canvases of a tiny model."""

import itertools

import numpy as np
import pytest
import torch

from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.labels import LabelSet
from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.engine import EngineCore, Limits, Request
from redraft.generation.decisions import label_log_masses
from redraft.generation.loop import generate
from redraft.model.batch import FlatBatch, Pass
from tests.fakes.constraints import END, TOKENS, VOCAB, VOCABULARY
from tests.fakes.models import tiny_model
from tests.generation.test_loop import filled_cache

LENGTH = 3
LABELS = ["10", "1", "a", "ab", "é", "", "true", "abcd", '":']
PROMPT = (3, 4, 5)


@pytest.fixture(scope="module")
def model():
    return tiny_model(max_context=160)


def enumerated(log_probs: np.ndarray, labels: list[str]) -> np.ndarray:
    """The log-probability of each label, from all 61³ canvases."""
    every = np.array(list(itertools.product(range(VOCAB), repeat=LENGTH)))
    weights = log_probs[np.arange(LENGTH), every].sum(axis=1)
    found = dict.fromkeys(labels, -np.inf)
    for canvas, weight in zip(every.tolist(), weights, strict=True):
        end = canvas.index(END) if END in canvas else LENGTH
        written, rest = canvas[:end], canvas[end:]
        if set(rest) > {END} or any(TOKENS[token] is None for token in written):
            continue
        text = b"".join(TOKENS[token] or b"" for token in written).decode(errors="replace")
        if text in found:
            found[text] = np.logaddexp(found[text], weight)
    return np.array([found[label] for label in labels])


def noise(seed: int, draw: int) -> torch.Tensor:
    return Counter(seed, draw).random_tokens(LENGTH, VOCAB, Purpose.INITIAL_CANVAS)


@torch.no_grad()
def test_probabilities_of_one_pass_are_those_of_all_canvases(model):
    settings = SamplerSettings.of(canvas_length=LENGTH, seed=7)
    labels = LabelSet.of(LABELS, VOCABULARY)
    (found,) = label_log_masses(model, [PROMPT], [labels], settings, draws=3, temperature=0.7)
    cache = filled_cache(model, [*PROMPT])
    for draw in range(3):
        hidden = model.run(FlatBatch.single(noise(7, draw), len(PROMPT), Pass.DENOISER), [cache]).hidden
        log_probs = (model.head.logits(hidden) / 0.7).double().log_softmax(-1).numpy()
        wanted = enumerated(log_probs, LABELS)
        assert np.isinf(wanted).tolist() == [label == "abcd" for label in LABELS]
        np.testing.assert_allclose(found[draw], wanted, atol=1e-4)


@torch.no_grad()
def test_pinned_positions_are_certain(model):
    settings = SamplerSettings.of(canvas_length=LENGTH, seed=7)
    start = CanvasStart.holding([TOKENS.index(b"a")])
    labels = LabelSet.of(LABELS, VOCABULARY)
    (found,) = label_log_masses(model, [PROMPT], [labels], settings, starts=[start])
    canvas = noise(7, 0)
    canvas[0] = TOKENS.index(b"a")
    cache = filled_cache(model, [*PROMPT])
    hidden = model.run(FlatBatch.single(canvas, len(PROMPT), Pass.DENOISER), [cache]).hidden
    log_probs = model.head.logits(hidden).double().log_softmax(-1).numpy()
    log_probs[0] = -np.inf
    log_probs[0, canvas[0]] = 0.0
    wanted = enumerated(log_probs, LABELS)
    assert [label for label, one in zip(LABELS, wanted, strict=True) if np.isfinite(one)] == ["a", "ab"]
    np.testing.assert_allclose(found[0], wanted, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("room", [2, 3, 8])
def test_the_texts_of_a_choice_have_their_probabilities_in_its_last_step(model, room):
    texts = ["10", "1", "a", "ab", "é", "abc", '":']
    constraint = build(ConstraintSpec(kind="choice", choices=(*texts, "a")), VOCABULARY)
    settings = SamplerSettings.of(canvas_length=LENGTH, seed=7, steps=1, max_new_tokens=room)
    result = generate(model, PROMPT, settings, constraint)
    hidden = model.run(
        FlatBatch.single(noise(7, 0), len(PROMPT), Pass.DENOISER), [filled_cache(model, [*PROMPT])]
    ).hidden
    log_probs = model.head.logits(hidden).double().log_softmax(-1).numpy()
    log_probs[room:, :END] = log_probs[room:, END + 1 :] = -np.inf
    wanted = enumerated(log_probs, texts)
    wanted = np.exp(wanted - np.logaddexp.reduce(wanted))
    found = result.constraint.choices
    assert list(found) == texts
    np.testing.assert_allclose([*found.values()], wanted, atol=1e-4)
    assert sum(found.values()) == pytest.approx(1)
    core = EngineCore(model, Limits(forward_tokens=64, admitted_tokens=160, prefix_tokens=0))
    core.submit(Request(id="", prompt=PROMPT, settings=settings, constraint=constraint))
    events = [event for _ in range(20) if core.held for event in core.step()]
    assert events[-1].generation.constraint.choices == found


def test_of_texts_that_a_canvas_does_not_hold_and_of_other_constraints_no_probability_is_told(model):
    settings = SamplerSettings.of(canvas_length=LENGTH, seed=7, steps=2, max_new_tokens=9)
    for spec in (
        ConstraintSpec(kind="choice", choices=("a", "ab" * 4)),
        ConstraintSpec(kind="regex", text="a|ab"),
        ConstraintSpec(kind="choice", choices=tuple(f"{a}{b}" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop")),
    ):
        assert generate(model, PROMPT, settings, build(spec, VOCABULARY)).constraint.choices is None


def test_together_they_are_as_alone_bit_by_bit(model):
    settings = SamplerSettings.of(canvas_length=5, seed=3, temperature=1.0)
    prompts = [(3, 4, 5), (7,), tuple(range(2, 40))]
    labels = [LabelSet.of(texts, VOCABULARY) for texts in (["yes", "no"], LABELS, ["a", "b", "c", "é"])]
    for passes in (1, 3):
        together = label_log_masses(model, prompts, labels, settings, passes=passes, draws=2)
        again = label_log_masses(model, prompts, labels, settings, passes=passes, draws=2)
        for at, found in enumerate(together):
            (alone,) = label_log_masses(model, [prompts[at]], [labels[at]], settings, passes=passes, draws=2)
            assert np.array_equal(found, alone)
            assert np.array_equal(found, again[at])
        assert not np.array_equal(together[0][0], together[0][1])


def test_labels_of_255_texts_that_begin_alike():
    texts = [f"{a}{b}{'ab' * c}" for a in "abcde" for b in "abcdefghijklmnopq" for c in (0, 1, 2)]
    labels = LabelSet.of(texts, VOCABULARY)
    assert len(texts) == 255
    generator = np.random.default_rng(0)
    log_probs = generator.normal(size=(7, len(labels.tokens) + 1))
    log_probs -= np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    found = labels.log_masses(log_probs)
    assert np.exp(found).sum() <= 1 + 1e-9
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="two labels are the same text"):
        LabelSet.of(["a", "a"], VOCABULARY)
