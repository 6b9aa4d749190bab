"""The façade: text in, text out, with what a program relies on."""

import gc
import itertools
import json
import os
import subprocess
import sys
from typing import Unpack, get_args, get_type_hints

import pytest
from pydantic import BaseModel, Field, field_validator
from tokenizers import decoders

import redraft
from redraft.async_engine import EngineArguments
from redraft.evaluation.tasks import TASKS
from tests.fakes.adapters import adapter_folder
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.tokenizers import gemma_tokenizer, save_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    return redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


def test_committed_parts_join_to_the_result(model):
    canvases = set()
    for seed in range(12):
        events = list(model.stream("hello", seed=seed, max_new_tokens=24))
        result = events[-1]
        assert isinstance(result, redraft.Result)
        canvases.add(len(result.generation.steps_per_canvas))
        assert "".join(event.text for event in events if isinstance(event, redraft.Committed)) == result.text
        assert result.text == model.tokenizer.decode(list(result.token_ids))
    assert max(canvases) > 1


class Address(BaseModel):
    street: str
    number: int = Field(ge=1, le=999)


def test_answers_that_are_held_to_a_schema_are_parsed(model):
    found = model.generate("hello", schema=Address, seed=1).parsed
    assert isinstance(found, Address)
    assert 1 <= found.number <= 999
    *_, result = model.stream("hello", schema={"enum": ["one", "two", 3]}, seed=1)
    assert result.parsed in ("one", "two", 3)
    assert result.to_json()["constraint"]["guided_steps"] >= 0
    assert all(type(one) is int for one in model.generate("hello", schema=list[int], seed=1).parsed)
    plain = model.generate("hello", regex="[ab]{3}", seed=1)
    assert set(plain.text) <= {"a", "b"}
    assert plain.parsed is None
    assert model.generate("hello", choice=["1", "10", "100"], seed=1).text in ("1", "10", "100")
    assert "constraint" not in model.generate("hello", seed=1).to_json()


class Refusing(BaseModel):
    name: str

    @field_validator("name")
    def refuse(cls, name: str) -> str:
        raise ValueError(f"{name!r} is not a name")


def test_an_answer_that_its_type_refuses_is_not_lost(model):
    result = model.generate("hello", schema=Refusing, seed=1)
    assert list(json.loads(result.text)) == ["name"]
    assert result.parsed is None
    assert any("cannot be parsed" in warning and "is not a name" in warning for warning in result.warnings)


def test_a_constraint_can_be_built_before(model):
    built = model.constraint(regex="[ab]{3}")
    assert model.constraint(regex="[ab]{3}") is built
    with pytest.raises(ValueError, match="there is no constraint: give one of schema, regex, choice, grammar"):
        model.constraint()
    assert set(model.generate("hello", constraint=built).text) <= {"a", "b"}
    (*_, streamed), (mapped,) = model.stream("hello", constraint=built), model.map(["hello"], constraint=built)
    assert set(streamed.text + mapped.text) <= {"a", "b"}
    with pytest.raises(ValueError, match="a constraint is given twice"):
        model.generate("hello", constraint=built, regex="a")
    with pytest.raises(ValueError, match="schema and grammar are given: an answer has one constraint"):
        model.generate("hello", schema={}, grammar="start: /a/")
    for bad in ("Address", 3, object()):
        with pytest.raises(ValueError, match=r"the schema is .*, must be a dict or a type that pydantic knows"):
            model.generate("hello", schema=bad)
    for bad in (2, "yes", ["yes", 1]):
        with pytest.raises(ValueError, match=r"the choice is .*, must be a list of texts"):
            model.generate("hello", choice=bad)
    for name, bad, told in (
        ("regex", 5, "the regex is 5, must be a text"),
        ("grammar", b"start: /a/", "the grammar is b'start: /a/', must be a text"),
        ("constraint", "a", "the constraint is 'a', must be one that Model.constraint has built"),
        ("start", [1], r"start is \[1\], must be a redraft.CanvasStart"),
    ):
        with pytest.raises(ValueError, match=told):
            model.generate("hello", **{name: bad})
    with pytest.raises(ValueError, match="the text is None, must be a text with blanks"):
        model.fill(None)
    with pytest.raises(ValueError, match="the adapter is 5, must be a folder, or a name on the hub"):
        model.load_adapter(5)
    with pytest.raises(ValueError, match="the shortest answer of this constraint has"):
        model.stream("hello", regex="a{50}", max_new_tokens=3)


def test_no_text_is_lost_where_the_context_is_full(tmp_path):
    # No answer of this model ends by itself, and its decoder is certain of nothing before the end.
    folder = tiny_checkpoint(tmp_path / "endless")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": []}))
    raw = gemma_tokenizer()
    raw.decoder = decoders.BPEDecoder(suffix="e")
    save_checkpoint(folder, raw)
    model = redraft.load(folder)
    *_, rest, result = model.stream("hello", seed=3, max_new_tokens=10_000)
    assert result.finish_reason == "length"
    assert len(result.token_ids) > 200
    assert result.text == rest.text == model.tokenizer.decode(list(result.token_ids)) != ""


def test_steps_are_freed_while_an_answer_is_generated(tmp_path):
    model = redraft.load(tiny_checkpoint(tmp_path / "counted"))
    alive, forwards = [], itertools.count(1)

    def count():
        gc.collect()
        return sum(type(one) is redraft.DenoisingStep for one in gc.get_objects())

    def look_now_and_then(*_):
        # Walking through all objects of a process with many tests takes seconds.
        if next(forwards) % 5 == 0:
            alive.append(count())

    # Other tests may hold some.
    held_before = count()
    model.transformer.layers[0].register_forward_pre_hook(look_now_and_then)
    result = model.generate("hello", seed=7, max_new_tokens=24)
    assert sum(result.generation.steps_per_canvas) > 10
    assert len(alive) > 1
    assert max(alive) <= held_before + 2


def test_map_answers_in_order_as_generate_would(model):
    results = model.map(["hello", "good bye"], seed=3)
    assert [result.text for result in results] == [model.generate(p, seed=3).text for p in ("hello", "good bye")]
    with pytest.raises(ValueError, match="takes a list of prompts"):
        next(model.map("hello"))


@pytest.mark.parametrize("prompt", ["", " \n", [], [{"role": "user", "content": " "}]])
def test_empty_prompts_are_refused(model, prompt):
    with pytest.raises(ValueError, match="is empty"):
        model.generate(prompt)


def test_options_are_checked_before_anything_is_fetched():
    with pytest.raises(ValueError, match="precision is 'half'"):
        redraft.load("no-such-owner/no-such-model", precision="half")


def test_more_cases_than_there_are_are_refused():
    assert len(TASKS["extract"].cases(per_split=250)) == 500
    with pytest.raises(ValueError, match=r"examples is 251, but extract\.jsonl has 250 of each kind"):
        TASKS["extract"].cases(per_split=251)


def test_a_model_and_a_result_show_themselves_in_short(model):
    assert repr(model) == f"<Model {model.name!r}: canvas of 8 tokens, context of 256>"
    result = model.generate("hello", seed=3)
    assert str(result) == result.text


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "the prompt is None, must be text or a list of messages"),
        (5, "the prompt is 5, must be text or a list of messages"),
        (b"hello", "the prompt is b'hello', must be text"),
        ({"role": "user", "content": "hello"}, "the prompt is one message, {'role': 'user'.*; put it into a list"),
        (["hello"], "message 0 is 'hello', must be a dict"),
        ([{"content": "hello"}], "message 0 has no role; give it one of system, developer, user"),
        ([{"role": "usr", "content": "hello"}], "message 0 has the role 'usr', must be one of system, developer, user"),
        ([{"role": ["user"], "content": "hello"}], r"message 0 has the role \['user'\], must be one of"),
        ([{"role": "user"}], "message 0, of role user, has no content; give it a text"),
        ([{"role": "user", "content": None}], "message 0, of role user, has no content"),
        ([{"role": "user", "content": 5}], "message 0 has the content 5, must be text"),
        (
            [{"role": "user", "content": ["x"]}],
            "message 0 has the part 'x', must be {.type.: .text., .*: only text",
        ),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "message 0 has the part {'type': 'image'"),
        ([{"role": "user", "content": [{"type": "text", "text": " "}]}], "the last message is empty"),
    ],
)
def test_prompts_of_another_shape_are_refused_with_the_way_out(model, prompt, message):
    with pytest.raises(ValueError, match=message):
        model.generate(prompt)
    with pytest.raises(ValueError, match=message):
        model.stream(prompt)


def test_the_typed_arguments_are_those_of_the_settings_table():
    hints = get_type_hints(redraft.SamplerArguments)
    assert hints.keys() == {setting.name for setting in redraft.SETTINGS} | {"schedule"}
    for setting in redraft.SETTINGS:
        hint = hints[setting.name]
        if setting.choices:
            names, *_ = get_args(hint)
            assert get_args(names) == setting.choices
        else:
            assert hint == (setting.type | None if setting.is_optional else setting.type), setting.name
    for method in ("generate", "generate_autoregressive", "stream", "map"):
        assert get_type_hints(getattr(redraft.Model, method))["arguments"] == Unpack[redraft.AnswerArguments]
    assert get_type_hints(redraft.AnswerArguments).items() > hints.items()
    for method in ("submit", "stream", "generate_many", "request"):
        told = get_type_hints(getattr(redraft.Engine, method))["settings"]
        assert told in (Unpack[EngineArguments], Unpack[redraft.SamplerArguments])
    assert get_type_hints(EngineArguments).items() > hints.items()


def test_a_child_forked_after_loading_hears_so_at_once(tmp_path):
    program = """
import os, sys, redraft
model = redraft.load(sys.argv[1])
engine = redraft.Engine(model)
model.generate("hello", max_new_tokens=4)
if (child := os.fork()) == 0:
    for use in (
        lambda: model.generate("hello"), lambda: model.stream("hello"), lambda: next(model.map(["hello"])),
        lambda: list(engine.generate_many(["hello"])), lambda: redraft.load(sys.argv[1]), lambda: redraft.Engine(model),
    ):
        try:
            use()
        except RuntimeError as error:
            print("was forked after a model was loaded" in str(error), flush=True)
    engine.shutdown()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print(len(list(engine.generate_many(["hello"] * 2, max_new_tokens=4))))
engine.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, tiny_checkpoint(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n" * 6 + "2\n", "")


def test_the_parts_of_a_message_are_one_text(model):
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]
    (whole,) = {tuple(model.encode([{"role": "user", "content": one}])) for one in (parts, tuple(parts), "hello there")}
    assert list(whole) == model.encode("hello there")


def test_adapters(tmp_path, model):
    first, second = (adapter_folder(tmp_path / name, model.folder, seed) for seed, name in enumerate(("a", "b")))
    base = model.generate("hello", seed=3).text
    loaded = redraft.load(model.folder, adapters={"first": first})
    other = loaded.load_adapter(second)
    assert loaded.adapters == ("first", "b")
    assert (other.name, other.adapter) == ("b", "b")
    texts = {name: loaded.generate("hello", seed=3, adapter=name).text for name in (None, *loaded.adapters)}
    assert texts[None] == base
    assert len(set(texts.values())) == 3
    assert other.generate("hello", seed=3).text == texts["b"]
    assert list(other.stream("hello", seed=3))[-1].model == "b"
    with redraft.Engine(loaded) as engine:
        answers = [engine.generate_many(["hello"] * 3, seed=3, adapter=name) for name in texts]
        found = [[result.text for result in of_one] for of_one in answers]
    assert found == [[text] * 3 for text in texts.values()]
    with redraft.Engine(other) as engine:
        assert [result.text for result in engine.generate_many(["hello"], seed=3)] == [texts["b"]]
    tokens = loaded.generate_autoregressive("hello", adapter="b").text
    assert tokens == other.generate_autoregressive("hello").text
    loaded.unload_adapter("b")
    for call in (lambda: other.generate("hello"), lambda: loaded.generate("hello", adapter="b")):
        with pytest.raises(ValueError, match="there is no adapter 'b': there are 'first'"):
            call()
    with pytest.raises(ValueError, match="'first' is loaded already"):
        loaded.load_adapter(second, "first")
    foreign = adapter_folder(tmp_path / "foreign", model.folder, 1, base="0" * 64)
    with pytest.raises(ValueError, match="was trained on another base than"):
        loaded.load_adapter(foreign)
    assert loaded.adapters == ("first",)
