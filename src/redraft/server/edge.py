"""What every request passes before a route sees it: name, log, host, key, readiness, size and time of its body."""

import asyncio
import base64
import binascii
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redraft.server import settings
from redraft.server.errors import ApiError
from redraft.server.metrics import Metrics
from redraft.server.sending import ClientGone
from redraft.server.settings import ServerSettings

log = logging.getLogger("redraft.server")

REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
LIVE = "/health/live"
READY = ("/health", "/health/ready")
PAGES = ("/", "/page/")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
GONE = 499
"""What a log has for a client that did not wait; nobody is sent it."""


class Edge:
    """Wraps an application. `ready` says why it cannot be asked now, or None."""

    def __init__(
        self, app: ASGIApp, chosen: ServerSettings, metrics: Metrics, ready: Callable[[], ApiError | None]
    ) -> None:
        self._app, self._settings, self._metrics, self._ready = app, chosen, metrics, ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # There are no others here, and so nobody who could forget to ask them for the key.
            raise RuntimeError(f"this application knows no {scope['type']}")
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
        facts: dict[str, Any] = {}
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "facts": facts}
        begun = time.perf_counter()
        status = GONE

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                told = MutableHeaders(scope=message)
                told["X-Request-Id"] = request_id
                told["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._guarded(scope, headers, receive, marked)
        except ClientGone:
            self._metrics.disconnected.inc()
            facts["gone"] = True
        except ApiError as error:
            await answer_error(error)(scope, receive, marked)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        # A panic of a library in Rust is no Exception.
        except BaseException:
            log.exception("request %s failed", request_id, extra={"request_id": request_id})
            if status == GONE:
                message = f"an error of the server's own; its log knows it as {request_id}"
                await answer_error(ApiError(500, message, code="internal_error"))(scope, receive, marked)
        finally:
            # Paths that are no route would be a label without bounds.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            _log(request_id, scope, status, time.perf_counter() - begun, facts)

    async def _guarded(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path != LIVE or scope["method"] != "GET":
            self._check_host(headers)
            self._check_key(headers, is_page=path == PAGES[0] or path.startswith(PAGES[1]))
        if (path in READY or path.startswith(("/v1/", "/tokenize", "/detokenize"))) and (error := self._ready()):
            raise error
        if scope["method"] == "POST":
            receive = await _read_body(headers, receive)
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """A page elsewhere whose name was made to lead here (DNS rebinding) must not talk to a server without a key."""
        if self._settings.api_key is not None or not self._settings.is_loopback:
            return
        host = re.sub(r":\d*$", "", headers.get("host", "localhost"))
        if host.lower() not in (*LOOPBACK, self._settings.host):
            raise ApiError(
                403, "this server answers to localhost only; start it with a key to be reached by another name",
                code="wrong_host",
            )  # fmt: skip

    def _check_key(self, headers: Headers, *, is_page: bool) -> None:
        """The key as bearer token, or, since that is what a browser can ask for, as the password of any user."""
        key = self._settings.api_key
        if key is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode("latin-1").partition(":")[2]
            except (binascii.Error, ValueError):
                given = ""
        elif kind.lower() != "bearer":
            given = ""
        if not hmac.compare_digest(given.strip().encode(), key.encode()):
            scheme = 'Basic realm="redraft: any user, the API key as password"' if is_page else "Bearer"
            raise ApiError(
                401, "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key", headers={"WWW-Authenticate": scheme},
            )  # fmt: skip


async def _read_body(headers: Headers, receive: Receive) -> Receive:
    """Reads a body as far as it may go, and gives a `receive` that has it whole."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"the body must be application/json, not {kind[:50] or 'without a type'!r}")
    too_long = ApiError(413, f"the body is longer than {settings.BODY_BYTES} bytes, the limit", code="body_too_long")
    declared = headers.get("content-length", "0")
    # Python refuses to read a number of thousands of digits.
    if declared.isdecimal() and (len(declared) > 12 or int(declared) > settings.BODY_BYTES):
        raise too_long
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > settings.BODY_BYTES:
                    raise too_long
                if not message.get("more_body"):
                    break
    except TimeoutError:
        raise ApiError(
            408, f"the body did not come within {settings.BODY_SECONDS:.0f} s", headers={"Connection": "close"}
        ) from None
    whole: Iterable[Message] = iter([{"type": "http.request", "body": b"".join(parts), "more_body": False}])

    async def again() -> Message:
        for message in whole:
            return message
        return await receive()

    return again


def answer_error(error: ApiError) -> Response:
    """An error as a response."""
    return Response(
        error.body.model_dump_json(), error.status_code, dict(error.headers or {}), media_type="application/json"
    )


def _log(request_id: str, scope: Scope, status: int, seconds: float, facts: dict[str, Any]) -> None:
    told = {
        "request_id": request_id,
        "method": scope["method"],
        # As it came over the wire: a line break in it would be a line of our log.
        "path": scope.get("raw_path", b"").decode("ascii", "replace")[:200],
        "status": status,
        "ms": round(1000 * seconds, 1),
        **facts,
    }
    level = logging.DEBUG if scope["path"] in (LIVE, *READY, "/metrics") else logging.INFO
    log.log(level, "%s", " ".join(f"{name}={value}" for name, value in told.items()), extra={"told": told})


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {"time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"), "level": record.levelname}
        told |= getattr(record, "told", None) or {"message": record.getMessage()}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)
