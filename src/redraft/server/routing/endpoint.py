"""A request sent on to another server of OpenAI's protocol, and its response as it comes: whole, or event by event."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
from starlette.types import Send

from redraft.client.errors import RequestFailed
from redraft.client.stream import ChunkReader, LineSplitter, auth_headers, error_message, is_local, named_failures
from redraft.server.middleware.sse import event
from redraft.server.openai.errors import ApiError
from redraft.server.routing.relay import EVENTS, JSON, event_data
from redraft.server.routing.request import RESPONSES_PATH
from redraft.server.routing.rules import Way

VIA_HEADER = "X-Redraft-Via"
"""The routers that a request has passed, so that one which sees it again knows of the circle."""

MAX_RESPONSE_BYTES = 32 * 2**20
"""Of a whole response, and of one event of a stream."""

OUR_FIELDS = ("canvas", "strict")
"""Fields of a request that only a redraft server understands."""

LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
"""The types of the event that ends a streamed response of the newer protocol."""

CLIENT_ERRORS = frozenset({400, 413, 422})
"""Statuses that are the request's own fault: passed on. Others say that the endpoint is not as the rules have it."""


class EndpointClient:
    """The connections to the endpoint of one way."""

    def __init__(self, name: str, way: Way) -> None:
        assert way.endpoint is not None
        self._name, self._way = name, way
        self.client = httpx2.AsyncClient(
            headers=auth_headers(way.key), timeout=way.timeout, limits=httpx2.Limits(max_connections=None),
            trust_env=not is_local(way.endpoint),
        )  # fmt: skip

    async def forward(self, path: str, body: Mapping[str, Any], via: str, send: Send) -> ApiError | None:
        """Sends a request on, and its response to `send`. Returns the error that it ended with, which is sent too."""
        started = False

        async def send_on(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        url = f"{self._way.endpoint}{path.removeprefix('/v1')}"
        # Not httpx's own JSON: it has no bytes for half a surrogate pair.
        content = json.dumps(body).encode("ascii")
        headers = {"Content-Type": JSON, VIA_HEADER: via}
        try:
            with named_failures():
                async with self.client.stream("POST", url, content=content, headers=headers) as response:
                    await self._relay(path, bool(body.get("stream")), response, send_on)
        except RequestFailed as error:
            where = "in the middle of the answer" if started or error.kind == "broken stream" else "before it answered"
            failure = self._error(502, f"failed {where} ({error.kind}: {error})", "endpoint_failed")
            if started:
                # The head has been sent: the client is told where it looks.
                await send({"type": "http.response.body", "body": _error_event(path, failure), "more_body": False})
            else:
                await send_error(failure, send)
            return failure
        except ApiError as refusal:
            await send_error(refusal, send)
            return refusal
        return None

    async def _relay(self, path: str, is_streamed: bool, response: httpx2.Response, send: Send) -> None:
        """Sends a response on. Raises RequestFailed where it breaks off or is not an answer, ApiError for an error."""
        if response.status_code != httpx2.codes.OK:
            raise self._refusal(response, (await _read(response)).decode("utf-8", "replace"))
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        if (kind == EVENTS) != is_streamed:
            asked = "a stream" if is_streamed else "a whole answer"
            raise RequestFailed("not the protocol", f"{asked} was asked for, its answer is {kind or 'of no type'!r}")
        headers = [(b"content-type", (EVENTS if is_streamed else JSON).encode())]
        if not is_streamed:
            data = await _read(response)
            _check_answer(path, data)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": data, "more_body": False})
            return
        headers += [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for one in _events(path, response):
            await send({"type": "http.response.body", "body": one, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self, response: httpx2.Response, text: str) -> ApiError:
        status, message = response.status_code, error_message(text)
        if status in CLIENT_ERRORS:
            return self._error(status, f"refused the request ({status}: {message})", "endpoint_refused")
        if status in (401, 402, 403):
            key = f"the key of {self._way.key_env}" if self._way.key_env else "a request without a key"
            return self._error(502, f"refuses {key} ({status}: {message})", "endpoint_failed")
        if status == httpx2.codes.TOO_MANY_REQUESTS:
            again = {name: value for name, value in response.headers.items() if name == "retry-after"}
            return self._error(429, f"is busy ({message})", "endpoint_busy", again)
        return self._error(502, f"answered {status} ({message})", "endpoint_failed")

    def _error(self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> ApiError:
        return ApiError(
            status, f"the endpoint of way {self._name!r}, {self._way.endpoint}, {message}", code=code, headers=headers
        )


async def _read(response: httpx2.Response) -> bytes:
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        if (size := size + len(part)) > MAX_RESPONSE_BYTES:
            raise RequestFailed("not the protocol", f"the response has more than {MAX_RESPONSE_BYTES:,} bytes")
    return b"".join(parts)


async def _events(path: str, response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yields the events of a stream, each whole. Raises RequestFailed for an error in it, and where it breaks off."""
    reader, splitter = ChunkReader(), LineSplitter()
    lines: list[str] = []
    has_ended, size = False, 0
    async for part in response.aiter_bytes():
        for line in splitter.split(part):
            size = size + len(line) if line else 0
            if line:
                lines.append(line)
                if path != RESPONSES_PATH:
                    reader.read(line)
            elif lines:
                one = ("\n".join(lines) + "\n\n").encode()
                lines = []
                has_ended |= path == RESPONSES_PATH and _type_of(event_data(one)) in LAST_EVENTS
                yield one
        if size + splitter.waiting > MAX_RESPONSE_BYTES:
            raise RequestFailed("not the protocol", f"an event has more than {MAX_RESPONSE_BYTES:,} bytes")
    if path != RESPONSES_PATH:
        reader.finish()
    elif not has_ended:
        raise RequestFailed("broken stream", "the stream ended before the answer did")


def _type_of(data: str) -> object:
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found.get("type") if isinstance(found, dict) else None


def _check_answer(path: str, data: bytes) -> None:
    """Raises RequestFailed for a whole response that is not an answer."""
    try:
        found = json.loads(data)["output" if path == RESPONSES_PATH else "choices"]
    except (ValueError, LookupError, TypeError, RecursionError):
        found = None
    if not isinstance(found, list) or not found:
        raise RequestFailed("not the protocol", f"{data[:100].decode('utf-8', 'replace')!r} is not an answer")


def _error_event(path: str, failure: ApiError) -> bytes:
    """Returns an error within a stream, as this server's own answers have it."""
    if path != RESPONSES_PATH:
        return event(failure.body.model_dump_json())
    detail = failure.body.error
    return event(json.dumps({"type": "error", "code": detail.code, "message": detail.message, "param": None}), "error")


async def send_error(error: ApiError, send: Send) -> None:
    """Sends an error as a response."""
    response = error.response()
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": False})
