"""Evaluation tasks: the shipped test sets, and how their answers are scored."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from redraft.bundled import TEST_SETS
from redraft.evaluation.cases import Case, read_cases
from redraft.evaluation.scores import score_answer, score_extraction, score_fields, score_repair, score_text

Score = Callable[[Case, str], dict[str, float]]
"""A case and an answer → numbers, whose means are the result."""


@dataclass(frozen=True)
class EvaluationTask:
    """A shipped test set and its score."""

    name: str
    score: Score
    description: str

    @property
    def path(self) -> Path:
        return TEST_SETS / f"{self.name}.jsonl"

    @property
    def has_tuning(self) -> bool:
        """Whether there are cases of its kind that are not in the test set."""
        return self._tuning_path.exists()

    @property
    def _tuning_path(self) -> Path:
        return self.path.with_stem(f"{self.path.stem}-tuning")

    def tuning_cases(self, count: int | None = None) -> list[Case]:
        """Reads cases that are not in the test set, for choosing settings."""
        cases = read_cases(self._tuning_path)
        if count is not None and count > len(cases):
            raise ValueError(f"examples is {count}, but the tuning set has {len(cases)}")
        return cases[:count]

    def cases(self, per_split: int | None = None) -> list[Case]:
        """Reads all cases, or this many with seen wording and as many with unseen wording."""
        return read_cases(self.path, per_split=per_split)


TASKS = {
    task.name: task
    for task in (
        EvaluationTask(
            "extract",
            score_extraction,
            "Extraction of named fields as JSON: 500 examples, half phrased as training never saw.",
        ),
        EvaluationTask(
            "normalize", score_text, "Dates, times, amounts, phone numbers and quantities in the format you ask for."
        ),
        EvaluationTask("repair", score_repair, "Sentences with typos; the score of copying them is shown too."),
    )
}
WIDE_SETS = {
    path.stem.removeprefix("wide-"): EvaluationTask(path.stem, score_answer, "A test set of requests for any field.")
    for path in sorted(TEST_SETS.glob("wide-*.jsonl"))
    if not path.stem.endswith("-tuning")
}
"""The test sets of requests for any field, by name."""
SCORES: dict[str, Score] = {"text": score_text, "fields": score_fields}
"""Those that fit any rows."""
