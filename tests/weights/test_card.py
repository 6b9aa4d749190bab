import json

import pytest

from redraft.weights.card import Card, read_card, write_card


def test_a_checkpoint_without_a_card_has_an_empty_one(tmp_path):
    assert read_card(tmp_path) == Card()


def test_a_card_is_read(tmp_path):
    (tmp_path / "redraft.json").write_text(
        json.dumps({"purpose": "p", "limits": "l", "examples": ["a", "b"], "single_turn": True})
    )
    assert read_card(tmp_path) == Card(purpose="p", limits="l", examples=("a", "b"), single_turn=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "redraft.json"),
        ('{"purpose": 1}', "purpose and limits must be strings"),
        ('{"limits": []}', "purpose and limits must be strings"),
        ('{"single_turn": "yes"}', "single_turn true or false"),
        ('{"examples": "a"}', "examples must be a list of strings"),
        ('{"examples": [1]}', "examples must be a list of strings"),
        ('{"examples": ["a"], "example_names": ["b", "c"]}', "2 example_names for 1 examples"),
        ('{"example_names": [1]}', "example_names must be a list of strings"),
        ('{"recipe": 1}', "recipe and refusal must be strings"),
        ('{"mode": 1}', "mode is 1, must be a string"),
        ('{"refusal": null}', "recipe and refusal must be strings"),
        ('{"open_wording": 1}', "open_wording true or false"),
        ('{"fields": ["name"]}', "fields must be an object"),
        ('{"fields": {"order": "name"}}', "fields.order must be a list of strings"),
        ('{"prompt_forms": "a {text}"}', "prompt_forms must be a list of strings"),
        ('{"prompt_forms": ["a"]}', "redraft.json: a prompt form is 'a', must have {text} once"),
        ('{"max_prompt_tokens": 0}', "max_prompt_tokens is 0, must be a whole number above 0"),
        ('{"max_prompt_tokens": true}', "max_prompt_tokens is True, must be"),
    ],
)
def test_a_malformed_card_is_refused(tmp_path, text, message):
    (tmp_path / "redraft.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_card(tmp_path)


def test_a_card_is_read_as_it_was_written(tmp_path):
    card = Card(
        purpose="ü",
        limits="l",
        examples=("a",),
        example_names=("b",),
        fields={"c": ("d", "e")},
        single_turn=True,
        prompt_forms=("f: {text}",),
        max_prompt_tokens=9,
        recipe="r",
        mode="auto",
    )
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card
    assert [path.name for path in tmp_path.iterdir()] == ["redraft.json"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Extract name as JSON: I am Ana.", []),
        ("Extract name as JSON:", ["the prompt has no text after its request"]),
        ("Extract name as JSON: \n\t  ", ["the prompt has no text after its request"]),
        ("Extract , as JSON: I am Ana.", ["the prompt names no field"]),
        ("Extract , as JSON: ", ["the prompt has no text after its request", "the prompt names no field"]),
        ("Extract name, name as JSON: I am Ana.", ["the prompt asks more than once for the field 'name'"]),
        ('Extract " as JSON: I am Ana.', ["this model was not trained on the field '\"'"]),
    ],
)
def test_a_prompt_that_asks_for_nothing_is_marked(prompt, expected):
    card = Card(prompt_forms=("Extract {fields} as JSON: {text}",), fields={"mail": ("name",)})
    told = list(card.prompt_warnings(card.task_of(prompt), "user", 10))
    assert len(told) == len(expected)
    assert all(part in sentence for sentence, part in zip(told, expected, strict=True))


def test_two_hundred_fields_are_marked_in_one_short_sentence():
    card = Card(prompt_forms=("Extract {fields} as JSON: {text}",), fields={"mail": ("name",)})
    names = ", ".join(f"field{number}" for number in range(200))
    (sentence,) = card.prompt_warnings(card.task_of(f"Extract {names} as JSON: I am Ana."), "user", 10)
    assert "'field7' and 192 more" in sentence


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        ("Write the phone number as 00 and digits: +49 30 123456", "Write the phone as 00 and digits: {text}"),
        ("write date as YYYY-MM-DD: 3 May 2021", "Write the date as YYYY-MM-DD: {text}"),
        ("Extract name in JSON: I am Ana.", "Extract {fields} as JSON: {text}"),
        ("What is the capital of France?", "Extract {fields} as JSON: {text}"),
        ("", "Extract {fields} as JSON: {text}"),
    ],
)
def test_a_prompt_in_no_form_is_told_the_nearest(prompt, form):
    forms = (
        "Extract {fields} as JSON: {text}",
        "Write the date as YYYY-MM-DD: {text}",
        "Write the phone as 00 and digits: {text}",
    )
    (told,) = Card(prompt_forms=forms).prompt_warnings(None, "user", 10, prompt)
    assert f"such as {form!r}: " in told


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("nme", "; the nearest is 'name'"),
        ("cty, Naem", "; the nearest are 'city', 'name'"),
        ("order number", "; the nearest is 'order_id'"),
        ("colour", ""),
    ],
)
def test_an_unknown_field_is_told_the_nearest(asked, nearest):
    card = Card(prompt_forms=("Extract {fields} as JSON: {text}",), fields={"mail": ("name", "city", "order_id")})
    (told,) = card.prompt_warnings(card.task_of(f"Extract {asked} as JSON: I am Ana."), "user", 10)
    assert told.endswith(f"`redraft fields` lists what it knows{nearest}")


def test_a_format_that_was_not_trained_is_told_of():
    card = Card(
        prompt_forms=("Write the date as YYYYMMDD: {text}", "Extract {fields} as JSON: {text}"), open_wording=True
    )

    def told(prompt: str) -> list[str]:
        return list(card.prompt_warnings(card.task_of(prompt), "user", 10, prompt))

    assert told("Write the date as MM/DD/YY: 3 March") == [
        "this model was not trained on 'Write the date as' with 'MM/DD/YY', only with 'YYYYMMDD'"
    ]
    for prompt in ("Write the date as YYYYMMDD: 3 March", "Write the time as HH:MM: 9 pm", "Extract name as JSON: Bob"):
        assert told(prompt) == []
