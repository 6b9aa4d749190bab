"""Running the server: a socket at once, the model in a thread, the ready line, and an orderly end."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from redraft.engine import Limits
from redraft.facade import Model
from redraft.many import Engine
from redraft.server.app import Served, create_app
from redraft.server.edge import JsonFormatter
from redraft.server.settings import HEADER_BYTES, HEADER_SECONDS, ServerSettings

log = logging.getLogger("redraft.server")

CLOSING_SECONDS = 2
"""How long connections may take to close when no request is left."""

POLL_SECONDS = 0.05


def serve(settings: ServerSettings, load: Callable[[], Model]) -> None:
    """Serves the model that `load` gives until SIGTERM or SIGINT; a second one ends it at once.

    OSError where the address cannot be had, before anything is loaded; what `load` raises, as it is.
    """
    _set_up_logging(settings)
    listening = _bind(settings)
    with listening:
        asyncio.run(_Run(settings, load, listening).run())


class _Run:
    """One run of a server."""

    def __init__(self, settings: ServerSettings, load: Callable[[], Model], listening: socket.socket) -> None:
        self._settings, self._load, self._socket = settings, load, listening
        self._served = Served(settings)
        self._engine: Engine | None = None
        self._failure: BaseException | None = None
        config = uvicorn.Config(
            create_app(self._served), http=PatientProtocol, ws="none", loop="asyncio", lifespan="off", access_log=False,
            log_config=None, server_header=False, h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=CLOSING_SECONDS, proxy_headers=False,
        )  # fmt: skip
        self._server = _Server(config, self._drain)

    async def run(self) -> None:
        loading = asyncio.create_task(self._begin())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            if self._engine is not None:
                await asyncio.to_thread(self._engine.shutdown, finish=False)
        if self._failure is not None:
            raise self._failure

    async def _begin(self) -> None:
        try:
            engine, name = await asyncio.to_thread(self._start_engine)
            self._engine = engine
            self._served.begin(engine, name)
        except Exception as error:
            self._failure = error
            self._server.should_exit = True
            return
        settings, served = self._settings, self._served
        host, port = self._socket.getsockname()[:2]
        print(
            f"redraft: serving {served.name} at http://{f'[{host}]' if ':' in host else host}:{port} "
            f"({settings.max_concurrent} requests at once, {settings.max_queue} waiting, context "
            f"{served.max_context:,} tokens{', with a key' if settings.api_key else ''})",
            flush=True,
        )

    def _start_engine(self) -> tuple[Engine, str]:
        model = self._load()
        settings, config = self._settings, model.transformer.config
        canvas = max(config.canvas_length, model.defaults.canvas_length or 0)
        usual = Limits()
        engine = Engine(
            model,
            forward_tokens=max(usual.forward_tokens, canvas),
            admitted_requests=settings.max_concurrent,
            admitted_tokens=max(usual.admitted_tokens, config.max_context),
            # Counted in places, before a prompt is read; the engine's own queue shall never be what is full.
            queued_requests=settings.places,
        )
        return engine, model.name.rstrip("/").rpartition("/")[2] or model.name

    async def _drain(self) -> None:
        """Takes nothing on any more, lets what is held end as long as it may take, and closes."""
        self._served.draining = True
        held = self._served.places.taken
        log.info("shutting down: %d requests are held, they have %g s", held, self._settings.drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                while self._served.places.taken:
                    await asyncio.sleep(POLL_SECONDS)
        if self._engine is not None:
            # Those that had too little time are told so, by the cancellation of their answers.
            await asyncio.to_thread(self._engine.shutdown, finish=False)
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Uvicorn, which on a signal would close its door at once: here `drain` decides when."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Any]) -> None:
        super().__init__(config)
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is not None or not self.started:
            self.force_exit = self.should_exit = True
            return
        # A handler may run between any two instructions; a task is begun from within the loop.
        asyncio.get_running_loop().call_soon_threadsafe(self._begin_to_drain)

    def _begin_to_drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())


class PatientProtocol(H11Protocol):
    """Uvicorn's protocol, which waits for the head of a request for ever: here for so long and no longer."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def _bind(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise OSError(
            f"{settings.host}:{settings.port} cannot be listened on ({error.strerror or error}): "
            "choose another --host or --port"
        ) from error
    return listening


def _set_up_logging(settings: ServerSettings) -> None:
    """On standard error: ours from INFO on, the HTTP server's from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else text)
    for name, level in (("redraft.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
