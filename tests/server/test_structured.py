"""Answers that are held to something, through the API: kept at every point of a stream, or refused with the reason."""

import asyncio
import functools
import json
import re
import time

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import redraft
from redraft.constraints.automaton import DEAD, build_automaton
from redraft.constraints.build import ConstraintSpec
from redraft.constraints.language.expression import Expressions
from redraft.constraints.process.builder import Builder
from redraft.server import constraints
from redraft.server.app import create_app
from redraft.server.service import Service
from redraft.server.settings import ServerSettings

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}, "kind": {"enum": ["a", "ab"]}},
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
UNSUPPORTED = {"type": "object", "properties": {"n": {"type": "number", "multipleOf": 0.5}}}
RULES = 'start: "<" [0-9]{2} ">"'


def schema_format(schema: object, **more: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, **more}}


@pytest.fixture(scope="module")
def service(folder):
    service = Service(ServerSettings())
    with redraft.Engine(redraft.load(folder)) as engine:
        service.attach_engine(engine, "tiny")
        yield service
        service.close()


@pytest.fixture(scope="module")
def send(service):
    """Sends requests at once and gives their responses, in order."""
    app = create_app(service)

    async def gather(asked: list[tuple[str, dict]]) -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            return await asyncio.gather(*(client.post(path, json=body) for path, body in asked))

    loop = asyncio.new_event_loop()
    yield lambda *asked: loop.run_until_complete(gather(list(asked)))
    loop.close()


@pytest.fixture(scope="module")
def ask(send):
    def asked(path: str, *, expect: int = 200, **body) -> httpx2.Response:
        prompt = {CHAT: "messages", COMPLETIONS: "prompt", RESPONSES: "input"}[path]
        said = [{"role": "user", "content": "say hello"}] if path == CHAT else "say hello"
        limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
        (response,) = send((path, {prompt: said, limit: 64, **body}))
        assert response.status_code == expect, response.text
        return response

    return asked


def text_of(response: httpx2.Response) -> str:
    body = response.json()
    if "output" in body:
        return body["output"][0]["content"][0]["text"]
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "stop"
    return choice["text"] if "text" in choice else choice["message"]["content"]


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        (
            {"response_format": schema_format(PERSON, strict=True)},
            r'\{"name": ?".*", ?"age": ?(-?\d+|null), ?"kind": ?"ab?"\}',
        ),
        ({"response_format": {"type": "json_object"}}, r"\{.*\}"),
        ({"structured_outputs": {"json": PERSON}}, r'\{"name".*\}'),
        ({"structured_outputs": {"json": json.dumps(PERSON)}}, r'\{"name".*\}'),
        ({"structured_outputs": {"regex": "[ab]{3}"}}, "[ab]{3}"),
        ({"structured_outputs": {"choice": ["1", "10", "100"]}}, "1|10|100"),
        ({"structured_outputs": {"grammar": RULES}}, "<[0-9]{2}>"),
        ({"structured_outputs": {"json_object": True}}, r"\{.*\}"),
        ({"guided_json": PERSON}, r'\{"name".*\}'),
        ({"guided_regex": "[ab]{3}"}, "[ab]{3}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_grammar": RULES}, "<[0-9]{2}>"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_every_field_holds_the_answer(ask, path, fields, pattern):
    assert re.fullmatch(pattern, text_of(ask(path, seed=1, **fields)), re.DOTALL)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
def test_a_choice_has_the_probabilities_of_its_texts(ask, service, path):
    texts = ["1", "10", "100", "yes"]
    if path == RESPONSES:
        held = {"text": {"format": {"type": "json_schema", "name": "it", "schema": PERSON}}}
        assert "choices" not in ask(path, seed=1, **held).json()["canvas"]["constraint"]
        return
    response = ask(path, seed=1, structured_outputs={"choice": texts})
    (choice,) = response.json()["choices"]
    found = choice["canvas"]["constraint"]["choices"]
    assert list(found) == texts
    assert sum(found.values()) == pytest.approx(1)
    if path == CHAT:
        result = service.engine.model.generate("say hello", choice=texts, seed=1, max_new_tokens=64)
        assert (result.text, result.choices) == (text_of(response), found)
        assert result.to_json()["constraint"]["choices"] == found
    causal = ask(path, seed=1, structured_outputs={"choice": texts}, canvas={"mode": "autoregressive"}).json()
    assert "choices" not in causal["choices"][0]["canvas"]["constraint"]


def test_an_answer_has_the_letters_of_its_language_not_of_its_prompt(send):
    said = [{"role": "user", "content": "say O\u2019Brien"}]
    asked = {"messages": said, "guided_choice": ["O'Brien"], "seed": 1, "max_tokens": 64}
    streamed = {**asked, "stream": True, "canvas": {"stream_drafts": True}}
    whole, stream = send((CHAT, asked), (CHAT, streamed))
    assert text_of(whole) == "O'Brien"
    assert "O'Brien" in stream.text
    assert "\u2019" not in stream.text


def test_causal_modes_are_held_too(ask):
    found = {}
    for mode in ("autoregressive", "verified"):
        sampling = {"canvas": {"mode": mode}, "temperature": 1.5, "seed": 1}
        found[mode] = text_of(ask(CHAT, response_format=schema_format(PERSON, strict=True), **sampling))
    assert json.loads(found["verified"]).keys() == {"name", "age", "kind"}
    assert found["autoregressive"] == found["verified"]


def test_responses_have_formats_too(ask):
    named = {"type": "json_schema", "name": "it", "schema": PERSON, "strict": True}
    assert list(json.loads(text_of(ask(RESPONSES, text={"format": named})))) == ["name", "age", "kind"]
    assert isinstance(json.loads(text_of(ask(RESPONSES, text={"format": {"type": "json_object"}}))), dict)
    told = ask(RESPONSES, text={"format": named | {"schema": UNSUPPORTED}}, expect=400).json()["error"]
    assert (told["param"], told["code"]) == ("text.format", "invalid_json_schema")
    told = ask(RESPONSES, text={"format": named}, max_output_tokens=2, expect=400).json()["error"]
    assert told["param"] == "max_output_tokens"


SPECS = {
    "schema": ConstraintSpec(kind="json_schema", text=json.dumps(PERSON)),
    "regex": ConstraintSpec(kind="regex", text="(é|日本|ab)*c"),
    "choice": ConstraintSpec(kind="choice", choices=("a", "ab", "日本", "a dog")),
}
LANGUAGES = {name: build_automaton(table := Expressions(), spec.language(table)) for name, spec in SPECS.items()}
FIELDS = {
    "schema": {"response_format": schema_format(PERSON)},
    "regex": {"structured_outputs": {"regex": SPECS["regex"].text}},
    "choice": {"structured_outputs": {"choice": SPECS["choice"].choices}},
}


@settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(SPECS)), seed=st.integers(0, 2**40), more=st.integers(0, 60),
    length=st.integers(2, 16), temperature=st.sampled_from([0.0, 1.0, 2.0]),
)  # fmt: skip
def test_every_prefix_of_a_stream_is_a_prefix_of_an_answer(ask, service, name, seed, more, length, temperature):
    # This may be the first test of its process.
    service.constraints._start()
    shortest = service.constraints._cache.get(SPECS[name], service.engine.model.vocabulary).min_tokens
    response = ask(
        CHAT, stream=True, seed=seed, temperature=temperature, max_tokens=shortest + more,
        canvas={"canvas_length": length, "steps": 4}, **FIELDS[name],
    )  # fmt: skip
    text, language = "", LANGUAGES[name]
    for line in response.text.splitlines():
        if line.startswith("data: {"):
            (choice,) = json.loads(line.removeprefix("data: "))["choices"]
            text += choice["delta"].get("content", "")
            assert language.state_after(text.encode()) != DEAD, text
    assert language.contains(text.encode())
    assert choice["finish_reason"] == "stop"
    assert choice["canvas"]["constraint"]["states"] > 1


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"response_format": schema_format(UNSUPPORTED, strict=True)}, "response_format", "#/properties/n/multipleOf"),
        ({"structured_outputs": {"json": UNSUPPORTED}}, "structured_outputs.json", "list them in an enum"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "JSON"),
        ({"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs.regex", "character 1"),
        ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs.grammar", "x"),
        ({"structured_outputs": {"regex": "[a-b"}}, "structured_outputs.regex", "character"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "at least 1"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag", "not supported"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing"),
        ({"response_format": {"type": "xml"}}, "response_format", "type is 'xml', must be 'text', 'json_object' or 'j"),
        ({"response_format": {"schema": {}}}, "response_format", "type is missing"),
        ({"response_format": "json"}, "response_format", "must be an object"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "response_format", "one constraint"),
        ({"guided_regex": "a{70}"}, "max_tokens", "has 70 tokens, max_tokens is 64"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos", "does not go with guided_regex"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_place_and_a_way_out(ask, fields, param, reason):
    told = ask(CHAT, expect=400, **fields).json()["error"]
    assert told["param"] == param, told
    assert reason in told["message"], told
    assert told["type"] == "invalid_request_error"


def test_a_schema_that_is_not_strict_is_kept_as_far_as_can_be(ask):
    for schema, kind in ((UNSUPPORTED, dict), ({"type": "array", "contains": {"const": 1}}, list)):
        body = ask(CHAT, response_format=schema_format(schema)).json()
        (choice,) = body["choices"]
        assert isinstance(json.loads(choice["message"]["content"]), kind)
        (warning,) = [one for one in body["warnings"] if "response_format" in one]
        assert "kept only in part, since it is not strict: JSON Schema, #/" in warning
    told = ask(CHAT, response_format=schema_format(UNSUPPORTED), strict=True, expect=400).json()["error"]
    assert told["code"] == "strict"


def test_a_scored_prompt_is_held_to_nothing(ask):
    told = ask(COMPLETIONS, echo=True, max_tokens=0, guided_regex="a", expect=400).json()["error"]
    assert told["param"] == "guided_regex"


def test_what_was_built_is_kept_and_counted(ask, service):
    def metric(name: str) -> float:
        found = re.search(rf"^redraft_{name} (\S+)$", service.metrics.exposition().decode(), re.MULTILINE)
        return float(found[1])

    names = ("constraint_build_seconds_count", "constraint_hits")
    builds, hits = map(metric, names)
    for _ in range(3):
        ask(CHAT, guided_regex="[xyz]{2}")
    assert [metric(name) for name in names] == [builds + 1, hits + 2]
    guided = metric("guided_steps_total")
    (choice,) = ask(CHAT, guided_regex="[xyz]{7}").json()["choices"]
    assert metric("guided_steps_total") == guided + choice["canvas"]["constraint"]["guided_steps"]
    assert all(mass <= 0 for mass in choice["canvas"]["constraint"]["log_mass"])


def test_nobody_waits_for_the_constraints_of_others(send, service, monkeypatch):
    said = {"messages": [{"role": "user", "content": "say hello"}], "seed": 1, "max_tokens": 8}
    known = (CHAT, {**said, "guided_regex": "[xyz]{6}"})
    assert send(known)[0].status_code == 200
    builder = service.constraints._builder

    def slow(spec):
        time.sleep(3)
        return Builder.build(builder, spec)

    monkeypatch.setattr(builder, "build", slow)
    monkeypatch.setattr(constraints, "MAX_WAIT_SECONDS", 1.0)
    new = [(CHAT, {**said, "guided_regex": f"[ghi]{{{n}}}"}) for n in range(2, 7)]
    own, *late, plain, found = send(*new, (CHAT, said), known)
    # On a busy machine the own build may take long: that is no reason to send a client away.
    assert own.status_code == 200
    for response in late:
        assert response.status_code == 429
        assert response.headers["Retry-After"] == "1"
        assert response.json()["error"]["code"] == "constraints_busy"
    assert (plain.status_code, found.status_code) == (200, 200)
    monkeypatch.setattr(builder, "build", functools.partial(Builder.build, builder))
    monkeypatch.setattr(constraints, "MAX_WAIT_SECONDS", 60)
    assert [response.status_code for response in send(*new)] == [200] * len(new)


def test_a_refusal_is_told_again_without_another_build(ask, service, monkeypatch):
    builder, asked = service.constraints._builder, []

    def counted(spec):
        asked.append(spec)
        return Builder.build(builder, spec)

    monkeypatch.setattr(builder, "build", counted)
    refused = {"guided_regex": "(?=never built)", "expect": 400}
    first, second = ask(CHAT, **refused).json(), ask(CHAT, **refused).json()
    assert (first, len(asked)) == (second, 1)
    monkeypatch.setattr(constraints, "REFUSED_SECONDS", 0.0)
    for _ in range(2):
        ask(CHAT, guided_regex="(?=nor built)", expect=400)
    assert len(asked) == 3


def test_many_new_schemas_at_once_and_hostile_ones_among_them(send, monkeypatch):
    monkeypatch.setattr(constraints, "MAX_WAIT_SECONDS", 60)
    said = {"messages": [{"role": "user", "content": "say hello"}], "seed": 1, "max_tokens": 24, "canvas": {"steps": 2}}
    fields = [{"guided_json": {"enum": [f"n{n}", n]}} for n in range(60)]
    fields += [
        {"guided_json": {"enum": ["x" * 50] * 50_000}}, {"guided_json": {"$ref": "#"}},
        {"guided_regex": "(a{1,1000}){1,1000}"}, {"guided_choice": ["y" * 100] * 30_000},
    ]  # fmt: skip
    responses = send(*((CHAT, {**said, **one}) for one in fields))
    for n, response in enumerate(responses[:60]):
        assert json.loads(response.json()["choices"][0]["message"]["content"]) in (f"n{n}", n)
    for response in responses[60:]:
        assert response.status_code == 400
        assert len(response.json()["error"]["message"]) < 500
