"""What may be wrong with an answer, in the `warnings` of each endpoint: whole and streamed, of each choice."""

import asyncio
import dataclasses
import functools
import json
from typing import Any

import httpx2
import pytest

import redraft
from redraft.server.app import create_app
from redraft.server.service import Service
from redraft.server.settings import ServerSettings
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.engines import ScriptedEngine

application = functools.cache(create_app)
PROMPT = "Extract name, city as JSON: the dog"
BROKEN = '{"name": "cat"}'
LACKS = "the answer lacks the field 'city': try another seed"
STRANGE = "the value 'cat' of the field 'name' does not stand in the text: check it"
CUT = "the limit on new tokens, or the model's context, ends it"
UNSETTLED = "canvases 1, 2 took all of 3 steps"
OUTSIDE = "has no form that this model was trained on"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    made = redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))
    described = dataclasses.replace(made.card, prompt_forms=("Extract {fields} as JSON: {text}", "Say it: {text}"))
    return redraft.Model(made.name, made.transformer, made.tokenizer, made.defaults, described)


@pytest.fixture
def service(model):
    service = Service(ServerSettings())
    with ScriptedEngine(model) as engine:
        service.attach_engine(engine, "tiny")
        engine.ids = tuple(model.tokenizer.encode(BROKEN))
        yield service


def send(service, path: str, **body: Any) -> httpx2.Response:
    async def sent() -> httpx2.Response:
        transport = httpx2.ASGITransport(application(service))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, json={"max_tokens": 99, **body})

    return asyncio.run(sent())


def chat(service, prompt: str = PROMPT, **body: Any) -> httpx2.Response:
    return send(service, "/v1/chat/completions", messages=[{"role": "user", "content": prompt}], **body)


def chunks(response: httpx2.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def test_each_choice_has_its_own_and_the_answer_all(service):
    told = chat(service, n=2).json()
    assert [choice["warnings"] for choice in told["choices"]] == [[LACKS, STRANGE]] * 2
    assert told["warnings"] == [LACKS, STRANGE]


def test_a_right_answer_has_none(service, model):
    service.engine.ids = tuple(model.tokenizer.encode('{"name": "dog", "city": null}'))
    told = chat(service).json()
    assert "warnings" not in told
    assert "warnings" not in told["choices"][0]
    assert "warnings" not in chat(service, prompt="Say it: the dog").json()


def test_a_stream_has_them_where_a_choice_and_where_the_answer_ends(service):
    told = chunks(chat(service, n=2, stream=True))
    ends = {chunk["choices"][0]["index"]: chunk for chunk in told if chunk["choices"][0].get("finish_reason")}
    assert [ends[index]["choices"][0]["warnings"] for index in (0, 1)] == [[LACKS, STRANGE]] * 2
    assert [chunk.get("warnings") for chunk in told] == [None] * (len(told) - 1) + [[LACKS, STRANGE]]


@pytest.mark.parametrize("stream", [False, True])
def test_text_completions_have_them_too(service, stream):
    response = send(service, "/v1/completions", prompt=[PROMPT, "hello"], stream=stream)
    choices = [response.json()["choices"]] if not stream else [chunk["choices"] for chunk in chunks(response)]
    ended = {
        choice["index"]: choice.get("warnings") for some in choices for choice in some if choice.get("finish_reason")
    }
    assert ended == {0: [LACKS, STRANGE], 1: None}
    *_, warning = (response.json() if not stream else chunks(response)[-1])["warnings"]
    assert warning == STRANGE


@pytest.mark.parametrize("stream", [False, True])
def test_responses_have_them_too(service, stream):
    response = send(service, "/v1/responses", max_tokens=None, max_output_tokens=99, input=PROMPT, stream=stream)
    told = response.json() if not stream else chunks(response)[-1]["response"]
    assert told["warnings"] == [LACKS, STRANGE]


def test_a_cut_answer_and_canvases_that_took_all_steps(service):
    service.engine.finish = "length"
    cut, unsettled = chat(service, prompt="Say it: x", canvas={"steps": 3}).json()["warnings"]
    assert CUT in cut
    assert UNSETTLED in unsettled


def test_a_prompt_outside_the_card_is_told_or_refused(service):
    (warning,) = chat(service, prompt="where is it?").json()["warnings"]
    assert OUTSIDE in warning
    refused = chat(service, prompt="where is it?", strict=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "strict")
    # What an answer is like is not known before it: strict is about requests.
    assert chat(service, strict=True).json()["warnings"] == [LACKS, STRANGE]
