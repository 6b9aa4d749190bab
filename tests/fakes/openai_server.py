"""A small HTTP server that speaks the OpenAI protocol, well and badly, as the prompt says."""

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}}


def text(content: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}


ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
STREAMS: dict[str, list[object]] = {
    "good": [ROLE, text("Hel"), text("lo"), FINISH, USAGE, "[DONE]"],
    "separators": [ROLE, json.dumps(text("a\u2028b\x85c"), ensure_ascii=False), FINISH, USAGE, "[DONE]"],
    "no usage": [ROLE, text("Hello"), FINISH, "[DONE]"],
    "thinking": [{"choices": [{"delta": {"reasoning_content": "hm"}}]}, FINISH, USAGE, "[DONE]"],
    "half a usage": [text("Hello"), FINISH, {"choices": [], "usage": {"completion_tokens": 7}}, "[DONE]"],
    "broken": [ROLE, text("Hel")],
    "cut": [ROLE, text("Hel")],
    "two choices": [{"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}, FINISH],
    "error inside": [text("Hel"), {"error": {"message": "out of memory"}}, "[DONE]"],
    "rubbish": ["{not json"],
    "a list": [[1, 2]],
}
WHOLE: dict[str, object] = {
    "plain": {"choices": [{"message": {"content": "Hello"}}], "usage": {"completion_tokens": 7}},
    "canvases": {
        "choices": [{"message": {"content": "Hello"}, "canvas": {"steps_per_canvas": [3, 2]}}],
        "usage": {"completion_tokens": 7, "tokens_per_forward": 1.4},
    },
    "no usage": {"choices": [{"message": {"content": None}}]},
}


class Handler(BaseHTTPRequestHandler):
    """Answers by the prompt's text: a key of STREAMS or WHOLE, or a failure."""

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
        if prompt == "long error":
            return self._json(400, {"error": {"message": "word " * 100 + "end"}})
        if prompt == "plain error":
            return self._json(500, "no JSON object")
        if not body.get("stream"):
            return self._json(200, WHOLE.get(prompt, {"no": "choices"}))
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


@contextmanager
def openai_server() -> Iterator[Server]:
    """Runs a server until the end of the block."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.closing.set()
            running.shutdown()
            thread.join()
