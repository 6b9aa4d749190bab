"""Repair: typos can be corrected, names are spared, and what is held out stays held out."""

import random
import re
from functools import cache

from redraft.bundled.data.extraction.values import is_held_out
from redraft.bundled.data.record import Record
from redraft.bundled.data.repair import (
    add_typos,
    held_out_records,
    misspellings,
    real_sentences,
    sentence,
    training_record,
)
from redraft.bundled.data.typos import mistype

PROMPT = "Fix the typos: "


@cache
def records() -> list[Record]:
    return [training_record(0, index) for index in range(800)]


def test_a_record_is_the_same_whatever_was_drawn_before():
    assert training_record(0, 33) == records()[33]
    assert training_record(1, 33) != records()[33]


def test_most_prompts_have_a_few_errors_and_some_have_none():
    untouched = 0
    for record in records():
        wrong = record.prompt.removeprefix(PROMPT)
        untouched += wrong == record.answer
        given, wanted = wrong.split(" "), record.answer.split(" ")
        assert len(given) == len(wanted)
        assert sum(a != b for a, b in zip(given, wanted, strict=True)) <= len(wanted) / 8 + 2
        assert len(record.answer) <= 110
    assert 0.02 < untouched / len(records()) < 0.12


def test_what_is_spared_is_spared():
    text = "Leo Marsh paid the invoice of Leo Marsh"
    for seed in range(200):
        spoiled = add_typos(text, random.Random(seed), held_out=False, spared=frozenset({"Leo", "Marsh"}))
        assert spoiled != text
        assert spoiled.count("Leo") == spoiled.count("Marsh") == 2


def test_sentences_and_misspellings_are_split():
    assert not set(real_sentences(True)) & set(real_sentences(False))
    assert 0.05 < len(real_sentences(True)) / len(real_sentences(False)) < 0.2
    assert all(is_held_out(wrong) for wrongs in misspellings(True).values() for wrong in wrongs)
    assert not any(is_held_out(wrong) for wrongs in misspellings(False).values() for wrong in wrongs)
    trained = {record.answer for record in records()}
    assert not trained & {record.answer for record in held_out_records(200, seen=True)}


def test_a_slip_changes_a_word_by_at_most_two_letters():
    rng = random.Random(0)
    for word in ("the", "address", "Invoice", "aa", "qq", "zoo"):
        for _ in range(300):
            wrong = mistype(word, rng)
            assert abs(len(wrong) - len(word)) <= 1
            if len(word) > 3:
                assert wrong[0] == word[0]
                assert wrong != word


def test_right_sentences_hold_no_known_misspelling_but_of_names():
    wrong = {wrong for held_out in (False, True) for wrongs in misspellings(held_out).values() for wrong in wrongs}
    rng = random.Random(0)
    for _ in range(1500):
        text, spared = sentence(rng, held_out=False)
        words = set(re.findall(r"\b[a-z]{4,}\b", text)) - spared
        assert not words & wrong, text
