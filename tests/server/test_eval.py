"""`redraft eval --endpoint`: the same scores from a server as from the model that it serves."""

import json

import pytest
from typer.testing import CliRunner

from redraft.cli.main import app
from redraft.client.stream import Endpoint
from redraft.evaluation.subject import EndpointSubject
from tests.fakes.openai_server import openai_server

ALIKE = ("examples", "exact", "valid_json", "fields_right", "steps_per_canvas", "tokens_per_forward")


def run(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)])


def summary(*arguments: object) -> dict:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_server_is_scored_as_its_model_is(server, folder):
    here = summary("eval", "extract", "-m", folder, "--examples", 2, "--seed", 5)
    there = summary("eval", "extract", "--endpoint", f"{server.url}/v1", "--examples", 2, "--seed", 5)
    assert {name: here[name] for name in ALIKE} == {name: there[name] for name in ALIKE}
    assert there["settings"] == {"seed": 5}
    assert there["endpoint"] == f"{server.url}/v1"
    assert there["tokens_per_second"] > 0
    # Which tokens they were only the server knows.
    assert there["repetition"] is None


def test_canvas_settings_reach_the_server(server):
    settings = ("--steps", "1", "--canvas-length", "8", "--max-new-tokens", "8")
    found = summary("eval", "extract", "--endpoint", f"{server.url}/v1", "--examples", 1, *settings)
    assert found["steps_per_canvas"] == 1
    assert found["settings"] == {"seed": 0, "max_tokens": 8, "canvas": {"canvas_length": 8, "steps": 1}}


def test_a_mode_reaches_the_server(server, folder):
    for mode in ("verified", "autoregressive"):
        here = summary("eval", "extract", "-m", folder, "--examples", 1, "--mode", mode)
        there = summary("eval", "extract", "--endpoint", f"{server.url}/v1", "--examples", 1, "--mode", mode)
        assert {name: here[name] for name in ALIKE[:4]} == {name: there[name] for name in ALIKE[:4]}
        assert there["settings"] == {"seed": 0, "canvas": {"mode": mode}}


def test_the_mode_of_a_server_is_told(start):
    causal = start(mode="auto")
    assert summary("eval", "extract", "--endpoint", f"{causal.url}/v1", "--examples", 1)["mode"] == "auto"


def test_a_server_that_does_not_tell_its_mode_is_asked_for_none():
    with openai_server() as other:
        assert EndpointSubject(Endpoint(url=other.url, model="m")).respond("plain").text
        subject = EndpointSubject(Endpoint(url=other.url, model="m"), "verified")
        with pytest.raises(ValueError, match="does not say that it answered in mode 'verified'"):
            subject.respond("plain")
        assert other.seen[1][2]["canvas"] == {"mode": "verified"}


def test_generated_tasks_of_a_server(server):
    told = summary("eval", "needle", "--endpoint", f"{server.url}/v1", "--lengths", "60", "--depths", "0,1")
    assert told["groups"].keys() == {"60 tokens, depth 0", "60 tokens, depth 1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--api-key-env", "KEY"), "--api-key-env has no effect without --endpoint"),
        (
            ("--endpoint", "http://127.0.0.1:9/v1", "--constrained"),
            "--constrained holds the answers of a model in this process; leave out --endpoint",
        ),
        (("--mode", "greedy"), "--mode is 'greedy', must be one of diffusion, autoregressive, verified, auto"),
        (("--endpoint", "http://127.0.0.1:9/v1", "--index", "3"), "--index has no field in a request to a server"),
        (("--endpoint", "http://127.0.0.1:9/v1"), "is the server running?"),
        (("--endpoint", "nowhere"), "must be like http://localhost:8000/v1"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_asked(arguments, message):
    result = run("eval", "extract", *arguments)
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)


def test_an_answer_that_fails_ends_the_measurement(server):
    rows = ("--endpoint", f"{server.url}/v1", "--max-new-tokens", "100000")
    result = run("eval", "extract", *rows, "--examples", 1)
    assert "did not answer (HTTP 400): max_tokens is 100000" in str(result.exception)
