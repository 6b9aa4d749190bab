"""What answers cost in each mode of the engine, at a price per hour, and how many of them are right."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redraft.answers import Failure
from redraft.api import Model
from redraft.async_engine import Engine
from redraft.evaluation.cases import Case
from redraft.evaluation.tasks import Score
from redraft.generation.modes import ANSWERING_MODES, Mode


@dataclass(frozen=True)
class ModeCost:
    """One mode's answers to the same prompts. tokens_per_second: of answers, prompts included. exact: a share.

    per_million_tokens, per_thousand_exact: of the price's currency; the latter None where no answer was exact.
    """

    mode: Mode
    tokens: int
    seconds: float
    exact: float
    tokens_per_second: float
    per_million_tokens: float
    per_thousand_exact: float | None


def costs_of_modes(
    model: Model,
    cases: Sequence[Case],
    score: Score,
    *,
    price_per_hour: float,
    concurrency: int,
    rounds: int = 1,
    modes: Sequence[Mode] = ANSWERING_MODES,
    settings: dict[str, Any] | None = None,
) -> list[ModeCost]:
    """Answers all cases in each mode, `concurrency` at a time, and takes the fastest of the rounds."""
    prompts = [case.conversation for case in cases]
    found: dict[Mode, list[tuple[float, list[Any]]]] = {mode: [] for mode in modes}
    with Engine(model, admitted_requests=concurrency, prefix_tokens=0) as engine:
        for number in range(rounds + 1):
            for mode in modes:
                start = time.perf_counter()
                answers = _answers(engine, prompts, mode, settings)
                if number:  # the first round warms up
                    found[mode].append((time.perf_counter() - start, answers))
    return [
        _cost(mode, *min(measured, key=lambda one: one[0]), cases, score, price_per_hour)
        for mode, measured in found.items()
    ]


def _answers(engine: Engine, prompts: Sequence[Any], mode: Mode, settings: dict[str, Any] | None) -> list[Any]:
    answers = []
    for answer in engine.generate_many(prompts, mode=mode, seed=0, **(settings or {})):
        if isinstance(answer, Failure):
            raise answer.error
        answers.append(answer)
    return answers


def _cost(
    mode: Mode, seconds: float, answers: Sequence[Any], cases: Sequence[Case], score: Score, price_per_hour: float
) -> ModeCost:
    tokens = sum(len(answer.token_ids) for answer in answers)
    exact = sum(score(case, answer.text)["exact"] for case, answer in zip(cases, answers, strict=True))
    spent = price_per_hour * seconds / 3600
    return ModeCost(
        mode=mode,
        tokens=tokens,
        seconds=seconds,
        exact=exact / len(cases),
        tokens_per_second=tokens / seconds,
        per_million_tokens=spent / max(1, tokens) * 1e6,
        per_thousand_exact=spent / exact * 1e3 if exact else None,
    )
