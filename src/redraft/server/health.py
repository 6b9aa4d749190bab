"""GET /health, /health/live, /health/ready and /metrics."""

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from redraft.server.openai.answers import json_response
from redraft.server.openai.responses import Health
from redraft.server.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health/live", response_model=Health)
    async def live() -> Response:
        """Answers as long as the process runs. The one route that requires no key."""
        return json_response(Health(status="ok"))

    # Other servers have the first name, and load tools look there.
    @app.get("/health", response_model=Health)
    @app.get("/health/ready", response_model=Health)
    async def ready() -> Response:
        """Answers if requests are answered: the model is loaded, and the server is not shutting down."""
        return json_response(Health(status="ready"))

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Returns the metrics for Prometheus."""
        return Response(service.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
