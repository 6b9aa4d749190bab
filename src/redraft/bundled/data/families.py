"""The training data of the bundled model: three mixed families of records, and the test sets of each."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from redraft.bundled.data import normalization, repair
from redraft.bundled.data.extraction import records as extraction
from redraft.bundled.data.extraction.task import VALIDATION_SEED
from redraft.bundled.data.record import Record
from redraft.bundled.data.record_examples import DATA_SEED, RecordExamples
from redraft.training.data.examples import Example
from redraft.utils.files import write_whole

TUNING_SEED, TUNING_EXAMPLES = 2, 120
"""The held-out records for choosing sampler settings; seed 0 made the test sets, 1 is for validation."""

MESSY_SHARE = 0.4
"""Share of extraction texts that are mistyped, wrapped or a table; the test set has none."""


@dataclass(frozen=True)
class Family:
    """A kind of task.

    share: its share of the examples; training(seed, index) and test(count, seen, seed) make its records;
    has_held_out_values: every other test record draws its values from lists that training never draws from.
    """

    share: float
    has_held_out_values: bool
    training: Callable[[int, int], Record]
    test: Callable[[int, bool, int], Iterator[Record]]


FAMILIES = {
    "extract": Family(
        0.6,
        True,
        lambda seed, index: extraction.training_record(seed, index, scrambled=0.25, messy=MESSY_SHARE),
        lambda count, seen, seed: extraction.held_out_records(count, seen=seen, seed=seed),
    ),
    "normalize": Family(
        0.2,
        False,
        normalization.training_record,
        lambda count, seen, seed: normalization.held_out_records(count, seen=seen, seed=seed),
    ),
    "repair": Family(
        0.2,
        False,
        repair.training_record,
        lambda count, seen, seed: repair.held_out_records(count, seen=seen, seed=seed),
    ),
}


class BundledExamples(RecordExamples):
    """The examples of all families, drawn at random with their shares."""

    def record(self, index: int) -> Record:
        rng = random.Random(f"family/{DATA_SEED}/{index}")
        family = rng.choices(list(FAMILIES.values()), [family.share for family in FAMILIES.values()])[0]
        return family.training(DATA_SEED, index)

    def validation(self, count: int) -> list[Example]:
        """Returns examples of each family in turn, in seen wording but without messy texts."""
        streams = [family.test(count, True, VALIDATION_SEED) for family in FAMILIES.values()]
        return [self.example(record) for records in zip(*streams, strict=True) for record in records][:count]


def write_data(out: Path, examples: int, sample: int) -> Iterator[tuple[Path, int]]:
    """Writes each family's test set, tuning set and a sample of its training stream; yields files and their rows.

    The test set has `examples` records in seen wording and as many in unseen wording; the sample has `sample` records.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, family in FAMILIES.items():
        test = [row for seen in (True, False) for row in _test_rows(family, examples, seen, 0)]
        training = [family.training(DATA_SEED, index) for index in range(sample)]
        yield _write_lines(out / f"{name}.jsonl", test)
        yield _write_lines(out / f"{name}-tuning.jsonl", _test_rows(family, TUNING_EXAMPLES, True, TUNING_SEED))
        yield _write_lines(
            out / f"{name}-train-sample.jsonl", [{"prompt": r.prompt, "answer": r.answer} for r in training]
        )


def _test_rows(family: Family, count: int, seen: bool, seed: int) -> list[dict[str, object]]:
    return [
        {
            "prompt": record.prompt,
            "answer": record.answer,
            "seen": seen,
            "held_out_values": family.has_held_out_values and index % 2 == 1,
        }
        for index, record in enumerate(family.test(count, seen, seed))
    ]


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> tuple[Path, int]:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_whole(path, "".join(lines))
    return path, len(lines)
