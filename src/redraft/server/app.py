"""The application: every route, and the middleware around them."""

import copy
import re
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
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


STATE_PATH = re.compile(r"/v1/(files|batches)(/.*)?")
"""The paths of what a server has only where its state is kept."""


def create_app(service: Service, batches: tuple[BatchStore, BatchWorker] | None = None) -> ASGIApp:
    api = create_routes(service, batches)
    app: ASGIApp = api
    if (rules := service.settings.rules) is not None:
        # Without rules nothing of it is loaded.
        from redraft.server.routing.router import RequestRouter

        app = RequestRouter(app, service, rules)
    app = BodyReader(app, service.settings.body_seconds, api.routes)
    app = Readiness(app, service.unavailable_reason)
    app = AccessControl(app, service.settings)
    app = RequestLog(app, service.metrics, api.routes)
    if service.settings.cors_origins:
        app = CORSMiddleware(
            app, allow_origins=service.settings.cors_origins, allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"], expose_headers=["X-Request-Id", "Retry-After", "X-Redraft-Route"],
        )  # fmt: skip
    return app


def create_routes(service: Service, batches: tuple[BatchStore, BatchWorker] | None = None) -> FastAPI:
    app = Api(
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
    if service.settings.adapter_root is None:
        app.unoffered = (adapters.LOAD_PATH, adapters.UNLOAD_PATH)
    if batches is not None:
        batch_endpoint.add_routes(app, *batches)
    for route in app.routes:
        # Probes may ask for the head alone.
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            route.methods = {"GET", "HEAD"}
    return app


class Api(FastAPI):
    """The routes. Their document is made when it is first asked for, which takes longer than all the rest.

    It has each route once, without HEAD, and not the framework's 422: bodies are refused with 400, as OpenAI does.
    unoffered: the paths of routes that this server does not allow, which it does not suggest.
    """

    unoffered: tuple[str, ...] = ()

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            routes = []
            for route in map(copy.copy, self.routes):
                if isinstance(route, APIRoute):
                    route.methods = _own_methods(route)
                routes.append(route)
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=routes
            )  # fmt: skip
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            self.openapi_schema = document
        return self.openapi_schema


def _own_methods(route: APIRoute) -> set[str]:
    """Returns the methods that a route has of itself: HEAD goes with GET."""
    return {*(route.methods or ())} - {"HEAD"}


# Coroutines, because the framework would run plain functions in a thread.
async def _answer_http_error(request: Request, error: Any) -> Response:
    if error.status_code == 404 and not isinstance(error, ApiError):
        error = _unknown_route(request)
    if error.status_code == 405 and not isinstance(error, ApiError):
        error = _other_method(request, error)
    return _answer(request, from_http(error))


def _unknown_route(request: Request) -> ApiError:
    """Returns the error of a path that leads nowhere, with the paths that lead somewhere."""
    path = _shown_path(request)
    methods: dict[str, set[str]] = {}
    for route in request.app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema and route.path_format not in request.app.unoffered:
            methods.setdefault(route.path_format, set()).update(_own_methods(route))
    known = ", ".join(f"{'/'.join(sorted(names))} {at}" for at, names in methods.items())
    message = f"there is no route {path}; there are {known}; /openapi.json describes them, and / is the playground"
    if STATE_PATH.fullmatch(path) and methods.keys().isdisjoint(("/v1/files", "/v1/batches")):
        message = f"{message}; files and batches need a server with state: redraft serve --state FOLDER"
    return ApiError(404, message, code="unknown_route")


def _other_method(request: Request, error: Any) -> ApiError:
    """Returns the error of a method that a path does not have, with those that it has."""
    allowed = dict(error.headers or {}).get("Allow", "").split(", ")
    method = re.sub(r"[^!-~]", "?", request.method[:20])
    message = f"{_shown_path(request)} does not take {method}; send {' or '.join(sorted({*allowed} - {'HEAD'}))}"
    return ApiError(405, message, code="method_not_allowed", headers=error.headers)


def _shown_path(request: Request) -> str:
    return re.sub(r"[^!-~]", "?", request.url.path[:100])


async def _answer_validation_error(request: Request, error: Any) -> Response:
    return _answer(request, from_validation(error.errors(), request.url.path, error.body))


def _answer(request: Request, error: ApiError) -> Response:
    if error.code is not None:
        # Neither the message nor the parameter: both may hold what was sent, which does not belong in the log.
        request.state.facts["error"] = error.code
    return error.response()


async def _raise_on(_: Request, error: Exception) -> Response:
    """Leaves errors to the middleware: the framework would answer in its own words, even to a closed connection."""
    raise error
