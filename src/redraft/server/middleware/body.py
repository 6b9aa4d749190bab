"""Request bodies: read up to a limit of size and time, and parsed as strict JSON."""

import asyncio
import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redraft.server.middleware.sse import ClientDisconnected
from redraft.server.openai.errors import ApiError, bad_request
from redraft.server.settings import MAX_BODY_BYTES, MAX_FIELDS, MAX_UPLOAD_BYTES

UPLOAD_PATH = "/v1/files"

WIDE = "is UTF-16 or UTF-32; send it as UTF-8"
OTHER_KINDS = {
    b"\x1f\x8b": "is compressed with gzip, which is not read; send it plain",
    codecs.BOM_UTF16_LE: WIDE,
    codecs.BOM_UTF16_BE: WIDE,
}
"""What bodies begin with that are not JSON in UTF-8, and what to do about it."""

LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""What JSON's escape of half a surrogate pair begins with; a whole pair is no error."""

AT_ONCE_BYTES = 2**16
"""A body up to this length is looked through in three milliseconds; a longer one not in the event loop."""

MAX_KEY_SHOWN = 200
"""Characters of a key that occurs twice."""


class BodyReader:
    """Middleware that reads the body of a POST before its route runs. ApiError for one that is too long or too slow.

    routes: the application's. Where none takes a POST to the path, the answer says so, whatever the body is.
    """

    def __init__(self, app: ASGIApp, seconds: float, routes: Sequence[BaseRoute]) -> None:
        self._app, self._seconds, self._routes = app, seconds, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST" and self._has_route(scope):
            if scope["path"] == UPLOAD_PATH:
                receive = self._limited(Headers(scope=scope), receive)
            else:
                body = await self._read(Headers(scope=scope), receive)
                receive = _replay(body, receive)
        await self._app(scope, receive, send)

    def _has_route(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] == Match.FULL for route in self._routes)

    def _limited(self, headers: Headers, receive: Receive) -> Receive:
        """Returns what receives an upload part by part, up to its limit; each part has the time that a body has."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            raise ApiError(415, "a file must be sent as multipart/form-data")
        size = 0

        async def limited() -> Message:
            nonlocal size
            try:
                async with asyncio.timeout(self._seconds):
                    part = await receive()
            except TimeoutError:
                late = f"no part of the upload arrived within {self._seconds:.0f} s"
                raise ApiError(408, late, headers={"Connection": "close"}) from None
            if part["type"] == "http.disconnect":
                raise ClientDisconnected
            size += len(part.get("body", b""))
            if size > MAX_UPLOAD_BYTES:
                raise ApiError(
                    413, f"the upload is longer than {MAX_UPLOAD_BYTES} bytes, the limit", code="body_too_long"
                )
            return part

        return limited

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            given = f"it is sent as {kind[:50]!r}" if kind else "this one names no type"
            raise ApiError(415, f"the request body must be application/json; {given}")
        if (coding := headers.get("content-encoding", "").strip().lower()) not in ("", "identity"):
            raise ApiError(
                415, f"the request body is encoded as {coding[:50]!r}, which is not read; send it plain, without "
                "Content-Encoding",
            )  # fmt: skip
        too_long = ApiError(
            413, f"the request body is longer than {MAX_BODY_BYTES} bytes, the limit", code="body_too_long"
        )
        declared = headers.get("content-length", "0")
        # Python refuses to parse a number of thousands of digits.
        if declared.isdecimal() and (len(declared) > 12 or int(declared) > MAX_BODY_BYTES):
            raise too_long
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnected
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > MAX_BODY_BYTES:
                        raise too_long
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            late = f"the request body did not arrive within {self._seconds:.0f} s"
            raise ApiError(408, late, headers={"Connection": "close"}) from None


def _replay(body: bytes, receive: Receive) -> Receive:
    whole: Iterable[Message] = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replayed() -> Message:
        for message in whole:
            return message
        return await receive()

    return replayed


class StrictRequest(Request):
    """A request whose body is strict JSON, which is all that its route reads."""

    async def json(self) -> Any:
        return await parse_body(await self.body())


async def parse_body(body: bytes) -> Any:
    """Returns what a body says as strict JSON. Raises ApiError for anything else.

    UTF-8, with or without its mark; no NaN, no lone surrogates, no key twice, bounded depth and number of fields.
    """
    plain = body.removeprefix(codecs.BOM_UTF8)
    try:
        found = from_json(plain, allow_inf_nan=False)
    except ValueError as error:
        kind = next((kind for mark, kind in OTHER_KINDS.items() if body.startswith(mark)), None)
        # JSON begins with a character of ASCII: a zero beside it is the other half of a wide one.
        kind = WIDE if kind is None and 0 in body[:2] else kind
        told = f"the request body {kind or _not_json(plain, error)}"
        raise bad_request(told, code="invalid_json") from error
    if plain.count(b":") > MAX_FIELDS:
        await asyncio.to_thread(_check_objects, found)
    if len(plain) > AT_ONCE_BYTES:
        await asyncio.to_thread(_check_keys, plain)
    else:
        _check_keys(plain)
    return found


def _not_json(body: bytes, error: ValueError) -> str:
    if not body.strip():
        return "is empty; send a JSON object"
    try:
        body.decode()
    except UnicodeDecodeError as found:
        return f"is not UTF-8: byte {body[found.start]:#04x} at {found.start}"
    if "hex escape" in str(error) and LONE_SURROGATE.search(body):
        return f"holds half a surrogate pair, which is no Unicode: {error}"
    return f"is not valid JSON: {error}"


def _check_keys(body: bytes) -> None:
    """Refuses valid JSON in which an object has a key twice: which of the two was meant nobody knows."""
    json.loads(body, object_pairs_hook=_check_pairs)


def _check_pairs(pairs: list[tuple[str, object]]) -> None:
    if len(pairs) > 1 and len({name for name, _ in pairs}) < len(pairs):
        again = Counter(name for name, _ in pairs).most_common(1)[0][0][:MAX_KEY_SHOWN]
        raise bad_request(f"the key {again!r} occurs twice in an object of the request body", again, "invalid_json")


def _check_objects(body: object) -> None:
    """Refuses objects with too many fields: writing an error for each of half a million would take ten seconds."""
    left = [body]
    while left:
        one = left.pop()
        if isinstance(one, dict) and len(one) > MAX_FIELDS:
            message = f"an object in the request body has {len(one)} fields, the limit is {MAX_FIELDS}"
            raise bad_request(message, code="invalid_value")
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        left += [part for part in inside if isinstance(part, dict | list)]


class StrictRoute(APIRoute):
    """A route that parses its body strictly."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
