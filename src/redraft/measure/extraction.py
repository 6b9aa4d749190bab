"""The extraction task's score: does the answer hold exactly the wanted fields with exactly their values?"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.generation import Generation

TEST_SET = Path(__file__).parent / "data" / "extract.jsonl"


@dataclass(frozen=True)
class Case:
    """One test record. `seen`: training had this phrasing; `held_out_values`: it never had values from these lists."""

    prompt: str
    answer: str
    seen: bool
    held_out_values: bool


@dataclass(frozen=True)
class Outcome:
    """What a model made of a case. `long`: the right answer does not fit into one canvas."""

    case: Case
    text: str
    generation: Generation
    long: bool

    @property
    def valid(self) -> bool:
        return self.fields is not None

    @property
    def exact(self) -> bool:
        """Fields, their order and their values are right."""
        return self.fields == _pairs(self.case.answer)

    @property
    def fields(self) -> tuple[tuple[str, object], ...] | None:
        """The answer's fields in order, a name that comes twice twice; None where it is not a JSON object."""
        try:
            return _pairs(self.text)
        except (ValueError, RecursionError):
            return None

    @property
    def right_fields(self) -> int:
        found = dict(self.fields or [])
        return sum(name in found and found[name] == value for name, value in json.loads(self.case.answer).items())


def _pairs(text: str) -> tuple[tuple[str, object], ...] | None:
    # Objects come as tuples here, which nothing else in JSON does.
    found = json.loads(text, object_pairs_hook=tuple)
    return found if isinstance(found, tuple) else None


def read_cases(path: Path = TEST_SET, *, per_split: int | None = None) -> list[Case]:
    """The test set, or the first `per_split` cases with seen and as many with unseen phrasings."""
    cases = [Case(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if per_split is None:
        return cases
    splits = [[case for case in cases if case.seen == seen] for seen in (True, False)]
    if per_split > (most := min(map(len, splits))):
        raise ValueError(f"{per_split} examples of each kind are asked for, {path.name} has {most}")
    return [case for split in splits for case in split[:per_split]]


def run_cases(
    cases: Iterable[Case],
    answer: Callable[[str], tuple[str, Generation]],
    is_long: Callable[[str], bool],
    report: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Asks for every case's answer; `is_long` says of a text that it fills more than a canvas.

    `report` hears of each outcome as it comes.
    """
    outcomes = []
    for case in cases:
        outcome = Outcome(case, *answer(case.prompt), is_long(case.answer))
        report(outcome)
        outcomes.append(outcome)
    return outcomes


def summarise(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Shares between 0 and 1, means over the cases, and tokens per second of generating alone."""

    def share(chosen: Sequence[Outcome], right: Callable[[Outcome], bool]) -> float | None:
        return round(sum(map(right, chosen)) / len(chosen), 4) if chosen else None

    seen = [outcome for outcome in outcomes if outcome.case.seen]
    unseen = [outcome for outcome in outcomes if not outcome.case.seen]
    fields = sum(len(json.loads(outcome.case.answer)) for outcome in outcomes)
    canvases = [steps for outcome in outcomes for steps in outcome.generation.steps_per_canvas]
    seconds = sum(outcome.generation.seconds for outcome in outcomes)
    tokens = sum(len(outcome.generation.token_ids) for outcome in outcomes)
    return {
        "task": "extract",
        "examples": len(outcomes),
        "exact_seen": share(seen, lambda outcome: outcome.exact),
        "exact_unseen": share(unseen, lambda outcome: outcome.exact),
        "exact_held_out_values": share([o for o in outcomes if o.case.held_out_values], lambda outcome: outcome.exact),
        "exact_two_canvases": share([o for o in outcomes if o.long], lambda outcome: outcome.exact),
        "fields_right": round(sum(outcome.right_fields for outcome in outcomes) / fields, 4) if fields else None,
        "valid_json": share(outcomes, lambda outcome: outcome.valid),
        "steps_per_canvas": round(sum(canvases) / len(canvases), 2) if canvases else None,
        "tokens_per_forward": round(sum(o.generation.tokens_per_forward for o in outcomes) / len(outcomes), 2)
        if outcomes
        else None,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
    }
