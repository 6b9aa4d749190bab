"""The forms of prompts: what is in one of them, and what it asks for."""

import pytest

from redraft.text.prompts.forms import PromptForm, PromptTask
from redraft.text.prompts.reading import ReadPrompt

EXTRACT = PromptForm("Extract {fields} as JSON: {text}")


@pytest.mark.parametrize(
    ("prompt", "fields", "text"),
    [
        ("Extract name as JSON: I am Ana.", ("name",), "I am Ana."),
        ("Extract name, date as JSON: x: as JSON: y", ("name", "date"), "x: as JSON: y"),
        ("  Extract name,date ,\tcity  as JSON:\n\nline\nline\n", ("name", "date", "city"), "line\nline"),
        ("Extract name, name as JSON:x", ("name", "name"), "x"),
        ("Extract name,, as JSON: x", ("name",), "x"),
        ("Extract name as JSON:", ("name",), ""),
        ("Extract name as JSON: \n\t ", ("name",), ""),
        ('Extract " as JSON: x', ('"',), "x"),
    ],
)
def test_a_prompt_names_its_fields_and_its_text(prompt, fields, text):
    assert EXTRACT.read(prompt) == PromptTask(fields, text)


@pytest.mark.parametrize(
    "prompt",
    ["", "hello", "extract name as JSON: x", "Extract as JSON: x", "Extract a: b as JSON: x",
     "Please Extract name as JSON: x", "Extract name\nas text\nas JSON: x", "Extract {fields} as JSON: x"],
)  # fmt: skip
def test_a_prompt_in_another_form(prompt):
    assert EXTRACT.read(prompt) is None


def test_a_list_without_a_name_is_told_from_a_form_without_a_list():
    assert EXTRACT.read("Extract , , as JSON: x") == PromptTask((), "x", names_missing=True)
    assert PromptForm("Fix: {text}").read("Fix: x") == PromptTask((), "x", names_missing=False)


@pytest.mark.parametrize(
    ("answer", "part"), [('{"', "is not valid JSON"), ('{"key": "x"}', "has the field 'key', not asked for")]
)
def test_an_answer_to_a_list_without_a_name_has_no_keys_of_its_own(answer, part):
    prompt = ReadPrompt([1], task=EXTRACT.read("Extract , as JSON: x"))
    (sentence,) = prompt.check(answer, "stop", num_tokens=2, steps_per_canvas=(1,), max_steps=9)
    assert part in sentence


def test_slots_may_stand_anywhere():
    assert PromptForm("{text}").read(" anything\nat all ") == PromptTask((), "anything\nat all")
    assert PromptForm("{text}\n\nAs JSON: {fields}").read("a b As JSON: c, d") == PromptTask(("c", "d"), "a b")
    assert PromptForm("Write (it) in kg: {text}").read("Write (it)  in kg: 3 g") == PromptTask((), "3 g")


@pytest.mark.parametrize(
    "template", ["", "no slot", "{fields}", "{text} {text}", "{fields} {fields} {text}", "{a} {text}"]
)
def test_a_form_that_cannot_be_read_is_refused(template):
    with pytest.raises(ValueError, match=r"must have \{text\} once"):
        PromptForm(template)


@pytest.mark.parametrize(
    ("form", "prompt", "once"),
    [
        ("Get {fields}: {text}", " Get a, b ,a: a, b", " Get a, b: a, b"),
        ("Get {names} from: {text}", "Get city, name, city and name from: x", "Get city, name from: x"),
        ("Get {names} from: {text}", "Get b (one) and b (two) from: x", "Get b (one) and b (two) from: x"),
        ("Get {fields}: {text}", "Get a, b: a, a", "Get a, b: a, a"),
        ("Get {fields} from: {text}", "Get a, ,b, from: x", "Get a, b from: x"),
    ],
)
def test_a_field_listed_twice_is_listed_once_unless_that_loses_a_description(form, prompt, once):
    task = PromptForm(form).read(prompt)
    assert task is not None
    assert task.tidied(prompt) == once
