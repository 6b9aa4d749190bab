"""A server that speaks the OpenAI protocol, as what answers prompts: chat completions, streamed.

https://platform.openai.com/docs/api-reference/chat-streaming says what is sent and what comes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx2

from redraft.benchmark.load.driver import Amount, NotAnswered

DONE = "[DONE]"


class Endpoint:
    """One server at `url`, which usually ends in /v1. `settings` are fields of a chat completion's request.

    For one event loop: its connections are opened there when first used, and closed with `async with`.
    """

    def __init__(self, url: str, model: str, *, key: str | None, settings: dict[str, Any], timeout: float) -> None:
        self._url, self._model, self._settings = check_url(url), model, settings
        self._client = httpx2.AsyncClient(
            headers=_headers(key), timeout=timeout, limits=httpx2.Limits(max_connections=None),
            trust_env=not is_here(url),
        )  # fmt: skip

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def answer(self, prompt: str, first: Callable[[], None], **settings: Any) -> Amount:
        """As Target has it. Tokens are the server's own count; None where it does not tell its usage.

        `settings` are of this request alone.
        """
        body = self._body(prompt, stream=True, stream_options={"include_usage": True}, **settings)
        answer = _Stream(first)
        try:
            async with self._client.stream("POST", f"{self._url}/chat/completions", json=body) as response:
                await _check_ok(response)
                async for line in response.aiter_lines():
                    answer.take(line)
        except httpx2.HTTPError as error:
            raise _failure(error) from error
        return answer.end()

    async def whole(self, prompt: str, **settings: Any) -> "Whole":
        """The same in one piece, not streamed. Raises NotAnswered."""
        try:
            response = await self._client.post(f"{self._url}/chat/completions", json=self._body(prompt, **settings))
            await _check_ok(response)
        except httpx2.HTTPError as error:
            raise _failure(error) from error
        try:
            return _whole(response.json())
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            raise NotAnswered("not the protocol", f"{response.text[:100]!r} is no chat completion") from error

    def _body(self, prompt: str, **settings: Any) -> dict[str, Any]:
        return {
            "model": self._model, "messages": [{"role": "user", "content": prompt}], **self._settings, **settings
        }  # fmt: skip


@dataclass(frozen=True)
class Whole:
    """An answer in one piece: its text, and what the server tells of it, a canvas's facts only if it has canvases."""

    text: str
    tokens: int | None
    steps_per_canvas: tuple[int, ...]
    tokens_per_forward: float | None


def _whole(told: dict[str, Any]) -> Whole:
    usage, choice = told.get("usage") or {}, told["choices"][0]
    tokens, per_forward = usage.get("completion_tokens"), usage.get("tokens_per_forward")
    return Whole(
        text=choice["message"].get("content") or "",
        tokens=None if tokens is None else int(tokens),
        steps_per_canvas=tuple(map(int, (choice.get("canvas") or {}).get("steps_per_canvas", ()))),
        tokens_per_forward=None if per_forward is None else float(per_forward),
    )


def first_model(url: str, *, key: str | None, timeout: float) -> str:
    """The first model that a server says it has. ValueError where it does not answer so."""
    try:
        response = httpx2.get(
            f"{check_url(url)}/models", headers=_headers(key), timeout=timeout, trust_env=not is_here(url)
        )
        response.raise_for_status()
        return str(response.json()["data"][0]["id"])
    except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{url}/models names no model ({type(error).__name__}: {error}); is it the right address (it usually ends "
            "in /v1), and does the server run? Else give --model"
        ) from error


def check_url(url: str) -> str:
    """The URL without a slash at its end. ValueError for one that is not http or https."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"the endpoint {url!r} is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the endpoint is {url!r}, must be like http://localhost:8000/v1")
    return url.rstrip("/")


def is_here(url: str) -> bool:
    """Whether a URL leads to this machine: never by way of a proxy, whatever the environment says."""
    return httpx2.URL(url).host in ("localhost", "127.0.0.1", "::1")


async def _check_ok(response: httpx2.Response) -> None:
    if response.status_code != httpx2.codes.OK:
        text = (await response.aread()).decode("utf-8", errors="replace")
        raise NotAnswered(f"HTTP {response.status_code}", _said(text))


class _Stream:
    """What the lines of a streamed answer say."""

    def __init__(self, first: Callable[[], None]) -> None:
        self._first = first
        self._tokens: int | None = None
        self._finished = False

    def take(self, line: str) -> None:
        """One line of server-sent events; all that are not data are passed over."""
        name, _, data = line.partition(":")
        if name != "data":
            return
        data = data.strip()
        if data == DONE:
            self._finished = True
            return
        try:
            chunk = json.loads(data)
            if chunk.get("error"):
                raise NotAnswered("error in the stream", _said(data))
            if usage := chunk.get("usage"):
                self._tokens = int(usage["completion_tokens"])
            for choice in chunk.get("choices") or ():
                self._finished |= choice.get("finish_reason") is not None
                delta = choice.get("delta") or {}
                if delta.get("content") or delta.get("reasoning_content"):
                    self._first()
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise NotAnswered("not the protocol", f"{data[:100]!r} is no chunk of a chat completion") from error

    def end(self) -> Amount:
        """After the last line."""
        if not self._finished:
            raise NotAnswered("broken stream", "the stream ended before the answer did")
        return Amount(self._tokens)


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _said(text: str) -> str:
    """What an error's body says, cut to a line."""
    try:
        error = json.loads(text)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, LookupError, TypeError):
        message = text
    return " ".join(str(message).split())[:200]


def _failure(error: httpx2.HTTPError) -> NotAnswered:
    kinds = {
        httpx2.ConnectError: "no connection",
        httpx2.TimeoutException: "timeout",
        httpx2.RemoteProtocolError: "broken stream",
        httpx2.ReadError: "broken stream",
    }
    kind = next((name for one, name in kinds.items() if isinstance(error, one)), type(error).__name__)
    return NotAnswered(kind, str(error) or type(error).__name__)
