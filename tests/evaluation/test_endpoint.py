"""Load on a real small HTTP server: what it streams is counted, and every way to fail has its name."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from redraft.benchmark.load.driver import Amount, Answered, closed_loop, summarise_load
from redraft.evaluation.endpoint import Endpoint, check_url, first_model

FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}}


def text(content: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}


ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
STREAMS: dict[str, list[object]] = {
    "good": [ROLE, text("Hel"), text("lo"), FINISH, USAGE, "[DONE]"],
    "no usage": [ROLE, text("Hello"), FINISH, "[DONE]"],
    "thinking": [{"choices": [{"delta": {"reasoning_content": "hm"}}]}, FINISH, USAGE, "[DONE]"],
    "broken": [ROLE, text("Hel")],
    "error inside": [text("Hel"), {"error": {"message": "out of memory"}}, "[DONE]"],
    "rubbish": ["{not json"],
    "a list": [[1, 2]],
}


class Handler(BaseHTTPRequestHandler):
    """Answers by what the prompt says."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"data": [{"id": "served"}, {"id": "other"}]} if self.path == "/v1/models" else {"data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers.get("Authorization"), body))
        prompt = body["messages"][0]["content"]
        if prompt == "busy":
            return self._json(429, {"error": {"message": "too many\nrequests", "type": "rate"}})
        if prompt == "plain error":
            return self._json(500, "no JSON object")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if prompt == "hangs":
            self.server.closing.wait(10)
        self._chunk(b": a comment\n\nevent: message\n")
        for one in STREAMS.get(prompt, STREAMS["good"]):
            data = one if isinstance(one, str) else json.dumps(one)
            self._chunk(f"data: {data}\n\n".encode())
        if prompt == "cut":
            # Chunked encoding says that more is to come.
            self.close_connection = True
            self.connection.close()
            return None
        self._chunk(b"")
        return None

    def _chunk(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    def _json(self, code: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """In a thread of its own, on a free port."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None, dict[str, object]]] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


def ask(url: str, *prompts: str, key: str | None = None, timeout: float = 10.0, **settings: object):
    async def run():
        async with Endpoint(url, "m", key=key, settings=settings, timeout=timeout) as target:
            return await closed_loop(target, prompts, len(prompts))

    return asyncio.run(run())


def test_a_streamed_answer_is_timed_and_its_tokens_are_the_servers(server):
    (found,) = ask(server.url + "/", "good", key="k", max_tokens=9).outcomes
    assert isinstance(found, Answered)
    assert 0 < found.first <= found.seconds
    assert found.amount == Amount(7)
    ((path, key, body),) = server.seen
    assert (path, key) == ("/v1/chat/completions", "Bearer k")
    assert (body["model"], body["max_tokens"], body["stream"]) == ("m", 9, True)
    assert body["messages"] == [{"role": "user", "content": "good"}]


def test_without_usage_tokens_are_unknown_and_thoughts_are_text(server):
    unknown, thinking = ask(server.url, "no usage", "thinking").outcomes
    assert unknown.amount == Amount(None)
    assert thinking.amount == Amount(7)


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        ("busy", "HTTP 429", "too many requests"),
        ("plain error", "HTTP 500", "no JSON object"),
        ("broken", "broken stream", "the stream ended before the answer did"),
        ("cut", "broken stream", ""),
        ("error inside", "error in the stream", "out of memory"),
        ("rubbish", "not the protocol", "no chunk of a chat completion"),
        ("a list", "not the protocol", "no chunk"),
    ],
)
def test_a_failure_has_its_name_and_is_counted_beside_what_was_answered(server, prompt, kind, message):
    if prompt == "cut":
        STREAMS["cut"] = [ROLE, text("Hel")]
    found = summarise_load(ask(server.url, "good", prompt, "good"))
    assert (found["answered"], found["failed"]) == (2, {kind: 1})
    assert message in found["failures"][kind]
    assert found["answer_tokens"] == 14


def test_a_server_that_hangs_or_is_not_there(server):
    assert summarise_load(ask(server.url, "hangs", timeout=0.3))["failed"] == {"timeout": 1}
    found = summarise_load(ask("http://127.0.0.1:9/v1", "good", "good"))
    assert found["failed"] == {"no connection": 2}


def test_the_first_model_of_a_server(server):
    assert first_model(server.url, key=None, timeout=5) == "served"
    with pytest.raises(ValueError, match="names no model"):
        first_model(server.url + "/x", key=None, timeout=5)
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9/v1/models names no model .* does the server run"):
        first_model("http://127.0.0.1:9/v1", key=None, timeout=5)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "/v1", ""])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match=r"must be like http://localhost:8000/v1|is no URL"):
        check_url(url)
