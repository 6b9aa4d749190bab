"""Grounded answers through the API: their texts are stretches of the prompt's, and where they stand is said."""

import json
from pathlib import Path

import openai
import pytest
from pydantic import BaseModel

import redraft
from redraft.server.app import create_app
from tests.server.conftest import InThread, bundled_service, posting

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
TEXT = "This is Ana Kovacs, I paid 42,50 EUR on 3 March 2024."
PROMPT = f"Extract name, date as JSON: {TEXT}"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "kind": {"enum": ["one", "two"]}},
    "required": ["name", "kind"],
    "additionalProperties": False,
}
GROUNDED = {"schema_from_prompt": True, "grounded": True, "seed": 0}


@pytest.fixture(scope="module")
def app():
    with bundled_service() as service:
        yield create_app(service)


@pytest.fixture(scope="module")
def post(app):
    with posting(app) as post:
        yield post


def said(text: str) -> dict:
    return {"messages": [{"role": "user", "content": text}]}


def schema_format(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


def events(response) -> list[dict]:
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def test_whole_and_streamed_answers_say_where_their_texts_stand_as_python_does(post):
    result = redraft.load().generate(PROMPT, **GROUNDED)
    assert {name: PROMPT[slice(*span)] for name, span in result.spans.items()} == result.parsed
    spans = {name: [*span] for name, span in result.spans.items()}
    assert spans
    asked = {CHAT: said(PROMPT), RESPONSES: {"input": PROMPT}, COMPLETIONS: {"prompt": PROMPT}}
    for path, body in asked.items():
        found = post(path, **body, **GROUNDED).json()
        place = found if path == RESPONSES else found["choices"][0]
        text = place["output"][0]["content"][0]["text"] if path == RESPONSES else place.get("text")
        text = place["message"]["content"] if path == CHAT else text
        texts = {name: PROMPT[slice(*span)] for name, span in place["spans"].items()}
        assert texts == {name: value for name, value in json.loads(text).items() if value is not None}
        if path != COMPLETIONS:
            # A text that is continued is read otherwise than a message.
            assert (text, place["spans"]) == (result.text, spans)
        told = events(post(path, **body, **GROUNDED, stream=True))
        last = told[-1]["response"] if path == RESPONSES else told[-1]["choices"][0]
        assert last["spans"] == place["spans"]
        assert not any("spans" in choice for event in told[:-1] for choice in event.get("choices", ()))
        if path == CHAT:
            assert "".join(event["choices"][0]["delta"].get("content", "") for event in told) == text


def test_values_come_back_as_they_were_sent_streamed_too(post):
    text = "Extract name, city as JSON: I am Zoe\u0301 Ku\u0308hn and live in\u00a0Porto."
    fields = {**said(text), **GROUNDED, "seed": 1}
    choice = post(CHAT, **fields).json()["choices"][0]
    values = json.loads(choice["message"]["content"])
    assert values["name"] == "Zoe\u0301 Ku\u0308hn"
    assert {name: text[slice(*span)] for name, span in choice["spans"].items()} == values
    told = events(post(CHAT, **fields, stream=True, logprobs=True))
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in told) == choice["message"]["content"]
    # The text comes at once, with the log-probabilities of all its tokens.
    assert len([event for event in told if event["choices"][0]["delta"].get("content")]) == 1
    assert len(told[0]["choices"][0]["logprobs"]["content"]) > 5


def test_a_schema_of_ones_own_with_parts_of_a_message_and_several_answers(post):
    parts = [{"type": "text", "text": "This is Ana. "}, {"type": "text", "text": "She paid."}]
    body = {"messages": [{"role": "user", "content": parts}], "grounded": True, "n": 3, "seed": 2, "max_tokens": 60}
    for choice in post(CHAT, **body, response_format=schema_format(PERSON)).json()["choices"]:
        value = json.loads(choice["message"]["content"])
        start, end = choice["spans"]["name"]
        assert "This is Ana. She paid."[start:end] == value["name"]
        assert value["kind"] in ("one", "two")
    span = {"type": "object", "properties": {"name": {"type": "string", "format": "span"}}, "required": ["name"]}
    for held in ({"structured_outputs": {"json": span}}, {"guided_json": json.dumps(span)}):
        (choice,) = post(CHAT, **said("ab cd"), **held).json()["choices"]
        assert "ab cd"[slice(*choice["spans"]["name"])] == json.loads(choice["message"]["content"])["name"]
    words = {**said("abc def, ghi"), "at_words": True, "temperature": 2, "max_tokens": 60}
    for seed in range(5):
        (choice,) = post(CHAT, **words, seed=seed, response_format=schema_format(PERSON)).json()["choices"]
        start, end = choice["spans"]["name"]
        assert (start in (0, 4, 7, 9), end in (3, 7, 8, 12)) == (True, True)


def test_causal_modes_and_an_answer_that_a_stop_text_cuts(post):
    for mode in ("autoregressive", "verified"):
        (choice,) = post(CHAT, **said(PROMPT), **GROUNDED, canvas={"mode": mode}).json()["choices"]
        assert PROMPT[slice(*choice["spans"]["name"])] == json.loads(choice["message"]["content"])["name"]
    (choice,) = post(CHAT, **said(PROMPT), **GROUNDED, stop='",').json()["choices"]
    assert choice["message"]["content"].startswith('{"name": "Ana')
    assert "spans" not in choice
    plain = post(CHAT, **said(PROMPT), schema_from_prompt=True, seed=0).json()["choices"][0]
    assert json.loads(plain["message"]["content"]).keys() == {"name", "date"}
    assert "spans" not in plain


@pytest.mark.parametrize(
    ("path", "fields", "param", "reason"),
    [
        (CHAT, {"grounded": True}, "grounded", "requires a JSON Schema, or schema_from_prompt=true"),
        (CHAT, {"at_words": True, "guided_regex": "a"}, "at_words", "requires a JSON Schema"),
        (CHAT, {"grounded": True, "response_format": {"type": "json_object"}}, "grounded", "requires a JSON Schema"),
        (CHAT, {"schema_from_prompt": True, **said("hello")}, "schema_from_prompt", "asks for no fields"),
        (CHAT, {"schema_from_prompt": True, "guided_regex": "a"}, "schema_from_prompt", "one constraint"),
        (CHAT, {"grounded": True, "guided_json": PERSON, **said("a" * 4001)}, "messages", "4,001 characters"),
        (RESPONSES, {"schema_from_prompt": True, "input": "hello"}, "schema_from_prompt", "asks for no fields"),
        (RESPONSES, {"grounded": True}, "grounded", "requires a JSON Schema"),
        (COMPLETIONS, {**GROUNDED, "prompt": [PROMPT, PROMPT]}, "prompt", "takes one prompt"),
        (COMPLETIONS, {"grounded": True, "guided_json": PERSON, "prompt": [5, 6]}, "prompt", "takes one prompt"),
        (
            CHAT,
            {"grounded": True, "response_format": schema_format({"properties": {"n": {"multipleOf": 0.5}}})},
            "response_format",
            "multipleOf",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_grounded_is_refused_with_its_field(post, path, fields, param, reason):
    prompt = {CHAT: said(PROMPT), RESPONSES: {"input": PROMPT}, COMPLETIONS: {"prompt": PROMPT}}[path]
    response = post(path, **{**prompt, **fields})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param, error
    assert reason in error["message"], error


class Person(BaseModel):
    name: str
    date: str | None


def test_openai_python_gets_objects_and_where_their_values_stand():
    server = InThread(Path(), load=redraft.load).wait()
    try:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            chat = client.chat.completions.parse(
                model="bundled", **said(PROMPT), response_format=Person, seed=0, extra_body={"grounded": True}
            )
            response = client.responses.parse(
                model="bundled", input=PROMPT, text_format=Person, extra_body={"grounded": True, "seed": 0}
            )
    finally:
        server.stop()
    person = chat.choices[0].message.parsed
    assert person == response.output_parsed == Person(name="Ana Kovacs", date="3 March 2024")
    for spans in (chat.choices[0].spans, response.spans):
        assert {name: PROMPT[slice(*span)] for name, span in spans.items()} == person.model_dump()
