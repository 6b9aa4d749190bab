"""Bodies of requests that are no plain JSON in UTF-8, or say a thing twice: read, or refused by what they are."""

import asyncio
import gzip
import json

import httpx2
import pytest

import redraft
from redraft.server.app import create_app
from redraft.server.service import Service
from redraft.server.settings import ServerSettings
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.engines import ScriptedEngine

BODY = json.dumps({"messages": [{"role": "user", "content": "where is it?"}]})


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Service(ServerSettings())
    with ScriptedEngine(redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny"))) as engine:
        service.attach_engine(engine, "tiny")
        engine.ids = tuple(engine.model.tokenizer.encode("the dog"))
        yield service


def send(service, content: bytes, **headers: str) -> httpx2.Response:
    async def sent() -> httpx2.Response:
        transport = httpx2.ASGITransport(create_app(service))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            typed = {"Content-Type": "application/json", **headers}
            return await client.post("/v1/chat/completions", content=content, headers=typed)

    return asyncio.run(sent())


def test_an_encoded_body_is_refused_with_the_way_out(service):
    response = send(service, gzip.compress(BODY.encode()), **{"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert "'gzip'" in response.json()["error"]["message"]
    assert "without Content-Encoding" in response.json()["error"]["message"]
    assert send(service, BODY.encode(), **{"Content-Encoding": "identity"}).status_code == 200


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(BODY.encode()), "is compressed with gzip"), (BODY.encode("utf-16"), "is UTF-16"),
        (BODY.encode("utf-16-le"), "is UTF-16"), (BODY.encode("utf-16-be"), "is UTF-16"),
        (BODY.encode("utf-32"), "is UTF-16 or UTF-32"), (b"{", "is not valid JSON"),
        (b"\xef\xbb\xbf \n", "is empty; send"), (b'{"a": "caf\xe9"}', "is not UTF-8: byte 0xe9 at 10"),
        (rb'{"a": "\ud83d"}', "holds half a surrogate pair"), (rb'{"a": "\u12"}', "is not valid JSON"),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_body_of_another_kind_is_called_by_its_name(service, content, kind):
    error = send(service, content).json()["error"]
    assert (error["param"], error["code"]) == (None, "invalid_json")
    assert error["message"].startswith(f"the request body {kind}")


def test_the_mark_of_utf_8_says_nothing(service):
    assert send(service, BODY.encode("utf-8-sig")).status_code == 200


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (BODY[:-1] + ', "seed": 1, "seed": 2}', "seed"), (BODY[:-1] + ', "seed": 1, "s\\u0065ed": null}', "seed"),
        ('{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "content"),
        (BODY[:-1] + ', "user": "' + "x" * 100_000 + '", "user": "y"}', "user"),
        (BODY[:-1] + f', "{"k" * 999}": 1, "{"k" * 999}": 1}}', "k" * 200),
    ],
)  # fmt: skip
def test_a_key_that_occurs_twice_is_refused(service, content, key):
    response = send(service, content.encode())
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, key, "invalid_json")
    assert error["message"] == f"the key '{key}' occurs twice in an object of the request body"


def test_a_body_that_comes_to_no_route_counts_as_its_routes(service):
    before = {(sample.labels["route"], sample.labels["status"]): sample.value for sample in samples(service)}
    assert send(service, b"", **{"Content-Type": "text/plain"}).status_code == 415
    counted = {(sample.labels["route"], sample.labels["status"]): sample.value for sample in samples(service)}
    added = {key: value - before.get(key, 0) for key, value in counted.items() if value > before.get(key, 0)}
    assert added == {("/v1/chat/completions", "415"): 1}


def samples(service):
    (family,) = service.metrics.requests.collect()
    return [sample for sample in family.samples if sample.name.endswith("_total")]
