"""A client of the OpenAI protocol: chat completions, streamed or whole.

https://platform.openai.com/docs/api-reference/chat-streaming defines the request and the stream.
"""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx2

from redraft.client.errors import RequestFailed

DONE = "[DONE]"
EXAMPLE_URL = "http://localhost:8000/v1"
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
"""Fields of a request for a streamed answer."""
MAX_QUOTED = 200
"""Characters of a body without an error message in it that are quoted."""
PROTOCOL_NAMES = {"max_new_tokens": "max_tokens", "temperature": "temperature", "seed": "seed"}
"""Sampler settings that the protocol has a field for, and the field."""


@dataclass(frozen=True)
class StreamChunk:
    """One event of a streamed answer. usage: the server's token counts, which come with the last chunk."""

    content: str
    reasoning: str
    usage: Mapping[str, Any] | None


@dataclass(frozen=True)
class WholeAnswer:
    """An answer that was not streamed, and what the server says of it. Only a server with canvases has their facts."""

    text: str
    tokens: int | None
    steps_per_canvas: tuple[int, ...]
    tokens_per_forward: float | None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A model of a server. Raises ValueError for a URL that is not http or https.

    url: usually ends in /v1. fields: of every request's body. timeout: seconds without a byte. is_strict: refuses a
    stream without [DONE] and chunks without choices, which some servers send and `redraft serve` never does.
    """

    url: str
    model: str
    key: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | httpx2.Timeout = 600.0
    is_strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_url(self.url))

    def connect(self) -> "EndpointConnection":
        """Returns an asynchronous client of the endpoint, to be used in one event loop and with `async with`."""
        return EndpointConnection(self)

    def stream(self, prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> Iterator[StreamChunk]:
        """Yields the chunks of an answer. Raises RequestFailed."""
        answer = ChunkReader(is_strict=self.is_strict)
        try:
            with (
                httpx2.Client(**client_settings(self)) as client,
                client.stream("POST", self.chat_url, json=self.body(prompt, **STREAMED, **fields)) as response,
            ):
                if response.status_code != httpx2.codes.OK:
                    raise _refusal(response, response.read())
                for line in response.iter_lines():
                    if chunk := answer.read(line):
                        yield chunk
        except httpx2.HTTPError as error:
            raise _failure(error) from error
        answer.finish()

    @property
    def chat_url(self) -> str:
        """The address of chat completions."""
        return f"{self.url}/chat/completions"

    def body(self, prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
        """Returns a request's body; `fields` are of this request alone."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return {"model": self.model, "messages": messages, **self.fields, **fields}


class EndpointConnection:
    """An asynchronous client of one endpoint: connections are opened when first used and closed with `async with`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client = httpx2.AsyncClient(**client_settings(endpoint), limits=httpx2.Limits(max_connections=None))

    async def __aenter__(self) -> "EndpointConnection":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def stream(
        self, prompt: str | Sequence[Mapping[str, Any]], **fields: Any
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yields the chunks of an answer. Raises RequestFailed."""
        answer = ChunkReader(is_strict=self._endpoint.is_strict)
        body = self._endpoint.body(prompt, **STREAMED, **fields)
        try:
            async with self._client.stream("POST", self._endpoint.chat_url, json=body) as response:
                if response.status_code != httpx2.codes.OK:
                    raise _refusal(response, await response.aread())
                async for line in response.aiter_lines():
                    if chunk := answer.read(line):
                        yield chunk
        except httpx2.HTTPError as error:
            raise _failure(error) from error
        answer.finish()

    async def complete(self, prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> WholeAnswer:
        """Returns an answer in one piece, not streamed. Raises RequestFailed."""
        try:
            response = await self._client.post(self._endpoint.chat_url, json=self._endpoint.body(prompt, **fields))
        except httpx2.HTTPError as error:
            raise _failure(error) from error
        if response.status_code != httpx2.codes.OK:
            raise _refusal(response, response.content)
        try:
            return _whole_answer(response.json())
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            text = f"{response.text[:100]!r} is not a chat completion"
            raise RequestFailed("not the protocol", text) from error


class ChunkReader:
    """A parser of the lines of a streamed answer; `is_strict` as Endpoint has it."""

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
                raise RequestFailed("error in the stream", _error_message(data))
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
            )
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            text = f"{data[:100]!r} is not a chunk of a chat completion"
            raise RequestFailed("not the protocol", text) from error

    def finish(self) -> None:
        """Raises RequestFailed where the lines ended before the answer did."""
        if not self._has_ended:
            raise RequestFailed("broken stream", "the stream ended before the answer did")


def list_models(url: str, *, key: str | None = None, timeout: float) -> list[str]:
    """Returns the names of a server's models. Raises ValueError where it does not name any."""
    address = f"{check_url(url)}/models"
    try:
        response = httpx2.get(address, headers=_headers(key), timeout=timeout, trust_env=not is_local(url))
        models = [str(model["id"]) for model in response.raise_for_status().json()["data"]]
        return [models[0], *models[1:]]
    except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{address} names no model ({type(error).__name__}: {error}); is it the right address (it usually ends "
            "in /v1), and is the server running? Otherwise give --model"
        ) from error


def request_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns sampler settings as the fields of a request; what the protocol has no field for is our own "canvas"."""
    fields = {PROTOCOL_NAMES[name]: value for name, value in settings.items() if name in PROTOCOL_NAMES}
    canvas = {name: value for name, value in settings.items() if name not in PROTOCOL_NAMES}
    return fields | ({"canvas": canvas} if canvas else {})


def check_url(url: str) -> str:
    """Returns the URL without a slash at its end. Raises ValueError for one that is not http or https."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"the endpoint {url!r} is not a URL: {error}; it must be like {EXAMPLE_URL}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the endpoint is {url!r}, must be like {EXAMPLE_URL}")
    return url.rstrip("/")


def is_local(url: str) -> bool:
    """Returns whether a URL leads to this machine: then no proxy is used, whatever the environment says."""
    return httpx2.URL(url).host in ("localhost", "127.0.0.1", "::1")


def client_settings(endpoint: Endpoint) -> dict[str, Any]:
    """Returns the arguments of an HTTP client of an endpoint."""
    headers, is_remote = _headers(endpoint.key), not is_local(endpoint.url)
    return {"headers": headers, "timeout": endpoint.timeout, "trust_env": is_remote}


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _whole_answer(completion: dict[str, Any]) -> WholeAnswer:
    usage, choice = completion.get("usage") or {}, completion["choices"][0]
    tokens, per_forward = usage.get("completion_tokens"), usage.get("tokens_per_forward")
    return WholeAnswer(
        text=choice["message"].get("content") or "",
        tokens=None if tokens is None else int(tokens),
        steps_per_canvas=tuple(map(int, (choice.get("canvas") or {}).get("steps_per_canvas", ()))),
        tokens_per_forward=None if per_forward is None else float(per_forward),
    )


def _refusal(response: httpx2.Response, body: bytes) -> RequestFailed:
    text = body.decode("utf-8", errors="replace")
    return RequestFailed(f"HTTP {response.status_code}", _error_message(text))


def _error_message(text: str) -> str:
    """The message of an error's body, on one line; the beginning of a body that has none."""
    try:
        error = json.loads(text)["error"]
        message = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        message = text[:MAX_QUOTED]
    return " ".join(message.split())


def _failure(error: httpx2.HTTPError) -> RequestFailed:
    kinds = {
        httpx2.ConnectError: "no connection",
        httpx2.TimeoutException: "timeout",
        httpx2.RemoteProtocolError: "broken stream",
        httpx2.ReadError: "broken stream",
    }
    kind = next((name for one, name in kinds.items() if isinstance(error, one)), type(error).__name__)
    return RequestFailed(kind, str(error) or type(error).__name__)
