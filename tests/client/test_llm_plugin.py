"""The real `llm` command with our plugin, on a real `redraft serve`."""

import asyncio
import importlib
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import llm
import pytest

from redraft import SETTINGS
from redraft.benchmark.load.serving import Serving, serving
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.openai_server import openai_server

ROOT = Path(__file__).parents[2]
# An installed checkout is found by its entry point; one that was installed before it had that is registered.
COMMAND = """
import sys
from llm import cli
from llm.plugins import load_plugins, pm
load_plugins()
if not any(name == "redraft" for name, _ in pm.list_name_plugin()):
    from redraft.client import llm_plugin
    pm.register(llm_plugin, "redraft")
cli.cli(prog_name="llm")
"""


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> Iterator[Serving]:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("turns"))
    card = json.loads((folder / "redraft.json").read_text())
    (folder / "redraft.json").write_text(json.dumps(card | {"single_turn": False}))
    with serving(str(folder), "--served-model-name", "tiny", "--api-key", "k") as running:
        yield running


@pytest.fixture
def ask(tmp_path, ours):
    """Runs `llm` with arguments; returns exit code, standard output and standard error."""

    def call(*arguments: object, url: str = ours.url, key: str = "k") -> tuple[int, str, str]:
        environment = os.environ | {
            "LLM_USER_PATH": str(tmp_path), "PYTHONPATH": str(ROOT / "src"), "REDRAFT_URL": url, "REDRAFT_API_KEY": key,
        }  # fmt: skip
        ended = subprocess.run(
            [sys.executable, "-c", COMMAND, *map(str, arguments)], env=environment, text=True, capture_output=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return ended.returncode, ended.stdout, ended.stderr

    return call


@pytest.fixture
def here(monkeypatch, ours, tmp_path):
    """The plugin in this process."""
    from redraft.client import llm_plugin

    monkeypatch.setenv("REDRAFT_URL", ours.url)
    monkeypatch.setenv("REDRAFT_API_KEY", "k")
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return llm_plugin


def test_the_entry_point_names_a_plugin():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["llm"]
    assert hasattr(importlib.import_module(named["redraft"]), "register_models")


def test_reading_the_plugin_costs_llm_next_to_nothing():
    code = "import time, llm, sys; begun = time.process_time(); import redraft.client.llm_plugin; "
    code += "print(time.process_time() - begun, 'torch' in sys.modules)"
    path = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    told = subprocess.run([sys.executable, "-c", code], env=path, text=True, capture_output=True, check=True).stdout
    seconds, torch = told.split()
    assert (float(seconds) < 0.5, torch) == (True, "False")


def test_the_models_of_the_server_are_listed_with_their_options(ask):
    code, out, err = ask("models", "-m", "redraft/tiny", "--options")
    assert (code, err) == (0, "")
    assert "Redraft: redraft/tiny" in out
    for name in ("max_tokens", "stop", *(one.name for one in SETTINGS if one.name not in ("max_new_tokens", "index"))):
        assert f"{name}:" in out


def beside_warnings(err: str) -> list[str]:
    """The lines of standard error, without what may be wrong with an answer: the tiny model's are all cut."""
    return [line for line in err.splitlines() if not line.startswith("redraft: warning: ")]


def test_what_may_be_wrong_with_an_answer_is_told_and_kept(ask, here, capsys):
    asked = ("say hello", "-m", "redraft/tiny", "-o", "seed", 1, "-o", "max_tokens", 8)
    warning = "the answer is cut after 8 tokens: the limit on new tokens, or the model's context, ends it"
    assert f"redraft: warning: {warning}\n" in ask(*asked)[2]
    response = here.Redraft("tiny").prompt("say hello", seed=1, max_tokens=8)
    assert response.text()
    assert warning in response.response_json["warnings"]
    assert warning in capsys.readouterr().err


def test_a_prompt_its_options_and_what_is_logged_of_it(ask):
    asked = ("-m", "redraft/tiny", "-o", "seed", 1, "-o", "max_tokens", 16, "-o", "steps", 2, "-o", "canvas_length", 4)
    code, out, err = ask("say hello", *asked, "-s", "the dog sleeps")
    assert (code, beside_warnings(err)) == (0, [])
    assert out.strip()
    assert ask("say hello", *asked, "-s", "the dog sleeps", "--no-stream")[1] == out
    assert ask("say hello", *asked)[1] != out
    (logged,) = json.loads(ask("logs", "-n", 1, "--json")[1])
    assert (logged["model"], logged["prompt"]) == ("redraft/tiny", "say hello")
    assert logged["options_json"] == {"seed": 1, "max_tokens": 16, "steps": 2, "canvas_length": 4}
    assert logged["input_tokens"] > 0
    assert 0 < logged["output_tokens"] <= 16
    assert json.loads(logged["token_details"])["denoising_steps"] <= 8


def test_a_conversation_goes_on_with_what_was_said(ask, here):
    asked = ("-m", "redraft/tiny", "-o", "seed", 1, "-o", "max_tokens", 8)
    first = ask("say hello", *asked)[1].removesuffix("\n")
    code, second, err = ask("and again", "-c", *asked[2:])
    assert (code, beside_warnings(err)) == (0, [])
    model = here.Redraft("tiny")
    conversation = model.conversation()
    options = {"seed": 1, "max_tokens": 8}
    assert conversation.prompt("say hello", **options).text() == first
    assert conversation.prompt("and again", **options).text() == second.removesuffix("\n")
    alone = model.prompt("and again", **options)
    assert alone.text()
    (grown, single) = (conversation.responses[-1].usage().input, alone.usage().input)
    assert grown > single


def test_text_comes_in_pieces_and_from_event_loops(here):
    options = {"seed": 1, "max_tokens": 40, "canvas_length": 8}
    pieces = list(here.Redraft("tiny").prompt("say hello", **options))
    assert len(pieces) > 1

    async def run() -> list[str]:
        response = here.AsyncRedraft("tiny").prompt("say hello", **options)
        told = [piece async for piece in response]
        assert (await response.usage()).output > 0
        return told

    assert asyncio.run(run()) == pieces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "temperature", 9), "temperature: must be less than or equal to 2"),
        (("-o", "t_min", 0.9, "-o", "t_max", 0.1), "t_min"),
        (("-o", "max_tokens", 4000), "max_tokens is 4000, but the context holds 256"),
        (("-o", "steps", "many"), "steps"),
        (("-o", "speed", 3), "speed"),
        (("--key", "wrong"), "the API key is missing or wrong"),
    ],
)
def test_what_the_server_refuses_is_said_in_its_words(ask, arguments, message):
    code, out, err = ask("say hello", "-m", "redraft/tiny", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9", "no server at http://127.0.0.1:9: start `redraft serve`, or set REDRAFT_URL"),
        ("http://[", "no server at http://[: start `redraft serve`, or set REDRAFT_URL"),
        ("http://x:port", "REDRAFT_URL is 'http://x:port', which is not a URL (Invalid port: 'port'); it must be like"),
        ("localhost:9/v1", "REDRAFT_URL is 'localhost:9', must be like http://127.0.0.1:8000"),
    ],
)
def test_without_a_server_other_commands_work_and_a_prompt_says_what_to_do(ask, url, message):
    begun = time.perf_counter()
    code, out, _ = ask("models", "list", url=url)
    assert code == 0
    assert "redraft/bundled" in out
    assert time.perf_counter() - begun < 20
    code, out, err = ask("say hello", "-m", "redraft/bundled", url=url)
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {message}")
    assert err.count("\n") == 1


def test_a_key_that_llm_keeps_is_used(ask):
    assert ask("keys", "set", "redraft", "--value", "k")[0] == 0
    code, out, err = ask("say hello", "-m", "redraft/tiny", "-o", "max_tokens", 8, key="")
    assert (code, beside_warnings(err)) == (0, [])
    assert out


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("broken", "the stream ended before the answer did"),
        ("cut", "the connection to http://127.0.0.1:.* broke"),
        ("error inside", "http://127.0.0.1:.*: out of memory"),
        ("rubbish", "does not speak the protocol of `redraft serve`: '{not json'"),
        ("half a usage", "does not speak the protocol of `redraft serve`: its usage has no 'prompt_tokens'"),
    ],
)
def test_a_stream_that_fails_is_a_models_error(here, monkeypatch, prompt, message):
    with openai_server() as server:
        monkeypatch.setenv("REDRAFT_URL", server.url)
        with pytest.raises(llm.ModelError, match=message):
            here.Redraft("m").prompt(prompt).text()

        async def run() -> str:
            return await here.AsyncRedraft("m").prompt(prompt).text()

        with pytest.raises(llm.ModelError, match=message):
            asyncio.run(run())


def test_a_schema_holds_the_answer(ask):
    code, out, err = ask("-m", "redraft/tiny", "hello", "--schema", "name, age int", "-o", "max_tokens", 60)
    assert code == 0, err
    answer = json.loads(out)
    assert list(answer) == ["name", "age"]
    assert isinstance(answer["age"], int)
    code, _, err = ask(
        "-m", "redraft/tiny", "hello", "--schema", '{"type": "object", "contains": {}, "if": {}, "then": {}}'
    )
    assert code != 0
    assert "JSON Schema, #/if" in err
