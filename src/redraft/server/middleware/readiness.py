"""Readiness: while the model loads or the server shuts down, the API answers 503."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from redraft.server.openai.errors import ApiError

READY_PATHS = ("/health", "/health/ready")
API_PREFIXES = ("/v1/", "/tokenize", "/detokenize")


class Readiness:
    """Middleware that raises the ApiError of `unavailable_reason`, where there is one, for the API and readiness."""

    def __init__(self, app: ASGIApp, unavailable_reason: Callable[[], ApiError | None]) -> None:
        self._app, self._unavailable_reason = app, unavailable_reason

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if (path in READY_PATHS or path.startswith(API_PREFIXES)) and (error := self._unavailable_reason()):
            raise error
        await self._app(scope, receive, send)
