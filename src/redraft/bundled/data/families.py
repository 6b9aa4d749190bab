"""What the bundled model trains on: three families of records, mixed, and the test sets of each."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from redraft.bundled.data import normalization, repair
from redraft.bundled.data.extraction import records as extraction
from redraft.bundled.data.extraction.task import EXAMPLES as EXTRACTION_EXAMPLES
from redraft.bundled.data.extraction.task import VALIDATION_SEED
from redraft.bundled.data.record import Record
from redraft.bundled.data.record_examples import DATA_SEED, RecordExamples
from redraft.training.data.examples import Example
from redraft.weights.card import Card

TUNING_SEED, TUNING_EXAMPLES = 2, 120
"""Of held-out records, for choosing sampler settings: 0 made the test sets, 1 is for validation."""

MESSY_SHARE = 0.4
"""Share of extraction texts that are mistyped, wrapped or a table; the test set of issue "Run it" has none."""


@dataclass(frozen=True)
class Family:
    """A kind of task. share: of the examples; training(seed, index) and test(count, seen, seed) make its records.

    odd_held_out: whether every other test record draws its values from lists that training never draws from.
    """

    share: float
    odd_held_out: bool
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


CARD = Card(
    purpose="The bundled model (11 M parameters) extracts named fields from a short text as JSON, writes dates, times, "
    "amounts, phone numbers and quantities in a form that is named, and tries to fix typing errors.",
    limits="It can't chat, answer questions, translate or summarise: other prompts than of these kinds get nonsense. "
    "Over all it makes more typing errors than it fixes.",
    examples=(
        *EXTRACTION_EXAMPLES[:4],
        "Write the date as YYYY-MM-DD: Sunday, 3rd of March 2024",
        "Write the amount as 0.00 CUR: €1.234,50",
        "Write the time as HH:MM: 9:05 pm",
        "Write the weight in kg: 850 g",
        "Fix the typos: We wil deliver teh order to your adress on Monday.",
    ),
    single_turn=True,
)


class BundledExamples(RecordExamples):
    """Every example is of one family, by chance and as often as its share says."""

    def record(self, index: int) -> Record:
        rng = random.Random(f"family/{DATA_SEED}/{index}")
        family = rng.choices(list(FAMILIES.values()), [family.share for family in FAMILIES.values()])[0]
        return family.training(DATA_SEED, index)

    def validation(self, count: int) -> list[Example]:
        """Of each family in turn, as training knows it, but for messy texts."""
        streams = [family.test(count, True, VALIDATION_SEED) for family in FAMILIES.values()]
        return [self.example(record) for records in zip(*streams, strict=True) for record in records][:count]
