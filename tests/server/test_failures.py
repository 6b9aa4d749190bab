"""What goes wrong inside: it is told, logged, counted, and a server that cannot go on ends."""

import json
import logging

import pytest

import redraft
from redraft.engine import StepTaken
from redraft.server.generation import MAX_QUEUED_EVENTS, AdmissionSlots, EventQueue
from redraft.server.metrics import Metrics
from redraft.server.openai.chat import ChatSerializer
from redraft.server.openai.errors import ApiError
from tests.server.conftest import Command, until

BODY = {"messages": [{"role": "user", "content": "hello"}], "seed": 1}
PATH = "/v1/chat/completions"


@pytest.fixture
def failing(start, folder):
    """A server whose forwards all raise."""

    def raise_it(*_):
        raise RuntimeError("no memory for a secret")

    def load():
        model = redraft.load(folder)
        for module in model.transformer.modules():
            module.register_forward_pre_hook(raise_it)
        return model

    return start(load=load)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_forward_is_told_logged_and_counted(failing, caplog, stream):
    logging.getLogger("redraft.server").propagate = True
    with failing.client() as client, caplog.at_level(logging.INFO, "redraft.server"):
        response = client.post(PATH, json={**BODY, "stream": stream}, headers={"X-Request-Id": "mine"})
        metrics = client.get("/metrics").text
    text = response.text
    assert response.status_code == (200 if stream else 500)
    told = json.loads(text.removeprefix("data: ") if stream else text)["error"]
    assert (told["code"], told["type"]) == ("engine_error", "server_error")
    assert "mine" in told["message"]
    assert "secret" not in text
    assert "[DONE]" not in text
    assert 'redraft_failed_total{code="engine_error"} 1.0' in metrics
    (failure,) = [record for record in caplog.records if record.exc_info]
    assert "mine" in failure.getMessage()
    assert "no memory for a secret" in str(failure.exc_info[1])
    # The request's own line is written when the response has been sent, which the client may see first.
    until(lambda: any("error=engine_error" in record.getMessage() for record in caplog.records))
    until(lambda: failing.service.slots.taken == 0)


def test_a_server_whose_engine_has_stopped_says_so_and_ends(start, monkeypatch):
    server = start()

    def stop(_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("redraft.engine.core.EngineCore.step", stop)
    with server.client() as client:
        client.post(PATH, json=BODY)
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["error"]["code"] == "engine_stopped"
    until(lambda: server.error is not None)
    assert "the engine has stopped" in str(server.error)


def test_a_bug_in_telling_an_answer_ends_a_stream_with_an_error(start, monkeypatch):
    server = start()
    monkeypatch.setattr(ChatSerializer, "end", lambda *_: 1 / 0)
    with server.client() as client:
        text = client.post(PATH, json={**BODY, "stream": True}).text
    assert json.loads(text.strip().rpartition("data: ")[2])["error"]["code"] == "engine_error"
    until(lambda: server.service.slots.taken == 0)


def test_an_empty_key_in_the_environment_is_no_key_and_refused(folder, monkeypatch):
    monkeypatch.setenv("REDRAFT_API_KEY", "")
    process = Command(folder)
    code, out, err = process.end()
    assert (code, out) == (2, "")
    assert "the API key must" in err


def test_refusals_say_nothing_of_when_a_place_is_free():
    slots = AdmissionSlots(2, Metrics())
    for _ in range(50):
        with pytest.raises(ValueError, match="refused"), slots.reserve(1):
            raise ValueError("refused")
    with slots.reserve(2), pytest.raises(ApiError) as full, slots.reserve(1):
        pass
    assert full.value.status_code == 429
    assert full.value.headers == {"Retry-After": "1"}
    assert slots.taken == 0


def test_drafts_for_who_does_not_take_them_do_not_pile_up():
    events = EventQueue()
    for number in range(3 * MAX_QUEUED_EVENTS):
        events.put_nowait(StepTaken("r", number))
    assert events.qsize() == MAX_QUEUED_EVENTS
    events.put_nowait("anything else")
    assert events.qsize() == MAX_QUEUED_EVENTS + 1
