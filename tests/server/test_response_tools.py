"""Functions that are called through /v1/responses: items of the input and the output, and events that tell of them."""

import asyncio
import json
from pathlib import Path

import httpx2
import openai
import pytest

import redraft
from redraft.server.app import create_app
from redraft.server.openai.responses_api.protocol import ResponsesRequest
from redraft.server.service import Service
from redraft.server.settings import ServerSettings
from tests.fakes.checkpoints import thinking_checkpoint
from tests.fakes.engines import ScriptedEngine
from tests.fakes.tokenizers import spelled_ids
from tests.server.conftest import InThread

CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}, "required": ["city"]}
FIND = {"type": "function", "name": "find", "description": "Finds a city.", "parameters": CITY}
NOW = {"type": "function", "name": "now"}
TWO_CALLS = (
    '<|tool_call>call:find{city:<|"|>Porto<|"|>}<tool_call|><|tool_call>call:find{city:<|"|>Faro<|"|>}<tool_call|>'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return thinking_checkpoint(tmp_path_factory.mktemp("models") / "thinking", max_context=2048)


@pytest.fixture(scope="module")
def model(folder) -> redraft.Model:
    return redraft.load(folder)


@pytest.fixture
def service(model):
    service = Service(ServerSettings())
    with ScriptedEngine(model) as engine:
        service.attach_engine(engine, "thinking")
        yield service
        service.close()


def ask(service, **body) -> httpx2.Response:
    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(create_app(service))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/v1/responses", json={"input": "where is it?", **body})

    return asyncio.run(send())


def write(service, text: str, finish: str = "stop") -> list[str]:
    """Makes the engine write a text, its control tokens spelled out, and gives the prompts that it was asked."""
    engine = service.engine
    engine.ids, engine.finish = tuple(spelled_ids(engine.model.tokenizer, text)), finish
    return engine.prompts


def test_text_and_calls_are_items_and_can_be_sent_back(service):
    asked = write(service, f"I look it up.{TWO_CALLS}")
    whole = ask(service, tools=[FIND, NOW]).json()
    message, first, second = whole["output"]
    assert (whole["status"], message["content"][0]["text"]) == ("completed", "I look it up.")
    assert [(call["type"], call["name"], call["status"]) for call in (first, second)] == [
        ("function_call", "find", "completed")
    ] * 2
    assert [json.loads(call["arguments"]) for call in (first, second)] == [{"city": "Porto"}, {"city": "Faro"}]
    assert len({first["id"], second["id"], first["call_id"], second["call_id"]}) == 4
    assert "Finds a city." in asked[0]
    assert [tool["name"] for tool in whole["tools"]] == ["find", "now"]
    assert (whole["tool_choice"], whole["parallel_tool_calls"]) == ("auto", True)

    write(service, "in the north")
    question = {"role": "user", "content": "where is it?"}
    results = [
        {"type": "function_call_output", "call_id": first["call_id"], "output": "41.15 N"},
        {
            "type": "function_call_output", "call_id": second["call_id"],
            "output": [{"type": "input_text", "text": "37.02"}, {"type": "input_text", "text": " N"}],
        },
    ]  # fmt: skip
    again = ask(service, input=[question, *whole["output"], *results], tools=[FIND]).json()
    assert [item["type"] for item in again["output"]] == ["message"]
    # What was said and called before stands in the prompt as chat completions have it.
    called = "I look it up." in asked[1], TWO_CALLS in asked[1], "41.15 N" in asked[1], "37.02 N" in asked[1]
    assert called == (True, True, True, True)


def test_what_was_thought_before_an_answer_or_a_call_stands_beside_it():
    def thought(*texts: str) -> dict:
        return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text} for text in texts]}

    said = {"role": "assistant", "content": "I look it up."}
    call = {"type": "function_call", "call_id": "c", "name": "now", "arguments": None, "parsed_arguments": {}}
    items = [thought("h", "m"), said, call, thought("ha"), call, thought("lost"), {"role": "user", "content": "and?"}]
    answer, again, question = ResponsesRequest.model_validate({"input": items}).to_chat().messages
    assert (answer.content, answer.reasoning_content, answer.tool_calls[0].function.arguments) == (
        "I look it up.", "hm", "",
    )  # fmt: skip
    assert (again.content, again.reasoning_content, len(again.tool_calls)) == ("", "ha", 1)
    assert (question.content, question.reasoning_content) == ("and?", None)


def events_of(response: httpx2.Response) -> list[dict]:
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("the answer", ["message"]),
        ("", ["message"]),
        (TWO_CALLS, ["function_call"] * 2),
        (f"first{TWO_CALLS}then", ["message", "function_call", "function_call", "message"]),
    ],
)
def test_a_stream_tells_of_each_item_from_its_begin_to_its_end(service, text, kinds):
    write(service, text)
    events = events_of(ask(service, tools=[FIND], stream=True))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    ended = events[-1]["response"]
    assert (events[-1]["type"], [item["type"] for item in ended["output"]]) == ("response.completed", kinds)
    for index, item in enumerate(ended["output"]):
        own = [event for event in events if event.get("output_index") == index]
        assert own[0]["type"] == "response.output_item.added"
        assert own[0]["item"]["status"] == "in_progress"
        assert own[-1] == {"type": "response.output_item.done", "output_index": index, "item": item, **number(own[-1])}
        assert {event.get("item_id", item["id"]) for event in own} == {item["id"]}
        deltas = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        assert deltas == (item["arguments"] if "arguments" in item else item["content"][0]["text"])
    whole = ask(service, tools=[FIND]).json()
    assert [stripped(item) for item in whole["output"]] == [stripped(item) for item in ended["output"]]
    assert "<|" not in json.dumps(events)


def number(event: dict) -> dict:
    return {"sequence_number": event["sequence_number"]}


def stripped(item: dict) -> dict:
    return {name: value for name, value in item.items() if name not in ("id", "call_id")}


def test_an_answer_and_a_call_that_are_cut_are_incomplete(service):
    write(service, "and then", "length")
    cut = ask(service).json()
    assert (cut["status"], cut["output"][0]["status"]) == ("incomplete", "incomplete")
    write(service, "<|tool_call>call:find{city:", "length")
    cut = ask(service, tools=[FIND]).json()
    assert cut["status"] == "incomplete"
    assert [(item["type"], item["status"]) for item in cut["output"]] == [("function_call", "incomplete")]


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({"tool_choice": "required"}, "tool_choice", "requires tools"),
        ({"tools": [FIND], "tool_choice": {"type": "function", "name": "lost"}}, "tool_choice", "'lost'"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "function"),
        ({"tools": [{**FIND, "nested": 1}]}, "tools.0.nested", "not supported"),
        ({"input": [{"type": "function_call", "name": "find", "arguments": "{}"}]}, "input.0.call_id", "missing"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input.0.output", "missing"),
        ({"input": [{"type": "item_reference", "id": "m"}]}, "input.0.type", "must be 'message'"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "must have a message"),
    ],
)
def test_what_cannot_be_called_is_refused_with_its_place(service, body, param, reason):
    response = ask(service, **body)
    assert response.status_code == 400
    told = response.json()["error"]
    assert told["param"] == param, told
    assert reason in told["message"], told


def test_a_template_without_tools_refuses_them():
    service = Service(ServerSettings())
    with ScriptedEngine(redraft.load()) as engine:
        service.attach_engine(engine, "bundled")
        told = ask(service, tools=[FIND]).json()["error"]
        service.close()
    assert told["param"] == "tools"
    assert "does not support tools" in told["message"]


def test_openai_python_calls_functions_held_to_their_schemas(folder):
    server = InThread(folder).wait()
    tools = [{**FIND, "strict": True}, {**NOW, "parameters": None, "strict": False}]
    more = {"seed": 3, "canvas": {"steps": 2}}
    try:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2) as client:
            asked = {"model": "thinking", "tools": tools, "tool_choice": "required", "extra_body": more}
            first = client.responses.create(**asked, input="where is it?", max_output_tokens=60)
            calls = [item for item in first.output if item.type == "function_call"]
            assert calls
            assert calls == first.output
            for call in calls:
                arguments = json.loads(call.arguments)
                assert (call.name, list(arguments)) in (("find", ["city"]), ("now", []))
            outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "here"} for call in calls]
            conversation = [{"role": "user", "content": "where is it?"}, *first.output, *outputs]
            named = asked | {"tool_choice": {"type": "function", "name": "find"}}
            with client.responses.stream(**named, input=conversation, max_output_tokens=60) as stream:
                kinds = [event.type for event in stream]
                last = stream.get_final_response()
            assert "response.function_call_arguments.done" in kinds
            (call,) = last.output
            assert (call.name, len(json.loads(call.arguments)["city"]) <= 9) == ("find", True)
            assert call.arguments == first_arguments(client.responses.create(**named, input=conversation))
    finally:
        server.stop()


def first_arguments(response) -> str:
    return response.output[0].arguments
