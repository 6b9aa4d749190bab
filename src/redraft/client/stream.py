"""A client of the OpenAI protocol: chat completions, streamed or whole.

https://platform.openai.com/docs/api-reference/chat-streaming defines the request and the stream.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from redraft.client.errors import RequestFailed

DONE = "[DONE]"
EXAMPLE_URL = "http://localhost:8000/v1"
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
"""Fields of a request for a streamed answer."""
MAX_MESSAGE = 200
"""Characters of a server's error message that are shown."""
PROTOCOL_NAMES = {"max_new_tokens": "max_tokens", "temperature": "temperature", "seed": "seed"}
"""Sampler settings that the protocol has a field for, and the field."""
Prompt = str | Sequence[Mapping[str, Any]]
"""A user's text, or a conversation as the protocol has it."""


@dataclass(frozen=True)
class StreamChunk:
    """One event of a streamed answer.

    usage: the server's token counts, which come with the last chunk. warnings: what it says may be wrong with prompt or
    answer, with the chunk that ends the answer.
    """

    content: str
    reasoning: str
    usage: Mapping[str, Any] | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class WholeAnswer:
    """An answer that was not streamed, and what the server says of it. Only a server with canvases has their facts.

    mode: how it was written, where the server says so.
    """

    text: str
    tokens: int | None
    steps_per_canvas: tuple[int, ...]
    tokens_per_forward: float | None
    mode: str | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model of a server. Raises ValueError for a URL that is not http or https.

    url: usually ends in /v1. fields: of every request's body. timeout: seconds without a byte. is_strict: as
    ChunkReader has it.
    """

    url: str
    model: str
    key: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | httpx2.Timeout = 600.0
    is_strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["EndpointConnection"]:
        """Opens an asynchronous client for one event loop; its connections are closed with the block."""
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(**self._client_settings(), limits=limits) as client:
            yield EndpointConnection(self, client)

    def stream(self, prompt: Prompt, **fields: Any) -> Iterator[StreamChunk]:
        """Yields the chunks of an answer. Raises RequestFailed."""
        reader = ChunkReader(is_strict=self.is_strict)
        with (
            named_failures(),
            httpx2.Client(**self._client_settings()) as client,
            client.stream("POST", **self.request(prompt, **STREAMED, **fields)) as response,
        ):
            if response.status_code != httpx2.codes.OK:
                response.read()
            self.check(response)
            lines = LineSplitter()
            for part in response.iter_bytes():
                for line in lines.split(part):
                    if chunk := reader.read(line):
                        yield chunk
        reader.finish()

    def request(self, prompt: Prompt, **fields: Any) -> dict[str, Any]:
        """Returns the address and the body of a chat completion; `fields` are of this request alone."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        body = {"model": self.model, "messages": messages, **self.fields, **fields}
        return {"url": f"{self.url}/chat/completions", "json": body}

    def check(self, response: httpx2.Response) -> None:
        """Raises RequestFailed for a response, read before, that is not the answer asked for."""
        if response.status_code != httpx2.codes.OK:
            message = error_message(response.content.decode("utf-8", errors="replace"), is_strict=self.is_strict)
            raise RequestFailed(f"HTTP {response.status_code}", message)

    def _client_settings(self) -> dict[str, Any]:
        return {"headers": auth_headers(self.key), "timeout": self.timeout, "trust_env": not is_local(self.url)}


@dataclass(frozen=True)
class EndpointConnection:
    """An asynchronous client of one endpoint; its connections are opened when first used."""

    endpoint: Endpoint
    client: httpx2.AsyncClient

    async def stream(self, prompt: Prompt, **fields: Any) -> AsyncGenerator[StreamChunk, None]:
        """Yields the chunks of an answer. Raises RequestFailed."""
        reader = ChunkReader(is_strict=self.endpoint.is_strict)
        request = self.endpoint.request(prompt, **STREAMED, **fields)
        with named_failures():
            async with self.client.stream("POST", **request) as response:
                if response.status_code != httpx2.codes.OK:
                    await response.aread()
                self.endpoint.check(response)
                lines = LineSplitter()
                async for part in response.aiter_bytes():
                    for line in lines.split(part):
                        if chunk := reader.read(line):
                            yield chunk
        reader.finish()

    async def complete(self, prompt: Prompt, **fields: Any) -> WholeAnswer:
        """Returns an answer in one piece, not streamed. Raises RequestFailed."""
        with named_failures():
            response = await self.client.post(**self.endpoint.request(prompt, **fields))
        self.endpoint.check(response)
        try:
            return _whole_answer(response.json())
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            text = f"{response.text[:100]!r} is not a chat completion"
            raise RequestFailed("not the protocol", text) from error


class LineSplitter:
    """Splits the bytes of a stream of events into its lines: at line feeds alone.

    httpx would split at U+2028 and U+0085 too, which may stand within the text of a JSON object.
    """

    def __init__(self) -> None:
        self._rest = b""

    def split(self, part: bytes) -> list[str]:
        """Returns the lines that end within the next bytes."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        return [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines]

    @property
    def waiting(self) -> int:
        """The bytes of the line that has not ended."""
        return len(self._rest)


class ChunkReader:
    """A parser of the lines of a streamed answer.

    is_strict: it reads what `redraft serve` sends. It refuses a stream without [DONE] and chunks without choices, which
    some servers send, and shows error messages in full.
    """

    def __init__(self, *, is_strict: bool = False) -> None:
        self._is_strict = is_strict
        self._has_ended = False

    def read(self, line: str) -> StreamChunk | None:
        """Parses one line of server-sent events; None for a line without data. Raises RequestFailed for an error."""
        name, _, data = line.partition(":")
        data = data.strip()
        if name != "data":
            return None
        if data == DONE:
            self._has_ended = True
            return None
        try:
            chunk = json.loads(data)
            if chunk.get("error") or (self._is_strict and "error" in chunk):
                raise RequestFailed("error in the stream", error_message(data, is_strict=self._is_strict))
            if usage := chunk.get("usage"):
                int(usage["completion_tokens"])
            choices = chunk["choices"] if self._is_strict else chunk.get("choices") or ()
            deltas = [choice["delta"] if self._is_strict else choice.get("delta") or {} for choice in choices]
            if not self._is_strict:
                self._has_ended |= any(choice.get("finish_reason") is not None for choice in choices)
            return StreamChunk(
                content="".join(delta.get("content") or "" for delta in deltas),
                reasoning="".join(delta.get("reasoning_content") or "" for delta in deltas),
                usage=usage or None,
                warnings=tuple(map(str, chunk.get("warnings") or ())),
            )
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            text = f"{data[:100]!r} is not a chunk of a chat completion"
            raise RequestFailed("not the protocol", text) from error

    def finish(self) -> None:
        """Raises RequestFailed where the lines ended before the answer did."""
        if not self._has_ended:
            raise RequestFailed("broken stream", "the stream ended before the answer did")


@contextmanager
def named_failures() -> Iterator[None]:
    """Raises RequestFailed, with its kind, for an error of the HTTP client within the block."""
    kinds = {
        httpx2.ConnectError: "no connection",
        httpx2.TimeoutException: "timeout",
        httpx2.RemoteProtocolError: "broken stream",
        httpx2.ReadError: "broken stream",
    }
    try:
        yield
    except httpx2.HTTPError as error:
        kind = next((name for one, name in kinds.items() if isinstance(error, one)), type(error).__name__)
        raise RequestFailed(kind, str(error) or type(error).__name__) from error


def list_models(url: str, *, key: str | None = None, timeout: float) -> list[str]:
    """Returns the names of a server's models. Raises ValueError where it does not list any."""
    address = f"{check_url(url)}/models"
    try:
        response = httpx2.get(address, headers=auth_headers(key), timeout=timeout, trust_env=not is_local(url))
        models = [str(model["id"]) for model in response.raise_for_status().json()["data"]]
        return [models[0], *models[1:]]
    except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{address} lists no models ({type(error).__name__}: {error}); is it the right address (it usually ends "
            "in /v1), and is the server running? Otherwise name the model yourself"
        ) from error


def request_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns sampler settings as the fields of a request; what the protocol has no field for is our own "canvas"."""
    fields = {PROTOCOL_NAMES[name]: value for name, value in settings.items() if name in PROTOCOL_NAMES}
    canvas = {name: value for name, value in settings.items() if name not in PROTOCOL_NAMES}
    return fields | ({"canvas": canvas} if canvas else {})


def check_url(url: str, *, name: str = "the endpoint", example: str = EXAMPLE_URL) -> str:
    """Returns the URL without a slash at its end. Raises ValueError for one that is not http or https."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"{name} is {url!r}, which is not a URL ({error}); it must be like {example}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{name} is {url!r}, must be like {example}")
    return url.rstrip("/")


def is_local(url: str) -> bool:
    """Returns whether a URL leads to this machine: then no proxy is used, whatever the environment says."""
    return httpx2.URL(url).host in ("localhost", "127.0.0.1", "::1")


def auth_headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _whole_answer(completion: dict[str, Any]) -> WholeAnswer:
    usage, choice = completion.get("usage") or {}, completion["choices"][0]
    tokens, per_forward = usage.get("completion_tokens"), usage.get("tokens_per_forward")
    canvas = choice.get("canvas") or {}
    return WholeAnswer(
        text=choice["message"].get("content") or "",
        tokens=None if tokens is None else int(tokens),
        steps_per_canvas=tuple(map(int, canvas.get("steps_per_canvas", ()))),
        tokens_per_forward=None if per_forward is None else float(per_forward),
        mode=canvas.get("mode"),
    )


def error_message(text: str, *, is_strict: bool = False) -> str:
    """Returns the message of an error's body on one line; the beginning of a body that has none."""
    try:
        error = json.loads(text)["error"]
        message = str(error["message"] if isinstance(error, dict) else error)
        return " ".join(message.split())[: None if is_strict else MAX_MESSAGE]
    except (ValueError, LookupError, TypeError):
        return " ".join(text[:MAX_MESSAGE].split())
