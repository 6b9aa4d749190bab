"""One answer from those to the parts: which stretches of theirs it is made of."""

import json

from redraft.text.parts.joining import MIN_SURE, Pieces, Stretch, join_items, join_windows

NOBODY = '{"name": null, "city": null}'


def written(pieces: Pieces, answers: list[str]) -> str:
    return "".join(
        one if isinstance(one, str) else answers[one.part][one.start : one.end]
        for one in pieces
    )  # fmt: skip


def test_items_are_an_array_in_their_order():
    answers = ['{"name": "Ana"}', ' {"name": null}\n', '{"name": "Ben"}']
    assert (
        written(join_items(answers, may_be_none=False), answers) == '[{"name": "Ana"}, {"name": null}, {"name": "Ben"}]'
    )
    assert written(join_items([], may_be_none=True), []) == "[]"


def test_what_says_nothing_before_and_behind_the_items_is_left_out_where_it_may_be_none():
    answers = [NOBODY, '{"name": "Ana", "city": null}', NOBODY, '{"name": "Ben", "city": null}', NOBODY, NOBODY]
    assert [one["name"] for one in json.loads(written(join_items(answers, may_be_none=True), answers))] == [
        "Ana",
        None,
        "Ben",
    ]
    assert len(json.loads(written(join_items(answers, may_be_none=False), answers))) == 6
    # Where none says anything there is nothing to tell them by.
    assert len(json.loads(written(join_items([NOBODY] * 2, may_be_none=True), [NOBODY] * 2))) == 2


def test_an_answer_that_is_no_json_stays_to_be_seen():
    answers = ['{"name": "Ana"}', "sorry"]
    assert written(join_items(answers, may_be_none=True), answers) == '[{"name": "Ana"}, sorry]'


def test_of_windows_the_surest_value_counts_and_nulls_against_none():
    answers = [
        '{"name": "Ana", "city": null, "age": "31"}',
        '{"name": "Anna", "city": "Rome", "age": null}',
        "no answer",
    ]
    sureness = [{"name": 0.6, "city": 0.9, "age": MIN_SURE / 2}, {"name": 0.8, "city": 0.5, "age": 0.9}, {}]
    pieces = join_windows(("name", "city", "age"), answers, sureness)
    assert json.loads(written(pieces, answers)) == {"name": "Anna", "city": "Rome", "age": None}
    # The null of the window that is least sure of it: it says most.
    nulls = ['{"name": null}', '{"name": null}']
    assert join_windows(("name",), nulls, [{"name": 0.9}, {"name": 0.7}])[2] == Stretch(1, 9, 13)


def test_values_are_taken_as_they_are_written_and_names_as_they_were_asked_for():
    answers = ['{"a \\"b\\"": "x\\ny", "n": 3}']
    pieces = join_windows(('a "b"', "n", "none"), answers, [{'a "b"': 1.0, "n": 1.0}])
    assert written(pieces, answers) == '{"a \\"b\\"": "x\\ny", "n": 3, "none": null}'
