"""The mixture that the bundled model trains on."""

from collections import Counter

import pytest

from redraft.bundled.data.families import FAMILIES, BundledExamples
from redraft.evaluation.cases import Case
from redraft.evaluation.tasks import TASKS
from redraft.text import TextTokenizer
from redraft.weights.fetch import BUNDLED_FOLDER


@pytest.fixture(scope="module")
def source() -> BundledExamples:
    return BundledExamples(8, TextTokenizer.load(BUNDLED_FOLDER), easy_start=False)


def family(source: BundledExamples, example) -> str:
    prompt = source.tokenizer.decode(example.prompt)
    starts = {"extract": "Extract ", "normalize": "Write the ", "repair": "Fix the typos: "}
    return next(name for name, start in starts.items() if start in prompt[:40])


def test_families_come_as_often_as_their_shares_say(source):
    found = Counter(family(source, example) for step in range(100) for example in source(step))
    assert sum(family.share for family in FAMILIES.values()) == pytest.approx(1)
    for name, one in FAMILIES.items():
        assert found[name] / 800 == pytest.approx(one.share, abs=5 * (one.share * (1 - one.share) / 800) ** 0.5)


def test_a_step_is_the_same_whatever_was_read_before(source):
    assert source(5) == source(5)
    assert source(5) != source(6)


def test_validation_has_every_family_and_nothing_that_is_tested(source):
    chosen = source.validation(30)
    assert Counter(family(source, example) for example in chosen) == dict.fromkeys(FAMILIES, 10)
    records = [record for one in FAMILIES.values() for seen in (True, False) for record in one.test(50, seen, 0)]
    tested = {source.example(record).prompt for record in records}
    assert len(tested) > 290
    assert not {example.prompt for example in chosen} & tested


@pytest.mark.parametrize("name", FAMILIES)
def test_the_shipped_test_sets_are_what_the_generators_make(name):
    made = [
        Case(record.prompt, record.answer, seen, name == "extract" and index % 2 == 1)
        for seen in (True, False)
        for index, record in enumerate(FAMILIES[name].test(250, seen, 0))
    ]
    assert TASKS[name].cases() == made
    tuning = FAMILIES[name].test(120, True, 2)
    assert TASKS[name].tuning_cases() == [
        Case(r.prompt, r.answer, True, name == "extract" and i % 2 == 1) for i, r in enumerate(tuning)
    ]
    # Short prompts may meet by chance ("3:00 am").
    assert len({case.prompt for case in TASKS[name].tuning_cases()} & {case.prompt for case in made}) <= 3
