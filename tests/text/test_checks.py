"""What is told of a finished answer: each finding in one sentence, with its value."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.text.checks import MAX_SHOWN, brief, check_date, check_end, check_fields, check_keys

TEXT = "Ana lives in Porto since 4 May. Café."


def found(answer: str, *fields: str, text: str = TEXT) -> list[str]:
    return list(check_fields(answer, fields or ("name", "city"), text))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"name": "Ana", "city": "Porto"}', []),
        ('{"city": null, "name": "Ana"}', []),
        ('{"name": 5, "city": ["Lyon"]}', ["the value 5 of the field 'name' does not stand in the text"]),
        ('{"name": true, "city": ["Lyon"]}', []),
        ('{"name": "Ana", "city": "Por', ['the answer \'{"name": "Ana", "city": "Por\' is not valid JSON ']),
        ("", ["the answer '' is not valid JSON (expecting value at character 1): try another seed"]),
        ('{"name": NaN, "city": null}', ["is not valid JSON (NaN is not a JSON value)"]),
        ("[" * 100_000, ["is not valid JSON (too deep)"]),
        ("[1]", ["the answer '[1]' is JSON but not an object with the fields asked for"]),
        ('{"name": "Ana"}', ["the answer lacks the field 'city'"]),
        ("{}", ["the answer lacks the fields 'name', 'city'"]),
        ('{"name": "Ana", "city": "Porto", "town": "x"}', ["the answer has the field 'town', not asked for"]),
        ('{"name": "Ana", "name": "Ana", "city": null}', ["the answer has the field 'name' more than once"]),
        ('{"name": "Ana", "city": "Portto"}', ["the value 'Portto' of the field 'city' does not stand in the text"]),
        (
            '{"name": "An", "city": "Porto"}',
            ["the value 'An' of the field 'name' is cut out of a longer word or number: check it"],
        ),
        (
            '{"name": "4 May", "city": "4 May"}',
            ["the fields 'name', 'city' have one value, which stands in the text once"],
        ),
        ('{"name": "ana", "city": "Port\\u001b[2J"}', ["the value 'ana' of", r"the value 'Port\x1b[2J' of"]),
    ],
)
def test_what_is_told_of_fields(answer, expected):
    told = found(answer)
    assert len(told) == len(expected)
    for sentence, part in zip(told, expected, strict=True):
        assert part in sentence
        assert sentence.isprintable()


def test_words_that_no_spaces_part_are_not_cut():
    assert found('{"name": "田中", "city": "東京"}', text="田中さんは東京に住んでいます") == []
    assert found('{"name": "Bo", "city": "5"}', text="Bo's 5kg, Bob's 15") == []
    assert len(found('{"name": "ob", "city": "1"}', text="Bo's 5kg, Bob's 15")) == 2


def test_two_fields_may_have_one_value_where_it_stands_twice():
    assert found('{"name": "Ana", "city": "Ana"}', text="Ana of Ana") == []
    assert len(found('{"name": "Ana", "city": "Ana", "town": "Ana"}', "name", "city", "town", text="Ana of Ana")) == 1


def test_a_field_that_is_asked_for_twice_may_be_answered_twice_or_once():
    assert found('{"name": "Ana", "name": "Ana"}', "name", "name") == []
    assert found('{"name": "Ana"}', "name", "name") == []
    assert len(found('{"name": "Ana", "name": "Ana", "name": "Ana"}', "name", "name")) == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("form_of_text", ["NFC", "NFD"])
def test_accents_may_be_composed_or_not(form, form_of_text):
    answer = json.dumps({"place": unicodedata.normalize(form, "Café")})
    assert found(answer, "place", text=unicodedata.normalize(form_of_text, TEXT)) == []


def test_a_value_may_have_its_spaces_and_quotation_marks_in_another_form():
    text = "O\u2019Brien paid 1\u202f200\u00a0EUR on\r\n12\u20115"
    assert (
        found('{"name": "O\'Brien", "amount": "1 200 EUR", "date": "12-5"}', "name", "amount", "date", text=text) == []
    )
    assert len(found('{"name": "OBrien"}', "name", text=text)) == 1
    assert found('{"amount": 1200, "date": 12}', "amount", "date", text=text) == []
    assert len(found('{"amount": 122000122000000, "date": 1e400}', "amount", "date", text=text)) == 2


def test_a_reason_of_the_json_reader_is_one_sentence():
    (sentence,) = found('{"name": "Ana')
    assert "(unterminated string starting at character 10)" in sentence


def test_long_values_and_many_names_are_cut():
    (sentence,) = found(json.dumps({"name": "x" * 1000}), "name")
    assert "'" + "x" * (MAX_SHOWN - 5) + "...'" in sentence
    assert len(sentence) < 200
    (sentence,) = found("{}", *(f"field{n}" for n in range(20)))
    assert sentence.endswith("'field7' and 12 more: try another seed")
    assert len(brief("é" * 1000)) == MAX_SHOWN


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.none() | st.text(max_size=8), max_size=6))
def test_an_object_of_the_fields_with_values_of_the_text_has_no_warning(values):
    text = "|".join(value for value in values.values() if value is not None)
    assert found(json.dumps(values), *values or ("name",), text=text) == ([] if values else found("{}", "name"))


@pytest.mark.parametrize(
    ("reason", "steps", "expected"),
    [
        ("stop", (3, 5), []),
        ("tool_calls", (), []),
        (
            "length",
            (3,),
            ["the answer is cut after 12 tokens: the limit on new tokens, or the model's context, ends it"],
        ),
        ("stop", (6, 3), ["canvas 1 took all of 6 steps and may be unfinished"]),
        ("length", (3, 6, 6), ["is cut after", "canvases 2, 3 took all of 6 steps"]),
        ("stop", (6,) * 20, ["canvases 1, 2, 3, 4, 5, 6, 7, 8 and 12 more took"]),
    ],
)
def test_what_is_told_of_an_end(reason, steps, expected):
    told = list(check_end(12, reason, steps, 6))
    assert len(told) == len(expected)
    assert all(part in sentence for sentence, part in zip(told, expected, strict=True))


def test_keys_that_an_answer_repeats_are_told_though_nothing_is_known_of_its_fields():
    (told,) = check_keys('{"a": [{"b": 1, "b": 2}], "c": 3, "c": 3}')
    assert told.startswith("the answer has the fields 'b', 'c' more than once")
    assert [*check_keys('{"a": 1}'), *check_keys("no JSON"), *check_keys("[" * 100_000)] == []


def test_a_day_that_the_calendar_does_not_have_is_told():
    assert list(check_date("2024-02-31\n")) == ["there is no day 2024-02-31: check the date in the text"]
    assert [*check_date("2024-02-29"), *check_date("on 2024-02-31"), *check_date("2024-2-31")] == []
