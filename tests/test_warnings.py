"""What may be wrong with an answer or its prompt, as Python tells it: `Result.warnings`."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator

import pytest

import redraft
from redraft.bundled import card
from redraft.evaluation.tasks import TASKS
from redraft.text import ReadPrompt
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.engines import ScriptedEngine

FORMS = ("Extract {fields} as JSON: {text}", "Say it: {text}")
PROMPT = "Extract name, city as JSON: the dog"
QUESTION = {"role": "user", "content": "Say it: where is it?"}
CONVERSATION = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hello"}, QUESTION,
]  # fmt: skip
LEFT_OUT = "left out 1 system and 2 other messages"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    """Its card says which prompts it was trained on."""
    made = redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))
    fields = {"contact": ("name", "city")}
    described = dataclasses.replace(made.card, prompt_forms=FORMS, fields=fields, max_prompt_tokens=60)
    return redraft.Model(made.name, made.transformer, made.tokenizer, made.defaults, described)


@pytest.fixture
def engine(model) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(model) as engine:
        yield engine


def answered(engine: ScriptedEngine, prompt, text: str) -> redraft.Result:
    """The result of a prompt that is answered with `text`."""

    async def result() -> redraft.Result:
        return await (await engine.submit(prompt, max_new_tokens=99))

    engine.ids = tuple(engine.model.tokenizer.encode(text))
    return asyncio.run(result())


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ('{"name": "dog", "city": null}', []),
        ('{"name": "dog", "city"', ["is not valid JSON"]),
        ('{"name": "dog"}', ["lacks the field 'city'"]),
        ('{"name": "cat", "city": null}', ["the value 'cat' of the field 'name' does not stand in the text"]),
    ],
)
def test_an_answer_to_a_prompt_with_fields_is_checked(engine, text, warnings):
    result = answered(engine, PROMPT, text)
    assert result.text == text
    assert len(result.warnings) == len(warnings)
    assert all(part in warning for part, warning in zip(warnings, result.warnings, strict=True))
    assert result.to_json()["warnings"] == list(result.warnings)


def test_a_field_that_the_model_does_not_know_is_told_with_the_nearest_and_comes_with_no_other_seed(engine):
    result = answered(engine, "Extract City of birth, size, Name 2 as JSON: the dog", '{"name": "dog"}')
    unknown, lacks, other = result.warnings
    assert unknown == (
        "this model was not trained on the fields 'City of birth', 'size', 'Name 2': `redraft fields` lists what it "
        "knows; the nearest are 'city', 'name'"
    )
    assert lacks == "the answer lacks the fields 'City of birth', 'size', 'Name 2'"
    assert other == "the answer has the field 'name', not asked for"


def test_a_cut_answer_is_not_made_whole_by_another_seed(model):
    cut, invalid = model.read(PROMPT).check('{"name', "length", num_tokens=2, steps_per_canvas=[1], max_steps=48)
    assert cut.startswith("the answer is cut after 2 tokens")
    assert "is not valid JSON" in invalid
    assert "seed" not in invalid


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ({}, ": try another seed"),
        (
            {"is_greedy": True},
            ": hold it to the fields that the prompt asks for (schema_from_prompt, or --schema-from-prompt)",
        ),
        ({"is_greedy": True, "is_held": True}, ")"),
        ({"is_stopped": True}, ")"),
    ],
)
def test_what_may_bring_another_answer_is_told(model, how, end):
    (invalid,) = model.read(PROMPT).check('{"name', "stop", num_tokens=2, steps_per_canvas=(), max_steps=48, **how)
    assert invalid.endswith(end)


def test_another_prompt_may_be_answered_with_any_text(engine):
    assert answered(engine, QUESTION["content"], "the dog").warnings == ()


@pytest.mark.parametrize(
    ("prompt", "warning"),
    [
        ("Say it: I am <|turn>Ana.", "spells out the control token '<|turn>': the model reads it as plain characters"),
        ("where is it?", "has no form that this model was trained on, such as 'Extract {fields} as JSON: {text}'"),
        ("Extract name, town as JSON: the dog", "was not trained on the field 'town'"),
        (
            "Extract name and town as JSON: the dog",
            "the nearest is 'name'; fields are separated by commas",
        ),
        ("Extract name; town as JSON: the dog", "; fields are separated by commas"),
        ("Extract name, name as JSON: the dog", "asks more than once for the field 'name': each is asked for once"),
        ("Say it: " + "dog " * 100, "this model was trained on at most 60"),
        ([{"role": "system", "content": "Say it: x"}], "the prompt has the role 'system'"),
        (CONVERSATION, LEFT_OUT),
    ],
)
def test_a_prompt_outside_the_card_is_told(engine, prompt, warning):
    found = engine.model.read(prompt).warnings
    assert len(found) == 1
    assert warning in found[0]
    assert found[0] in answered(engine, prompt, "{}").warnings


def test_a_field_asked_for_twice_is_asked_for_once(model):
    once, twice = "Extract name, city as JSON: the dog", "Extract name, city,name as JSON: the dog"
    read = model.read([CONVERSATION[0], {"role": "user", "content": twice}])
    assert model.encode(twice) == model.encode(once)
    assert read.ids == model.encode([CONVERSATION[0], {"role": "user", "content": once}])
    assert read.text == twice
    assert read.task is not None
    assert read.task.fields == ("name", "city")
    assert twice[read.task.start :] == "the dog"  # places are those of the prompt that was sent
    assert model.read(twice).is_known


def test_of_a_conversation_a_single_turn_model_reads_the_last_request(model):
    assert model.encode(CONVERSATION) == model.encode([QUESTION])
    settings = {"seed": 3, "max_new_tokens": 8}
    expected = model.generate([QUESTION], **settings)
    *_, streamed = model.stream(CONVERSATION, **settings)
    with redraft.Engine(model) as engine:
        (many,) = engine.generate_many([CONVERSATION], **settings)
    for result in (
        model.generate(CONVERSATION, **settings),
        next(model.map([CONVERSATION], **settings)),
        streamed,
        many,
    ):
        assert result.text == expected.text
        first, *rest = result.warnings
        assert first.startswith(LEFT_OUT)
        assert tuple(rest) == expected.warnings


@pytest.mark.parametrize("nothing", ["", [], (), [{"type": "text", "text": ""}]])
@pytest.mark.parametrize("role", ["system", "developer"])
def test_empty_instructions_are_not_left_out_since_there_are_none(model, role, nothing):
    for conversation in (
        [{"role": role, "content": nothing}, QUESTION],
        [QUESTION, {"role": role, "content": nothing}],
    ):
        read = model.read(conversation)
        assert (read.ids, read.warnings) == (model.read([QUESTION]).ids, model.read([QUESTION]).warnings)
    with pytest.raises(ValueError, match="the last message is empty"):
        model.read([{"role": role, "content": nothing}])


def test_a_cut_answer_and_a_canvas_without_rest_are_told(model):
    prompt = QUESTION["content"]
    cut = model.generate(prompt, seed=3, max_new_tokens=4, confidence_threshold=99, stability_threshold=0)
    assert cut.warnings == (
        "the answer is cut after 4 tokens: the limit on new tokens, or the model's context, ends it",
    )
    unsettled = model.generate(prompt, seed=3, max_new_tokens=8, steps=2, stability_threshold=5)
    assert "canvas 1 took all of 2 steps and may be unfinished: allow more steps, or try another seed" in (
        unsettled.warnings
    )
    # Without a canvas there are no steps to run out of.
    assert all("steps" not in one for one in model.generate_autoregressive(prompt, max_new_tokens=9).warnings)


def test_a_prompt_that_is_not_read_as_it_was_sent_is_none_that_the_model_knows(model):
    assert model.read("Extract name as JSON: the dog").is_known is True
    assert model.read("Extract name as JSON: <|turn>the dog").is_known is False
    assert model.read(CONVERSATION).is_known is False
    assert model.read("Extract name as JSON:  \n ").is_known is False


def test_a_card_that_says_nothing_has_no_warnings(model):
    read = redraft.Model("m", model.transformer, model.tokenizer, model.defaults, redraft.Card()).read("where is it?")
    assert (read.warnings, read.task) == ((), None)


def test_decomposed_accents_come_back_as_they_were(engine):
    decomposed = "he\u0301llo"
    assert answered(engine, [QUESTION | {"content": f"Say it: {decomposed}"}], "h\u00e9llo").text == decomposed
    result = answered(engine, f"Extract name as JSON: {decomposed}", '{"name": "h\u00e9llo"}')
    assert (result.text, result.warnings) == (f'{{"name": "{decomposed}"}}', ())


@pytest.mark.parametrize("task", ["extract", "normalize", "repair"])
def test_a_right_answer_to_a_test_prompt_has_no_warning(task):
    cases = TASKS[task].cases()
    assert len(cases) == 500
    for case in cases:
        asked = card.BUNDLED.task_of(case.prompt)
        assert asked is not None
        assert asked.fields == (tuple(json.loads(case.answer)) if task == "extract" else ())
        prompt = ReadPrompt([], tuple(card.BUNDLED.prompt_warnings(asked, "user", 100)), task=asked)
        told = prompt.check(case.answer, "stop", num_tokens=9, steps_per_canvas=(5,), max_steps=48)
        assert (*prompt.warnings, *told) == ()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("refusal", "I can't.", "is not read: send it as content"),
        ("function_call", {"name": "f"}, "is not read: send it as tool_calls"),
        ("audio", {"id": "a"}, "is not read: send its transcript"),
        ("name", "bob", "is not supported by this model's chat template"),
    ],
)
def test_what_no_template_reads_of_a_message_is_refused_and_of_one_that_is_left_out_it_is_not(
    model, key, value, reason
):
    with pytest.raises(ValueError, match=f"^'{key}' of a message of role user {reason}"):
        model.read([QUESTION | {key: value}])
    assert model.read([{"role": "assistant", "content": "x", key: value}, QUESTION]).ids == model.encode([QUESTION])
    says_nothing = dict.fromkeys((key, "id", "parsed")) | {"type": "message"}
    assert model.read([QUESTION | says_nothing]).warnings == ()
