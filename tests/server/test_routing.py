"""The router in running servers: between two of ours, and before endpoints that fail."""

import json
import logging

import openai
import pytest

import redraft
from redraft.server.routing.rules import read_rules
from tests.fakes.adapters import adapter_folder
from tests.fakes.batch_endpoint import batch_endpoint
from tests.fakes.openai_server import openai_server
from tests.server.conftest import SECONDS

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
JSON = {"Content-Type": "application/json"}
CATCH_ALL = 'rules = [{name = "all", to = "far"}]\n'


def chat(text="Say it", **fields):
    return {"messages": [{"role": "user", "content": text}], "seed": 1, **fields}


def events(response):
    """The (type, data) of a stream's events."""
    found = []
    for one in response.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in one.split("\n") if not line.startswith(":"))
        if "data" in lines:
            data = lines["data"]
            found.append((lines.get("event"), data if data == "[DONE]" else json.loads(data)))
    return found


@pytest.fixture
def routed(tmp_path, start):
    """Starts a server with the rules of a text."""

    def begin(text, **settings):
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return start(rules=read_rules(path), **settings)

    return begin


@pytest.fixture
def behind(start):
    """The second real server."""
    return start(served_name="second", api_key="its-key")


def counted(server, **labels):
    with server.client() as client:
        text = client.get("/metrics").text
    shown = ",".join(f'{name}="{value}"' for name, value in labels.items())
    lines = [line for line in text.splitlines() if line.startswith("redraft_routed_total{" + shown)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_rule_leads_to_a_mode_and_the_request_s_own_is_kept(routed, server, caplog):
    router = routed(
        'rules = [{name = "typos", to = "causal", words = ["typos"]}]\n[ways.causal]\nmode = "autoregressive"'
    )
    with router.client() as client, server.client() as plain, caplog.at_level(logging.INFO, "redraft.server"):
        answer = client.post(CHAT, json=chat("Fix the Typos: teh"))
        expected = plain.post(CHAT, json=chat("Fix the Typos: teh", canvas={"mode": "autoregressive"})).json()
        other = client.post(CHAT, json=chat("Say it"))
        own = client.post(CHAT, json=chat("Fix the typos: x", canvas={"mode": "verified"})).json()
    body = answer.json()
    route = {"rule": "typos", "way": "causal", "why": "the prompt has 'typos'"}
    assert body["route"] == json.loads(answer.headers["x-redraft-route"]) == route
    assert body["choices"][0]["canvas"]["mode"] == "autoregressive"
    assert body["choices"][0]["message"] == expected["choices"][0]["message"]
    assert other.json()["route"] == {"rule": None, "way": None, "why": "no rule takes it"}
    assert other.json()["choices"][0]["canvas"]["mode"] == "diffusion"
    assert own["choices"][0]["canvas"]["mode"] == "verified"
    assert own["route"]["rule"] == "typos"
    assert any("rule=typos way=causal" in record.getMessage() for record in caplog.records)
    assert counted(router, outcome="answered", rule="typos", way="causal") == 2
    assert counted(router, outcome="answered", rule="none", way="none") == 1


def test_a_rule_leads_to_an_adapter_by_a_name_of_its_own(routed, folder, tmp_path):
    adapter = adapter_folder(tmp_path / "mails", folder, 0)
    router = routed(
        'rules = [{name = "post", to = "mails", models = ["post"]}, {name = "plain", to = "here", models = ["any"]}]\n'
        '[ways.mails]\nadapter = "mails"\n[ways.here]\nmode = "diffusion"',
        load=lambda: redraft.load(folder, adapters={"mails": adapter}),
    )
    model = redraft.load(folder, adapters={"mails": adapter})
    with router.client() as client:
        for name, used in (("post", "mails"), ("any", None)):
            body = client.post(CHAT, json=chat(model=name)).json()
            assert body["model"] == (used or "tiny")
            assert body["choices"][0]["message"]["content"] == model.generate("Say it", seed=1, adapter=used).text
        assert client.post(CHAT, json=chat(model="unknown")).status_code == 404


@pytest.fixture
def between(routed, behind, monkeypatch):
    """A server whose every request goes to the second one."""
    monkeypatch.setenv("ITS_KEY", "its-key")
    return routed(
        f'{CATCH_ALL}[ways.far]\nendpoint = "{behind.url}/v1"\nkey_env = "ITS_KEY"\nmodel = "second"\nredraft = true'
    )


def without(answer, *names):
    """An answer without what differs between two that are the same, in every depth."""
    if isinstance(answer, dict):
        return {name: without(value, *names) for name, value in answer.items() if name not in names}
    return [without(one, *names) for one in answer] if isinstance(answer, list | tuple) else answer


VARYING = ("id", "created", "created_at", "seconds", "route", "cached_tokens", "prompt_tokens_details")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(n=2)),
        (CHAT, chat(canvas={"steps": 3, "mode": "verified"})),
        (COMPLETIONS, {"prompt": "say it", "seed": 1}),
        (RESPONSES, {"input": "Say it", "seed": 1}),
    ],
)
def test_a_second_server_s_answers_pass_through(between, behind, path, body):
    key = {"Authorization": "Bearer its-key"}
    with between.client() as client, behind.client(headers=key) as direct:
        whole, expected = client.post(path, json=body), direct.post(path, json=body)
        assert whole.status_code == 200
        assert without(whole.json(), *VARYING) == without(expected.json(), *VARYING)
        assert whole.json()["model"] == "second"
        assert whole.json()["route"] == {"rule": "all", "way": "far", "why": "it takes every request"}
        streamed, expected = (one.post(path, json={**body, "stream": True}) for one in (client, direct))
        passed = events(streamed)
        assert without(passed, *VARYING, "item_id") == without(events(expected), *VARYING, "item_id")
        assert [data["route"]["way"] for _, data in passed if "route" in data] == ["far"]
        assert json.loads(streamed.headers["x-redraft-route"])["way"] == "far"


def test_drafts_pass_through_and_the_first_chunk_of_the_answer_has_the_route(between):
    body = chat(stream=True, canvas={"stream_drafts": True})
    with between.client() as client:
        found = events(client.post(CHAT, json=body))
    assert found[0][0] == "draft"
    assert "route" not in found[0][1]
    first = next(data for kind, data in found if kind is None)
    assert first["route"]["way"] == "far"
    assert found[-1][1] == "[DONE]"


def test_the_openai_client_reads_what_was_routed(between):
    client = openai.OpenAI(base_url=f"{between.url}/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(model="x", messages=chat()["messages"], seed=1)
    assert answer.model_extra["route"]["way"] == "far"
    chunks = list(client.chat.completions.create(model="x", messages=chat()["messages"], seed=1, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert client.responses.create(model="x", input="Say it", extra_body={"seed": 1}).output_text == text


def test_a_refusal_of_the_second_server_is_passed_on(between):
    with between.client() as client:
        refused = client.post(CHAT, json=chat(canvas={"steps": -1}))
    assert refused.status_code == 400
    assert "the endpoint of way 'far'" in (message := refused.json()["error"]["message"])
    assert "canvas.steps" in message
    assert json.loads(refused.headers["x-redraft-route"])["way"] == "far"
    assert counted(between, outcome="refused", rule="all", way="far") == 1


def far(url, more=""):
    return f'{CATCH_ALL}[ways.far]\nendpoint = "{url}"\n{more}\n[ways.here]\nmode = "diffusion"'


def test_an_endpoint_that_dies_in_the_middle_is_an_error_and_no_other_model(routed):
    with openai_server() as fake:
        router = routed(far(fake.url))
        with router.client() as client:
            for prompt in ("cut", "broken"):
                response = client.post(CHAT, json=chat(prompt, stream=True))
                found = events(response)
                assert response.status_code == 200
                assert found[1][1]["choices"][0]["delta"]["content"] == "Hel"
                error = found[-1][1]["error"]
                assert error["code"] == "endpoint_failed"
                assert error["message"].startswith(
                    f"the endpoint of way 'far', {fake.url}, failed in the middle of the"
                )
                assert found[-1][1] != "[DONE]"
        with openai.OpenAI(base_url=f"{router.url}/v1", api_key="none", max_retries=0) as other:
            stream = other.chat.completions.create(model="x", messages=chat("cut")["messages"], stream=True)
            with pytest.raises(openai.APIError, match="failed in the middle of the answer"):
                list(stream)
        assert counted(router, outcome="failed", rule="all", way="far") == 3
        with router.client() as client:
            assert client.post(CHAT, json=chat("rubbish", stream=True)).text.count("not the protocol") == 1


def test_whole_answers_that_are_none_are_errors(routed):
    with batch_endpoint() as fake, routed(far(fake.url)).client() as client:
        answers = {
            name: client.post(CHAT, json=chat(name)) for name in ("half", "gone", "garbage", "500", "429", "400")
        }
    told = {name: (one.status_code, one.json()["error"]["message"]) for name, one in answers.items()}
    assert {name: status for name, (status, _) in told.items()} == {
        "half": 502, "gone": 502, "garbage": 502, "500": 502, "429": 429, "400": 400,
    }  # fmt: skip
    assert "in the middle of the answer" in told["half"][1]
    assert "is not an answer" in told["garbage"][1]
    assert "answered 500 (oops)" in told["500"][1]
    assert "is busy (slow down)" in told["429"][1]
    assert answers["429"].headers["retry-after"] == "0.1"
    assert "refused the request (400: too long)" in told["400"][1]


def test_a_text_may_have_what_others_take_for_the_end_of_a_line(routed):
    with openai_server() as fake, routed(far(fake.url)).client() as client:
        found = events(client.post(CHAT, json=chat("separators", stream=True)))
    assert [data["choices"][0]["delta"] for _, data in found[1:2]] == [{"content": "a\u2028b\x85c"}]
    assert found[-1][1] == "[DONE]"


def test_a_wrong_key_and_no_server_are_told_without_the_key(routed, monkeypatch):
    monkeypatch.setenv("ITS_KEY", "secret-value")
    with (
        batch_endpoint(key="Bearer other") as fake,
        routed(far(fake.url, 'key_env = "ITS_KEY"')).client() as client,
    ):
        refused = client.post(CHAT, json=chat())
    assert refused.status_code == 502
    assert "refuses the key of ITS_KEY (401: wrong key)" in refused.json()["error"]["message"]
    with routed(far(fake.url)).client() as client:
        gone = client.post(CHAT, json=chat())
    assert gone.status_code == 502
    assert "failed before it answered (no connection" in gone.json()["error"]["message"]
    assert "secret-value" not in refused.text + gone.text


@pytest.mark.parametrize("prompt", ["cut", "busy", "plain error"])
def test_a_rule_may_say_that_a_failure_falls_back(routed, prompt):
    with openai_server() as fake:
        router = routed(far(fake.url, 'on_failure = true\nfallback = "here"'))
        with router.client() as client:
            found = events(client.post(CHAT, json=chat(prompt, stream=True)))
            plain = client.post(CHAT, json=chat("plain"))
    first = found[0][1]
    assert first["model"] == "tiny"
    assert first["route"]["way"] == "here"
    (left,) = first["route"]["tried"]
    assert left["way"] == "far"
    assert "it failed" in left["why"]
    assert found[-1][1] == "[DONE]"
    assert not any((data["choices"] or [{"delta": {}}])[0]["delta"].get("content") == "Hel" for _, data in found[:-1])
    assert plain.json()["choices"][0]["message"]["content"] == "Hello"
    assert counted(router, outcome="fallback", rule="all", way="far") == 1


def test_our_own_fields_are_left_out_for_other_servers_and_this_is_told(routed):
    with openai_server() as fake, routed(far(fake.url)).client() as client:
        answer = client.post(CHAT, json=chat("plain", canvas={"steps": 3}, top_p=0.5, model="gpt"))
        strict = client.post(CHAT, json=chat("plain", canvas={"steps": 3}, strict=True))
        _, key, seen = fake.seen[0]
    assert answer.json()["route"]["left_out"] == ["canvas"]
    assert seen == {**chat("plain"), "top_p": 0.5, "model": "gpt"}
    assert key is None
    assert strict.status_code == 400
    assert strict.json()["error"]["code"] == "strict"
    assert len(fake.seen) == 1


def test_a_key_that_occurs_twice_is_refused_before_any_way(routed):
    content = json.dumps(chat())[:-1] + ', "seed": 2}'
    with openai_server() as fake, routed(far(fake.url)).client() as client:
        refused = client.post(CHAT, content=content, headers=JSON)
        marked = client.post(CHAT, content=b"\xef\xbb\xbf" + json.dumps(chat("plain")).encode(), headers=JSON)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "seed")
    assert marked.json()["choices"][0]["message"]["content"] == "Hello"
    assert len(fake.seen) == 1


def test_two_servers_that_send_to_each_other_end_in_an_error(routed):
    first = routed(far("http://127.0.0.1:9/v1"))
    second = routed(far(f"{first.url}/v1", "redraft = true"))
    # The first learns where the second is after both have their ports.
    way = first.server.service.settings.rules.ways["far"]
    object.__setattr__(way, "endpoint", f"{second.url}/v1")
    with second.client() as client:
        refused = client.post(CHAT, json=chat())
    assert "the rules of the servers that this request passed send it in a circle" in refused.json()["error"]["message"]
    assert refused.status_code == 502


def test_bodies_that_are_no_requests_are_refused_as_ever(between):
    with between.client() as client:
        for content in ("[1]", "{", '{"a": NaN}'):
            refused = client.post(CHAT, content=content, headers={"Content-Type": "application/json"})
            assert refused.status_code == 400
        assert client.get("/v1/models").status_code == 200


def test_the_command_refuses_rules_that_lead_nowhere(command, tmp_path):
    path = tmp_path / "rules.toml"
    for text, wrong in (
        (CATCH_ALL, "rule 'all', to is 'far', which is not a way of the file"),
        (CATCH_ALL + '[ways.far]\nadapter = "mails"', "adapter is 'mails', which is not loaded; there are none"),
    ):
        path.write_text(text)
        status, _, error = command("--route", path, wait=False).end()
        assert status != 0
        assert wrong in " ".join(error.split())


@pytest.fixture(scope="module")
def bundled():
    return redraft.load()


def test_an_answer_that_is_not_trusted_falls_back(routed, bundled):
    """The bundled model has a calibration; the way to fall back to is the same weights token by token."""
    router = routed(
        'rules = [{name = "careful", to = "canvas"}]\n[ways.canvas]\nmode = "diffusion"\nmin_trust = 0.9\n'
        'fallback = "causal"\n[ways.causal]\nmode = "autoregressive"',
        load=lambda: bundled,
    )
    easy = chat("Write the date as YYYY-MM-DD: 3 March 2024")
    hard = chat(
        "Extract iban, name, amount as JSON: DE89 3704 0044 0532 0130 00 / R. Curci-Vandermeer / 1'204,99 CHF / QX-2291"
    )
    cut = chat("What is it?", max_tokens=8)
    with router.client() as client:
        kept, left, ended = (client.post(CHAT, json=one).json() for one in (easy, hard, cut))
        streamed = events(client.post(CHAT, json={**hard, "stream": True}))
    assert kept["route"] == {"rule": "careful", "way": "canvas", "why": "it takes every request"}
    assert kept["choices"][0]["trust"]["probability"] >= 0.9
    assert left["route"]["way"] == "causal"
    (tried,) = left["route"]["tried"]
    assert tried["way"] == "canvas"
    assert "below 0.9" in tried["why"]
    assert left["choices"][0]["canvas"]["mode"] == "autoregressive"
    assert ended["route"]["tried"][0]["why"] == "its answer is right with a probability of 0, below 0.9"
    text = "".join(data["choices"][0]["delta"].get("content", "") for _, data in streamed[:-1])
    assert text == left["choices"][0]["message"]["content"]
    assert streamed[0][1]["route"] == left["route"]


def test_a_model_without_calibration_has_no_bound_on_trust(routed):
    router = routed(
        CATCH_ALL + '[ways.far]\nmin_trust = 0.5\nfallback = "here"\n[ways.here]\nmode = "auto"', wait=False
    )
    router._thread.join(SECONDS)
    assert "min_trust is 0.5, but the model has no calibration" in str(router.error)
