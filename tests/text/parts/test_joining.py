"""One answer from those to the parts: which stretches of theirs it is made of."""

import json

from redraft.text.parts.joining import MIN_SURE, Emptiness, Joined, Stretch, Unread, join_items, join_windows

NOBODY = '{"name": null, "city": null}'


def written(joined: Joined, answers: list[str]) -> str:
    return "".join(
        answers[one.part][one.start : one.end]
        if isinstance(one, Stretch)
        else one
        if isinstance(one, str)
        else one.text
        for one in joined.pieces
    )


def items(answers: list[str], *, may_be_none: Emptiness) -> list:
    return json.loads(written(join_items(("name", "city"), answers, may_be_none=may_be_none), answers))


def test_items_are_an_array_in_their_order():
    answers = ['{"name": "Ana"}', ' {"name": null}\n', '{"name": "Ben"}']
    joined = join_items(("name",), answers, may_be_none="none")
    assert written(joined, answers) == '[{"name": "Ana"}, {"name": null}, {"name": "Ben"}]'
    assert (joined.items, joined.unread) == ((0, 1, 2), 0)
    assert written(join_items(("name",), [], may_be_none="ends"), []) == "[]"


def test_what_says_nothing_before_and_behind_the_items_is_left_out_where_it_may_be_none():
    answers = [NOBODY, '{"name": "Ana", "city": null}', NOBODY, '{"name": "Ben", "city": null}', NOBODY, NOBODY]
    assert [one["name"] for one in items(answers, may_be_none="ends")] == ["Ana", None, "Ben"]
    assert join_items(("name",), answers, may_be_none="ends").items == (1, 2, 3)
    assert len(items(answers, may_be_none="none")) == 6
    # Of sentences any may be about something else.
    assert [one["name"] for one in items(answers, may_be_none="any")] == ["Ana", "Ben"]
    # Where none says anything there is nothing to tell them by.
    assert len(items([NOBODY] * 2, may_be_none="ends")) == 2


def test_in_the_place_of_an_answer_that_is_no_object_stand_nulls_that_nobody_is_sure_of():
    answers = ['{"name": "Ana", "city": "Rome"}', "sorry", '{"name": "B']
    joined = join_items(("name", "city"), answers, may_be_none="ends")
    assert json.loads(written(joined, answers))[1:] == [{"name": None, "city": None}] * 2
    assert joined.unread == 2
    assert sum(isinstance(one, Unread) for one in joined.pieces) == 2
    joined = join_windows(("name",), ["sorry", "no"], [{}, {}])
    assert (written(joined, ["", ""]), joined.unread) == ('{"name": null}', 2)


def test_of_windows_the_surest_value_counts_and_nulls_against_none():
    answers = [
        '{"name": "Ana", "city": null, "age": "31"}',
        '{"name": "Anna", "city": "Rome", "age": null}',
        "no answer",
    ]
    sureness = [{"name": 0.6, "city": 0.9, "age": MIN_SURE / 2}, {"name": 0.8, "city": 0.5, "age": 0.9}, {}]
    joined = join_windows(("name", "city", "age"), answers, sureness)
    assert json.loads(written(joined, answers)) == {"name": "Anna", "city": "Rome", "age": None}
    assert joined.unread == 0
    # The null of the window that is least sure of it: it says most.
    nulls = ['{"name": null}', '{"name": null}']
    assert join_windows(("name",), nulls, [{"name": 0.9}, {"name": 0.7}]).pieces[2] == Stretch(1, 9, 13)


def test_values_are_taken_as_they_are_written_and_names_as_they_were_asked_for():
    answers = ['{"a \\"b\\"": "x\\ny", "n": 3}']
    joined = join_windows(('a "b"', "n", "none"), answers, [{'a "b"': 1.0, "n": 1.0}])
    assert written(joined, answers) == '{"a \\"b\\"": "x\\ny", "n": 3, "none": null}'
