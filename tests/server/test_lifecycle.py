"""A server's beginning and end, and places: taken before anything is done, free as soon as nobody waits."""

import json
import signal
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest

import redraft
from redraft.server.lifecycle import ModelServer
from redraft.server.settings import ServerSettings
from tests.fakes.checkpoints import tiny_checkpoint
from tests.server.conftest import made_of, until

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
LONG = {"messages": HELLO, "max_tokens": 200, "canvas": {"steps": 4096, "entropy_bound": 0}}


@pytest.fixture(scope="module")
def endless(tmp_path_factory) -> Path:
    """A checkpoint that takes for every canvas as many steps as it is allowed."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("endless") / "endless")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"confidence_threshold": 1e-12}))
    return folder


class Asking:
    """A request under way on a connection of its own; `answer` is the answer, or None where there was none."""

    def __init__(self, server, body) -> None:
        self.answer = None
        self._server, self._body = server, body
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._server.client() as client:
            self.answer = client.post(CHAT, json=self._body)

    def wait(self):
        self._thread.join(60)
        assert self.answer is not None
        return self.answer


def connect(server, body: dict[str, object]) -> socket.socket:
    """A connection on which a request has been sent, and nothing more."""
    content = json.dumps(body).encode()
    connection = socket.create_connection((server.server.host, server.server.port), timeout=60)
    connection.sendall(
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return connection


def test_while_the_model_is_loaded_only_liveness_and_the_page_answer(folder, start):
    loading = threading.Event()

    def load():
        assert loading.wait(60)
        return redraft.load(str(folder))

    server = start(wait=False, load=load)
    with server.client() as client:
        until(lambda: client.get("/health/live").status_code == 200)
        for method, path in (("GET", "/health/ready"), ("GET", "/v1/models"), ("POST", CHAT), ("POST", TEXT),
                             ("POST", "/tokenize"), ("POST", "/detokenize")):  # fmt: skip
            answer = client.request(method, path, json={} if method == "POST" else None)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading")
            assert int(answer.headers["retry-after"]) > 0
        for path in ("/", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 200
        loading.set()
        server.wait()
        assert client.get("/health/ready").json() == {"status": "ready"}


def test_a_full_server_says_so_before_it_reads_the_prompt(endless, start, monkeypatch):
    server = start(endless, max_concurrent=1, max_queue=1)
    held = [connect(server, LONG | {"stream": True}), connect(server, LONG)]
    until(lambda: server.service.slots.taken == 2)
    tokenizer = type(server.service.engine.model.tokenizer)
    until(lambda: server.service.engine.state.running + server.service.engine.state.waiting == 2)
    asked = []
    monkeypatch.setattr(tokenizer, "encode_chat", lambda *given, **named: asked.append(given))
    monkeypatch.setattr(tokenizer, "encode", lambda *given, **named: asked.append(given))
    with server.client() as client:
        for path, body in ((CHAT, LONG), (TEXT, {"prompt": "hello"}), (CHAT, LONG | {"stream": True})):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
            assert int(answer.headers["retry-after"]) > 0
        assert not asked
        # More than there ever will be is no matter of waiting.
        never = client.post(CHAT, json=LONG | {"n": 3})
        assert (never.status_code, never.json()["error"]["param"]) == (400, "n")
        assert client.get("/health/live").status_code == client.get("/v1/models").status_code == 200
        metrics = client.get("/metrics").text
        assert 'redraft_rejected_total{reason="queue_full"} 3.0' in metrics
        assert "redraft_requests_running 1.0" in metrics
        assert "redraft_requests_waiting 1.0" in metrics
    monkeypatch.undo()
    for connection in held:
        connection.close()
    until(lambda: server.service.slots.taken == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_request_within_one_step(endless, start, stream, monkeypatch):
    server = start(endless)
    core = server.service.engine._loop.core
    steps = 0
    step = core.step

    def counted():
        nonlocal steps
        steps += 1
        return step()

    monkeypatch.setattr(core, "step", counted)
    connection = connect(server, LONG | {"stream": stream, "n": 3})
    until(lambda: len(core.held) == 3 and steps > 3)
    cancelled = []
    cancel = server.service.engine.cancel

    def noted(answer):
        cancelled.append(steps)
        return cancel(answer)

    monkeypatch.setattr(server.service.engine, "cancel", noted)
    gone = time.perf_counter()
    connection.close()
    until(lambda: not core.held)
    # The step that was under way when the loop was told, and no other; and it is told at once.
    assert steps <= cancelled[0] + 2
    assert time.perf_counter() - gone < 60
    until(lambda: server.service.slots.taken == 0)
    with server.client() as client:
        assert "redraft_disconnected_total 1.0" in client.get("/metrics").text
        assert client.post(CHAT, json={"messages": HELLO, "max_tokens": 8, "canvas": {"steps": 4}}).status_code == 200
        # The status that a log has: what was sent, where a stream had begun.
        assert f'status="{200 if stream else 499}"' in client.get("/metrics").text
        assert 'status="500"' not in client.get("/metrics").text


def test_a_client_that_goes_while_its_prompt_is_read_takes_no_slot(endless, start):
    reading, read = threading.Event(), threading.Event()

    class SlowModel(redraft.Model):
        def read(self, prompt, **variables):
            reading.set()
            assert read.wait(60)
            return super().read(prompt, **variables)

    server = start(load=lambda: made_of(SlowModel, endless))
    for stream in (False, True):
        connection = connect(server, LONG | {"stream": stream})
        assert reading.wait(60)
        connection.close()
        time.sleep(0.1)
        read.set()
        until(lambda: server.service.slots.taken == 0)
        until(lambda: not server.service.engine._loop.core.held)
        reading.clear()
        read.clear()


def test_a_client_that_takes_nothing_of_its_stream_is_left(endless, start):
    server = start(endless, send_seconds=0.5)
    # A small buffer of the system's, which connections inherit, is full soon.
    server.server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    canvas = {"steps": 4096, "entropy_bound": 0, "stream_drafts": True, "alternatives": 8}
    connection = connect(server, LONG | {"stream": True, "canvas": canvas, "n": 4})
    with connection:
        until(lambda: server.service.slots.taken == 4)
        until(lambda: server.service.slots.taken == 0)
        until(lambda: not server.service.engine._loop.core.held)
        # And the connection is closed, although bytes are left that nobody takes.
        until(lambda: not server.server._uvicorn.server_state.connections)


def test_sigterm_lets_what_runs_end_refuses_new_work_and_exits_0(command, endless):
    server = command("--drain-seconds", 30, where=endless)
    asking = Asking(server, LONG | {"max_tokens": 16, "canvas": {"steps": 200, "entropy_bound": 0}})
    with server.client() as client:
        until(lambda: "redraft_requests_running 1.0" in client.get("/metrics").text)
        workers = children(server.process.pid)
        assert workers
        server.signal()
        until(lambda: client.get("/health/ready").status_code == 503)
        refused = client.post(CHAT, json=LONG)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"]
        assert client.get("/health/live").status_code == 200
    assert asking.wait().status_code == 200
    code, out, err = server.end()
    assert (code, out.count("\n")) == (0, 1)
    assert "Traceback" not in err
    assert "hello" not in err
    # The template's process among them.
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)


def test_what_is_not_done_in_time_is_told_so(command, endless):
    server = command("--drain-seconds", 0.5, "--max-concurrent", 1, where=endless)
    plain, waiting = Asking(server, LONG), Asking(server, LONG)
    with server.client() as client:
        until(lambda: "redraft_requests_waiting 1.0" in client.get("/metrics").text)
        with client.stream("POST", CHAT, json=LONG | {"stream": True, "canvas": {"steps": 9}}) as stream:
            server.signal()
            text = "".join(stream.iter_text())
    assert text.count("data: ") == 1
    assert json.loads(text.removeprefix("data: "))["error"]["code"] == "draining"
    for asking in (plain, waiting):
        assert (asking.wait().status_code, asking.wait().json()["error"]["code"]) == (503, "draining")
    code, _, err = server.end()
    assert code == 0
    assert "Traceback" not in err


def test_a_second_signal_ends_it_at_once(command, endless):
    server = command("--drain-seconds", 600, where=endless)
    connection = socket.create_connection((server.url.split("//")[1].split(":")[0], int(server.url.split(":")[-1])))
    body = json.dumps(LONG | {"stream": True}).encode()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    with server.client() as client:
        until(lambda: "redraft_requests_running 1.0" in client.get("/metrics").text)
        workers = children(server.process.pid)
        server.signal(signal.SIGINT)
        until(lambda: client.get("/health/ready").status_code == 503)
    begun = time.monotonic()
    server.signal(signal.SIGTERM)
    code, _, err = server.end()
    connection.close()
    assert code == 0
    assert time.monotonic() - begun < 20
    assert "Traceback" not in err, err
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)


def children(pid: int) -> list[str]:
    """The processes that a process, in any of its threads, has started."""
    return " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()


def test_a_signal_while_the_model_is_loaded_does_not_wait_for_it(start):
    loading = threading.Event()
    server = start(wait=False, load=lambda: loading.wait(30))
    until(lambda: server.server._loop is not None and server.server.is_loading)
    server.stop()
    assert server.server.is_loading
    assert server.error is None
    loading.set()


def test_a_process_that_is_loading_ends_at_once_and_well(command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slow = "import redraft, time; redraft.load = lambda *_, **__: time.sleep(60)"
    server = command("--port", port, wait=False, before=slow)
    server.url = f"http://127.0.0.1:{port}"

    def lives() -> bool:
        try:
            with server.client() as client:
                return client.get("/health/ready").status_code == 503
        except httpx2.HTTPError:
            assert server.process.poll() is None, server.end()
            return False

    until(lives)
    server.signal()
    begun = time.monotonic()
    assert server.end()[:2] == (0, "")
    assert time.monotonic() - begun < 50


@pytest.mark.parametrize(
    ("break_it", "arguments", "told"),
    [
        (lambda folder: (folder / "config.json").unlink(), (), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), (), "config.json"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), (), "config.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), (), "tokenizer"),
        (lambda folder: (folder / "chat_template.jinja").write_text("x" * 300_000), (), "template"),
        (lambda _: None, ("--max-context", 5), "max_context is 5"),
        (lambda _: None, ("--max-context", 100_000), "max_context is 100000"),
        (lambda _: None, ("--max-queue", -1), "max_queue is -1"),
        (lambda _: None, ("--api-key", "a b"), "API key"),
        (lambda _: None, ("--cors-origin", "evil"), "origin 'evil'"),
        (lambda _: None, ("--log-format", "xml"), "log_format is 'xml'"),
        (lambda _: None, ("--host", "256.1.1.1"), "cannot listen on 256.1.1.1"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_2(tmp_path, break_it, arguments, told, monkeypatch, capsys):
    folder = tiny_checkpoint(tmp_path / "broken")
    break_it(folder)
    from redraft.cli import main

    monkeypatch.setattr("sys.argv", ["redraft", "serve", str(folder), "--port", "0", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("redraft: ")
    assert err.count("\n") == 1
    assert told in err


def test_code_that_a_config_names_is_not_run(tmp_path, start):
    folder = tiny_checkpoint(tmp_path / "mapped")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoTokenizer": ["evil.T", None]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    server = start(folder)
    # It is served, or refused: never run.
    assert server.error is None or isinstance(server.error, ValueError)
    assert not (tmp_path / "ran").exists()


def test_a_process_whose_load_fails_exits_2_with_one_line(command, tmp_path):
    server = command(where=tmp_path / "nowhere", wait=False)
    code, out, err = server.end()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("redraft: ")


def test_a_port_in_use_is_told_before_anything_is_loaded(server):
    loaded = []
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.server.port}"):
        ModelServer(ServerSettings(port=server.server.port), lambda: loaded.append(1))
    # Not even one that is bound and does not listen yet is shared.
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="choose another"):
            ModelServer(ServerSettings(port=other.getsockname()[1]), lambda: loaded.append(1))
    assert not loaded


def test_a_load_that_panics_ends_the_server(start):
    class Panic(BaseException):
        pass

    def load():
        raise Panic("of a library in Rust")

    server = start(wait=False, load=load)
    until(lambda: server.error is not None)
    assert isinstance(server.error, Panic)


def test_threads_and_files_do_not_pile_up(endless, start):
    server = start(endless)
    with server.client() as client:
        client.post(CHAT, json={"messages": HELLO, "max_tokens": 8, "canvas": {"steps": 4}})
    files = len(list(Path("/proc/self/fd").iterdir()))
    for stream in (False, True) * 5:
        connection = connect(server, LONG | {"stream": stream})
        until(lambda: server.service.slots.taken == 1)
        connection.close()
        until(lambda: server.service.slots.taken == 0)
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files + 2)
