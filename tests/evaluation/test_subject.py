"""Both subjects: a model in this process, and an endpoint."""

import re

import pytest

import redraft
from redraft.client.stream import Endpoint
from redraft.evaluation.subject import EndpointSubject, ModelSubject
from tests.fakes.openai_server import openai_server


@pytest.fixture(scope="module")
def model(checkpoint) -> redraft.Model:
    return redraft.load(checkpoint)


@pytest.mark.parametrize("mode", ["diffusion", "autoregressive", "verified"])
def test_a_model_in_this_process(model, mode):
    settings = {"max_new_tokens": 12, "seed": 3}
    subject = ModelSubject(model, settings, mode=mode)
    found = subject.respond("hello")
    generate = model.generate if mode == "diffusion" else model.generate_autoregressive
    alone = generate("hello", **settings)
    assert (found.text, found.token_ids) == (alone.text, alone.token_ids)
    if mode != "verified":
        assert (found.steps_per_canvas, found.tokens_per_forward) == (
            alone.generation.steps_per_canvas, alone.generation.tokens_per_forward,
        )  # fmt: skip
    assert found.tokens == len(found.token_ids) <= 12
    assert subject.facts["model"] == model.name
    assert subject.facts["settings"] == {"mode": mode} | settings
    assert subject.count_tokens("hello there") == len(subject.encode("hello there"))
    with pytest.raises(ValueError, match="the context holds 256"):
        subject.check("word " * 400)


def test_an_endpoint(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with openai_server() as server:
        subject = EndpointSubject(Endpoint(url=server.url, model="m", fields={"seed": 1}))
        subject.check("word " * 400)
        found = subject.respond("canvases")
        assert (found.text, found.tokens, found.token_ids) == ("Hello", 7, None)
        assert (found.steps_per_canvas, found.tokens_per_forward) == ((3, 2), 1.4)
        assert found.seconds > 0
        with pytest.raises(ValueError, match=r"/v1 did not answer \(HTTP 429\): too many requests"):
            subject.respond("busy")
        assert subject.facts == {"endpoint": server.url, "model": "m", "settings": {"seed": 1}}
    assert subject.encode("hello") is None
    assert subject.count_tokens("hello") == 2


def test_a_model_that_is_held_to_what_is_asked(model):
    settings = {"max_new_tokens": 40, "seed": 3}
    for mode in ("diffusion", "autoregressive", "verified"):
        subject = ModelSubject(model, settings, mode=mode, is_constrained=True)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", subject.respond("Write the date as YYYY-MM-DD: 3 March 2024").text)
    subject = ModelSubject(model, settings | {"steps": 4}, is_constrained=True)
    assert subject.facts["settings"]["constrained"] is True
    found = subject.respond("Write the date as YYYY-MM-DD: 3 March 2024")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.text)
    assert len(found.constraint.log_mass) == len(found.steps_per_canvas)
    with pytest.raises(ValueError, match="the prompt 'hello' asks for no fields and no form: leave out --constrained"):
        subject.check("hello")
