"""Request ids, one log line per request, and a response to every error that nothing else answered."""

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redraft.server.metrics import Metrics
from redraft.server.middleware.sse import ClientDisconnected
from redraft.server.openai.errors import ApiError

log = logging.getLogger("redraft.server")

REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
QUIET_PATHS = ("/health/live", "/health", "/health/ready", "/metrics")
CLIENT_CLOSED_REQUEST = 499
"""The status that the log has for a client that did not wait; it is sent to nobody."""


class RequestLog:
    """The outermost middleware: it gives every request an id, answers its errors, and logs and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[BaseRoute]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # No route takes other scopes, so none can forget to check the key.
            raise RuntimeError(f"this application does not support {scope['type']} connections")
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
        facts: dict[str, Any] = {}
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "facts": facts}
        started = time.perf_counter()
        status = CLIENT_CLOSED_REQUEST

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except ClientDisconnected:
            self._metrics.disconnected.inc()
            facts["disconnected"] = True
        except ApiError as error:
            await error.response()(scope, receive, send_marked)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        # A panic of a Rust library is not an Exception.
        except BaseException:
            log.exception("request %s failed", request_id, extra={"request_id": request_id})
            if status == CLIENT_CLOSED_REQUEST:
                message = f"internal server error; see request {request_id} in the server's log"
                await ApiError(500, message, code="internal_error").response()(scope, receive, send_marked)
        finally:
            self._metrics.requests.labels(self._route_path(scope), str(status)).inc()
            _log(request_id, scope, status, time.perf_counter() - started, facts)

    def _route_path(self, scope: Scope) -> str:
        """Returns the path of a request's route, also if it never came there; "other" for paths without a route.

        Their own names would be a label without bounds.
        """
        route = scope.get("route") or next(
            (route for route in self._routes if route.matches(scope)[0] != Match.NONE), None
        )
        return getattr(route, "path", "other")


def _log(request_id: str, scope: Scope, status: int, seconds: float, facts: dict[str, Any]) -> None:
    fields = {
        "request_id": request_id,
        "method": scope["method"],
        # As it came over the wire: a line break in it would break our log's line.
        "path": scope.get("raw_path", b"").decode("ascii", "replace")[:200],
        "status": status,
        "ms": round(1000 * seconds, 1),
        **facts,
    }
    level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
    log.log(level, "%s", " ".join(f"{name}={value}" for name, value in fields.items()), extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """A formatter that writes a line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"), "level": record.levelname}
        line |= getattr(record, "fields", None) or {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
