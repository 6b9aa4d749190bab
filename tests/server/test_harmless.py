"""What everyday clients send beside what they mean: taken where it changes nothing, else refused."""

import asyncio
import functools
import json

import httpx2
import pytest

import redraft
from redraft.server.app import create_app
from redraft.server.service import Service
from redraft.server.settings import ServerSettings
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.engines import ScriptedEngine

application = functools.cache(create_app)
QUESTION = {"role": "user", "content": "where is it?"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PARSED_CALL = CALL | {"function": {"name": "f", "arguments": None, "parsed_arguments": {"a": 1}}}
REFUSAL = {"type": "refusal", "refusal": "I can't."}
MARK = {"mode": "explicit"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    """Its card says that it was trained on single requests."""
    return redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def service(model):
    service = Service(ServerSettings())
    with ScriptedEngine(model) as engine:
        service.attach_engine(engine, "tiny")
        engine.ids = tuple(model.tokenizer.encode("the dog"))
        yield service


def send(service, path: str, body: object = None, *, method: str | None = None) -> httpx2.Response:
    async def sent() -> httpx2.Response:
        transport = httpx2.ASGITransport(application(service))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method or ("GET" if body is None else "POST"), path, json=body)

    return asyncio.run(sent())


def chat(service, **body) -> httpx2.Response:
    return send(service, "/v1/chat/completions", {"messages": [QUESTION], **body})


@pytest.mark.parametrize(
    "body",
    [
        dict.fromkeys(
            ["model", "stream", "stream_options", "n", "stop", "seed", "max_tokens", "temperature", "user", "canvas",
             "ignore_eos", "top_p", "tools", "tool_choice", "logprobs", "reasoning_effort", "audio", "prediction",
             "web_search_options", "strict"]
        ),
        {"stream_options": {"include_usage": None}},
        {"stream_options": {"include_usage": False, "include_obfuscation": False}},
        {"canvas": {"steps": None, "stream_drafts": None, "autoregressive": None}},
        {"tools": [], "tool_choice": "none", "functions": [], "function_call": "none", "parallel_tool_calls": True},
        {"metadata": {"run": "7"}, "prompt_cache_retention": "24h", "reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False}}, {"chat_template_kwargs": {}},
        {"length_penalty": 1, "use_beam_search": False, "best_of": 1, "stop_token_ids": [], "echo": False},
        {"skip_special_tokens": True, "spaces_between_special_tokens": True, "include_stop_str_in_output": False},
        {"add_generation_prompt": True, "continue_final_message": False},
        {"messages": [QUESTION | {"content": [
            {"type": "text", "text": "where is it?", "cache_control": {"type": "ephemeral"}}
        ]}]},
        {"store": False, "metadata": {}, "service_tier": "auto", "modalities": ["text"], "verbosity": "medium"},
        {"response_format": {"type": "text"}, "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0},
        {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "min_tokens": 0, "n": 1},
        {"safety_identifier": "somebody", "prompt_cache_key": "some key"},
        {"stop": ""}, {"stop": []}, {"stop": ["", "never in there"]}, {"stop": [f"never {n}" for n in range(20)]},
        {"top_logprobs": 0, "logprobs": False}, {"top_logprobs": 0},
        {"max_tokens": 99.0, "n": 1.0, "seed": 7.0, "top_logprobs": 0.0, "canvas": {"steps": 8.0}},
        {"messages": [QUESTION | {"refusal": None, "function_call": None, "audio": None, "annotations": []}]},
        {"messages": [QUESTION | {"refusal": "", "function_call": {}, "audio": {}}]},
        {"messages": [QUESTION | {"type": "text"}]},
        {"messages": [QUESTION | {"type": "message", "id": "msg_1", "index": 0, "status": "completed"}]},
        {"messages": [QUESTION | {"name": None, "tool_calls": None, "parsed": None, "type": None, "id": None}]},
        {"messages": [QUESTION | {"content": [{"type": "text", "text": "where is it?", "cache_control": None}]}]},
        {"stream_options": {"include_obfuscation": True}},
        {"prompt_cache_options": {}}, {"prompt_cache_options": {"mode": "explicit", "ttl": "30m", "prewarm": False}},
        {"messages": [QUESTION | {"prompt_cache_breakpoint": MARK, "content": [
            {"type": "text", "text": "where is it?", "prompt_cache_breakpoint": MARK}
        ]}]},
        {"logit_bias": {"5": 0, "7": 0.0}}, {"metadata": {"run": None}},
        {"messages": [QUESTION | {"parsed": {"city": "Porto"}, "annotations": [{"type": "url_citation"}]}]},
        {"temperature": 0, "top_p": 0.9}, {"temperature": 0.0, "top_k": 1, "min_p": 0.1},
        {"canvas": {"mode": "diffusion"}, "temperature": 0, "top_p": 0},
        *({"canvas": {"mode": mode}, "top_p": 0.9, "top_k": 5} for mode in ("autoregressive", "verified", "auto")),
        {"messages": [QUESTION, {"role": "system", "content": ""}], "strict": True},
        {"messages": [{"role": "system", "content": " \n"}, QUESTION], "strict": True},
        {"messages": [QUESTION | {"reasoning_details": []}]},
        *({"messages": [{"role": role, "content": nothing}, QUESTION], "strict": True}
          for role in ("system", "developer") for nothing in ("", [], [{"type": "text", "text": ""}])),
    ],
)  # fmt: skip
def test_what_changes_nothing_is_taken(service, body):
    response = chat(service, **body)
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == "the dog"
    assert "warnings" not in response.json()
    assert service.engine.prompts[-1].count("where is it?") == 1


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({"top_p": 0.9}, "top_p", "at temperature 1 tokens are drawn from the whole distribution"),
        ({"top_k": 5}, "top_k", "leave it out, or send -1, or temperature 0"),
        ({"min_p": 0.1}, "min_p", "drawn from the whole distribution"),
        ({"top_p": 0.9, "temperature": 1.5, "canvas": {"mode": "verified"}}, "top_p", "at temperature 1.5 tokens are"),
        ({"top_p": 2, "temperature": 0}, "top_p", "less than or equal to 1"),
        ({"logit_bias": {"5": 0, "7": 1}}, "logit_bias", "not supported; leave it out, or send {}"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm", "or send false"),
        ({"messages": [QUESTION | {"content": [REFUSAL]}]}, "messages.0.refusal", "send it as content"),
        ({"tool_choice": "required"}, "tool_choice", "requires tools"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "not supported"),
        ({"steps": 4}, "steps", "not supported; send it as canvas.steps"),
        ({"max_new_tokens": 4}, "max_new_tokens", "not supported; send it as max_tokens"),
        ({"max_token": 4}, "max_token", "not supported; did you mean max_tokens?"),
        ({"canvas": {"temperature": 0}}, "canvas.temperature", "not supported; send temperature beside canvas"),
        ({"canvas": {"max_new_tokens": 4}}, "canvas.max_new_tokens", "not supported; send max_tokens beside canvas"),
        ({"canvas": {"step": 4}}, "canvas.step", "not supported; did you mean canvas.steps?"),
        ({"colour": "red"}, "colour", "not supported; leave it out"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking", "not support"),
        ({"skip_special_tokens": False}, "skip_special_tokens", "not supported"),
        ({"metadata": {"a": 1}}, "metadata.a", "must be"),
        ({"messages": []}, "messages", "must have at least 1 element"),
        ({"messages": [QUESTION | {"name": "bob"}]}, "messages.0.name", "chat template"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
        ({"top_logprobs": 1}, "top_logprobs", "logprobs=true"),
        ({"messages": [QUESTION | {"refusal": "I can't."}]}, "messages.0.refusal", "send it as content"),
        ({"messages": [QUESTION | {"function_call": CALL["function"]}]}, "messages.0.function_call", "as tool_calls"),
        ({"messages": [QUESTION | {"audio": {"id": "a", "transcript": "x"}}]}, "messages.0.audio", "its transcript"),
        ({"max_tokens": 1.5}, "max_tokens", "must be an integer"),
        ({"max_tokens": 1e30}, "max_tokens", "must be"),
        ({"messages": [QUESTION | {"colour": "red"}]}, "messages.0.colour", "not supported"),
        ({"messages": [QUESTION | {"type": "image"}]}, "messages.0.type", "must be"),
        ({"messages": None}, "messages", "is missing"),
    ],
)
def test_what_would_change_the_answer_is_refused_with_the_reason(service, body, param, reason):
    response = chat(service, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert reason in error["message"]


CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.mark.parametrize(
    ("path", "body", "way_out"),
    [
        (RESPONSES, {"input": "x", "max_tokens": 4}, "send it as max_output_tokens"),
        (RESPONSES, {"input": "x", "response_format": {"type": "text"}}, "send it as text.format"),
        (RESPONSES, {"input": "x", "canvas": {"max_tokens": 4}}, "send max_output_tokens beside canvas"),
        (RESPONSES, {"input": "x", "steps": 4}, "send it as canvas.steps"),
        (RESPONSES, {"input": "x", "n": 2}, "leave it out"),
        (RESPONSES, {"input": "x", "messages": []}, "leave it out, since there is input"),
        (RESPONSES, {"input": "x", "prompt": "x"}, "leave it out, since there is input"),
        (RESPONSES, {"input": "x", "reasoning_effort": "none"}, "send it as reasoning.effort"),
        (RESPONSES, {"messages": [QUESTION]}, "send it as input"),
        (RESPONSES, {"prompt": "x", "max_tokens": 4}, "send it as input"),
        (RESPONSES, {"inputs": "x"}, "did you mean input?"),
        (COMPLETIONS, {"prompt": "x", "messages": []}, "leave it out, since there is prompt"),
        (COMPLETIONS, {"messages": [QUESTION]}, "send it to /v1/chat/completions, or a text as prompt"),
        (COMPLETIONS, {"input": "x"}, "send it as prompt"),
        (COMPLETIONS, {"prompt": "x", "max_completion_tokens": 4}, "send it as max_tokens"),
        (CHAT, {"messages": [QUESTION], "prompt": "x"}, "leave it out, since there is messages"),
        (CHAT, {"messages": [QUESTION], "max_output_tokens": 4}, "send it as max_tokens"),
        (CHAT, {"messages": [QUESTION], "instructions": "x"}, "send it as a message of role system"),
        (CHAT, {"input": "x"}, "send it as messages"),
        (CHAT, {"mesages": [QUESTION]}, "did you mean messages?"),
        ("/tokenize", {"prompt": "x", "max_new_tokens": 4}, "leave it out"),
        ("/v1/decisions", {"text": "x", "questions": {"a": {}}, "input": "x", "max_tokens": 4}, "leave it out"),
    ],
)
def test_a_field_of_another_name_is_told_its_own(service, path, body, way_out):
    response = send(service, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "unsupported_parameter")
    assert error["message"] == f"{error['param']} is not supported; {way_out}"


@pytest.mark.parametrize(
    ("seed", "used"), [(2**31, 2**31), (2**63, 0), (2**64 - 1, 2**63 - 1), (-2, 2**63 - 2), (-(2**63), 0)]
)
def test_seeds_of_64_bits(service, seed, used):
    assert chat(service, seed=seed).json()["choices"][0]["canvas"]["seed"] == used


def test_the_seed_minus_one_draws_one(service):
    drawn = {chat(service, seed=-1).json()["choices"][0]["canvas"]["seed"] for _ in range(3)}
    assert len(drawn) == 3
    assert max(drawn) < 2**53


LONG = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hello"}, QUESTION,
]  # fmt: skip


def test_a_single_turn_model_reads_the_last_user_message_and_says_so(service, model):
    told = chat(service, messages=LONG).json()
    (warning,) = told["warnings"]
    assert warning.startswith("left out 1 system and 2 other messages: this model was trained on a single user message")
    assert service.engine.prompts == [model.tokenizer.decode(model.encode([QUESTION]), skip_special=False)]
    tokens = send(service, "/tokenize", {"messages": LONG}).json()
    assert (tokens["tokens"], tokens["warnings"]) == (model.encode([QUESTION]), [warning])


@pytest.mark.parametrize(
    ("path", "body", "left_out"),
    [
        ("/v1/responses", {"input": "where is it?", "instructions": "Be brief."}, "the instructions"),
        ("/v1/responses", {"input": LONG, "instructions": "x"}, "the instructions and 1 system and 2 other messages"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "developer", "content": "x"}, QUESTION]},
            "1 developer message",
        ),
    ],
)
def test_what_is_left_out_is_called_what_it_was_sent_as(service, path, body, left_out):
    (warning,) = send(service, path, body).json()["warnings"]
    assert warning.startswith(f"left out {left_out}: this model was trained on a single user message")


def test_a_stream_has_the_warnings_in_the_chunk_that_ends_it(service):
    response = chat(service, messages=LONG, stream=True, n=2)
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert [bool(chunk.get("warnings")) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_a_strict_request_is_refused_instead(service):
    response = chat(service, messages=LONG, strict=True)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "messages", "strict")
    assert "left out 1 system" in error["message"]
    assert chat(service, strict=True).status_code == 200


CALLED = [
    {"role": "user", "content": "hello", "name": "bob"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "42"}, {"role": "assistant", "content": None, "refusal": "No."},
    {"role": "assistant", "content": None, "function_call": CALL["function"], "audio": {"id": "a"}},
    {"role": "assistant", "content": [REFUSAL], "reasoning": "hm", "tool_calls": [PARSED_CALL]}, QUESTION,
]  # fmt: skip


def test_what_is_left_out_may_have_what_the_template_does_not_read(service):
    """A conversation that another model has begun."""
    told = chat(service, messages=CALLED).json()
    assert told["choices"][0]["message"]["content"] == "the dog"
    assert told["warnings"][0].startswith("left out 6 other messages")
    items = [
        QUESTION, {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"role": "assistant", "phase": "final_answer", "content": [
            {"type": "output_text", "text": "x", "parsed": {"a": 1}, "annotations": [{"type": "file_path"}]}
        ]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": None, "parsed_arguments": {"a": 1}},
        {"type": "function_call_output", "call_id": "c", "output": "42"}, {"role": "assistant", "content": [REFUSAL]},
        QUESTION,
    ]  # fmt: skip
    told = send(service, "/v1/responses", {"input": items}).json()
    assert told["warnings"][0].startswith("left out 4 other messages")
    error = send(service, "/v1/responses", {"input": [QUESTION | {"content": [REFUSAL]}]}).json()["error"]
    assert (error["param"], error["message"].partition(":")[0]) == ("input", "refusal in input is not read")
    error = send(service, "/v1/responses", {"input": items[1:2]}).json()["error"]
    assert (error["param"], error["code"]) == ("input", "unsupported_value")


def test_nothing_is_stored_and_that_is_said(service):
    for path, messages in (("/v1/chat/completions", "messages"), ("/v1/responses", "input")):
        body = {messages: [QUESTION], "store": True}
        (warning,) = send(service, path, body).json()["warnings"]
        assert warning.startswith("the answer is not stored, though store is true")
        assert send(service, path, body | {"strict": True}).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"reasoning": {}}, {"reasoning": {"effort": None}}, {"reasoning": {"effort": "none"}}, {"text": {}},
        {"reasoning": {"effort": None, "summary": None}}, {"reasoning": {"effort": "none", "summary": None}},
        {"reasoning": {"generate_summary": None, "mode": "standard", "context": "auto"}},
        {"stream_options": {"include_obfuscation": False}}, {"stream_options": {"include_obfuscation": True}},
        {"include": ["reasoning.encrypted_content"], "max_tool_calls": 1},
        {"temperature": 0, "top_p": 0.9}, {"prompt_cache_options": {}}, {"instructions": "", "strict": True},
        {"input": [{"role": "system", "content": []}, QUESTION | {"phase": "final_answer"}], "strict": True},
        {"input": [QUESTION | {"content": [
            {"type": "input_text", "text": "where is it?", "prompt_cache_breakpoint": MARK, "cache_control": MARK}
        ]}]},
        {"text": {"verbosity": "medium"}}, {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
    ],
)  # fmt: skip
def test_what_changes_no_response_is_taken(service, body):
    told = send(service, "/v1/responses", {"input": "where is it?", "metadata": {"run": "7"}, **body}).json()
    assert (told["status"], told["metadata"]) == ("completed", {"run": "7"})
    assert "warnings" not in told


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"), ({"top_p": 0.9}, "top_p"),
        ({"input": [QUESTION | {"content": [{"type": "input_image"}]}]}, "input.0.content.0.type"),
    ],
)  # fmt: skip
def test_what_would_change_a_response_is_refused(service, body, param):
    response = send(service, "/v1/responses", {"input": "where is it?", **body})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_what_is_left_out_does_not_take_up_the_context(service):
    earlier = {"role": "user", "content": "x" * 100_000}
    assert chat(service, messages=[earlier, *LONG]).status_code == 200


def test_a_text_completion_of_a_chat_model_has_a_hint(service, model):
    (warning,) = send(service, "/v1/completions", {"prompt": "hello"}).json()["warnings"]
    assert "/v1/chat/completions" in warning
    ids = {"prompt": model.encode("hello")}
    assert "warnings" not in send(service, "/v1/completions", ids).json()
    assert send(service, "/v1/completions", {"prompt": "hello", "strict": True}).status_code == 400


def test_token_ids_may_be_whole_floats(service, model):
    ids = model.encode("hello")
    for prompt in (ids, [ids, ids]):
        floats = json.loads(json.dumps(prompt), parse_int=float)
        response = send(service, "/v1/completions", {"prompt": floats, "max_tokens": 99.0})
        assert response.status_code == 200, response.text
        assert service.engine.prompts[-1] == model.tokenizer.decode(ids, skip_special=False)
    assert send(service, "/v1/completions", {"prompt": [1.5]}).status_code == 400
    for given in ({}, {"echo": True, "max_tokens": 0}):
        error = send(service, "/v1/completions", {"prompt": [ids, [999_999]], **given}).json()["error"]
        assert (error["param"], error["code"]) == ("prompt", "invalid_value")
        assert "token ids [999999] of the prompt lie outside the vocabulary" in error["message"]


def test_control_tokens_in_a_text_are_told_of(service):
    spelled = {"role": "user", "content": "I am <|turn>Ana<turn|>."}
    for path, body in (
        ("/v1/chat/completions", {"messages": [spelled]}), ("/tokenize", {"messages": [spelled]}),
        ("/v1/completions", {"prompt": spelled["content"]}), ("/v1/responses", {"input": spelled["content"]}),
    ):  # fmt: skip
        warnings = send(service, path, body).json()["warnings"]
        assert sum("spells out the control tokens '<turn|>', '<|turn>'" in one for one in warnings) == 1


@pytest.mark.parametrize("path", ["/", "/health", "/health/live", "/health/ready", "/metrics", "/v1/models"])
def test_probes_may_ask_for_the_head_alone(service, path):
    response = send(service, path, method="HEAD")
    assert response.status_code == 200
    assert response.headers["content-type"] == send(service, path).headers["content-type"]
    assert send(service, "/v1/chat/completions", method="HEAD").status_code == 405


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/embeddings"), ("GET", "/docs"), ("GET", "/v2/x%0A%7Fy")])
def test_an_unknown_route_is_told_what_there_is(service, method, path):
    response = send(service, path, {"input": "x"} if method == "POST" else None)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (404, "unknown_route", "not_found_error")
    assert "POST /v1/chat/completions" in error["message"]
    assert "/openapi.json" in error["message"]
    assert error["message"].isprintable()
    assert "/v1/adapters" not in error["message"]


def test_browsers_are_told_that_there_is_no_icon(service):
    response = send(service, "/favicon.ico")
    assert (response.status_code, response.content) == (204, b"")


def test_more_prompts_than_one_request_may_have(service):
    for prompts in (["a"] * 129, [[3, 4]] * 129):
        error = send(service, "/v1/completions", {"prompt": prompts}).json()["error"]
        assert (error["param"], error["code"]) == ("prompt", "invalid_value")
        assert error["message"] == "prompt: 129 prompts, the limit is 128: send the others in another request"
    assert send(service, "/v1/completions", {"prompt": [3] * 129, "max_tokens": 1}).status_code == 200
    response = send(service, "/v1/completions", {"prompt": ["a"] * 128, "n": 2})
    assert response.status_code == 400
    assert "256 answers, this server holds 144 at a time: send fewer prompts" in response.json()["error"]["message"]


def test_decomposed_accents_are_read_composed_and_given_back(service, model):
    service.engine.ids = tuple(model.tokenizer.encode("h\u00e9llo"))
    told = chat(service, messages=[{"role": "user", "content": "he\u0301llo"}]).json()
    assert told["choices"][0]["message"]["content"] == "he\u0301llo"
    assert "h\u00e9llo" in service.engine.prompts[-1]
