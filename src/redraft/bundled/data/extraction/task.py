"""The extraction task as training examples."""

from redraft.bundled.data.extraction.records import held_out_records, training_record
from redraft.bundled.data.record import Record
from redraft.bundled.data.record_examples import DATA_SEED, RecordExamples
from redraft.training.data.examples import Example

VALIDATION_SEED = 1
"""The seed of held-out records for validation; 0 made the test set."""


class ExtractionExamples(RecordExamples):
    """The examples of extraction alone."""

    def record(self, index: int) -> Record:
        return training_record(DATA_SEED, index)

    def validation(self, count: int) -> list[Example]:
        """Returns examples in seen phrasings, half of them with values from held-out lists."""
        return [self.example(record) for record in held_out_records(count, seen=True, seed=VALIDATION_SEED)]
