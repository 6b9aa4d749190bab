"""Decisions through the façade: prompts, orders, draws, kinds of question, and what is refused."""

import math

import numpy as np
import pytest

import redraft
from redraft import TypedQuestion
from redraft.decisions import LOW_LOG_MASS, question_of, warnings_of
from tests.fakes.adapters import adapter_folder
from tests.fakes.checkpoints import tiny_checkpoint


@pytest.fixture(scope="module")
def model(checkpoint):
    return redraft.load(checkpoint)


QUESTIONS = {
    "kind": TypedQuestion.choice("Which kind?", {"bill": "money is due", "note": None, "a letter": ""}),
    "paid": TypedQuestion.yes_no("Is it paid?"),
    "urgency": TypedQuestion.score("How urgent?", ["can wait", "soon", "now"]),
}


def test_each_kind_has_its_probabilities_and_the_same_bits_each_time(model):
    found = model.decide("Please pay.", QUESTIONS, seed=3, orders=2, draws=3)
    for name, one in found.items():
        assert tuple(one.probabilities) == QUESTIONS[name].labels
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert one.label == max(one.probabilities, key=lambda label: one.probabilities[label])
        assert one.entropy == pytest.approx(-sum(p * math.log(p) for p in one.probabilities.values() if p))
        assert 0 <= one.confidence <= 1
        assert one.log_mass < 0
        assert (one.score is None) == (name != "urgency")
    score = found["urgency"]
    assert score.score == pytest.approx(sum(int(level) * p for level, p in score.probabilities.items()))
    assert model.decide("Please pay.", QUESTIONS, seed=3, orders=2, draws=3) == found
    alone = model.decide("Please pay.", {"paid": QUESTIONS["paid"]}, seed=3, orders=2, draws=3)
    assert alone["paid"] == found["paid"]
    assert model.decide("Please pay.", QUESTIONS, seed=4, orders=2, draws=3) != found


def test_orders_and_draws_are_averaged(model):
    question = QUESTIONS["kind"]
    assert [question.order(number, 3) for number in range(3)] == [
        ("bill", "note", "a letter"), ("note", "a letter", "bill"), ("a letter", "bill", "note"),
    ]  # fmt: skip
    asked = question.text_for("Please pay.", question.order(1, 3))
    assert asked.endswith("Which kind?\nbill: money is due\nAnswer with one of: note, a letter, bill")
    one, two = (model.decide("x", {"q": TypedQuestion.yes_no("y?")}, seed=3, draws=n)["q"] for n in (1, 2))
    assert one.probabilities != two.probabilities
    in_order = model.decide("x", {"q": question}, seed=3)["q"].probabilities
    mean = model.decide("x", {"q": question}, seed=3, orders=3)["q"].probabilities
    alone = [
        model.decide(
            "x",
            {"q": TypedQuestion.choice("Which kind?", {label: question.descriptions.get(label) for label in order})},
            seed=3,
        )
        for order in (question.order(number, 3) for number in range(3))
    ]
    for label, share in mean.items():
        assert share == pytest.approx(np.mean([one["q"].probabilities[label] for one in alone]), abs=1e-12)
    assert mean != in_order


def test_what_stands_around_a_label_is_held(model):
    question = TypedQuestion.yes_no("", prompt="Is it? {text}", before="so it is ", after=".")
    found = model.decide("x", {"q": question}, canvas_length=24, seed=1)["q"]
    assert set(found.probabilities) == {"yes", "no"}


def test_questions_are_read_from_json():
    assert question_of(
        "q", {"type": "noul", "instructions": "a?", "criteria": {"true": "if so"}}
    ) == TypedQuestion.yes_no("a?\nyes: if so")
    assert question_of("q", {"type": "choice", "instructions": "a?", "criteria": {"b": "c", "d": None}}) == (
        TypedQuestion.choice("a?", {"b": "c", "d": None})
    )
    assert question_of("q", {"type": "score", "instructions": "a?", "criteria": ["b", "c"]}) == TypedQuestion.score(
        "a?", ["b", "c"]
    )
    for given, message in (
        ({"type": "text"}, "question 'q' has the type 'text', must be yes_no"),
        ({"type": "choice"}, "question 'q' has the type 'choice', must be"),
        ({"type": "choice", "criteria": ["a"]}, "question 'q': the question has 1 label, must have 2 to 255"),
        ({"type": "choice", "criteria": ["a", "a"]}, "two labels are the same text"),
        ({"type": "score", "criteria": list("abcdefghijk")}, "has 11 levels, must have 2 to 10"),
        ({"type": "yes_no", "wrong": 1}, "unknown field 'wrong'"),
        ({"type": "yes_no", "prompt": "a"}, "has no {text}"),
        ({"type": "yes_no", "instructions": 3}, "must be texts"),
        ([], "question 'q' must be an object"),
        ({"type": "choice", "criteria": "yes"}, "question 'q' has the type 'choice', must be"),
    ):
        with pytest.raises(ValueError, match=r"question|prompt|labels") as caught:
            question_of("q", given)
        assert message in str(caught.value)


def test_what_cannot_be_decided_is_refused(model):
    for message, questions, options in (
        ("passes is 5, must be a whole number from 1 to 4", QUESTIONS, {"passes": 5}),
        ("orders is 0, must be a whole number from 1 to 64", QUESTIONS, {"orders": 0}),
        ("temperature is 0, must be a number above 0", QUESTIONS, {"temperature": 0}),
        ("passes is '3', must be a whole number", QUESTIONS, {"passes": "3"}),
        ("temperature is '1', must be a number", QUESTIONS, {"temperature": "1"}),
        (r"the questions are 'Is it\?', must be a dict of TypedQuestions", "Is it?", {}),
        (r"the questions are \{'q': \['a', 'b'\]\}, must be", {"q": ["a", "b"]}, {}),
        ("there is no question", {}, {}),
        (
            "no label fits into a canvas of 2 tokens",
            {"q": TypedQuestion.choice("", ["a" * 40, "b" * 40])},
            {"canvas_length": 2},
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model.decide("x", questions, **options)
    with pytest.raises(ValueError, match="the text is 5, must be a text"):
        model.decide(5, QUESTIONS)
    for empty in ("", " \n"):
        with pytest.raises(ValueError, match="the text is empty"):
            model.decide(empty, QUESTIONS)


def test_one_text_is_not_taken_for_a_list_of_its_characters():
    for refused, message in (
        (lambda: TypedQuestion.choice("Is it?", "yes"), "labels are 'yes', must be a list of at least two texts"),
        (lambda: TypedQuestion.choice("Is it?", None), "labels are None, must be a list"),
        (lambda: TypedQuestion.choice("Is it?", [1, 2]), r"one of the labels is not a text: \[1, 2\]"),
        (lambda: TypedQuestion.score("How?", "low"), "levels are 'low', must be a list of at least two texts"),
        (lambda: TypedQuestion.score("How?", [1, 2]), r"one of the levels is not a text: \[1, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


def test_labels_that_the_model_would_not_write_have_a_warning():
    model = redraft.load()
    known = TypedQuestion.yes_no(
        "", yes='{"phone": "0049 30 1234"}', no='{"phone": null}', prompt="Extract phone as JSON: {text}"
    )
    plain = TypedQuestion.yes_no("Is it paid?")
    found = model.decide("This is Ana Kovacs. I paid 42,50 EUR to Tom Reed.", {"phone": known, "paid": plain}, seed=0)
    assert found["phone"].log_mass > LOW_LOG_MASS
    assert found["phone"].warnings == ()
    assert found["paid"].log_mass < LOW_LOG_MASS
    (mass,) = found["paid"].warnings
    assert mass.startswith("the model would hardly write any of these labels here (log mass -")
    assert warnings_of(found) == [f"paid: {mass}"]
    assert warnings_of({"a": found["paid"]}) == [mass]
    assert warnings_of({"a": found["paid"], "b": found["paid"]}) == [f"a, b: {mass}"]


def test_an_adapter_decides_by_its_own_weights(tmp_path):
    base = tiny_checkpoint(tmp_path / "base")
    model = redraft.load(base)
    adapted = model.load_adapter(adapter_folder(tmp_path / "adapter", base, 0))
    questions = {"q": TypedQuestion.yes_no("Is it?")}
    assert adapted.decide("x", questions, seed=1) != model.decide("x", questions, seed=1)
