"""Evidence: what was known of answers to cases, and whether they turned out to be right."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from redraft.answers import Failure, writing_of
from redraft.api import Model
from redraft.async_engine import Engine
from redraft.evaluation.cases import Case
from redraft.evaluation.tasks import TASKS, WIDE_SETS, Score
from redraft.generation.modes import Mode
from redraft.text.trust.evidence import answer_facts, lost_values, value_facts
from redraft.text.trust.places import leaves
from redraft.utils.files import write_whole

SETS_OF_RECIPES = {
    "extract": ("extract",),
    "bundled": tuple(TASKS),
    "wide": ("extract", "normalize", *(f"wide {name}" for name in WIDE_SETS)),
}
"""The sets whose kinds of prompts a recipe's data have."""
SEEN_SETS = frozenset({"wide seen"})
"""Sets all of whose wording is that of training; of others each case says it."""
WAYS: dict[str, Mode] = {"diffusion": "diffusion", "causal": "verified"}
"""The mode in which answers are written whose models a calibration has under a name."""

Facts = Mapping[str, float]


@dataclass(frozen=True)
class Evidence:
    """What was known of the answer to a case of a set, and whether it is right. values: the same of each of its values.

    is_seen: whether training had the case's wording.
    """

    set: str
    number: int
    is_seen: bool
    is_right: bool
    facts: Facts
    values: tuple[tuple[Facts, bool], ...]


@dataclass(frozen=True)
class TrustSet:
    """A set of cases with known answers."""

    name: str
    cases: Sequence[Case]
    score: Score


def shipped_sets(recipe: str, *, is_tuning: bool) -> list[TrustSet]:
    """Returns the test sets for a recipe's models, or the tuning sets of those that have one.

    Raises ValueError for a recipe that has none.
    """
    if recipe not in SETS_OF_RECIPES:
        raise ValueError(
            f"no set is shipped for a model of the recipe {recipe!r}: give --rows FILE, with its prompts and answers"
        )
    found = []
    for name in SETS_OF_RECIPES[recipe]:
        task = WIDE_SETS[name.removeprefix("wide ")] if name.startswith("wide ") else TASKS[name]
        if task.has_tuning or not is_tuning:
            found.append(TrustSet(name, task.tuning_cases() if is_tuning else task.cases(), task.score))
    return found


def gather(
    model: Model, sets: Sequence[TrustSet], way: str, file: Path | None, report: Callable[[], None] = lambda: None
) -> list[Evidence]:
    """Answers all cases of some sets, many at a time, and returns the evidence; calls `report` after each.

    way: a key of WAYS. file: keeps what is found; what it holds already is not asked again. Raises ValueError for a
    file of something else, and the error of a prompt that cannot be answered.
    """
    known = {} if file is None else _read(file)
    found = []
    with Engine(model, **Engine.context_limits(model, {})) as engine:
        for one in sets:
            missing = [i for i in range(len(one.cases)) if (way, one.name, i) not in known]
            made = _answer(engine, one, missing, way)
            for number in range(len(one.cases)):
                if (way, one.name, number) not in known:
                    evidence = next(made)
                    if file is not None:
                        with file.open("a", encoding="utf-8") as lines:
                            lines.write(json.dumps({"way": way, **asdict(evidence)}) + "\n")
                    known[way, one.name, number] = evidence
                found.append(known[way, one.name, number])
                report()
    return found


def _answer(engine: Engine, of: TrustSet, numbers: Sequence[int], way: str) -> Iterator[Evidence]:
    model, mode = engine.model, WAYS[way]
    settings: dict[str, Any] = {"seed": 0, "is_scored": True}
    cases = [of.cases[number] for number in numbers]
    answers = engine.generate_many([case.conversation for case in cases], mode=mode, **settings)
    for number, case, answer in zip(numbers, cases, answers, strict=True):
        if isinstance(answer, Failure):
            raise ValueError(f"case {number} of {of.name}: {answer.error}") from answer.error
        writing = writing_of(cast(str, mode), answer.generation, model.defaults)
        expected = {leaf.path: leaf.value for leaf in leaves(case.answer)}
        found, lost = leaves(answer.text), lost_values(answer.trust)
        yield Evidence(
            set=of.name,
            number=number,
            is_seen=bool(case.seen) or of.name in SEEN_SETS,
            is_right=bool(of.score(case, answer.text)["exact"]),
            facts=answer_facts(answer.trust, writing, len(model.encode(case.conversation))),
            values=tuple(
                (
                    value_facts(value, is_lost=value.path in lost),
                    leaf.path in expected and expected[leaf.path] == leaf.value,
                )
                for value, leaf in zip(answer.trust.values, found, strict=True)
                if value.max_entropy is not None
            ),
        )


def _read(path: Path) -> dict[tuple[str, str, int], Evidence]:
    """Reads what a file keeps; removes a last line that was cut off when the process was killed."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        write_whole(path, "".join(lines))
    known = {}
    for at, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            way, values = row.pop("way"), row.pop("values")
            evidence = Evidence(**row, values=tuple((facts, bool(is_right)) for facts, is_right in values))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(f"{path}, line {at} is not evidence; choose another file") from None
        known[way, evidence.set, evidence.number] = evidence
    return known
