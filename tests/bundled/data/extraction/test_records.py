"""Records: a prompt and the JSON that answers it, from lists that training may or may not know."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys

import pytest

from redraft.bundled.data.extraction.phrasings import KINDS, parse
from redraft.bundled.data.extraction.records import (
    held_out_records,
    list_record,
    make_record,
    seen_phrasings,
    training_record,
)
from redraft.bundled.data.extraction.values import ValueSource, _pool, is_held_out

FIELDS = {field for fields in KINDS.values() for field in fields}


def parts(record) -> tuple[list[str], str]:
    """The asked fields and the text of a prompt."""
    found = re.match(r"Extract ([a-z_, ]+) as JSON: (.*)", record.prompt, re.DOTALL)
    assert found is not None, record.prompt
    return found[1].split(", "), found[2]


def test_a_record_is_the_same_whatever_was_drawn_before(records):
    assert training_record(0, 2999) == records[2999]
    assert training_record(0, 0) == records[0]
    assert training_record(1, 0) != records[0]
    assert len({record.prompt for record in records}) > 2990


def test_a_record_is_the_same_in_another_process(records):
    code = (
        "import hashlib; from redraft.bundled.data.extraction.records import training_record;"
        "print(hashlib.sha256(repr([training_record(0, i) for i in range(25)]).encode()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == hashlib.sha256(repr(records[:25]).encode()).hexdigest()


def test_answers_are_json_of_exactly_the_asked_fields_in_order(records, exam_records):
    for record in records + exam_records:
        fields, _ = parts(record)
        answer = json.loads(record.answer)
        assert list(answer) == fields, record
        assert len(set(fields)) == len(fields) >= 1
        assert set(fields) <= FIELDS
        assert record.answer == json.dumps(answer, ensure_ascii=False)


def test_values_stand_in_the_text_as_they_are_in_the_answer(records, exam_records):
    for record in records + exam_records:
        _, text = parts(record)
        for value in json.loads(record.answer).values():
            assert value is None or (value and value in text and f'"{value}"' in record.answer), record


def test_lists_name_their_values():
    made = [list_record(0, index) for index in range(500)]
    assert made[7] == list_record(0, 7)
    for record in made:
        answer = json.loads(record.answer)
        fields, text = parts(record)
        assert list(answer) == fields
        assert any(value is not None for value in answer.values())
        for field, value in answer.items():
            assert (value is None) != bool(value and re.search(rf"{field}(: | |=| - ){re.escape(value)}", text))
    assert 0.1 < sum("null" in record.answer for record in made) / 500 < 0.3


def test_some_fields_are_asked_in_vain_and_most_are_not(records):
    answers = [json.loads(record.answer) for record in records]
    values = [value for answer in answers for value in answer.values()]
    assert 0.03 < values.count(None) / len(values) < 0.25
    assert sum(not any(answer.values()) for answer in answers) / len(answers) < 0.05


def test_kinds_of_records(records):
    singles = [record for record in records if "+" not in record.kind]
    doubles = [record.kind.split("+") for record in records if "+" in record.kind]
    assert {record.kind for record in singles} == set(KINDS)
    assert {kind for pair in doubles for kind in pair} == set(KINDS)
    assert 0.25 < len(doubles) / len(records) < 0.4
    asked = {field for record in records for field in json.loads(record.answer)}
    assert asked == FIELDS


def test_two_texts_are_asked_for_what_only_one_of_them_has():
    phrasings = [parse("contact", "{name}, {email}"), parse("order", "{name}: {order_id}, {product}")]
    made = [make_record(phrasings, ValueSource(held_out=False), random.Random(seed)) for seed in range(400)]
    doubles = [record for record in made if record.kind in ("contact+order", "order+contact")]
    assert len(doubles) > 40
    for record in doubles:
        fields, text = parts(record)
        assert set(fields) <= {"email", "order_id", "product"}
        assert len(fields) >= 2
        assert text.count(", ") >= 2  # both texts are there
    # Twice the same phrasing has nothing of the kind: those records hold the first text alone.
    assert {record.kind for record in made} == {"contact", "order", "contact+order", "order+contact"}


def test_training_draws_nothing_that_is_held_out(monkeypatch):
    drawn = set()
    for name in ("faker", "word"):
        draw = getattr(ValueSource, name)

        def spied(self, entries, rng, draw=draw):
            value = draw(self, entries, rng)
            drawn.add(value)
            return value

        monkeypatch.setattr(ValueSource, name, spied)
    for index in range(3000):
        training_record(0, index)
    assert len(drawn) > 5000
    assert {value for value in drawn if is_held_out(value)} == set()


def direct_values(records, fields) -> set[str]:
    """The values of fields that are entries of a list, unchanged."""
    pairs = (pair for record in records for pair in json.loads(record.answer).items())
    return {value for field, value in pairs if field in fields and value is not None}


def test_held_out_values_are_in_every_other_test_record_and_in_no_training_record(records):
    fields = ("company", "city", "country", "postcode", "origin", "destination")
    natural = [training_record(0, index, scrambled=0.0) for index in range(2000)]
    assert not any(map(is_held_out, direct_values(natural, fields)))
    held_out = {value for kind in ("company", "city", "country", "postcode") for value in _pool(kind, True)}
    assert len(held_out) > 1000
    assert not held_out & direct_values(records, fields)
    for seen in (True, False):
        made = list(held_out_records(600, seen=seen))
        known, unknown = direct_values(made[::2], fields), direct_values(made[1::2], fields)
        assert len(known) > 50
        assert not any(map(is_held_out, known))
        assert len(unknown) > 50
        assert all(map(is_held_out, unknown))


@pytest.mark.parametrize("seen", [True, False])
def test_test_records_follow_from_their_place(seen):
    first, longer = list(held_out_records(5, seen=seen)), list(held_out_records(9, seen=seen))
    assert longer[:5] == first
    assert list(held_out_records(5, seen=seen, seed=1)) != first


def test_no_test_record_is_a_training_record(records, exam_records):
    assert not {record.prompt for record in records} & {record.prompt for record in exam_records}
    assert list(held_out_records(5, seen=True)) != list(held_out_records(5, seen=False))


def test_some_training_values_are_of_random_words(records):
    natural = set(_pool("city", False))
    cities = direct_values(records, ("city", "origin", "destination"))
    assert 0.2 < len(cities - natural) / len(cities) < 0.8
    assert all(direct_values([training_record(0, i, scrambled=0.0)], ("city",)) <= natural for i in range(300))


def test_about_a_tenth_of_the_answers_spans_two_canvases(records, tokenizer):
    # With the EOS that ends it, an answer of 64 tokens needs a second canvas of 64.
    lengths = [len(tokenizer.encode(record.answer).ids) + 1 for record in records]
    assert 0.06 < sum(length > 64 for length in lengths) / len(lengths) < 0.14
    assert max(lengths) <= 4 * 64


def test_messy_records_hold_their_values_as_they_are_asked_for():
    kinds = set()
    for seed in range(600):
        rng = random.Random(seed)
        record = make_record(seen_phrasings(), ValueSource(held_out=False), rng, messy=1.0)
        _, text = parts(record)
        # Line breaks inside of a value are quoted with the text.
        assert all(value is None or value in text for value in json.loads(record.answer).values()), record
        kinds |= {mark for mark in ("\n> ", "<div>", "|", "Sent from my phone", "---") if mark in text}
    assert len(kinds) == 5
