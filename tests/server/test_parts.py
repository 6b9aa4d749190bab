"""Answers in parts through the API: the same as in Python, whole or streamed, counted and told."""

import json

import pytest

import redraft
from redraft.server.app import create_app
from tests.server.conftest import bundled_service, posting

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ARRAY = "Extract name, city as a JSON array:\nAnna Berg lives in Rome.\nBob Stone lives in Paris.\nCarl Maier, Berlin"
ROWS = [
    {"name": "Anna Berg", "city": "Rome"},
    {"name": "Bob Stone", "city": "Paris"},
    {"name": "Carl Maier", "city": "Berlin"},
]


@pytest.fixture(scope="module")
def service():
    with bundled_service() as service:
        yield service


@pytest.fixture(scope="module")
def post(service):
    with posting(create_app(service)) as post:
        yield post


def said(text: str) -> dict:
    return {"messages": [{"role": "user", "content": text}]}


def test_an_array_is_answered_item_by_item_and_counted(post, service):
    body = post(CHAT, **said(ARRAY)).json()
    (choice,) = body["choices"]
    assert json.loads(choice["message"]["content"]) == ROWS
    assert choice["canvas"]["parts"] == 3
    result = redraft.load().generate(ARRAY)
    assert choice["message"]["content"] == result.text
    assert choice["trust"]["probability"] == round(result.trust.probability, 4)
    parts = service.engine.model.read(ARRAY).parts
    assert body["usage"]["prompt_tokens"] == sum(len(part.ids) for part in parts)
    assert body["usage"]["completion_tokens"] == len(result.token_ids)
    assert "warnings" not in body


def test_by_diffusion_the_steps_of_all_parts_are_told(post):
    body = post(CHAT, **said(ARRAY), seed=1, canvas={"mode": "diffusion"}).json()
    (choice,) = body["choices"]
    result = redraft.load().generate(ARRAY, mode="diffusion", seed=1)
    assert choice["message"]["content"] == result.text
    assert choice["canvas"]["steps_per_canvas"] == list(result.generation.steps_per_canvas)
    assert body["usage"]["denoising_steps"] == sum(result.generation.steps_per_canvas)


def test_one_item_is_one_part_whose_steps_count_too(post):
    asked = said("Extract name, city as a JSON array: Anna Berg lives in Rome.")
    body = post(CHAT, **asked, canvas={"mode": "diffusion"}, seed=1).json()
    (choice,) = body["choices"]
    assert json.loads(choice["message"]["content"]) == ROWS[:1]
    assert "parts" not in choice["canvas"]
    assert body["usage"]["denoising_steps"] == sum(choice["canvas"]["steps_per_canvas"]) > 0


@pytest.mark.parametrize("canvas", [{}, {"stream_drafts": True, "alternatives": 2, "mode": "diffusion"}], ids=str)
def test_a_stream_has_the_text_at_its_end_and_the_drafts_of_each_part(post, canvas):
    response = post(CHAT, **said(ARRAY), seed=1, stream=True, canvas=canvas)
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    text = "".join(one["choices"][0]["delta"].get("content", "") for one in events if one.get("choices"))
    assert json.loads(text) == ROWS
    drafts = [one["draft"] for one in events if "draft" in one]
    assert list(dict.fromkeys(draft["canvas"] for draft in drafts)) == ([0, 1, 2] if canvas else [])


def test_each_choice_is_made_of_parts_of_its_own(post):
    body = post(CHAT, **said(ARRAY), seed=1, n=2, canvas={"mode": "diffusion", "temperature": None}).json()
    assert [choice["canvas"]["parts"] for choice in body["choices"]] == [3, 3]


def test_the_other_endpoint_answers_the_same(post):
    body = post(RESPONSES, input=ARRAY).json()
    assert json.loads(body["output"][0]["content"][0]["text"]) == ROWS


def test_each_item_is_held_to_the_fields_asked_for(post):
    body = post(CHAT, **said(ARRAY), schema_from_prompt=True, grounded=True).json()
    (choice,) = body["choices"]
    assert json.loads(choice["message"]["content"]) == ROWS
    assert ARRAY[slice(*choice["spans"]["2/city"])] == "Berlin"
    assert choice["canvas"]["constraint"]["states"] > 1


def test_what_the_instructions_ask_for_holds_the_answer_too(post):
    messages = [
        {"role": "system", "content": "Return JSON with the keys name, city. Nothing else."},
        {"role": "user", "content": "Anna Berg lives in Rome."},
    ]
    (choice,) = post(CHAT, messages=messages, schema_from_prompt=True, grounded=True).json()["choices"]
    assert json.loads(choice["message"]["content"]) == ROWS[0]
    assert choice["spans"] == {"name": [0, 9], "city": [19, 23]}


def test_log_probabilities_and_the_prompts_schema_hold_the_whole_array(post):
    body = post(CHAT, **said(ARRAY), schema_from_prompt=True, logprobs=True, max_tokens=256).json()
    (choice,) = body["choices"]
    assert choice["message"]["content"].startswith("[")
    assert "parts" not in choice["canvas"]


@pytest.mark.parametrize(
    "asked",
    [{"logprobs": True}, {"ignore_eos": True, "max_tokens": 8}, {"response_format": {"type": "json_object"}}],
    ids=str,
)
def test_what_is_of_one_passage_has_the_prompt_answered_whole(post, asked):
    body = post(CHAT, **said(ARRAY), **asked).json()
    assert "parts" not in body["choices"][0]["canvas"]


def test_a_stop_text_and_a_limit_hold_for_the_whole_and_for_each_part(post):
    (choice,) = post(CHAT, **said(ARRAY), stop=["Bob"]).json()["choices"]
    assert choice["message"]["content"] == '[{"name": "Anna Berg", "city": "Rome"}, {"name": "'
    (choice,) = post(CHAT, **said(ARRAY), max_tokens=4).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert any("is cut" in one for one in choice["warnings"])


def test_a_text_that_the_context_does_not_hold_is_read_in_windows(post):
    text = "The order ORD-48213 is late. " + "Our office is closed on public holidays. " * 600
    body = post(CHAT, **said(f"Extract order_id as JSON: {text}")).json()
    assert json.loads(body["choices"][0]["message"]["content"]) == {"order_id": "ORD-48213"}
    assert body["choices"][0]["canvas"]["parts"] > 30
