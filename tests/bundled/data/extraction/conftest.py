import pytest

from redraft.bundled.data.extraction.records import held_out_records, training_record
from redraft.bundled.data.extraction.tokenizer import train_tokenizer
from redraft.bundled.data.record import Record


@pytest.fixture(scope="package")
def records() -> list[Record]:
    return [training_record(0, index) for index in range(3000)]


@pytest.fixture(scope="package")
def exam_records() -> list[Record]:
    return [*held_out_records(300, seen=True), *held_out_records(300, seen=False)]


@pytest.fixture(scope="package")
def texts(records) -> list[str]:
    return [text for record in records for text in (record.prompt, record.answer)]


@pytest.fixture(scope="package")
def tokenizer(texts):
    return train_tokenizer(texts)
