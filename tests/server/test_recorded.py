"""What everyday clients sent when they were tried (docs/clients.md), sent again: answered, or refused for a reason."""

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

import redraft
from redraft.server.app import create_app
from redraft.server.service import Service
from redraft.server.settings import ServerSettings
from redraft.text.trust.calibration import read_calibration
from redraft.weights.fetch import resolve

LINES = (Path(__file__).parent / "recorded_requests.jsonl").read_text(encoding="utf-8").splitlines()
RECORDED = [json.loads(line) for line in LINES]


@pytest.fixture(scope="module", params=["without tools", "with tools"])
def ask(request, folder, thinking_folder):
    """Sends a request to a model that is calibrated and has no tools, as the bundled one, or to one that has tools."""
    model = redraft.load(folder if request.param == "without tools" else thinking_folder)
    if request.param == "without tools":
        model.calibration = read_calibration(resolve("bundled"))
        assert model.is_scored(None)
    service = Service(ServerSettings(served_name="bundled"))
    app = create_app(service)
    loop = asyncio.new_event_loop()

    async def sent(path: str, body: object) -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
            return await client.post(path, json=body, timeout=60)

    with redraft.Engine(model) as engine:
        service.attach_engine(engine, "tiny")
        yield lambda path, body: loop.run_until_complete(sent(path, body)), request.param == "with tools"
    loop.close()


def test_each_request_is_answered_or_refused_for_its_reason(ask):
    send, has_tools = ask
    for recorded in RECORDED:
        if has_tools and "tools" not in recorded["body"]:
            continue
        body, param = recorded["body"], recorded.get("param")
        if "messages" in body or "input" in body:
            body = body | {("max_output_tokens" if "input" in body else "max_tokens"): 32}
        response = send(recorded["path"], body)
        where = (recorded["client"], recorded["path"], recorded["body"], response.text)
        if param is None or (has_tools and param == "tools"):
            assert response.status_code == 200, where
            assert '"error"' not in response.text, where
            continue
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param), where
        assert "tools" in error["message"], where
        assert "leave" in error["message"], where


def test_each_client_of_the_page_was_recorded():
    page = (Path(__file__).parents[2] / "docs/clients.md").read_text(encoding="utf-8")
    for client in {recorded["client"] for recorded in RECORDED}:
        assert client.rpartition(" ")[2] in page, client
