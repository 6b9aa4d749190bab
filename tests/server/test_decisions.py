"""Decisions through the API, in both formats, beside answers."""

import pytest

import redraft
from redraft import TypedQuestion
from tests.server.test_filling import refusal
from tests.server.test_structured import ask, send, service  # noqa: F401

DECISIONS, SYSTEM_ONE, COMPLETIONS = "/v1/decisions", "/v1/systemone", "/v1/completions"
QUESTIONS = {
    "paid": {"type": "noul", "instructions": "Is it paid?"},
    "kind": {"type": "choice", "instructions": "Which?", "criteria": {"bill": "money is due", "note": None}},
    "urgency": {"type": "score", "instructions": "How urgent?", "criteria": ["can wait", "now"]},
}


def test_they_are_those_of_the_model_whatever_is_answered_beside(send, folder):  # noqa: F811
    asked = {"text": "Please pay.", "questions": QUESTIONS, "seed": 3, "orders": 2, "draws": 2, "passes": 2}
    answer = {"prompt": "ab", "max_tokens": 12, "seed": 1}
    first, written, second = send((DECISIONS, asked), (COMPLETIONS, answer), (DECISIONS, asked))
    assert (first.status_code, written.status_code, second.status_code) == (200, 200, 200)
    assert first.json() == second.json()
    assert first.json()["warnings"][0].startswith("paid: the model would hardly write any of these labels here")
    questions = {
        "paid": TypedQuestion.yes_no("Is it paid?"),
        "kind": TypedQuestion.choice("Which?", {"bill": "money is due", "note": None}),
        "urgency": TypedQuestion.score("How urgent?", ["can wait", "now"]),
    }
    model = redraft.load(folder)
    wanted = model.decide("Please pay.", questions, seed=3, orders=2, draws=2, passes=2)
    for name, one in first.json()["answers"].items():
        assert one["probabilities"] == wanted[name].probabilities
        assert (one["label"], one.get("score")) == (wanted[name].label, wanted[name].score)


def test_the_format_of_other_servers(send):  # noqa: F811
    (response,) = send((SYSTEM_ONE, {"state": {"ticket": "Please pay."}, "questions": QUESTIONS}))
    answers = response.json()["answers"]
    assert set(answers["paid"]) == {"type", "noul"}
    assert 0 <= answers["paid"]["noul"] <= 1
    assert set(answers["kind"]) == {"type", "choice", "probabilities", "confidence"}
    assert answers["urgency"]["legend"] == {"0": "can wait", "1": "now"}
    assert 0 <= answers["urgency"]["score"] <= 1
    assert response.json()["usage"]["output_tokens"] == 0
    assert response.json()["warnings"][0].startswith("paid: the model would hardly write")
    (other,) = send((SYSTEM_ONE, {"model": "other", "state": "Please pay.", "questions": QUESTIONS}))
    assert (other.status_code, other.json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize(
    ("path", "more", "param", "message"),
    [
        (DECISIONS, {"questions": {"q": {"type": "x"}}}, "questions.q", "question 'q' has the type 'x'"),
        (DECISIONS, {"questions": {}}, "questions", "at least 1"),
        (DECISIONS, {"passes": 5}, "passes", "less than or equal to 4"),
        (DECISIONS, {"draws": 64}, "questions", "are 192, the limit is 64"),
        (DECISIONS, {"text": "a " * 5000}, "text", "the context holds"),
        (DECISIONS, {"text": " "}, "text", "the text is empty"),
        (SYSTEM_ONE, {"text": None, "state": ""}, "state", "the text is empty"),
        (SYSTEM_ONE, {"text": None, "state": "a " * 5000}, "state", "the context holds"),
        (SYSTEM_ONE, {"text": None, "state": 3}, "state", "must be a string or an object"),
        (DECISIONS, {"questions": {"q": {"type": "choice", "criteria": ["a", 3]}}}, "questions.q", "must be texts"),
        (DECISIONS, {"questions": {"q": {"type": "yes_no", "criteria": ["a", "b"]}}}, "questions.q", "of yes_no"),
        (DECISIONS, {"questions": {"q": {"type": "noul", "criteria": {"yes": "a"}}}}, "questions.q", "of noul"),
    ],
)
def test_what_cannot_be_decided_is_refused(send, path, more, param, message):  # noqa: F811
    asked = {"text": "Please pay.", "questions": QUESTIONS, **more}
    (response,) = send((path, {name: value for name, value in asked.items() if value is not None}))
    assert message in refusal(response, param)
