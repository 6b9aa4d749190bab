"""Replicas of the server behind one route: an application of Ray Serve, which routes, watches and replaces them.

    serve run redraft.server.cluster.replicas:build model=bundled replicas=2

https://docs.ray.io/en/latest/serve/ says what else can be done with an application.
"""

import asyncio
import functools
import importlib
import os
from collections.abc import Callable
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

import redraft
from redraft.api import Model
from redraft.async_engine import Engine
from redraft.generation.modes import Mode
from redraft.server.app import create_app
from redraft.server.lifecycle import start_engine
from redraft.server.service import Service, served_name
from redraft.server.settings import ServerSettings

API_KEY_VARIABLE = "REDRAFT_API_KEY"
HEALTH_SECONDS = 5.0


class ReplicaSettings(BaseModel):
    """The arguments of the application. Those that `redraft serve` has too are of each replica.

    cpus, gpus: of each replica. host: as the clients of the cluster see it; any but loopback lets them use every name.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = "bundled"
    replicas: int = Field(default=2, ge=1)
    cpus: float = Field(default=1.0, gt=0)
    gpus: float = Field(default=0.0, ge=0)
    device: str = "auto"
    precision: str = "auto"
    host: str = "127.0.0.1"
    served_model_name: str | None = None
    max_concurrent: int = 16
    max_queue: int = 128
    max_context: int | None = None
    mode: str = "diffusion"
    drain_seconds: float = 30.0

    def server_settings(self, api_key: str | None) -> ServerSettings:
        """Returns the settings of one replica's server. Raises ValueError for those out of range."""
        return ServerSettings(
            host=self.host, api_key=api_key, served_name=self.served_model_name, max_concurrent=self.max_concurrent,
            max_queue=self.max_queue, max_context=self.max_context, mode=cast(Mode, self.mode),
            drain_seconds=self.drain_seconds,
        )  # fmt: skip


class ReplicaApp:
    """The server's routes as an application whose model is loaded with its start, and gone with its end."""

    def __init__(self, settings: ServerSettings, load: Callable[[], Model]) -> None:
        self._settings, self._load = settings, load
        self._service = Service(settings)
        self._app: ASGIApp = create_app(self._service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or lives from the application's start to its end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(scope, receive, send)

    def check(self) -> None:
        """Raises ApiError where requests are not answered any more."""
        if (error := self._service.unavailable_reason()) is not None:
            raise error

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            engine = await asyncio.to_thread(self._start)
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._service.close()
        await asyncio.to_thread(functools.partial(engine.shutdown, finish=False))
        await send({"type": "lifespan.shutdown.complete"})

    def _start(self) -> Engine:
        model = self._load()
        engine = start_engine(model, self._settings)
        self._service.attach_engine(engine, served_name(model.name))
        return engine


class Replica:
    """What Ray Serve asks about a replica. app: as Ray made it."""

    app: ReplicaApp

    def check_health(self) -> None:
        """Raises where this replica is to be replaced."""
        self.app.check()


def build(settings: ReplicaSettings) -> Any:
    """Returns the application. Its key is the value of REDRAFT_API_KEY here; without one there is none.

    A replica that is to end answers what it has begun, for drain_seconds at most, and gets nothing new.
    """
    serve: Any = importlib.import_module("ray.serve")
    of_server = settings.server_settings(os.environ.get(API_KEY_VARIABLE))
    load = functools.partial(redraft.load, settings.model, device=settings.device, precision=settings.precision)

    def app() -> ReplicaApp:
        return ReplicaApp(of_server, load)

    deployment = serve.deployment(
        name="redraft", num_replicas=settings.replicas, max_ongoing_requests=of_server.max_held,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        graceful_shutdown_timeout_s=settings.drain_seconds, health_check_period_s=HEALTH_SECONDS,
    )  # fmt: skip
    return deployment(serve.ingress(app)(Replica)).bind()
