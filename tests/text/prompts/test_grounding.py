"""Grounded values: where they stand in a text as it was sent, whatever form a model reads it in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import redraft
from redraft.text.characters import writable
from redraft.text.prompts.grounding import SourceText, ground

PIECES = ["a", " ", "é", "e\u0301", "\u00a0", "ﬁ", "\r\n", "\u200b", "東京", "😀", "u\u0308\u0301", '"', "’", "Ａ"]


def plain(_: str) -> bool:
    return False


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.integers(0, 3), st.data())
def test_what_is_read_stands_where_it_was_sent(pieces, offset, data):
    own = "".join(pieces)
    source = SourceText.of(own, plain, offset)
    assert source.read == writable(own, plain)
    if not source.read:
        return
    start = data.draw(st.integers(0, len(source.read) - 1))
    value = source.read[start : data.draw(st.integers(start + 1, len(source.read)))]
    places = source.places(value)
    assert places
    for span in places:
        # The text there is read as the value, or as one of which it is a part: half a ligature is none.
        assert value in writable(source.text_at(span), plain)
        assert offset <= span[0] < span[1] <= offset + len(own)


def test_of_several_places_the_nearest_to_the_others_is_meant():
    source = SourceText.of("5 kg, 7 kg of rice, 5 kg of flour", plain)
    assert ground({"what": "flour", "weight": "5 kg"}, source)[1] == {"what": (28, 33), "weight": (20, 24)}
    assert ground(["5 kg", "5 kg"], source)[1]["0"] == (0, 4)
    value, spans = ground({"a": [{"b": "rice"}, None, 3], "c": "nowhere", "d": ""}, source)
    assert (value, spans) == ({"a": [{"b": "rice"}, None, 3], "c": "nowhere", "d": ""}, {"a/0/b": (14, 18)})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_grounded_answers_of_random_weights_are_of_the_text(checkpoint, temperature):
    model = redraft.load(checkpoint)
    schema = {
        "properties": {
            "a": {"type": ["string", "null"]},
            "b": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
            "kind": {"enum": ["one", "two"]},
        },
        "required": ["a", "b", "kind"],
        "additionalProperties": False,
    }
    for seed, text in enumerate(["Ana paid 5 EUR, Ana!", "Cafe\u0301 in 東京 😀\r\nend", 'say "x\\y" twice', "x"]):
        arguments = {"schema": schema, "seed": seed, "temperature": temperature, "max_new_tokens": 120}
        result = model.generate(text, grounded=True, **arguments)
        values = {"a": result.parsed["a"], **{f"b/{at}": value for at, value in enumerate(result.parsed["b"])}}
        texts = {path: value for path, value in values.items() if value is not None}
        assert json.loads(result.text) == result.parsed
        assert texts == {path: text[slice(*span)] for path, span in result.spans.items() if path != "kind"}
        words = model.generate(text, at_words=True, **arguments)
        for start, end in (span for path, span in words.spans.items() if path != "kind"):
            assert not (start and text[start - 1].isalnum() and text[start].isalnum())
            assert not (end < len(text) and text[end - 1].isalnum() and text[end].isalnum())


def test_what_cannot_be_grounded_is_refused(checkpoint):
    model = redraft.load(checkpoint)
    with pytest.raises(ValueError, match="a grounded answer needs a schema"):
        model.generate("a", grounded=True)
    with pytest.raises(ValueError, match="the prompt asks for no fields"):
        model.generate("a", schema_from_prompt=True)
    with pytest.raises(ValueError, match="leave out one of them"):
        redraft.load().generate("Extract a as JSON: b", schema={"type": "object"}, schema_from_prompt=True)
    with pytest.raises(ValueError, match="the text has 4,001 characters"):
        model.generate("a" * 4001, grounded=True, schema={"type": "string"}, max_new_tokens=8)
