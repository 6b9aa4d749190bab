"""Tasks: what counts as exact, valid and right, and over which cases."""

from typing import ClassVar

import pytest

from redraft.evaluation.cases import Case, read_rows
from redraft.evaluation.evaluate import evaluate, failed_rows, summarise
from redraft.evaluation.scores import score_answer, score_fields, score_repair, score_text
from redraft.evaluation.subject import Response
from redraft.evaluation.tasks import TASKS
from redraft.generation.result import Generation

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
        canvases=((7,) * 40,),
    )


def case(*, seen: bool = True, held_out_values: bool = False, answer: str = WANTED) -> Case:
    return Case("Extract …", answer, seen, held_out_values)


class Answers:
    """A subject that gives the texts it is given, one after the other, and refuses a prompt that says so."""

    facts: ClassVar = {}

    def __init__(self, *texts: str, steps: tuple[int, ...] = (5,)) -> None:
        self._texts, self._steps = iter(texts), steps

    def check(self, prompt: str) -> None:
        if prompt == "bad":
            raise ValueError("a bad prompt")

    def respond(self, prompt: str) -> Response:
        return Response.of_generation(next(self._texts), generation(*self._steps))

    def encode(self, text: str) -> range:
        return range(len(text))

    def count_tokens(self, text: str) -> int:
        return len(text)


def summary_of(*answers: tuple[Case, str], steps: tuple[int, ...] = (5,)) -> dict:
    subject = Answers(*(text for _, text in answers), steps=steps)
    return summarise(evaluate(subject, [case for case, _ in answers], score_fields))


def test_a_bad_prompt_is_refused_before_any_answer():
    reported = []
    with pytest.raises(ValueError, match="a bad prompt"):
        evaluate(Answers("a", "b"), [case(), Case("bad", WANTED)], score_fields, reported.append)
    assert not reported


def test_what_was_not_exact_is_listed():
    outcomes = evaluate(Answers("{}", WANTED), [case(), case()], score_fields)
    assert failed_rows(outcomes) == [{"prompt": "Extract …", "wanted": WANTED, "got": "{}", "seen": True}]


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


@pytest.mark.parametrize("name", TASKS)
def test_every_shipped_set_is_half_unseen_and_its_right_answers_score_right(name):
    task = TASKS[name]
    cases = task.cases()
    assert len(cases) == 500
    assert sum(case.seen for case in cases) == 250
    assert len({case.prompt for case in cases}) > 480
    assert [case.seen for case in task.cases(2)] == [True, True, False, False]
    for case in cases:
        scores = task.score(case, case.answer)
        assert scores["exact"] == 1
        assert scores.get("character_error_rate", 0) == 0
        assert task.score(case, "…")["exact"] == 0


def test_field_f1_counts_what_is_there_and_what_is_missing():
    wanted = '{"a": "1", "b": "2", "c": null}'

    def f1(text: str) -> float:
        return score_fields(case(answer=wanted), text)["field_f1"]

    assert f1(wanted) == 1
    assert f1('{"a": "1"}') == pytest.approx(2 / 3)
    assert f1('{"a": "1", "b": "2", "c": "3"}') == pytest.approx(4 / 5)
    assert f1("nothing") == 0
    assert score_fields(case(answer='{"c": null}'), '{"c": null}')["field_f1"] == 1


def test_true_is_not_one():
    scores = score_fields(case(answer='{"a": 1}'), '{"a": true}')
    assert (scores["exact"], scores["fields_right"], scores["field_f1"]) == (0, 0, 0)


def test_error_rates():
    assert score_text(case(answer="abcd"), " abcd\n") == {"exact": 1, "character_error_rate": 0}
    assert score_text(case(answer="abcd"), "abxd") == {"exact": 0, "character_error_rate": 0.25}
    assert score_text(case(answer="abcd"), "")["character_error_rate"] == 1
    repair = score_repair(Case("Fix the typos: teh cat: yes", "the cat: yes"), "the cat: yes")
    assert repair == {"exact": 1, "character_error_rate": 0, "character_error_rate_of_copying": pytest.approx(2 / 12)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"\n  \n", "has no rows"),
        (b'{"prompt": "a", "answer": "b"}\n{"prompt": "a"', "line 2 is not JSON"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b'\n{"prompt": "\xff", "answer": "b"}', "line 2 is not JSON"),
        (b"[1]", "line 1 is not a JSON object"),
        (b'{"prompt": "a"}', 'line 1: "answer" is null, must be text that is not empty'),
        (b'{"prompt": " ", "answer": "b"}', 'line 1: "prompt" is " ", must be text'),
        (b'{"prompt": "a", "answer": 3}', 'line 1: "answer" is 3, must be text'),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rows(path)


def test_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "a", "answer": "b", "more": 1}\r\n\n{"prompt": "c", "answer": "d"}')
    assert [(case.prompt, case.answer) for case in read_rows(path)] == [("a", "b"), ("c", "d")]


def test_a_set_of_objects_arrays_and_texts_has_each_score_over_those_that_have_it():
    cases = [case(answer='[{"name": "Ana"}]'), case(), case(answer="no"), case()]
    answers = Answers('[{"name": "Ana"}]', WANTED, "yes", "{")
    summary = summarise(evaluate(answers, cases, score_answer))
    assert (summary["exact"], summary["valid_json"], summary["fields_right"]) == (0.5, 0.6667, 0.6667)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('[{"a": "1", "b": null}, {"a": "2", "b": "3"}]', 1.0),
        ('[{"a": "1", "b": null}, {"a": "2"}]', 0.75),
        ('[{"a": "1"}]', 0.25),
        ('[{"a": "0"}, {"a": "1"}, {"a": "2"}]', 0.0),
        ('{"a": "1"}', 0.0),
        ("[", 0.0),
    ],
)
def test_the_fields_of_an_array_count_in_the_object_of_their_place(answer, right):
    asked = case(answer='[{"a": "1", "b": null}, {"a": "2", "b": "3"}]')
    assert score_answer(asked, answer)["fields_right"] == right
