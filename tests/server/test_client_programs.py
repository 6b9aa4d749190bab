"""Structured output of other people's packages as they come, in environments of their own: slow, and needs an index."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redraft.benchmark.load.serving import Serving, serving

PROGRAMS = Path(__file__).with_name("client_programs.py")
ENVIRONMENTS = "REDRAFT_CLIENT_ENVIRONMENTS"
"""A folder with environments that are there already, named as here."""
PACKAGES = {"instructor": "instructor==1.17.0", "langchain": "langchain-openai==1.7.4", "llm": "llm==0.36"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving("bundled") as running:
        yield running


@pytest.fixture
def python(request, tmp_path) -> Path:
    """The interpreter of a package's own environment."""
    name = request.param
    folder = Path(os.environ[ENVIRONMENTS]) / name if ENVIRONMENTS in os.environ else tmp_path / name
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        installed = subprocess.run([folder / "bin/pip", "install", "-q", PACKAGES[name]], check=False, timeout=500)
        if installed.returncode:
            pytest.skip(f"{PACKAGES[name]} cannot be installed here")
    return folder / "bin/python"


def output(*command: object, **environment: str) -> str:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | environment
    ended = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("python", ["instructor", "langchain"], indirect=True)
def test_answers_are_objects_of_the_class_that_was_asked_for(python, server):
    name = python.parents[1].name
    lines = output(python, PROGRAMS, name, f"{server.url}/v1").splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["{'city': 'Porto'}"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("python", ["llm"], indirect=True)
def test_llm_with_a_schema_and_without_our_plugin(python, server, tmp_path):
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: redraft\n  model_name: bundled\n  api_base: {server.url}/v1\n  supports_schema: true\n"
    )
    asked = ("-m", "redraft", "--schema", json.dumps(SCHEMA), "Extract city as JSON: I live in Porto.")
    found = output(python.with_name("llm"), *asked, LLM_USER_PATH=str(tmp_path), OPENAI_API_KEY="none")
    assert json.loads(found) == {"city": "Porto"}
