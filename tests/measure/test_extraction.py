"""The extraction task's score: what counts as exact, valid and right, and over which cases."""

import json

import pytest

from redraft.generation import Generation
from redraft.measure.extraction import Case, read_cases, run_cases, summarise

WANTED = '{"name": "Ana", "total": null}'


def generation(*steps: int) -> Generation:
    return Generation(
        token_ids=(7,) * 20,
        finish_reason="stop",
        seed=0,
        steps_per_canvas=steps,
        tokens_per_forward=20 / sum(steps),
        prefill_seconds=0.5,
        denoising_seconds=1.0,
        commit_seconds=0.5,
        canvases=(),
    )


def case(*, seen: bool = True, held_out_values: bool = False, answer: str = WANTED) -> Case:
    return Case("Extract …", answer, seen, held_out_values)


def summary_of(*answers: tuple[Case, str], steps: tuple[int, ...] = (5,)) -> dict:
    texts = iter([text for _, text in answers])
    outcomes = run_cases(
        [case for case, _ in answers], lambda _: (next(texts), generation(*steps)), lambda text: len(text) > 40
    )
    return summarise(outcomes)


@pytest.mark.parametrize(
    ("text", "exact", "valid", "fields_right"),
    [
        (WANTED, 1, 1, 1),
        ('{"name":"Ana","total":null}\n', 1, 1, 1),
        ('{"total": null, "name": "Ana"}', 0, 1, 1),  # the order is part of the question
        ('{"name": "Ana", "total": "null"}', 0, 1, 0.5),
        ('{"name": "Ana", "total": 0}', 0, 1, 0.5),
        ('{"name": "Ann", "total": null}', 0, 1, 0.5),
        ('{"name": "Ana"}', 0, 1, 0.5),  # a field left out is not null
        ('{"name": "Ana", "total": null, "city": null}', 0, 1, 1),
        ('{"name": "Bob", "name": "Ana", "total": null}', 0, 1, 1),
        ('{"name": {"name": "Ana"}, "total": null}', 0, 1, 0.5),
        ('["name", "Ana"]', 0, 0, 0),
        ("[" * 100_000, 0, 0, 0),
        ('{"name": "Ana"', 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_what_counts(text, exact, valid, fields_right):
    summary = summary_of((case(), text))
    assert (summary["exact_seen"], summary["valid_json"], summary["fields_right"]) == (exact, valid, fields_right)


def test_shares_are_taken_over_the_cases_they_name():
    long = '{"name": "Ana", "address": "Elm Street 5, Berlin"}'
    summary = summary_of(
        (case(), WANTED),
        (case(held_out_values=True), "{}"),
        (case(answer=long), long),
        (case(seen=False), WANTED),
        (case(seen=False, held_out_values=True, answer=long), WANTED),
        steps=(5, 3),
    )
    assert summary["examples"] == 5
    assert summary["exact_seen"] == pytest.approx(2 / 3, abs=1e-4)
    assert summary["exact_unseen"] == 0.5
    assert summary["exact_held_out_values"] == 0
    # By what is asked for, not by what the model wrote.
    assert summary["exact_two_canvases"] == 0.5
    assert summary["steps_per_canvas"] == 4
    assert summary["tokens_per_forward"] == 2.5
    assert summary["tokens_per_second"] == 10


def test_a_share_of_nothing_is_none():
    summary = summary_of((case(), WANTED))
    assert summary["exact_unseen"] is None
    assert summary["exact_two_canvases"] is None


def test_the_test_set_is_half_unseen_and_its_answers_are_json_objects():
    cases = read_cases()
    assert len(cases) == 500
    assert sum(case.seen for case in cases) == 250
    assert all(isinstance(json.loads(case.answer), dict) for case in cases)
    assert len({case.prompt for case in cases}) == 500
    assert [case.seen for case in read_cases(per_split=2)] == [True, True, False, False]
