"""The calibrated number: how likely an answer is right, by what is known about it.

A logistic model for each way of writing, fitted by `redraft calibrate` on cases with known answers, and kept beside the
checkpoint's weights in trust.json.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object

TRUST_FILE = "trust.json"
FORMAT = 1

ANSWER_FACTS = (
    "max_entropy", "mean_entropy", "surprise", "max_surprise", "tokens", "prompt_tokens", "unsettled", "cut", "invalid",
    "not_found", "unknown_prompt",
)  # fmt: skip
VALUE_FACTS = ("max_entropy", "mean_entropy", "surprise", "max_surprise", "not_found", "no_place")
KINDS = {"diffusion": "diffusion", "autoregressive": "causal", "verified": "causal", "auto": "causal"}
"""The model for each mode: those that write causally write the same answers."""


@dataclass(frozen=True)
class LogisticModel:
    """The log-odds of being right, as a sum over facts. weights: by their names."""

    intercept: float
    weights: Mapping[str, float]

    def probability(self, facts: Mapping[str, float]) -> float:
        odds = self.intercept + sum(weight * facts[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-min(max(odds, -30.0), 30.0)))


@dataclass(frozen=True)
class TrustModels:
    """The models of one way of writing: of whole answers, and of single values. cases: that they were fitted on."""

    answers: LogisticModel
    values: LogisticModel
    cases: int


@dataclass(frozen=True)
class Calibration:
    """The models of a checkpoint by the way of writing. sets: the names of the tuning sets they were fitted on."""

    models: Mapping[str, TrustModels]
    sets: tuple[str, ...]

    def of_mode(self, mode: str) -> TrustModels | None:
        return self.models.get(KINDS.get(mode, ""))


def write_calibration(folder: Path, calibration: Calibration) -> None:
    write_whole(folder / TRUST_FILE, json_bytes({"format": FORMAT, **asdict(calibration)}))


def read_calibration(folder: Path) -> Calibration | None:
    """Reads a checkpoint's calibration; None if it has none. Raises ValueError if it is malformed."""
    path = folder / TRUST_FILE
    if not path.exists():
        return None
    values = read_json_object(path)
    try:
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r}, must be {FORMAT}")
        given: Any = values["models"]
        models = {str(kind): _models(one) for kind, one in given.items()}
        sets = values["sets"]
        if not isinstance(sets, list) or not all(isinstance(name, str) for name in sets):
            raise ValueError("sets must be a list of strings")
        if unknown := models.keys() - KINDS.values():
            raise ValueError(f"it has models of {', '.join(sorted(unknown))}, must be of diffusion or causal")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: {reason}; make it anew with 'redraft calibrate'") from None
    return Calibration(models, tuple(sets))


def _models(values: Mapping[str, Any]) -> TrustModels:
    cases = values["cases"]
    if type(cases) is not int or cases < 1:
        raise ValueError(f"cases is {cases!r}, must be a whole number above 0")
    return TrustModels(_model(values["answers"], ANSWER_FACTS), _model(values["values"], VALUE_FACTS), cases)


def _model(values: Mapping[str, Any], names: tuple[str, ...]) -> LogisticModel:
    weights = values["weights"]
    if set(weights) != set(names):
        raise ValueError(f"its facts are {', '.join(sorted(weights))}, must be {', '.join(names)}")
    numbers = [values["intercept"], *weights.values()]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in numbers):
        raise ValueError("intercept and weights must be finite numbers")
    return LogisticModel(float(values["intercept"]), {name: float(weights[name]) for name in names})
