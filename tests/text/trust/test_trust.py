"""Trust marks: where values stand, with which tokens they were written, and what the number is made of."""

import dataclasses
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.text import ReadPrompt, TextTokenizer
from redraft.text.prompts.forms import PromptForm
from redraft.text.trust.calibration import (
    ANSWER_FACTS,
    TRUST_FILE,
    VALUE_FACTS,
    Calibration,
    LogisticModel,
    TrustModels,
    read_calibration,
    write_calibration,
)
from redraft.text.trust.evidence import Trust, Writing, assess, lost_values
from redraft.text.trust.places import MAX_PLACES, find, leaves
from tests.fakes.tokenizers import gemma_tokenizer, save_checkpoint

FORM = PromptForm("Extract {fields} as JSON: {text}")
FIELDS = "Extract name, city as JSON: Ana of Porto"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_checkpoint(folder, gemma_tokenizer())
    return TextTokenizer.load(folder)


def prompt_of(text: str) -> ReadPrompt:
    return ReadPrompt([1, 2, 3], task=FORM.read(text), text=text)


def paths(value: object, path: tuple = ()) -> list[tuple[tuple, object]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, inner in items for found in paths(inner, (*path, key))]
    return [(path, value)] if path else []


@given(JSON, st.sampled_from((None, 2)), st.booleans())
def test_leaves_are_the_values_of_the_answer_where_they_are_written(value, indent, is_ascii):
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    found = leaves(f" {text} ")
    assert [(leaf.path, leaf.value) for leaf in found] == paths(value)
    assert all(json.loads(f" {text} "[leaf.start : leaf.end]) == leaf.value for leaf in found)


@pytest.mark.parametrize("text", ["", "Hello", "{", '{"a": 1', '{"a": NaN} x', "[" * 100_000, '"only a string"', "3"])
def test_what_is_no_object_or_array_has_no_leaves(text):
    assert leaves(text) == []


@given(st.text(), st.text(min_size=1), st.text())
def test_a_value_is_found_where_it_stands(before, value, after):
    places = find(value, before + value + after)
    assert places
    assert len(places) <= MAX_PLACES
    assert all((before + value + after)[start:end] == value for start, end in places)


def test_a_value_is_found_in_its_other_forms_and_behind_the_request():
    text = "I paid\u00a0“12 €” to Rene\u0301e,\r\nRene\u0301e!"
    for value, own in (('I paid "12', "I paid\u00a0“12"), ("Ren\u00e9e", "Rene\u0301e"), ("e,\nR", "e,\r\nR")):
        for start, end in (found := find(value, text)):
            assert text[start:end] == own
        assert found
    assert find("Extract", "Extract name as JSON: x", 22) == ()
    assert find("", "text") == ()


def test_values_have_places_and_the_entropies_of_their_tokens(tokenizer):
    answer = '{"name": "Ana", "city": "Rome"}'
    ids = tokenizer.encode(answer)
    ends = list(itertools.accumulate(len(tokenizer.token_text(token)) for token in ids))
    assert ends[-1] == len(answer)
    start = answer.index('"Ana"')
    inside = [start < last and first < start + 5 for first, last in itertools.pairwise([0, *ends])]
    entropies = [0.5 if is_inside else 0.125 for is_inside in inside]
    log_probs = [None, *(-2.0 if is_inside else -1.0 for is_inside in inside[1:])]
    writing = Writing(
        mode="diffusion", finish_reason="stop", token_ids=ids, entropies=[*entropies, 0.0],
        log_probs=[*log_probs, -0.25], steps_per_canvas=(3, 6), max_steps=6,
    )  # fmt: skip
    trust = assess(prompt_of(FIELDS), answer, writing, tokenizer)
    name, city = trust.values
    assert (name.path, name.places, name.mean_entropy) == (("name",), ((28, 31),), 0.5)
    assert name.log_prob == -2 * sum(inside)
    assert (city.path, city.places) == (("city",), ())
    assert city.max_entropy == 0.125
    assert (trust.settled, trust.valid, trust.max_entropy, trust.min_log_prob) == (False, True, 0.5, -2.0)
    assert trust.mean_entropy == pytest.approx(sum(entropies) / (len(ids) + 1))
    assert trust.probability is None
    # What is written with letters of another length has the same tokens.
    wide = ReadPrompt([1], task=FORM.read(FIELDS), text=FIELDS, forms={ord("A"): "A\u030a"})
    assert assess(wide, answer.replace("A", "A\u030a"), writing, tokenizer).values[0].mean_entropy == 0.5


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ('{"name": "Ana", "city": null}', True), ('{"city": null, "name": "Ana"}', True), ('{"name": "Ana"}', False),
        ('{"name": "Ana", "city": null, "x": 1}', False), ('{"name": "Ana", "name": 1, "city": null}', False),
        ("Ana", False), ('{"name"', False), ('{"name": 1, "city": {"a": 2}}', True),
        ('[{"name": 1, "city": 2}]', False),
    ],
)  # fmt: skip
def test_validity_is_that_of_the_keys_asked_for(tokenizer, answer, valid):
    writing = Writing(mode="autoregressive", finish_reason="stop")
    assert assess(prompt_of(FIELDS), answer, writing, tokenizer).valid is valid


def test_an_array_is_valid_where_one_is_asked_for(tokenizer):
    text = "Extract name as a JSON array: Ana, Bo"
    prompt = ReadPrompt([1], task=PromptForm("Extract {items} as a JSON array: {text}").read(text), text=text)
    writing = Writing(mode="autoregressive", finish_reason="stop")
    for answer, valid in (('[{"name": "Ana"}, {"name": null}]', True), ('[{"name": "Ana"}, {}]', False), ("{}", False)):
        assert assess(prompt, answer, writing, tokenizer).valid is valid
    assert assess(dataclasses.replace(prompt, refusal="no"), "no", writing, tokenizer).valid is None


def test_validity_is_unknown_where_no_json_is_asked_for(tokenizer):
    writing = Writing(mode="diffusion", finish_reason="stop")
    trust = assess(ReadPrompt([1]), "Hello", writing, tokenizer)
    assert trust == Trust()
    assert trust.to_json()["values"] == []
    assert assess(ReadPrompt([1]), "{Hello", writing, tokenizer).valid is False


def calibration(**weights: float) -> Calibration:
    answers = LogisticModel(1.0, dict.fromkeys(ANSWER_FACTS, 0.0) | weights)
    return Calibration(
        {"diffusion": TrustModels(answers, LogisticModel(0.0, dict.fromkeys(VALUE_FACTS, 0.5)), 9)}, ("x",)
    )


def test_the_number_is_that_of_the_calibration_of_the_mode(tokenizer):
    ids = tokenizer.encode('{"a": 1}')
    writing = Writing(mode="diffusion", finish_reason="stop", token_ids=ids, entropies=[0.1] * len(ids))
    cut = dataclasses.replace(writing, finish_reason="length")
    made = calibration(unsettled=-3.0)
    assert assess(ReadPrompt([1]), '{"a": 1}', writing, tokenizer, calibration=made).probability == pytest.approx(
        0.7311, abs=1e-4
    )
    tired = dataclasses.replace(writing, steps_per_canvas=[4], max_steps=4)
    trust = assess(ReadPrompt([1]), '{"a": 1}', tired, tokenizer, calibration=made)
    assert trust.probability == pytest.approx(0.1192, abs=1e-4)
    assert 0 < trust.values[0].probability < 1
    unlike = ReadPrompt([1], is_known=False)
    assert assess(unlike, "x", cut, tokenizer, calibration=made).probability is None
    assert assess(unlike, "x", cut, tokenizer, calibration=calibration(unknown_prompt=-1.0)).probability is not None
    # A prompt like none of the cases, a mode that it was not made for, and an answer of which nothing is known.
    assert (
        assess(ReadPrompt([1]), "x", dataclasses.replace(cut, mode="verified"), tokenizer, calibration=made).probability
        is None
    )
    assert (
        assess(
            ReadPrompt([1]), "x", Writing(mode="diffusion", finish_reason="stop"), tokenizer, calibration=made
        ).probability
        is None
    )


@pytest.mark.parametrize(
    ("prompt", "answer", "finish_reason"),
    [
        (FIELDS, '{"name": "Ana", "city": "Porto"}', "length"),
        (FIELDS, '{"name": "Ana"}', "stop"),
        (FIELDS, '{"name": "', "stop"),
        ("Hello", '{"a": 1, "a": 2}', "stop"),
        ("Hello", '{"a": [{"b": 1, "b": 2}]}', "stop"),
    ],
)
def test_what_is_cut_or_malformed_is_not_right_however_sure_its_tokens_are(tokenizer, prompt, answer, finish_reason):
    ids = tokenizer.encode(answer)
    writing = Writing(mode="diffusion", finish_reason=finish_reason, token_ids=ids, entropies=[0.0] * len(ids))
    trust = assess(prompt_of(prompt), answer, writing, tokenizer, calibration=calibration())
    assert trust.probability == 0
    assert trust.valid is (finish_reason == "length")


def test_a_calibration_is_read_as_it_was_written(tmp_path):
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, calibration(cut=-3.0))
    assert read_calibration(tmp_path) == calibration(cut=-3.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 9}, "its format is 9"),
        ({"models": {"diffusion": {"answers": {"intercept": 1, "weights": {"x": 1}}, "cases": 3}}}, "its facts are x"),
        ({"models": {"magic": None}}, ""),
        ({"models": 3}, ""),
        ({"sets": "all"}, "sets must be a list of strings"),
    ],
)
def test_a_malformed_calibration_is_refused_with_the_way_out(tmp_path, change, reason):
    write_calibration(tmp_path, calibration())
    path = tmp_path / TRUST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="redraft calibrate") as refused:
        read_calibration(tmp_path)
    assert reason in str(refused.value)


def test_a_value_without_a_place_of_its_own_is_lost(tokenizer):
    trust = assess(
        prompt_of("Extract a, b, c, d, e as JSON: Bob lives in Rome, 4"),
        '{"a": "Rome", "b": "Rome", "c": "Bo", "d": "Bob", "e": null}', Writing(mode="auto", finish_reason="stop"),
        tokenizer,
    )  # fmt: skip
    assert lost_values(trust) == {("a",), ("b",), ("c",)}


@pytest.mark.parametrize(("number", "places"), [("1", ()), ("980", ()), ("7", ((41, 42),)), ("00", ())])
def test_a_number_is_no_part_of_a_longer_one(tokenizer, number, places):
    prompt = prompt_of("Extract name as JSON: it is 1,980.00, or 7.")
    trust = assess(prompt, f'{{"name": {number}}}', Writing(mode="auto", finish_reason="stop"), tokenizer)
    assert [one.places for one in trust.values] == ([] if number == "00" else [places])
