"""The application: every route, and the middleware around them."""

import re
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from redraft.server import adapters, health
from redraft.server.batches import endpoint as batch_endpoint
from redraft.server.batches.store import BatchStore
from redraft.server.batches.worker import BatchWorker
from redraft.server.decisions import endpoint as decisions
from redraft.server.middleware.access import AccessControl, Readiness
from redraft.server.middleware.body import BodyReader, StrictRoute
from redraft.server.middleware.request_log import RequestLog
from redraft.server.openai import chat, completions, models, tokenize
from redraft.server.openai.errors import ApiError, ErrorBody, from_http, from_validation
from redraft.server.openai.responses_api import endpoint as responses
from redraft.server.playground import pages
from redraft.server.service import Service

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "Malformed, out of range, or not supported",
        401: "The API key is missing or wrong",
        403: "Called by another name than this server's",
        404: "No such model or page",
        405: "Method not allowed",
        409: "The name is taken",
        408: "The request body arrived too slowly",
        413: "The request body is too long",
        415: "The request body is not application/json",
        429: "No slot is free: try again after Retry-After seconds",
        500: "An error of the server or of the model",
        503: "Loading, or shutting down",
    }.items()
}


def create_app(service: Service, batches: tuple[BatchStore, BatchWorker] | None = None) -> ASGIApp:
    app: ASGIApp = create_routes(service, batches)
    if (rules := service.settings.rules) is not None:
        # Without rules nothing of it is loaded.
        from redraft.server.routing.router import RequestRouter

        app = RequestRouter(app, service, rules)
    app = BodyReader(app, service.settings.body_seconds)
    app = Readiness(app, service.unavailable_reason)
    app = AccessControl(app, service.settings)
    app = RequestLog(app, service.metrics)
    if service.settings.cors_origins:
        app = CORSMiddleware(
            app, allow_origins=service.settings.cors_origins, allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"], expose_headers=["X-Request-Id", "Retry-After", "X-Redraft-Route"],
        )  # fmt: skip
    return app


def create_routes(service: Service, batches: tuple[BatchStore, BatchWorker] | None = None) -> FastAPI:
    app = FastAPI(
        title="redraft", version=version("redraft"), docs_url=None, redoc_url=None, responses=ERROR_RESPONSES,
        redirect_slashes=False,
        description="DiffusionGemma behind OpenAI's API. See docs/serving.md.",
    )  # fmt: skip
    app.router.route_class = StrictRoute
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(Exception, _raise_on)
    for endpoint in (chat, completions, responses, tokenize, models, adapters, decisions, health, pages):
        endpoint.add_routes(app, service)
    if batches is not None:
        batch_endpoint.add_routes(app, *batches)
    _remove_422(app)
    _allow_head(app)
    return app


# Coroutines, because the framework would run plain functions in a thread.
async def _answer_http_error(request: Request, error: Any) -> Response:
    if error.status_code == 404 and not isinstance(error, ApiError):
        error = _unknown_route(request)
    return _answer(request, from_http(error))


def _unknown_route(request: Request) -> ApiError:
    """Returns the error of a path that leads nowhere, with the paths that lead somewhere."""
    path = re.sub(r"[^!-~]", "?", request.url.path[:100])
    paths = request.app.openapi()["paths"].items()
    known = ", ".join(f"{'/'.join(sorted(methods)).upper()} {at}" for at, methods in paths)
    message = f"there is no route {path}; there are {known}; /openapi.json describes them, and / is the playground"
    return ApiError(404, message, code="unknown_route")


async def _answer_validation_error(request: Request, error: Any) -> Response:
    return _answer(request, from_validation(error.errors(), error.body))


def _answer(request: Request, error: ApiError) -> Response:
    if error.code is not None:
        # Neither the message nor the parameter: both may hold what was sent, which does not belong in the log.
        request.state.facts["error"] = error.code
    return error.response()


async def _raise_on(_: Request, error: Exception) -> Response:
    """Leaves errors to the middleware: the framework would answer in its own words, even to a closed connection."""
    raise error


def _allow_head(app: FastAPI) -> None:
    """Lets probes ask for the head alone. After the document was made: it has each route once."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            route.methods = {"GET", "HEAD"}


def _remove_422(app: FastAPI) -> None:
    """Removes the framework's 422 from the document: bodies are refused with 400, as OpenAI does."""
    for path in (document := app.openapi())["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
