"""The test sets of requests for any field, each with its own file; what is theirs alone, no training record has."""

import dataclasses
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from redraft.bundled.data.record import Conversation
from redraft.bundled.data.wide.records import (
    Conditions,
    Make,
    make_array,
    make_normalization,
    make_object,
    make_refusal,
    training_record,
)
from redraft.bundled.data.wide.values import LANGUAGES
from redraft.utils.files import write_whole

CASES = 120
TUNING_CASES = 60
TEST_SEED, TUNING_SEED = 0, 2


@dataclass(frozen=True)
class Draw:
    """A group of a test set: how its records are made. `is_single`: only those of one user's message."""

    make: Make
    conditions: Conditions = field(default_factory=Conditions)
    is_single: bool = True
    kinds: Sequence[str] = ()


def _draw(make: Make, *, is_single: bool = True, kinds: Sequence[str] = (), **conditions: object) -> Draw:
    return Draw(make, dataclasses.replace(Conditions(scrambled=0.0), **conditions), is_single, kinds)  # type: ignore[arg-type]


SETS: dict[str, dict[str, Draw]] = {
    "wide-seen": {"seen": _draw(make_object)},
    "wide-unseen": {
        "phrasing and request": _draw(make_object, is_seen=False, language="en", wording="object"),
        "request after": _draw(make_object, is_seen=False, language="en", wording="after"),
        "schema": _draw(make_object, is_seen=False, language="en", wording="schema"),
    },
    "wide-values": {"held-out values": _draw(make_object, held_out_values=True)},
    "wide-names": {"held-out names": _draw(make_object, held_out_names=True, language="en")},
    "wide-long": {
        "100 to 200 words": _draw(make_object, words=(100, 200)),
        "200 to 400 words": _draw(make_object, words=(200, 400)),
    },
    "wide-arrays": {"seen": _draw(make_array), "unseen": _draw(make_array, is_seen=False, language="en")},
    "wide-languages": {
        **{f"{code}, seen": _draw(make_object, language=code) for code in LANGUAGES[1:]},
        **{
            f"{code}, unseen": _draw(make_object, language=code, is_seen=False, wording="object")
            for code in LANGUAGES[1:]
        },
    },
    "wide-turns": {
        "task in the system message": _draw(make_object, is_single=False, wording="system", turns=1),
        "second turn": _draw(make_object, is_single=False, turns=2),
        "unseen system message": _draw(make_object, is_single=False, is_seen=False, wording="system", turns=1),
    },
    "wide-foreign": {"seen kinds": _draw(make_refusal), "unseen kinds": _draw(make_refusal, is_seen=False)},
    "wide-normalize": {
        "seen": _draw(make_normalization, kinds=("normalize",)),
        "unseen": _draw(make_normalization, kinds=("normalize",), is_seen=False),
        "cannot be said, seen": _draw(make_normalization, kinds=("unsayable",)),
        "cannot be said, unseen": _draw(make_normalization, kinds=("unsayable",), is_seen=False),
    },
}  # fmt: skip
"""The sets, and the groups of cases in each."""


def records(name: str, group: str, seed: int) -> Iterator[Conversation]:
    """Yields the endless records of a group of a set."""
    draw = SETS[name][group]
    for index in count():
        record = draw.make(random.Random(f"wide test/{name}/{group}/{seed}/{index}"), draw.conditions)
        if draw.is_single and len(record.messages) > 1:
            continue
        if not draw.kinds or record.kind in draw.kinds:
            yield record


def rows(name: str, cases: int = CASES, seed: int = TEST_SEED) -> list[dict[str, object]]:
    """Returns the cases of a set, about as many of each of its groups."""
    groups = SETS[name]
    found: list[dict[str, object]] = []
    for group in groups:
        for record in islice(records(name, group, seed), -(-cases // len(groups))):
            messages = [{"role": role, "content": content} for role, content in record.messages]
            asked: dict[str, object] = (
                {"prompt": messages[0]["content"]} if len(messages) == 1 else {"messages": messages}
            )
            found.append({**asked, "answer": record.answer, "group": group})
    return found


def write_wide_data(out: Path, cases: int, sample: int) -> Iterator[tuple[Path, int]]:
    """Writes each test set, a tuning set of it, and a sample of the training stream; yields files and their rows."""
    out.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        yield _write(out / f"{name}.jsonl", rows(name, cases))
        yield _write(out / f"{name}-tuning.jsonl", rows(name, min(cases, TUNING_CASES), TUNING_SEED))
    trained = (training_record(1, index) for index in range(sample))
    yield _write(
        out / "wide-train-sample.jsonl",
        [{"messages": [{"role": r, "content": c} for r, c in one.messages], "answer": one.answer} for one in trained],
    )


def _write(path: Path, lines: Sequence[dict[str, object]]) -> tuple[Path, int]:
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))
    return path, len(lines)
