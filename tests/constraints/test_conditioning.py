"""Conditioning against the list of all canvases: random automata, any start, any ends, masses 200 nats apart."""

import itertools
import shutil

import numpy as np
import pytest

from redraft.constraints.conditioning import Conditioned, PlainRecursions, Recursions
from redraft.constraints.tokens import TokenAutomaton
from redraft.model.native.build import load_kernels

AUTOMATA = 1100


@pytest.fixture(params=["plain", "native"], scope="module")
def recursions(request) -> Recursions:
    if request.param == "plain":
        return PlainRecursions()
    if shutil.which("g++") is None:
        pytest.skip("no compiler here")
    kernels = load_kernels()
    assert kernels is not None
    return kernels.recursions


def random_automaton(rng: np.random.Generator) -> TokenAutomaton:
    """Up to four states and classes; each state has an arc, and its arcs are in order of their classes."""
    states, classes = rng.integers(1, 5, 2).tolist()
    source, arc_class = np.nonzero(rng.random((states, classes)) < 0.6)
    missing = np.setdiff1d(np.arange(states), source)
    source = np.append(source, missing)
    arc_class = np.append(arc_class, rng.integers(classes, size=len(missing)))
    order = np.lexsort((arc_class, source))
    return TokenAutomaton(
        class_of_token=np.arange(classes, dtype=np.int32),
        first=np.searchsorted(source[order], np.arange(states + 1)).astype(np.int32),
        arc_class=arc_class[order].astype(np.int32),
        target=rng.integers(states, size=len(source)).astype(np.int32),
        distance=np.zeros(states, dtype=np.int32),
        start=0,
        done=states - 1,
    )


def members_of(automaton: TokenAutomaton, state: int, ends: np.ndarray, length: int) -> list[tuple[int, ...]]:
    found = []
    for canvas in itertools.product(range(automaton.num_classes), repeat=length):
        end = automaton.state_after(canvas, state)
        if end is not None and ends[end]:
            found.append(canvas)
    return found


def test_it_is_what_enumeration_says(recursions):
    rng, empty = np.random.default_rng(0), 0
    for _ in range(AUTOMATA):
        automaton = random_automaton(rng)
        length, state = int(rng.integers(1, 6)), int(rng.integers(automaton.num_states))
        ends = rng.random(automaton.num_states) < 0.5
        masses = rng.random((length, automaton.num_classes)) * -rng.choice([1.0, 20.0, 200.0])
        masses[rng.random(masses.shape) < 0.1] = -np.inf
        members = members_of(automaton, state, ends, length)
        weights = np.array([masses[range(length), canvas].sum() for canvas in members])
        given = Conditioned(automaton, masses, state, ends, recursions)
        if not (weights > -np.inf).any():
            empty += 1
            assert given.log_mass == -np.inf
            assert not given.class_probs.any()
            with pytest.raises(ValueError, match="the canvas cannot belong to the language"):
                given.sample(np.zeros(length))
            with pytest.raises(ValueError, match="the canvas cannot belong to the language"):
                given.best(masses)
            continue
        log_mass = np.logaddexp.reduce(weights)
        assert given.log_mass == pytest.approx(log_mass, abs=1e-9)
        probs = np.zeros_like(masses)
        for canvas, weight in zip(members, weights, strict=True):
            probs[range(length), canvas] += np.exp(weight - log_mass)
        np.testing.assert_allclose(given.class_probs, probs, atol=1e-9)
        within = rng.random(masses.shape)
        logs = np.log(np.where(probs > 0, probs, 1))
        np.testing.assert_allclose(given.entropy(within), (probs * (within - logs)).sum(axis=1), atol=1e-7)
        classes, log_prob = given.best(masses)
        assert log_prob == pytest.approx(weights.max(), abs=1e-9)
        assert masses[range(length), classes].sum() == pytest.approx(weights.max(), abs=1e-9)
        for uniforms in (np.zeros(length), np.full(length, np.nextafter(1, 0)), rng.random(length)):
            drawn = tuple(given.sample(uniforms).tolist())
            assert weights[members.index(drawn)] > -np.inf
    assert 100 < empty < AUTOMATA - 500


def test_samples_come_as_often_as_they_are_probable(recursions):
    rng, draws = np.random.default_rng(1), 3000
    for _ in range(5):
        automaton, length = random_automaton(rng), 3
        ends = np.ones(automaton.num_states, dtype=bool)
        masses = np.log(rng.dirichlet(np.ones(automaton.num_classes), length))
        members = members_of(automaton, 0, ends, length)
        given = Conditioned(automaton, masses, 0, ends, recursions)
        expected = np.array([np.exp(masses[range(length), one].sum() - given.log_mass) for one in members]) * draws
        counts = dict.fromkeys(members, 0)
        for uniforms in rng.random((draws, length)):
            counts[tuple(given.sample(uniforms).tolist())] += 1
        common = expected > 5
        found = np.array(list(counts.values()))
        chi = ((found - expected)[common] ** 2 / expected[common]).sum()
        freedom = max(1, common.sum() - 1)
        # Five standard deviations of chi square with so many degrees of freedom.
        assert chi < freedom + 5 * np.sqrt(2 * freedom)


def test_both_ways_go_alike_along_a_canvas_of_any_size(recursions):
    """What cannot be enumerated: 64 positions, many states and arcs, masses hundreds of nats apart."""
    rng, plain = np.random.default_rng(2), PlainRecursions()
    for spread in (3.0, 30.0, 400.0):
        states, classes, length = 300, 40, 64
        counts = rng.integers(1, 21, states)
        arc_class = np.concatenate([np.sort(rng.choice(classes, count, replace=False)) for count in counts])
        first = np.append(0, np.cumsum(counts)).astype(np.int32)
        # Most go a little further, some anywhere.
        source = np.repeat(np.arange(states), counts)
        jump = np.where(rng.random(len(source)) < 0.02, *rng.integers(0, [[states], [12]], (2, len(source))))
        target = ((source + jump) % states).astype(np.int32)
        arcs = first, arc_class.astype(np.int32), target
        ends = rng.random(states) < 0.05
        masses = rng.random((length, classes)) * -spread
        masses[rng.random(masses.shape) < 0.3] = -np.inf
        after, probs = recursions.condition(arcs, masses, 7, ends)
        wanted_after, wanted_probs = plain.condition(arcs, masses, 7, ends)
        is_reached = np.arange(states) == 7
        for found, wanted in zip(after, wanted_after, strict=True):
            np.testing.assert_allclose(found[is_reached], wanted[is_reached], rtol=1e-12, atol=1e-9)
            is_reached[target[is_reached[source]]] = True
        np.testing.assert_allclose(probs, wanted_probs, atol=1e-10)
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-9)
        found, wanted = recursions.likeliest(arcs, masses, 7, ends), plain.likeliest(arcs, masses, 7, ends)
        assert (found[0].tolist(), found[1]) == (wanted[0].tolist(), wanted[1])


def test_arrays_need_not_lie_in_one_piece(recursions):
    """Of a view a copy is made for the kernels, which has to last as long as the call."""
    rng, states, classes, length = np.random.default_rng(3), 6, 5, 4
    first = np.arange(0, 3 * states + 1, 3, dtype=np.int32)
    arcs = first, *(rng.integers(below, size=3 * states).astype(np.int32) for below in (classes, states))
    masses, ends = rng.random((length, classes)) * -5, np.ones(states, dtype=bool)
    views = tuple(np.stack([one, np.zeros_like(one)], axis=1)[:, 0] for one in arcs)
    _, probs = recursions.condition(views, np.asfortranarray(masses), 0, ends)
    np.testing.assert_allclose(probs, PlainRecursions().condition(arcs, masses, 0, ends)[1], atol=1e-12)
    found, score = recursions.likeliest(views, np.asfortranarray(masses), 0, ends)
    wanted, wanted_score = PlainRecursions().likeliest(arcs, masses, 0, ends)
    assert (found.tolist(), score) == (wanted.tolist(), pytest.approx(wanted_score))
