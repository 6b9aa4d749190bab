"""What forwards cost, measured while they run, and whether drafts pay at the load of the moment. Imports no torch."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Load:
    """What one forward reads: of how many sequences, how many rows, and how many of these are of canvases."""

    sequences: float = 0.0
    rows: float = 0.0
    canvas_rows: float = 0.0

    def __add__(self, other: "Load") -> "Load":
        return Load(self.sequences + other.sequences, self.rows + other.rows, self.canvas_rows + other.canvas_rows)

    def times(self, count: float) -> "Load":
        return Load(self.sequences * count, self.rows * count, self.canvas_rows * count)


class ForwardCosts:
    """Seconds of a forward: so many for each forward, sequence, row, and row of a canvas.

    The four are fitted by recursive least squares to relative errors, so that forwards of every size count alike and
    what has not been seen for long keeps what was learned of it. https://en.wikipedia.org/wiki/Kalman_filter
    """

    PRIOR = (100.0, 1.0, 1.0, 1.0)
    """Relative to a row's: what is believed of the four before the first forward."""

    NOISE, DRIFT = 0.04, 1e-3
    """The relative variance of a measured time, and the relative change of what is fitted from one to the next."""

    def __init__(self) -> None:
        self._weights: NDArray[np.float64] | None = None
        self._covariance = self._drift = np.zeros((4, 4))

    def seconds(self, load: Load) -> float:
        """Predicts the seconds of a forward; without a measurement in units of their own."""
        weights = np.array(self.PRIOR) if self._weights is None else self._weights
        return float(_features(load) @ weights.clip(0.0))

    def observe(self, load: Load, seconds: float) -> None:
        """Takes a measured time into account. One that others held up counts as little more than usual."""
        features = _features(load)
        if self._weights is None:
            prior = np.array(self.PRIOR)
            self._weights = prior * (seconds / float(features @ prior))
            self._covariance = np.diag(self._weights**2)
            self._drift = self._covariance * self.DRIFT**2
        expected: float = max(self.seconds(load), 1e-9)
        scaled = features / expected
        self._covariance = self._covariance + self._drift
        gain = self._covariance @ scaled / (scaled @ self._covariance @ scaled + self.NOISE)
        error = min(1.0, seconds / expected - float(scaled @ self._weights))
        self._weights = self._weights + gain * error
        self._covariance -= np.outer(gain, scaled) @ self._covariance


@dataclass
class DraftYield:
    """What rounds of drafts took and gave: rounds, denoiser passes, rows that were verified, and tokens kept."""

    rounds: float = 0.0
    passes: float = 0.0
    rows: float = 0.0
    kept: float = 0.0

    def add(self, other: "DraftYield", decay: float = 1.0) -> None:
        """Adds other rounds; what was there counts `decay` times as much from now on."""
        for name, value in vars(other).items():
            setattr(self, name, decay * getattr(self, name) + value)

    def per_round(self) -> "DraftYield":
        return DraftYield(1.0, *(value / self.rounds for value in (self.passes, self.rows, self.kept)))

    def with_prior(self, prior: "DraftYield", rounds: float) -> "DraftYield":
        """Returns these rounds and so many of another, which is of one round."""
        found = dataclasses.replace(self)
        found.add(DraftYield(*(value * rounds for value in vars(prior).values())))
        return found


FIRST_GUESS = DraftYield(rounds=1.0, passes=1.2, rows=10.0, kept=5.0)
"""A round of the bundled model's answers, for when none has been seen."""

PRIOR_ROUNDS = 3.0
"""As many rounds of all answers count as those of an answer itself."""

MEMORY = 0.98
"""How much a round of any answer counts after each later one, and an answer's own after each token without drafts."""

IDLE_MEMORY = 0.999
"""How much the rounds of all answers count after each token without drafts: so drafts are tried again at some time."""


class DraftChoice:
    """Decides, for one sequence at a time, between a round of drafts and a token without.

    As if all sequences of the forward did the same: a round's passes over all of them, divided by what the sequence
    keeps of one, beside the one pass that gives each a token.
    """

    def __init__(self, costs: ForwardCosts | None = None) -> None:
        self.costs = costs or ForwardCosts()
        self._all = DraftYield()
        self._plain = self._row_seconds = self._denoising_seconds = 0.0

    def begin(self, count: int, canvas_rows: int, others: Load) -> None:
        """Begins a turn of the engine: `count` sequences that may be drafted, and what others want of the forward."""
        one = Load(1.0, 1.0)
        everyone = one.times(count) + others
        self._plain = self.costs.seconds(everyone)
        self._row_seconds = self.costs.seconds(everyone + Load(0.0, count)) - self._plain
        drafted = Load(1.0, canvas_rows, canvas_rows).times(count) + others
        self._denoising_seconds = self.costs.seconds(drafted)

    def pays(self, own: DraftYield) -> bool:
        """Tells whether a token costs less by drafts, of an answer whose rounds have given `own` so far."""
        prior = self._all.with_prior(FIRST_GUESS, PRIOR_ROUNDS).per_round()
        one = own.with_prior(prior, PRIOR_ROUNDS).per_round()
        round_seconds = one.passes * self._denoising_seconds + self._plain + one.rows * self._row_seconds
        return round_seconds < one.kept * self._plain

    def note(self, own: DraftYield, drafted: DraftYield | None) -> None:
        """Takes a round of an answer into account, or a token that it wrote without drafts. own: its rounds so far."""
        if drafted is None:
            own.add(DraftYield(), MEMORY)
            self._all.add(DraftYield(), IDLE_MEMORY)
        else:
            own.add(drafted)
            self._all.add(drafted, MEMORY)


def _features(load: Load) -> NDArray[np.float64]:
    return np.array([1.0, load.sequences, load.rows, load.canvas_rows])
