"""What a prompt asks for as a constraint: the right answers belong to it, and others do not."""

import re

import pytest

from redraft.evaluation.constrained import constraint_of
from redraft.evaluation.tasks import TASKS
from redraft.text.prompts.forms import PromptTask


def test_every_right_answer_has_the_form_that_its_prompt_asks_for():
    for case in TASKS["normalize"].cases():
        pattern = constraint_of(PromptTask((), case.prompt), case.prompt)["regex"]
        assert re.fullmatch(pattern, case.answer), (case.prompt, pattern)


@pytest.mark.parametrize(
    ("asked", "right", "wrong"),
    [
        ("date as MM/DD/YYYY", "02/28/2024", "28/02/2024"),
        ("date as D Month YYYY", "3 March 2024", "03 March 2024"),
        ("time as h:MM am/pm", "9:05 pm", "09:05 pm"),
        ("time as HHhMM", "23h59", "24h00"),
        ("amount as CUR 0,000.00", "EUR 1,234.50", "EUR 1234.50"),
        ("amount as 0.000,00 CUR", "1.234,50 EUR", "1,234.50 EUR"),
        ("phone as E.164", "+49301234567", "0049301234567"),
        ("weight in kg", "0.015 kg", "0.0150 kg"),
        ("length in m", "38.3 m", "38.3 cm"),
    ],
)
def test_forms(asked, right, wrong):
    pattern = constraint_of(None, f"Write the {asked}: …")["regex"]
    assert re.fullmatch(pattern, right)
    assert not re.fullmatch(pattern, wrong)


def test_fields_are_an_object_of_texts_or_null_in_their_order():
    schema = constraint_of(PromptTask(("b", "a"), "…"), "Extract b, a as JSON: …")["schema"]
    assert list(schema["properties"]) == schema["required"] == ["b", "a"]
    assert schema["properties"]["a"] == {"type": ["string", "null"]}


def test_a_prompt_that_asks_for_neither_is_refused():
    with pytest.raises(ValueError, match="the prompt 'Fix: teh' asks for no fields and no form"):
        constraint_of(PromptTask((), "teh"), "Fix: teh")
