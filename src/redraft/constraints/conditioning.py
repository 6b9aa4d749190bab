"""A canvas's distribution under the condition that the canvas belongs to a language: exactly.

But for the condition positions are independent, so the states along a canvas are a Markov chain. Backwards, in logs:

    after[C, s] = 0 where the canvas may end in s, else −∞
    after[i, s] = log Σ over arcs s →k t of exp(mass[i, k] + after[i+1, t])
    step[i, arc s →k t] = exp(mass[i, k] + after[i+1, t] − after[i, s])

Then forwards, in probabilities: each state's is spread over its arcs by `step`. No state that is the only one to
survive is lost, however improbable it looked (Rabiner, A Tutorial on Hidden Markov Models, 1989).

C canvas length, K token classes, S states, E arcs.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from redraft.constraints.tokens import TokenAutomaton

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Arcs = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
"""The first, arc_class and target of a `TokenAutomaton`."""


class Recursions(Protocol):
    """What goes along a canvas, from `state` to one of the states `ends` bool [S]."""

    def condition(self, arcs: Arcs, masses: Floats, state: int, ends: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Returns `after` [C+1, S], and the probability [C, K] of each class, 0 where no canvas meets the condition.

        masses [C, K]: the log-probability of each class at each position.
        """
        ...

    def likeliest(self, arcs: Arcs, scores: Floats, state: int, ends: NDArray[np.bool_]) -> tuple[Ints, float]:
        """Returns the classes [C] whose scores [C, K] add up to most, and the sum (Viterbi, 1967).

        Of several the one whose classes come first.
        """
        ...


class PlainRecursions:
    """The recursions in numpy: the oracle of the fast ones."""

    def condition(self, arcs: Arcs, masses: Floats, state: int, ends: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        first, arc_class, target = arcs
        source = np.repeat(np.arange(len(ends)), np.diff(first))
        length = len(masses)
        after = np.empty((length + 1, len(ends)))
        after[length] = np.where(ends, 0.0, -np.inf)
        for position in reversed(range(length)):
            weights = masses[position, arc_class] + after[position + 1, target]
            # Every state has an arc, so no stretch of arcs is empty.
            peak = np.maximum.reduceat(weights, first[:-1])
            peak = np.where(np.isfinite(peak), peak, 0.0)
            sums = np.add.reduceat(np.exp(weights - peak[source]), first[:-1])
            with np.errstate(divide="ignore"):
                after[position] = peak + np.log(sums)
        probs = np.zeros_like(masses)
        at: Floats = np.zeros(len(ends))
        at[state] = after[0, state] > -np.inf
        for position in range(length):
            arc = np.flatnonzero(at[source])
            weights = masses[position, arc_class[arc]] + after[position + 1, target[arc]]
            flow = at[source[arc]] * np.exp(weights - after[position, source[arc]])
            probs[position] = np.bincount(arc_class[arc], flow, masses.shape[1])
            at = np.bincount(target[arc], flow, len(ends)).astype(np.float64)
        return after, probs

    def likeliest(self, arcs: Arcs, scores: Floats, state: int, ends: NDArray[np.bool_]) -> tuple[Ints, float]:
        first, arc_class, target = arcs
        source = np.repeat(np.arange(len(ends)), np.diff(first))
        length = len(scores)
        choices = np.zeros((length, len(ends)), dtype=np.int64)
        after = np.where(ends, 0.0, -np.inf)
        for position in reversed(range(length)):
            weights = scores[position, arc_class] + after[target]
            after = np.maximum.reduceat(weights, first[:-1])
            best = np.where(weights == after[source], np.arange(len(weights)), len(weights))
            choices[position] = np.minimum.reduceat(best, first[:-1])
        found, classes = float(after[state]), np.zeros(length, dtype=np.int64)
        for position in range(length):
            arc = choices[position, state]
            classes[position], state = arc_class[arc], int(target[arc])
        return classes, found


class Conditioned:
    """A canvas under the condition. log_mass: the log of the probability that it holds, −∞ where it cannot.

    class_probs [C, K]: of each position's class, given that it holds. automaton: of the language. masses [C, K]: the
    log-probability of each class at each position. state: where the canvas begins. ends bool [S]: the states that it
    may end in.
    """

    def __init__(
        self,
        automaton: TokenAutomaton,
        masses: Floats,
        state: int,
        ends: NDArray[np.bool_],
        recursions: Recursions | None = None,
    ) -> None:
        self._recursions = recursions or PlainRecursions()
        self._arcs = automaton.first, automaton.arc_class, automaton.target
        self._masses, self._state, self._ends = masses, state, ends
        self._after, self.class_probs = self._recursions.condition(self._arcs, masses, state, ends)
        self.log_mass = float(self._after[0, state])

    def entropy(self, within: Floats) -> Floats:
        """Returns the entropy [C] of each position's token, in nats; within [C, K]: that of a token given its class."""
        probs = self.class_probs
        entropy: Floats = (probs * (within - np.log(np.where(probs > 0, probs, 1.0)))).sum(axis=1)
        return entropy

    def sample(self, uniforms: Floats) -> Ints:
        """Draws the classes [C] of a canvas, all together; the uniforms [C] in [0, 1) decide, one for each position."""
        self._check()
        first, arc_class, target = self._arcs
        classes, state = np.zeros(len(uniforms), dtype=np.int64), self._state
        for position, uniform in enumerate(uniforms):
            arcs = slice(first[state], first[state + 1])
            weights = self._masses[position, arc_class[arcs]] + self._after[position + 1, target[arcs]]
            cumulated = np.cumsum(np.exp(weights - self._after[position, state]))
            # The last arc that has a probability takes what rounding left over.
            wanted = min(uniform * cumulated[-1], np.nextafter(cumulated[-1], 0))
            arc = arcs.start + int(np.searchsorted(cumulated, wanted, side="right"))
            classes[position], state = arc_class[arc], int(target[arc])
        return classes

    def best(self, best_log_probs: Floats) -> tuple[Ints, float]:
        """Returns the classes [C] of the likeliest canvas, and its log-probability.

        best_log_probs [C, K]: those of each class's likeliest token.
        """
        self._check()
        return self._recursions.likeliest(self._arcs, best_log_probs, self._state, self._ends)

    def _check(self) -> None:
        if self.log_mass == -np.inf:
            raise ValueError("the canvas cannot belong to the language: no sequence of tokens meets the condition")
