"""The evaluation of a subject: its answers to all cases, their scores, and a summary.

>>> import redraft
>>> from redraft.evaluation.evaluate import evaluate, summarise
>>> from redraft.evaluation.subject import ModelSubject
>>> from redraft.evaluation.tasks import TASKS
>>> task, subject = TASKS["extract"], ModelSubject(redraft.load(), {"seed": 0})
>>> summarise(evaluate(subject, task.cases(1), task.score))["examples"]
2
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redraft.evaluation.cases import Case
from redraft.evaluation.scores import repetition
from redraft.evaluation.subject import Response, Subject
from redraft.evaluation.tasks import Score

OVERRULED = -20.0
"""A canvas whose log mass is below it, in nats, was not what the model would have written."""


@dataclass(frozen=True)
class Outcome:
    """A subject's response to a case. expected_ids: the right answer's tokens without its EOS, None where not known."""

    case: Case
    response: Response
    expected_ids: Sequence[int] | None
    scores: dict[str, float]

    @property
    def needs_two_canvases(self) -> bool:
        if self.expected_ids is None or self.response.canvas_length is None:
            return False
        return len(self.expected_ids) + 1 > self.response.canvas_length

    def repetition(self, token_ids: Sequence[int] | None) -> float | None:
        """Returns the repetition in tokens that are cut into canvases as this response was."""
        if token_ids is None or self.response.canvas_length is None:
            return None
        return repetition(token_ids, self.response.canvas_length)


def evaluate(
    subject: Subject, cases: Sequence[Case], score: Score, report: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Answers and scores all cases; calls `report` after each.

    Raises ValueError for a bad prompt, before any answer, and where a server does not answer.
    """
    for case in cases:
        subject.check(case.conversation)
    outcomes = []
    for case in cases:
        response = subject.respond(case.conversation)
        outcome = Outcome(case, response, subject.encode(case.answer), score(case, response.text))
        report(outcome)
        outcomes.append(outcome)
    return outcomes


def failed_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Returns the cases that were not answered exactly, as JSON objects."""
    return [
        {"prompt": one.case.prompt, "wanted": one.case.answer, "got": one.response.text, "seen": one.case.seen}
        for one in outcomes
        if not one.scores["exact"]
    ]


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the means of all scores, for exact answers and error rates by split too. A mean over nothing is None.

    guided_steps: of a constrained answer; overruled: the share of answers with a canvas that the model found hardly
    possible. repetition: between neighbouring canvases, of the answers and of the right ones. Tokens per second are
    those of generation alone, one answer after the other; for a server, its response times.
    """
    responses = [outcome.response for outcome in outcomes]
    seconds = sum(one.seconds for one in responses)
    tokens = [one.tokens for one in responses if one.tokens is not None]
    names = dict.fromkeys(name for one in outcomes for name in one.scores)
    splits = {
        "seen": [outcome for outcome in outcomes if outcome.case.seen],
        "unseen": [outcome for outcome in outcomes if outcome.case.seen is False],
        "held_out_values": [outcome for outcome in outcomes if outcome.case.held_out_values],
        "two_canvases": [outcome for outcome in outcomes if outcome.needs_two_canvases],
    }
    summary: dict[str, Any] = {"examples": len(outcomes)}
    for name in names:
        summary[name] = _mean([outcome.scores.get(name) for outcome in outcomes])
        if name == "exact" or name.startswith("character_error_rate"):
            for split, chosen in splits.items() if outcomes[0].case.seen is not None else ():
                summary[f"{name}_{split}"] = _mean([outcome.scores.get(name) for outcome in chosen])
    if groups := list(dict.fromkeys(outcome.case.group for outcome in outcomes if outcome.case.group)):
        summary["groups"] = {
            group: {name: _mean([one.scores.get(name) for one in chosen]) for name in names}
            | {"steps_per_canvas": _mean_steps([one.response for one in chosen])}
            for group in groups
            if (chosen := [one for one in outcomes if one.case.group == group])
        }
    reports = [one.constraint for one in responses if one.constraint is not None]
    if reports:
        summary["guided_steps"] = _mean([report.guided_steps for report in reports], 2)
        summary["overruled"] = _mean([float(min(report.log_mass) < OVERRULED) for report in reports])
    return summary | {
        "repetition": _mean([one.repetition(one.response.token_ids) for one in outcomes]),
        "repetition_of_right_answers": _mean([one.repetition(one.expected_ids) for one in outcomes]),
        "steps_per_canvas": _mean_steps(responses),
        "tokens_per_forward": _mean([one.tokens_per_forward for one in responses], 2),
        "tokens_per_second": round(sum(tokens) / seconds, 1) if seconds and len(tokens) == len(responses) else None,
    }


def _mean_steps(responses: Sequence[Response]) -> float | None:
    return _mean([count for one in responses for count in one.steps_per_canvas], 2)


def _mean(values: Sequence[float | None], digits: int = 4) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), digits) if known else None
