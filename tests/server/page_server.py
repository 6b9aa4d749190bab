"""A server that speaks the API's contract from a script: for the page's error states, which a real one rarely shows.

The prompt says what happens: `full` is answered 429, `busy` 429 once, `loading` 503 once, `refused` 400, `broken`
breaks off, `failing` ends in an error event, `hostile` has markup in every token, `json` is a short object with a
warning, `long` has three canvases, `slow` takes long.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from redraft.server.playground.pages import CONTENT_SECURITY_POLICY, load_pages

PAGES = load_pages()
LENGTH = 16
HOSTILE = "<img src=x onerror=hacked()>"
SCRIPT = "<script>hacked()</script>"
JSON_WORDS = ['{"a": ', '"x, {y}", ', '"b": ', '["1", {}]}']
WARNING = f"the value '{'x' * 57}... of the field 'a' does not stand in the text: check it"
TRUST = {
    "probability": 0.427, "settled": True,
    "values": [
        {"path": ["items", 0], "places": [[3, 8]], "probability": 0.999},
        {"path": ["city"], "places": [], "probability": 0.96},
    ],
}  # fmt: skip
MODEL = {
    "id": "fake",
    "object": "model",
    "created": 1,
    "owned_by": "redraft",
    "max_model_len": 2048,
    "canvas": {
        "canvas_length": LENGTH,
        "steps": 48,
        "entropy_bound": 0.1,
        "t_min": 0.4,
        "t_max": 0.8,
        "temperature": 1.0,
        "max_tokens": 256,
    },
    "card": {"purpose": "Speaks the contract.", "limits": "It is no model.", "examples": ["one", "two", SCRIPT]}
    | {"example_names": ["first", "second", SCRIPT], "fields": {"order": ["name", "date"], SCRIPT: [SCRIPT]}},
}


def words_of(prompt: str, canvas: int) -> list[str]:
    """The tokens of a canvas: those of the answer, then the end."""
    if prompt == "json":
        return [*JSON_WORDS, *["<eos>"] * (LENGTH - len(JSON_WORDS))]
    word = HOSTILE if prompt == "hostile" else SCRIPT if prompt == SCRIPT else f"w{canvas}"
    return [f"{word}{position} " for position in range(10)] + ["<eos>"] * (LENGTH - 10)


def answer_length(prompt: str) -> int:
    """How many of a canvas's tokens belong to the answer."""
    return len(JSON_WORDS) if prompt == "json" else 10


def drafts(prompt: str, canvas: int, seed: int) -> Iterator[dict[str, Any]]:
    """Four steps of a canvas: of the i-th, the first 4·i tokens are accepted."""
    words, noise = words_of(prompt, canvas), random.Random(seed + canvas)
    for step in range(1, 5):
        accepted = [int(position < 4 * step) for position in range(LENGTH)]
        tokens = [word if kept else "unsure" for word, kept in zip(words, accepted, strict=True)]
        entropies = [0.001 if kept else 3.0 - 0.5 * step for kept in accepted]
        yield {
            "index": 0,
            "canvas": canvas,
            "step": step,
            "steps_left": 0 if step == 4 else 48 - step,
            "finished": step == 4,
            "temperature": 0.8 - 0.1 * step,
            "mean_entropy": sum(entropies) / LENGTH,
            "accepted": accepted,
            "entropies": entropies,
            "tokens": tokens,
            "noisy": [t if kept else f"n{noise.randrange(1000)}" for t, kept in zip(tokens, accepted, strict=True)],
            "alternatives": [[[token, -0.01], ["other", -4.6]] for token in tokens],
            "text": "".join(tokens[: min(4 * step, answer_length(prompt))]),
        }


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: "FakeServer"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests read `server.requests`."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            if self.server.loading > 0:
                self.server.loading -= 1
                self.refuse(503, "the model is loading", retry=1)
                return
            self.answer(200, json.dumps({"object": "list", "data": [MODEL]}).encode(), "application/json")
            return
        found = PAGES.get("index.html" if self.path == "/" else self.path.removeprefix("/page/"))
        if found is not None:
            self.answer(200, *found)
        else:
            self.refuse(404, "no such file")

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        prompt = request["messages"][0]["content"]
        again = sum(one["messages"] == request["messages"] for one in self.server.requests) > 1
        if prompt == "full":
            self.refuse(429, "128 requests are waiting", retry=60)
        elif prompt == "busy" and not again:
            self.refuse(429, "128 requests are waiting", retry=1)
        elif prompt == "loading" and not again:
            self.refuse(503, "the model is loading", retry=1)
        elif prompt == "refused":
            self.refuse(400, "steps is 0, must lie between 1 and 4096", param="canvas.steps")
        else:
            self.begin("text/event-stream")
            try:
                self.stream(prompt, request)
            except (BrokenPipeError, ConnectionResetError):
                self.server.aborted.set()

    def stream(self, prompt: str, request: dict[str, Any]) -> None:
        wait = 0.15 if prompt == "slow" else 0.005
        canvases = {"long": 3, "slow": 50}.get(prompt, 1)
        tokens = 0
        for canvas in range(canvases):
            words = words_of(prompt, canvas)[: answer_length(prompt)]
            if request["canvas"].get("mode") == "autoregressive":
                for word in words:
                    time.sleep(0.03)
                    self.chunk({"content": word})
            elif request["canvas"].get("mode") == "verified":
                self.verify(words)
            else:
                for draft in drafts(prompt, canvas, request["seed"]):
                    time.sleep(wait)
                    self.event({"object": "chat.completion.draft", "choices": [], "draft": draft}, "draft")
                    if prompt == "broken" and draft["step"] == 3:
                        return
                    if prompt == "failing" and draft["step"] == 3:
                        self.event({"error": {"message": "logits are not finite", "type": "server_error"}})
                        return
                self.chunk({"content": "".join(words[:8])})
                self.chunk({"content": "".join(words[8:])})
            tokens += len(words)
        verification = {"rounds": 3, "drafted_rounds": 3, "denoiser_passes": 3, "kept_per_round": tokens / 3}
        is_verified = request["canvas"].get("mode") == "verified"
        trust = TRUST if prompt == "json" else None
        self.chunk({}, "stop", trust, {"verification": verification} if is_verified else None)
        alone = request["canvas"].get("mode") == "autoregressive"
        usage = {
            "completion_tokens": tokens,
            "tokens_per_forward": 1.0 if alone else tokens / (4 * canvases),
            "prompt_tokens_details": {"cached_tokens": 7 if alone else 0},
        }
        self.event({"choices": [], "usage": usage, "warnings": [WARNING] if prompt == "json" else []})
        self.wfile.write(b"data: [DONE]\n\n")

    def verify(self, words: list[str]) -> None:
        """Rounds of four tokens: a draft of them and one that is rejected, and the last of them written causally."""
        for at in range(0, len(words), 4):
            part = words[at : at + 4]
            time.sleep(0.03)
            draft = next(drafts("hello", 0, at))
            self.event({"object": "chat.completion.draft", "choices": [], "draft": draft}, "draft")
            time.sleep(0.03)
            verified = {"index": 0, "kept": part[:-1], "written": part[-1:], "rejected": ["wrong"]}
            self.event({"object": "chat.completion.verified", "choices": [], "verified": verified}, "verified")
            self.chunk({"content": "".join(part)})

    def chunk(
        self,
        delta: dict[str, str],
        reason: str | None = None,
        trust: dict[str, Any] | None = None,
        canvas: dict[str, Any] | None = None,
    ) -> None:
        more = {name: value for name, value in (("trust", trust), ("canvas", canvas)) if value is not None}
        choice = {"delta": delta, "finish_reason": reason, **more}
        self.event({"object": "chat.completion.chunk", "choices": [choice]})

    def event(self, data: dict[str, Any], name: str = "") -> None:
        head = f"event: {name}\n" if name else ""
        self.wfile.write(f"{head}data: {json.dumps(data)}\n\n".encode())

    def refuse(self, status: int, message: str, *, param: str | None = None, retry: int | None = None) -> None:
        body = json.dumps({"error": {"message": message, "type": "error", "param": param, "code": None}}).encode()
        self.answer(status, body, "application/json", {} if retry is None else {"Retry-After": str(retry)})

    def answer(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.begin(kind, status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def begin(self, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()


class FakeServer(ThreadingHTTPServer):
    """requests: the bodies that came. loading: how many requests for the model are still to be put off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.loading = 0
        self.aborted = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


@contextmanager
def serving() -> Iterator[FakeServer]:
    """A server on a free port, in a thread."""
    with FakeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
