"""Tasks: cases and how their answers are scored. And the score of a model that has answered them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.evaluation.cases import DATA, Case, read_cases
from redraft.evaluation.repetition import repetition
from redraft.evaluation.scores import score_fields, score_repair, score_text
from redraft.generation import Generation

Score = Callable[[Case, str], dict[str, float]]
"""A case and what was answered → numbers, whose means are the result."""


@dataclass(frozen=True)
class Task:
    """A shipped test set and its score."""

    name: str
    score: Score

    @property
    def path(self) -> Path:
        return DATA / f"{self.name}.jsonl"

    def tuning_cases(self, count: int | None = None) -> list[Case]:
        """Cases apart from the test set, for whoever chooses settings by them."""
        cases = read_cases(self.path.with_stem(f"{self.name}-tuning"))
        if count is not None and count > len(cases):
            raise ValueError(f"{count} examples are asked for, there are {len(cases)} to tune on")
        return cases[:count]

    def cases(self, per_split: int | None = None) -> list[Case]:
        """All cases, or so many with seen and with unseen wording."""
        return read_cases(self.path, per_split=per_split)


TASKS = {
    task.name: task
    for task in (Task("extract", score_fields), Task("normalize", score_text), Task("repair", score_repair))
}
SCORES: dict[str, Score] = {"text": score_text, "fields": score_fields}
"""Those that fit anybody's rows."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An answer and what is known of how it was made; a server may tell its text, seconds and tokens alone.

    tokens: how many; token_ids: which, None where they are not known, and with them the canvas length.
    """

    text: str
    seconds: float
    tokens: int | None
    token_ids: tuple[int, ...] | None = None
    canvas_length: int | None = None
    steps_per_canvas: tuple[int, ...] = ()
    tokens_per_forward: float | None = None

    @classmethod
    def here(cls, text: str, generation: Generation) -> "Made":
        """Of an answer that was generated in this process."""
        return cls(
            text=text,
            seconds=generation.seconds,
            tokens=len(generation.token_ids),
            token_ids=generation.token_ids,
            canvas_length=len(generation.canvases[0]),
            steps_per_canvas=generation.steps_per_canvas,
            tokens_per_forward=generation.tokens_per_forward,
        )


@dataclass(frozen=True)
class Outcome:
    """What a model made of a case. wanted_ids: the right answer's tokens without its EOS, None where not known."""

    case: Case
    made: Made
    wanted_ids: Sequence[int] | None
    scores: dict[str, float]

    @property
    def long(self) -> bool:
        """Whether the right answer is known not to fit into one canvas."""
        if self.wanted_ids is None or self.made.canvas_length is None:
            return False
        return len(self.wanted_ids) + 1 > self.made.canvas_length

    def repetition(self, tokens: Sequence[int] | None) -> float | None:
        """Of an answer's tokens, cut as this one was."""
        if tokens is None or self.made.canvas_length is None:
            return None
        return repetition(tokens, self.made.canvas_length)


def run_cases(
    cases: Iterable[Case],
    score: Score,
    answer: Callable[[str], Made],
    encode: Callable[[str], Sequence[int] | None],
    report: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Asks for every case's answer, with `encode` from text to tokens; `report` hears of each outcome as it comes."""
    outcomes = []
    for case in cases:
        made = answer(case.prompt)
        outcome = Outcome(case, made, encode(case.answer), score(case, made.text))
        report(outcome)
        outcomes.append(outcome)
    return outcomes


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means of all scores; of exact answers and error rates also by kind of case. A mean over nothing is None.

    repetition: between neighbouring canvases, of the answers and of the right ones. Tokens per second are those of
    generating alone, one answer after the other; of a server, as long as its answers took.
    """
    made = [outcome.made for outcome in outcomes]
    seconds = sum(one.seconds for one in made)
    tokens = [one.tokens for one in made if one.tokens is not None]
    per_forward = [one.tokens_per_forward for one in made if one.tokens_per_forward is not None]
    names = outcomes[0].scores if outcomes else ()
    splits = {
        "seen": [outcome for outcome in outcomes if outcome.case.seen],
        "unseen": [outcome for outcome in outcomes if outcome.case.seen is False],
        "held_out_values": [outcome for outcome in outcomes if outcome.case.held_out_values],
        "two_canvases": [outcome for outcome in outcomes if outcome.long],
    }
    summary: dict[str, Any] = {"examples": len(outcomes)}
    for name in names:
        summary[name] = _mean([outcome.scores[name] for outcome in outcomes])
        if name == "exact" or name.startswith("character_error_rate"):
            for split, chosen in splits.items() if outcomes[0].case.seen is not None else ():
                summary[f"{name}_{split}"] = _mean([outcome.scores[name] for outcome in chosen])
    if groups := list(dict.fromkeys(outcome.case.group for outcome in outcomes if outcome.case.group)):
        summary["groups"] = {
            group: {name: _mean([one.scores[name] for one in outcomes if one.case.group == group]) for name in names}
            for group in groups
        }
    for name, answers in (
        ("repetition", [one.repetition(one.made.token_ids) for one in outcomes]),
        ("repetition_of_right_answers", [one.repetition(one.wanted_ids) for one in outcomes]),
    ):
        summary[name] = _mean([share for share in answers if share is not None])
    return summary | {
        "steps_per_canvas": _mean([count for one in made for count in one.steps_per_canvas], 2),
        "tokens_per_forward": _mean(per_forward, 2),
        "tokens_per_second": round(sum(tokens) / seconds, 1) if seconds and len(tokens) == len(made) else None,
    }


def _mean(values: Sequence[float], digits: int = 4) -> float | None:
    return round(sum(values) / len(values), digits) if values else None
