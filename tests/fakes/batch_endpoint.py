"""A server of chat completions that does to a request what its prompt says, so often, and answers it then."""

import contextlib
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = request["messages"][0]["content"]
        what, _, times = prompt.partition(":")
        with server.lock:
            server.asked[prompt] += 1
            number = server.asked[prompt]
            server.running += 1
            server.most = max(server.most, server.running)
        try:
            time.sleep(server.seconds)
            if what.split()[0] in BEHAVIOURS and number <= int(times or 1):
                with contextlib.suppress(OSError):
                    BEHAVIOURS[what.split()[0]](self)
            elif server.places is not None and server.running > server.places:
                self.send(429, b"{}", {"Retry-After": "0"})
            elif self.headers.get("authorization", "") != server.key:
                self.send(401, b'{"error": {"message": "wrong key"}}')
            else:
                self.send(200, completion(f"re {prompt}"))
        finally:
            with server.lock:
                server.running -= 1

    def send(self, status, body, headers=None, length=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(length or len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def half(self):
        self.send(200, completion("x")[:40], length=4000)
        self.close_connection = True

    def slow(self):
        """Sends a byte now and then, each within any time-out of its own."""
        body = completion("x")
        self.send(200, body[:1], length=len(body))
        for byte in body[1:]:
            if self.server.closing.wait(0.05):
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self.close_connection = True

    def hang_up(self):
        self.close_connection = True

    def never(self):
        self.server.closing.wait(30)
        self.close_connection = True


BEHAVIOURS = {
    "garbage": lambda self: self.send(200, b"<html>\xff"),
    "wrong": lambda self: self.send(200, b'{"choices": [{"message": "x"}]}'),
    "nan": lambda self: self.send(200, b'{"choices": [{"message": {"content": "x"}, "p": NaN}]}'),
    "half": Handler.half,
    "gone": Handler.hang_up,
    "500": lambda self: self.send(500, b"oops"),
    "503": lambda self: self.send(503, b"", {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
    "429": lambda self: self.send(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.1"}),
    "400": lambda self: self.send(400, b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'),
    "never": Handler.never,
    "slow": Handler.slow,
}


@contextmanager
def batch_endpoint(*, seconds=0.0, places=None, key=""):
    """Serves on this machine. seconds: that each answer takes. places: requests at a time that it bears."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.lock, server.asked, server.closing = threading.Lock(), Counter(), threading.Event()
    server.running = server.most = 0
    server.seconds, server.places, server.key = seconds, places, key
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
