"""The records of the next bundled model: right by construction, always the same, and apart from the tests."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from redraft.bundled.data.record import Conversation
from redraft.bundled.data.wide.fields import held_out_names, spellings
from redraft.bundled.data.wide.records import (
    FAMILIES,
    MAX_ANSWER,
    MAX_RECORDS,
    REFUSAL,
    UNSAYABLE,
    make_array,
    training_record,
)
from redraft.bundled.data.wide.test_sets import SETS, rows
from redraft.bundled.data.wide.texts import TRAINED_LANGUAGES
from redraft.evaluation.tasks import WIDE_SETS

COUNT = 800


@cache
def trained() -> tuple[Conversation, ...]:
    return tuple(training_record(7, index) for index in range(COUNT))


@cache
def trained_on_long_texts() -> tuple[Conversation, ...]:
    return tuple(training_record(7, index, (240, 400)) for index in range(40))


@cache
def arrays() -> tuple[Conversation, ...]:
    """Records that the test sets have, and training has not."""
    return tuple(make_array(random.Random(index)) for index in range(150))


def said(record: Conversation) -> str:
    return "\n".join(content for _, content in record.messages)


def objects(record: Conversation) -> list[dict[str, str | int | None]]:
    if not record.answer.startswith(("{", "[")):
        return []
    found = json.loads(record.answer)
    return found if isinstance(found, list) else [found]


def test_a_record_is_the_same_whatever_was_made_before():
    assert training_record(7, 5) == trained()[5]
    assert training_record(8, 5) != trained()[5]


def test_every_answer_is_taken_from_its_text():
    for record in (*trained(), *arrays(), *trained_on_long_texts()):
        for answer in objects(record):
            assert answer
            for name, value in answer.items():
                assert value is None or str(value) in record.messages[-1][1]
                assert name in said(record) or json.dumps(name, ensure_ascii=False)[1:-1] in said(record)


def test_an_answer_is_one_of_four_kinds():
    for record in (*trained(), *arrays()):
        if record.kind == "refusal":
            assert record.answer == REFUSAL
        elif record.kind == "unsayable":
            assert record.answer == UNSAYABLE
        elif record.kind == "array":
            assert record.answer.startswith("[")
            assert len(record.answer) <= MAX_ANSWER
            assert 1 <= len(objects(record)) <= MAX_RECORDS
        elif record.kind != "normalize":
            assert record.answer.startswith("{")


def test_the_shares_are_what_they_should_be():
    kinds, languages = Counter(record.kind for record in trained()), Counter(one.language for one in trained())
    expected = {name: share for name, (share, _) in FAMILIES.items()}
    assert sum(expected.values()) == pytest.approx(1)
    assert kinds["normalize"] + kinds["unsayable"] == pytest.approx(expected["normalize"] * COUNT, abs=0.05 * COUNT)
    assert kinds["refusal"] / COUNT == pytest.approx(expected["refusal"], abs=0.05)
    assert kinds["system"] and kinds["second turn"]
    assert languages.keys() == TRAINED_LANGUAGES.keys()
    values = [value for record in trained() for one in objects(record) for value in one.values()]
    assert 0.1 < sum(value is None for value in values) / len(values) < 0.3


def test_long_texts_have_their_length():
    # Some texts say nothing, and some prompts of other kinds have none.
    lengths = [len(said(record).split()) for record in trained_on_long_texts() if len(said(record)) > 200]
    assert len(lengths) > 30
    assert min(lengths) >= 200
    assert max(lengths) < 700


def test_no_training_text_has_a_held_out_name():
    assert len(held_out_names()) > 60
    forms = {form.lower() for name in held_out_names() for form in spellings(name)}
    for record in trained():
        for answer in objects(record):
            assert not {name.lower() for name in answer} & forms
    # Names of several words cannot come up in a value by chance.
    names = [name for name in held_out_names() if " " in name]
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b", re.IGNORECASE)
    assert not [match for record in (*trained(), *trained_on_long_texts()) if (match := pattern.search(said(record)))]


def shipped(name: str) -> Iterator[tuple[str, str]]:
    for case in WIDE_SETS[name.removeprefix("wide-")].cases():
        yield case.prompt, case.answer


@pytest.mark.parametrize("name", SETS)
def test_the_shipped_test_sets_are_what_the_generators_make(name: str):
    made = rows(name)
    cases = WIDE_SETS[name.removeprefix("wide-")].cases()
    assert [case.answer for case in cases] == [row["answer"] for row in made]
    assert [list(case.messages) or case.prompt for case in cases] == [
        row.get("messages", row.get("prompt")) for row in made
    ]


def test_no_test_record_is_trained_on():
    prompts = {said(record) for record in trained()}
    for name in SETS:
        assert not prompts & {prompt for prompt, _ in shipped(name) if len(prompt) > 60}


def test_every_case_of_the_names_set_asks_for_a_held_out_one():
    forms = {form for name in held_out_names() for form in spellings(name)}
    cases = [json.loads(answer) for _, answer in shipped("wide-names")]
    assert sum(bool(answer.keys() & forms) for answer in cases) > 0.7 * len(cases)


def test_right_answers_score_right_and_others_do_not():
    for task in WIDE_SETS.values():
        for case in task.cases():
            assert task.score(case, case.answer)["exact"] == 1
            assert task.score(case, "…")["exact"] == 0


def test_public_formats_are_answered_from_their_texts():
    for case in WIDE_SETS["formats"].cases():
        found = json.loads(case.answer)
        for answer in found if isinstance(found, list) else [found]:
            assert all(value is None or value in case.prompt for value in answer.values())
