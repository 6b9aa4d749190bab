"""A canvas's distribution under the condition that the canvas belongs to a language: exactly, and plainly.

But for the condition positions are independent, so the states along a canvas are a Markov chain. Backwards, in logs:

    after[C, s] = 0 where the canvas may end in s, else −∞
    after[i, s] = log Σ over arcs s →k t of exp(mass[i, k] + after[i+1, t])
    step[i, arc s →k t] = exp(mass[i, k] + after[i+1, t] − after[i, s])

Then forwards, in probabilities: each state's is spread over its arcs by `step`. No state that is the only one to
survive is lost, however improbable it looked (Rabiner, A Tutorial on Hidden Markov Models, 1989).

C canvas length, K token classes, S states, E arcs.
"""

import numpy as np
from numpy.typing import NDArray

from redraft.constraints.tokens import TokenAutomaton

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Conditioned:
    """A canvas under the condition. log_mass: the log of the probability that it holds, −∞ where it cannot.

    class_probs [C, K]: of each position's class, given that it holds. automaton: of the language. masses [C, K]: the
    log-probability of each class at each position. state: where the canvas begins. ends bool [S]: the states that it
    may end in.
    """

    def __init__(self, automaton: TokenAutomaton, masses: Floats, state: int, ends: NDArray[np.bool_]) -> None:
        self._automaton, self._state, self._ends = automaton, state, ends
        self._source = np.repeat(np.arange(automaton.num_states), np.diff(automaton.first))
        length = len(masses)
        self._steps = np.zeros((length, automaton.num_arcs))
        after = np.where(ends, 0.0, -np.inf)
        for position in reversed(range(length)):
            weights = masses[position, automaton.arc_class] + after[automaton.target]
            # Every state has an arc, so no stretch of arcs is empty.
            peak = np.maximum.reduceat(weights, automaton.first[:-1])
            peak = np.where(np.isfinite(peak), peak, 0.0)
            shares = np.exp(weights - peak[self._source])
            sums = np.add.reduceat(shares, automaton.first[:-1])
            with np.errstate(divide="ignore"):
                after = peak + np.log(sums)
            self._steps[position] = shares / np.where(sums > 0, sums, 1.0)[self._source]
        self.log_mass = float(after[state])
        self.class_probs = np.zeros_like(masses)
        at: Floats = np.zeros(automaton.num_states)
        at[state] = self.log_mass > -np.inf
        for position in range(length):
            flow = at[self._source] * self._steps[position]
            self.class_probs[position] = np.bincount(automaton.arc_class, flow, masses.shape[1])
            at = np.bincount(automaton.target, flow, automaton.num_states).astype(np.float64)

    def entropy(self, within: Floats) -> Floats:
        """Returns the entropy [C] of each position's token, in nats; within [C, K]: that of a token given its class."""
        probs = self.class_probs
        entropy: Floats = (probs * (within - np.log(np.where(probs > 0, probs, 1.0)))).sum(axis=1)
        return entropy

    def sample(self, uniforms: Floats) -> Ints:
        """Draws the classes [C] of a canvas, all together; the uniforms [C] in [0, 1) decide, one for each position."""
        self._check()
        classes, state = np.zeros(len(uniforms), dtype=np.int64), self._state
        for position, uniform in enumerate(uniforms):
            arcs = slice(self._automaton.first[state], self._automaton.first[state + 1])
            cumulated = np.cumsum(self._steps[position, arcs])
            # The last arc that has a probability takes what rounding left over.
            target = min(uniform * cumulated[-1], np.nextafter(cumulated[-1], 0))
            arc = arcs.start + int(np.searchsorted(cumulated, target, side="right"))
            classes[position], state = self._automaton.arc_class[arc], self._automaton.target[arc]
        return classes

    def best(self, best_log_probs: Floats) -> tuple[Ints, float]:
        """Returns the classes [C] of the likeliest canvas, and its log-probability (Viterbi, 1967).

        best_log_probs [C, K]: those of each class's likeliest token. Of several the one whose classes come first.
        """
        self._check()
        automaton, length = self._automaton, len(best_log_probs)
        choices = np.zeros((length, automaton.num_states), dtype=np.int64)
        after = np.where(self._ends, 0.0, -np.inf)
        for position in reversed(range(length)):
            weights = best_log_probs[position, automaton.arc_class] + after[automaton.target]
            after = np.maximum.reduceat(weights, automaton.first[:-1])
            best = np.where(weights == after[self._source], np.arange(len(weights)), len(weights))
            choices[position] = np.minimum.reduceat(best, automaton.first[:-1])
        classes, state = np.zeros(length, dtype=np.int64), self._state
        for position in range(length):
            arc = choices[position, state]
            classes[position], state = automaton.arc_class[arc], automaton.target[arc]
        return classes, float(after[self._state])

    def _check(self) -> None:
        if self.log_mass == -np.inf:
            raise ValueError("the canvas cannot belong to the language: no sequence of tokens meets the condition")
