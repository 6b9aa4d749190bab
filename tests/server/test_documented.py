"""docs/serving.md names every route, field, option, bound and metric that there is, and none that there is not."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from redraft.cli.main import app as cli
from redraft.server.app import create_routes
from redraft.server.openai.requests import Canvas, ChatRequest, CompletionRequest, GenerationRequest, Message
from redraft.server.service import Service
from redraft.server.settings import ServerSettings

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"[`./{\"-]([a-z][a-z_-]*)", PAGE))
METRICS = ("_total", "_bucket", "_count", "_sum", "_created")


@pytest.mark.parametrize("model", [ChatRequest, CompletionRequest, GenerationRequest, Canvas, Message])
def test_every_field_of_a_request(model):
    assert model.model_fields.keys() - NAMED - {"refusal", "audio", "function_call", "annotations"} == set()


def test_every_route():
    for path in create_routes(Service(ServerSettings())).openapi()["paths"]:
        assert path.replace("{model}", "NAME").replace("{name}", "NAME") in PAGE, path


def test_every_metric():
    service = Service(ServerSettings())
    names = re.findall(r"^# TYPE redraft_(\w+)", service.metrics.exposition().decode(), flags=re.MULTILINE)
    missing = [name for name in names if not name.endswith("_created") and f"`{name}" not in PAGE and name not in PAGE]
    assert missing == []
    assert len(names) > 10


def test_every_option():
    options = get_command(cli).commands["serve"].load().params
    names = [name for option in options for name in option.opts if name.startswith("--")]
    assert [name for name in names if name not in PAGE and name != "--help"] == []
    known = {*names, "--against-server", "--schema"}
    assert set(re.findall(r"`(--[a-z-]+)`", PAGE)) - known == set()
