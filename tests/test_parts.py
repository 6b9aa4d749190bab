"""Answers in parts: arrays item by item, long texts in windows, and requests in words of their own."""

import asyncio
import dataclasses
import json

import pytest

import redraft
from redraft.parts import MAX_PARTS, join_answers, texts_of
from redraft.text.prompts.forms import PromptTask
from tests.engine.test_equality import untimed

ARRAY = "Extract name, city as a JSON array:\nAnna Berg lives in Rome.\nBob Stone lives in Paris.\nCarl Maier, Berlin"
FILLER = "The office is closed on public holidays. Please keep your reference at hand when you call us. "
LONG = (
    "Extract customer, order_id, amount as JSON: "
    + FILLER * 4
    + "\nCustomer: Ana Kovacs\nOrder ID: ORD-48213\n"
    + FILLER * 4
    + "\nAmount: 42,50 EUR\n"
    + FILLER * 2
)
REWORDED = "Could you look through this and hand me JSON, keys: name, city?\n\nOrder by Ana Kovacs, for Lyon."


@pytest.fixture(scope="module")
def model():
    return redraft.load()


def parsed(result: redraft.Result) -> object:
    return json.loads(result.text)


def test_an_array_has_an_object_for_each_item(model):
    result = model.generate(ARRAY)
    assert parsed(result) == [
        {"name": "Anna Berg", "city": "Rome"},
        {"name": "Bob Stone", "city": "Paris"},
        {"name": "Carl Maier", "city": "Berlin"},
    ]
    assert (result.generation.parts, result.to_json()["parts"]) == (3, 3)
    assert result.warnings == ()
    places = {one.path: one.places for one in result.trust.values}
    assert [ARRAY[slice(*places[at, "city"][0])] for at in range(3)] == ["Rome", "Paris", "Berlin"]
    assert all(one.max_entropy is not None and one.probability is not None for one in result.trust.values)


def test_a_long_text_is_read_in_windows_and_whole(model):
    read = model.read(LONG)
    assert len(read.parts) > 3
    whole = read.parts[-1].task
    assert whole is not None
    assert whole.text in LONG
    assert all(part.task.text in whole.text for part in read.parts)
    assert read.is_known
    result = model.generate(LONG)
    assert parsed(result)["order_id"] == "ORD-48213"
    assert result.generation.parts == len(read.parts)
    assert "parts" not in model.generate("Extract name as JSON: Ana Kovacs").to_json()


def test_a_text_beyond_those_of_training_is_read_in_windows_alone(model):
    longer = LONG + FILLER * 40
    read = model.read(longer)
    assert len(read.ids) > model.card.max_prompt_tokens
    assert max(len(part.ids) for part in read.parts) <= model.card.max_prompt_tokens
    assert not [one for one in read.warnings if "tokens" in one]
    assert parsed(model.generate(longer))["order_id"] == "ORD-48213"


@pytest.mark.parametrize("prompt", [ARRAY, LONG], ids=["items", "windows"])
@pytest.mark.parametrize("mode", ["diffusion", "autoregressive", "auto"])
def test_every_way_of_asking_gives_the_same_answer(model, prompt, mode):
    alone = model.generate(prompt, mode=mode, seed=3)
    *_, streamed = model.stream(prompt, mode=mode, seed=3)
    assert streamed.token_ids == alone.token_ids
    if mode == "autoregressive":
        assert untimed(model.generate_autoregressive(prompt, seed=3).generation) == untimed(alone.generation)
    with redraft.Engine(model) as engine:
        (answered,) = engine.generate_many([prompt], mode=mode, seed=3)

        async def stream() -> list:
            return [event async for event in engine.stream(prompt, mode=mode, seed=3)]

        events = asyncio.run(stream())
    assert answered.token_ids == alone.token_ids
    if mode != "auto":
        # How much of that is drafted depends on what is faster.
        assert untimed(answered.generation) == untimed(alone.generation)
        assert answered.trust == alone.trust
    assert "".join(event.text for event in events if isinstance(event, redraft.Committed)) == alone.text


def test_drafts_of_an_answer_in_parts_have_canvases_of_their_own(model):
    drafts = [event.step for event in model.stream(ARRAY, mode="diffusion", seed=1) if isinstance(event, redraft.Draft)]
    assert list(dict.fromkeys(step.canvas for step in drafts)) == [0, 1, 2]


def test_each_part_is_held_to_the_fields_of_one_object(model):
    result = model.generate(ARRAY, schema_from_prompt=True, grounded=True, mode="diffusion", seed=0)
    assert result.parsed == parsed(result)
    assert [one.keys() for one in result.parsed] == [{"name", "city"}] * 3
    assert ARRAY[slice(*result.spans["1/city"])] == result.parsed[1]["city"]
    assert result.generation.constraint is not None
    # What holds a whole answer holds it whole.
    asked = model.generate(ARRAY, schema={"type": "array", "items": {"type": "object"}}, max_new_tokens=64)
    assert asked.generation.parts == 1


def test_a_request_in_words_of_its_own_is_put_in_a_form(model):
    read = model.read(REWORDED)
    assert read.task is not None
    assert (read.task.fields, read.is_known, read.parts) == (("name", "city"), True, ())
    assert read.ids == model.read("Extract name, city as JSON: Order by Ana Kovacs, for Lyon.").ids
    result = model.generate(REWORDED)
    assert parsed(result) == {"name": "Ana Kovacs", "city": "Lyon"}
    places = {one.path[0]: one.places for one in result.trust.values}
    assert REWORDED[slice(*places["city"][0])] == "Lyon"


def test_instructions_before_a_text_and_a_second_text_are_put_in_a_form(model):
    plain = model.read("Extract name, city as JSON: Ana Kovacs, Lyon").ids
    system = {"role": "system", "content": "Return JSON with the keys name, city. Nothing else."}
    assert model.read([system, {"role": "user", "content": "Ana Kovacs, Lyon"}]).ids == plain
    turns = [
        {"role": "user", "content": "Extract name, city as JSON: Bo Ek, Ulm"},
        {"role": "assistant", "content": '{"name": "Bo Ek", "city": "Ulm"}'},
        {"role": "user", "content": "And this one: Ana Kovacs, Lyon"},
    ]
    assert model.read(turns).ids == plain
    array = [{**system, "content": "Return a JSON array with name and city of each line."}]
    read = model.read([*array, {"role": "user", "content": "Ana Kovacs, Lyon\nBo Ek, Ulm"}])
    assert len(read.parts) == 2


def test_of_a_text_with_too_many_items_the_first_are_read_and_a_card_without_the_form_has_none(model):
    items = "\n".join(f"- item {at}" for at in range(MAX_PARTS + 1))
    read = model.read(f"Extract item as a JSON array:\n{items}")
    assert len(read.parts) == MAX_PARTS
    assert any(f"has {MAX_PARTS + 1} items, of which the first {MAX_PARTS} are read" in one for one in read.warnings)
    assert read.is_known is False
    task = PromptTask(("item",), items, is_array=True)
    assert texts_of(dataclasses.replace(model.card, object_form=""), task).texts == ()
    assert texts_of(model.card, dataclasses.replace(task, fields=("last, first",))).texts == ()


def test_sentences_about_something_else_are_no_items_and_a_bullet_without_words_is_no_text(model):
    prompt = "Extract name, city as a JSON array: Anna Meier lives in Graz. It rained. Bob Smith lives in Rome."
    assert [one["name"] for one in parsed(model.generate(prompt))] == ["Anna Meier", "Bob Smith"]
    read = model.read("Extract name, city as a JSON array:\n- ")
    assert read.parts == ()
    assert any("no text after its request" in one for one in read.warnings)


def test_a_schema_that_asks_for_numbers_is_kept(model):
    schema = '{"name": "", "count": 0}'
    for asked in (
        f"Answer with JSON like {schema}:\n{FILLER * 8}",
        f"Produce JSON valid against {schema} from this: 3 pens",
    ):
        read = model.read(asked)
        assert read.parts == ()
        assert read.ids == model.tokenizer.encode_chat([{"role": "user", "content": asked}])
    assert model.read(f'Answer with JSON like {{"name": ""}}:\n{FILLER * 8}').parts


def test_keys_that_nobody_named_are_told_of(model):
    result = model.generate('Extract " as JSON: Ana Berg')
    assert any("which the prompt does not name" in one for one in result.warnings), result.text
    # They may be named in an earlier message.
    read = model.read([{"role": "system", "content": "name it"}, {"role": "user", "content": "Ana Berg, Rome"}])
    kept = {"num_tokens": 9, "steps_per_canvas": ()}
    assert read.check('{"name": "Ana"}', "stop", max_steps=48, **kept) == ()
    assert len(read.check('{"city": "Rome"}', "stop", max_steps=48, **kept)) == 1


def test_blanks_are_filled_below_the_prompt_as_it_is(model):
    assert model.fill("name: ___, city: ___", prompt=ARRAY, seed=0).result.generation.parts == 1


def test_values_are_looked_for_in_their_own_item(model):
    prompt = "Extract name, city as a JSON array:\nAnna Meier lives in Graz.\nBob Smith lives in Graz.\nCarla, Graz"
    result = model.generate(prompt, schema_from_prompt=True, grounded=True)
    lines = [prompt.index(name) for name in ("Anna", "Bob", "Carla")]
    starts = [result.spans[f"{at}/city"][0] for at in range(3)]
    assert [sum(line <= start for line in lines) for start in starts] == [1, 2, 3]
    places = {one.path: one.places for one in result.trust.values}
    assert [places[at, "city"] for at in range(3)] == [(result.spans[f"{at}/city"],) for at in range(3)]


def test_an_item_that_is_not_answered_is_null_and_told_of(model):
    prompt = "Extract name, city as a JSON array:\nAnna Meier lives in Graz.\nBob Smith lives in Rome."
    result = model.generate(prompt, max_new_tokens=9)
    assert json.loads(result.text) == [{"name": None, "city": None}] * 2
    assert any("2 of 2 parts have no answer that can be read" in one for one in result.warnings)
    assert result.finish_reason == "length"
    assert result.trust.probability == 0
    # Enough for each part is enough for the whole.
    answers = [model.generate(part.text) for part in model.read(prompt).parts]
    longest = max(len(one.token_ids) for one in answers) + 1
    assert json.loads(model.generate(prompt, max_new_tokens=longest).text)[1]["name"] == "Bob Smith"


def test_a_field_that_is_listed_twice_is_asked_for_once(model):
    for form in (
        "Extract `name`, `name` and `city` as a JSON array: {}",
        "Return JSON with keys name, name and city: {}",
    ):
        result = model.generate(form.format("Anna Meier lives in Graz."))
        found = json.loads(result.text, object_pairs_hook=list)
        assert [key for key, _ in (found[0] if isinstance(found[0], list) else found)] == ["name", "city"]


def test_what_is_said_of_a_prompt_depends_on_how_it_is_answered(model):
    long = "Extract name, amount as JSON: " + "Anna Meier paid 42 EUR on Monday. It was late. " * 60
    read = model.read(long)
    assert (read.warnings, read.is_known) == ((), True)
    assert any("tokens: this model was trained on at most" in one for one in read.whole.warnings)
    assert read.whole.is_known is False
    asked = model.generate(long, schema={"type": "object"}, max_new_tokens=64, mode="autoregressive")
    assert any("tokens: this model was trained on at most" in one for one in asked.warnings)


def test_characters_keep_how_sure_their_tokens_were(model):
    """What is joined has the entropies of the tokens that wrote it; what is added is certain."""
    read = model.read("Extract name as a JSON array:\nZoë Łuk\nBjörn Åse")
    answers = [model.generate(part.text, mode="diffusion", seed=2).generation for part in read.parts]
    kept = {"calibration": model.calibration, "settings": model.defaults, "mode": "diffusion"}
    whole = join_answers(read, answers, tokenizer=model.tokenizer, **kept)
    assert len(whole.entropies) == len(whole.token_ids) + 1
    assert max(whole.entropies) == max(entropy for one in answers for entropy in one.entropies)
    assert whole.steps_per_canvas == tuple(steps for one in answers for steps in one.steps_per_canvas)
    text = model.tokenizer.decode(whole.token_ids)
    assert text == f"[{', '.join(model.tokenizer.decode(one.token_ids) for one in answers)}]"
    # A part that was cut cuts the whole.
    cut = [dataclasses.replace(answers[0], finish_reason="length"), answers[1]]
    assert join_answers(read, cut, tokenizer=model.tokenizer, **kept).finish_reason == "length"
