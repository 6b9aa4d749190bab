"""Two replicas of the server behind one route of Ray Serve: one is killed, one ends while it answers."""

import json
import socket
import threading
import time

import httpx2
import pytest

from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.ray_clusters import be_patient

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray", reason="this needs Ray: pip install -e '.[ray]'")
SECONDS = 600
"""The machine may be busy with something else; nothing here waits for so long."""
ASKED = {"messages": [{"role": "user", "content": "hello"}], "seed": 1}
LONG = {**ASKED, "stream": True, "max_tokens": 200, "canvas": {"canvas_length": 8, "steps": 8}, "ignore_eos": True}


@pytest.fixture
def replicas(tmp_path, monkeypatch):
    """A client of an application of two replicas."""
    from ray import serve

    from redraft.server.cluster.replicas import ReplicaSettings, build

    be_patient()
    monkeypatch.setenv("REDRAFT_API_KEY", "k")
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    ray.init(address="local", num_cpus=4, log_to_driver=False, include_dashboard=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        settings = ReplicaSettings(model=str(checkpoint), replicas=2, cpus=1, drain_seconds=SECONDS)
        serve.run(build(settings), name="redraft", route_prefix="/")
        headers = {"Authorization": "Bearer k"}
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=SECONDS, trust_env=False
        ) as client:
            yield client
    finally:
        serve.shutdown()
        ray.shutdown()


def replica_names():
    found = ray.util.list_named_actors(all_namespaces=True)
    return {one["name"] for one in found if one["name"].startswith("SERVE_REPLICA::redraft#")}


def text_of(events):
    deltas = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in deltas if one["choices"])


def until(true):
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_one_of_two_is_killed_and_the_last_ends_with_its_answer(replicas):
    from ray import serve

    assert replicas.get("/health").json() == {"status": "ready"}
    refused = replicas.get("/v1/models", headers={"Authorization": "Bearer other"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    wanted = replicas.post("/v1/chat/completions", json=ASKED).json()["choices"][0]["message"]["content"]
    whole = {**LONG, "stream": False}
    wanted_long = replicas.post("/v1/chat/completions", json=whole).json()["choices"][0]["message"]["content"]

    # As it is written, not when it is whole.
    began = time.monotonic()
    with replicas.stream("POST", "/v1/chat/completions", json=LONG) as response:
        events = [(time.monotonic(), line) for line in response.iter_lines()]
    ended = time.monotonic()
    assert text_of(line for _, line in events) == wanted_long
    assert ended - events[0][0] > (ended - began) / 4

    before = replica_names()
    assert len(before) == 2
    killed = sorted(before)[0]
    ray.kill(ray.get_actor(killed, namespace="serve"), no_restart=True)
    answers = []
    for _ in range(20):
        answered = replicas.post("/v1/chat/completions", json=ASKED)
        answers.append(answered.status_code)
        if answered.status_code == 200:
            assert answered.json()["choices"][0]["message"]["content"] == wanted
    # What was sent to it before its end was noticed may be lost; the other one answers.
    assert answers.count(200) >= 15, answers
    until(lambda: len(replica_names() - {killed}) == 2)
    assert replicas.get("/health").status_code == 200

    with replicas.stream("POST", "/v1/chat/completions", json=LONG) as response:
        lines = response.iter_lines()
        first = [next(lines)]
        ending = threading.Thread(target=serve.delete, args=("redraft",))
        ending.start()
        assert text_of([*first, *lines]) == wanted_long
    ending.join(SECONDS)
    assert not replica_names()


def test_arguments_are_checked():
    from redraft.server.cluster.replicas import ReplicaSettings, build

    with pytest.raises(ValueError, match="replicas"):
        ReplicaSettings(replicas=0)
    with pytest.raises(ValueError, match="replica_count"):
        ReplicaSettings(replica_count=2)
    with pytest.raises(ValueError, match="max_queue is -1"):
        build(ReplicaSettings(max_queue=-1))
