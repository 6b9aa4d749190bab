"""Whether a request is let in: the API key, the Host header where there is no key, and whether the server is ready."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from redraft.server.openai.errors import ApiError
from redraft.server.settings import ServerSettings

LIVE_PATH = "/health/live"
READY_PATHS = ("/health", "/health/ready")
API_PREFIXES = ("/v1/", "/tokenize", "/detokenize")
PAGE_PATHS = ("/", "/page/")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class AccessControl:
    """Middleware that raises ApiError for a wrong key or host. GET /health/live passes without either."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path != LIVE_PATH or scope["method"] not in ("GET", "HEAD"):
            headers = Headers(scope=scope)
            self._check_host(headers)
            owner = self._check_key(headers, is_page=path == PAGE_PATHS[0] or path.startswith(PAGE_PATHS[1]))
            scope["state"] = {**scope.get("state", {}), "owner": owner}
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """Keeps out web pages elsewhere whose name was made to lead here (DNS rebinding), where there is no key."""
        if self._settings.api_key is not None or not self._settings.is_loopback:
            return
        host = re.sub(r":\d*$", "", headers.get("host", "localhost"))
        if host.lower() not in (*LOOPBACK_NAMES, self._settings.host):
            raise ApiError(
                403, "this server answers to localhost only; start it with an API key to call it by another name",
                code="wrong_host",
            )  # fmt: skip

    def _check_key(self, headers: Headers, *, is_page: bool) -> str:
        """Takes the key as a bearer token, or, since browsers can ask for that, as the password of any user.

        Returns its digest, by which its owner is known; "" where no key is needed.
        """
        if not (keys := self._settings.keys):
            return ""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode("latin-1").partition(":")[2]
            except (binascii.Error, ValueError):
                given = ""
        elif kind.lower() != "bearer":
            given = ""
        # All of them, so that the time says nothing.
        if not sum(hmac.compare_digest(given.strip().encode(), key.encode()) for key in keys):
            scheme = 'Basic realm="redraft: any user, the API key as password"' if is_page else "Bearer"
            raise ApiError(
                401, "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key", headers={"WWW-Authenticate": scheme},
            )  # fmt: skip
        return hashlib.sha256(given.strip().encode()).hexdigest()


class Readiness:
    """Middleware that raises the ApiError of `unavailable_reason`, where there is one, for the API and readiness."""

    def __init__(self, app: ASGIApp, unavailable_reason: Callable[[], ApiError | None]) -> None:
        self._app, self._unavailable_reason = app, unavailable_reason

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if (path in READY_PATHS or path.startswith(API_PREFIXES)) and (error := self._unavailable_reason()):
            raise error
        await self._app(scope, receive, send)
