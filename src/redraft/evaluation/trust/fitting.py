"""Fitting the models of trust, and how far their numbers are from the truth.

N cases, F facts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from redraft.evaluation.trust.evidence import Evidence, Facts
from redraft.text.trust.calibration import ANSWER_FACTS, VALUE_FACTS, LogisticModel, TrustModels

RIDGE = 1.0
"""Holds the weights of standardised facts back, above all of one that is always the same."""
MAX_ROUNDS = 100
BINS = 10
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)

Floats = NDArray[np.float64]


def fit(evidence: Sequence[Evidence]) -> TrustModels:
    """Fits the models of answers and of their values. Raises ValueError where all answers are right, or all wrong."""
    values = [pair for one in evidence for pair in one.values]
    return TrustModels(
        fit_logistic([one.facts for one in evidence], [one.is_right for one in evidence], ANSWER_FACTS),
        # Where no answer has values none will be asked for.
        fit_logistic([facts for facts, _ in values], [is_right for _, is_right in values], VALUE_FACTS)
        if values
        else LogisticModel(0.0, dict.fromkeys(VALUE_FACTS, 0.0)),
        len(evidence),
    )


def fit_logistic(facts: Sequence[Facts], is_right: Sequence[bool], names: Sequence[str]) -> LogisticModel:
    """Fits a logistic model with a ridge, by Newton's method; deterministic. Raises ValueError as `fit` does."""
    truth = np.array(is_right, dtype=np.float64)
    if truth.min() == truth.max():
        answers = "right" if truth.min() else "wrong"
        raise ValueError(f"all {len(truth)} are {answers}: nothing tells right from wrong; use other cases")
    raw = np.array([[one[name] for name in names] for one in facts])
    mean, spread = raw.mean(axis=0), raw.std(axis=0)
    spread[spread < 1e-9] = 1.0
    x = np.hstack([np.ones((len(raw), 1)), (raw - mean) / spread])
    ridge = np.diag([0.0, *([RIDGE] * len(names))])
    weights = np.zeros(x.shape[1])
    for _ in range(MAX_ROUNDS):
        p = 1 / (1 + np.exp(-x @ weights))
        slope = x.T @ (truth - p) - ridge @ weights
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge, slope)
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    own = weights[1:] / spread
    return LogisticModel(float(weights[0] - own @ mean), dict(zip(names, map(float, own), strict=True)))


def calibration_error(probabilities: Sequence[float], is_right: Sequence[bool]) -> float:
    """Returns the expected calibration error over ten bins of equal width: the mean distance of what was said of the
    cases of a bin from how many of them are right.
    """
    said, truth = np.array(probabilities), np.array(is_right, dtype=np.float64)
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    return float(sum(abs((said - truth)[bins == at].sum()) for at in range(BINS)) / len(said))


def accuracy_at(probabilities: Sequence[float], is_right: Sequence[bool]) -> dict[float, float]:
    """Returns the share of right answers among the most trusted ones, for each share of them that is kept."""
    curve = accuracy_curve(probabilities, is_right)
    return {share: float(curve[max(1, round(share * len(curve))) - 1]) for share in COVERAGES}


def accuracy_curve(probabilities: Sequence[float], is_right: Sequence[bool]) -> Floats:
    """Returns float [N]: the share of right ones among the 1, 2 … N most trusted."""
    order = np.argsort(-np.array(probabilities), kind="stable")
    right: Floats = np.array(is_right, dtype=np.float64)[order].cumsum()
    return right / np.arange(1, len(right) + 1)


def summarise(evidence: Sequence[Evidence], models: TrustModels) -> dict[str, object]:
    """Returns how right answers are and how far their probabilities are from that, in all and of each set."""
    said = [models.answers.probability(one.facts) for one in evidence]
    values = [(models.values.probability(facts), is_right) for one in evidence for facts, is_right in one.values]
    groups: Mapping[str, list[int]] = {
        "all": list(range(len(evidence))),
        "seen": [i for i, one in enumerate(evidence) if one.is_seen],
        **{
            name: [i for i, one in enumerate(evidence) if one.set == name]
            for name in dict.fromkeys(one.set for one in evidence)
        },
    }
    return {
        "groups": {
            name: _summary([said[i] for i in members], [evidence[i].is_right for i in members])
            for name, members in groups.items()
            if members
        }
        | ({"single values": _summary(*zip(*values, strict=True))} if values else {})
    }


def _summary(said: Sequence[float], is_right: Sequence[bool]) -> dict[str, float]:
    at = {f"right_at_{share:.0%}": round(found, 4) for share, found in accuracy_at(said, is_right).items()}
    return {
        "cases": len(said),
        "mean_probability": round(sum(said) / len(said), 4),
        "calibration_error": round(calibration_error(said, is_right), 4),
        **at,
    }


def draw(evidence: Sequence[Evidence], models: TrustModels, title: str) -> str:
    """Draws an SVG: accuracy over coverage, of all answers and of those in seen wording."""
    import io

    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for label, members in (("all", evidence), ("seen wording", [one for one in evidence if one.is_seen])):
        if members:
            said = [models.answers.probability(one.facts) for one in members]
            curve = accuracy_curve(said, [one.is_right for one in members])
            shares = np.arange(1, len(curve) + 1) / len(curve)
            axes.plot(shares, curve, label=f"{label} ({len(curve)})")
    axes.set_xlabel("coverage: share of answers kept, the most trusted first")
    axes.set_ylabel("exact")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
