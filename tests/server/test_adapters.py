"""Adapters in the API: models of their own, which may come and go."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import redraft
from tests.fakes.adapters import adapter_folder
from tests.fakes.checkpoints import tiny_checkpoint
from tests.server.conftest import InThread


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    checkpoint = tiny_checkpoint(root / "tiny")
    for seed, name in enumerate(("mails", "allowed/notes", "allowed/other")):
        adapter_folder(root / name, checkpoint, seed)
    adapter_folder(root / "allowed/foreign", checkpoint, 1, base="0" * 64)
    (root / "allowed/link").symlink_to(root / "mails")
    return root


@pytest.fixture(scope="module")
def expected(root: Path) -> dict[str, str]:
    folders = {"mails": root / "mails", "notes": root / "allowed/notes"}
    model = redraft.load(root / "tiny", adapters=folders)
    return {name or "tiny": model.generate("Say it", seed=1, adapter=name).text for name in (None, *folders)}


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[InThread]:
    def load() -> redraft.Model:
        return redraft.load(root / "tiny", adapters={"mails": root / "mails"})

    server = InThread(root, load=load, adapter_root=root / "allowed").wait()
    yield server
    server.stop()


def ask(client: httpx2.Client, model: str | None = None, **fields: object) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Say it"}], "seed": 1, **fields}
    return client.post("/v1/chat/completions", json=body)


def test_adapters_are_models_that_come_and_go(server: InThread, expected: dict[str, str]) -> None:
    assert len(set(expected.values())) == 3
    with server.client() as client:

        def served() -> dict[str, str | None]:
            return {one["id"]: one.get("parent") for one in client.get("/v1/models").json()["data"]}

        def text(name: str) -> str:
            answer = ask(client, name).json()
            assert answer["model"] == name
            return answer["choices"][0]["message"]["content"]

        assert served() == {"tiny": None, "mails": "tiny"}
        assert [text(name) for name in ("tiny", "mails")] == [expected["tiny"], expected["mails"]]
        loaded = client.post("/v1/adapters", json={"name": "notes", "path": "notes"})
        assert loaded.json()["parent"] == "tiny"
        assert text("notes") == expected["notes"]
        # In one batch.
        found: dict[int, str] = {}
        names = ["tiny", "mails", "notes"] * 3
        threads = [threading.Thread(target=lambda i=i: found.update({i: text(names[i])})) for i in range(len(names))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[i] for i in range(len(names))] == [expected[name] for name in names]
        streamed = ask(client, "notes", stream=True).text
        assert '"model":"notes"' in streamed
        assert client.post("/v1/adapters", json={"name": "notes", "path": "other"}).status_code == 409
        assert client.delete("/v1/adapters/notes").json() == {"id": "notes", "object": "model", "deleted": True}
        assert ask(client, "notes").json()["error"]["message"] == "there is no model 'notes', only 'tiny', 'mails'"
        assert client.delete("/v1/adapters/notes").status_code == 404
        assert served() == {"tiny": None, "mails": "tiny"}


def test_an_adapter_in_use_answers_to_the_end(server: InThread) -> None:
    with server.client() as client, server.client() as other:
        client.post("/v1/adapters", json={"name": "busy", "path": "other"}).raise_for_status()
        body = {"model": "busy", "prompt": "Say", "seed": 1, "max_tokens": 200, "stream": True, "ignore_eos": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            events = answer.iter_lines()
            next(events)
            gone: list[httpx2.Response] = []
            thread = threading.Thread(target=lambda: gone.append(other.delete("/v1/adapters/busy")))
            thread.start()
            rest = [json.loads(line[6:]) for line in events if line.startswith("data: {")]
        thread.join()
    assert rest[-1]["choices"][0]["finish_reason"] == "length"
    assert gone[0].status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "x", "path": "../mails"}, 400, "not a folder below the allowed one"),
        ({"name": "x", "path": "link"}, 400, "not a folder below the allowed one"),
        ({"name": "x", "path": "/etc"}, 400, "not a folder below the allowed one"),
        ({"name": "x", "path": "no\0thing"}, 400, "not a folder below the allowed one"),
        ({"name": "x", "path": "foreign"}, 400, "was trained on another base"),
        ({"name": "x", "path": "."}, 400, "adapter_config.json"),
        ({"name": "tiny", "path": "notes"}, 409, "there is a model 'tiny' already"),
        ({"name": "a/b", "path": "notes"}, 400, "name: "),
        ({"path": "notes"}, 400, "name: is missing"),
    ],
)
def test_what_is_refused(server: InThread, body: dict[str, str], status: int, message: str) -> None:
    with server.client() as client:
        answer = client.post("/v1/adapters", json=body)
        assert answer.status_code == status
        assert message in answer.json()["error"]["message"]
        assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["tiny", "mails"]


def test_changes_have_to_be_allowed(root: Path) -> None:
    server = InThread(root / "tiny").wait()
    try:
        with server.client() as client:
            refused = client.post("/v1/adapters", json={"name": "x", "path": str(root / "mails")})
            assert refused.status_code == 403
            assert "--allow-adapter-changes" in refused.json()["error"]["message"]
            assert client.delete("/v1/adapters/tiny").status_code == 403
    finally:
        server.stop()
