"""How answers are written where a request does not say: as the server was told, else as the model's card says."""

import dataclasses

import pytest

import redraft
from tests.server.conftest import SECONDS

CHAT = {"messages": [{"role": "user", "content": "Say it"}], "seed": 1}


def with_card(folder, mode):
    model = redraft.load(folder)
    model.card = dataclasses.replace(model.card, mode=mode)
    return lambda: model


@pytest.mark.parametrize(
    ("card", "told", "expected"),
    [("", None, "diffusion"), ("verified", None, "verified"), ("verified", "auto", "auto")],
)
def test_the_card_says_how_where_the_command_does_not(start, folder, card, told, expected):
    server = start(load=with_card(folder, card), mode=told)
    with server.client() as client:
        assert client.get("/v1/models").json()["data"][0]["mode"] == expected
        answer = client.post("/v1/chat/completions", json=CHAT).json()
        own = client.post("/v1/chat/completions", json={**CHAT, "canvas": {"mode": "diffusion"}}).json()
    assert answer["choices"][0]["canvas"]["mode"] == expected
    assert own["choices"][0]["canvas"]["mode"] == "diffusion"


@pytest.mark.parametrize("canvas", [{"stopping": "every_position_confident"}, {"start": "a", "pinned": True}])
def test_what_only_a_canvas_has_asks_for_one(start, folder, canvas):
    server = start(load=with_card(folder, "auto"))
    with server.client() as client:
        told = client.post("/v1/chat/completions", json={**CHAT, "canvas": canvas}).json()
        refused = client.post("/v1/chat/completions", json={**CHAT, "canvas": {**canvas, "mode": "auto"}})
    assert told["choices"][0]["canvas"]["mode"] == "diffusion"
    assert refused.status_code == 400


def test_a_card_with_an_unknown_mode_is_not_served(start, folder):
    server = start(load=with_card(folder, "fast"), wait=False)
    server._thread.join(SECONDS)
    assert "has mode 'fast', must be one of diffusion, autoregressive, verified, auto" in str(server.error)


@pytest.mark.parametrize(
    ("path", "asked"), [("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "Say it", "seed": 1})]
)
def test_answers_that_are_all_the_same_are_told(start, folder, path, asked):
    server = start(load=with_card(folder, "auto"))
    alike = "all 2 answers are the same: give a temperature, or mode 'diffusion'"
    with server.client() as client:

        def warnings(**more):
            body = {**asked, "n": 2, "max_tokens": 8, **more}
            return client.post(path, json=body).json().get("warnings", [])

        assert alike in warnings()
        assert alike in warnings(temperature=0)
        assert alike in warnings(canvas={"mode": "autoregressive"})
        assert alike not in warnings(temperature=1)
        assert alike not in warnings(canvas={"mode": "diffusion"})
        assert alike not in warnings(n=1)
