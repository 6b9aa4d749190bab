"""A server's life: its socket first, then the model, loaded in a thread, the ready line, and an orderly shutdown."""

import asyncio
import contextlib
import functools
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeVar

import uvicorn

from redraft.api import Model
from redraft.async_engine import Engine
from redraft.server.app import create_app
from redraft.server.batches.store import BatchStore
from redraft.server.batches.worker import BatchWorker
from redraft.server.middleware.request_log import JsonFormatter
from redraft.server.middleware.timeouts import TimedProtocol
from redraft.server.service import Service, served_name
from redraft.server.settings import MAX_HEADER_BYTES, ServerSettings
from redraft.utils.memory import malloc_trim, trim_malloc_periodically
from redraft.utils.words import counted

log = logging.getLogger("redraft.server")

Result = TypeVar("Result")

CLOSING_SECONDS = 2
"""How long connections may take to close once no request is left."""

POLL_SECONDS = 0.05


def serve(settings: ServerSettings, load: Callable[[], Model]) -> None:
    """Serves the model that `load` returns until SIGTERM or SIGINT; a second signal ends it at once.

    OSError if the address cannot be bound, before anything is loaded; what `load` raises is raised.
    """
    _set_up_logging(settings)
    server = ModelServer(settings, load)
    if settings.api_key is None and not settings.is_loopback:
        log.warning("anyone who can reach %s can use this server: it has no API key", settings.host)
    asyncio.run(server.run())
    if server.is_loading:
        # A shutdown shall not wait until gigabytes are read, and a thread cannot be stopped.
        sys.stdout.flush()
        os._exit(0)


def start_engine(model: Model, settings: ServerSettings) -> Engine:
    """Starts the engine of a server."""
    # Slots are counted before a prompt is read; the engine's own queue shall never be full.
    held = {"admitted_requests": settings.max_concurrent, "queued_requests": settings.max_held}
    return Engine(model, **Engine.context_limits(model, {}) | held)


class ModelServer:
    """A server that listens from its creation on and may `run` in any thread. OSError if the address cannot be bound.

    is_loading: whether the model is being loaded.
    """

    def __init__(self, settings: ServerSettings, load: Callable[[], Model]) -> None:
        self._settings, self._load = settings, load
        self.service = Service(settings)
        self.is_loading = False
        self._store = None if settings.state is None else BatchStore(settings.state)
        self._worker = None if self._store is None else BatchWorker(self._store, self.service)
        batches = None if self._store is None or self._worker is None else (self._store, self._worker)
        self._socket = _bind(settings)
        # Not asked of the socket later: that may have been closed.
        self.host, self.port = self._socket.getsockname()[:2]
        self._engine: Engine | None = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        protocol: Any = functools.partial(TimedProtocol, settings)
        config = uvicorn.Config(
            create_app(self.service, batches), http=protocol, ws="none", loop="asyncio", lifespan="off",
            access_log=False, log_config=None, server_header=False, h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_graceful_shutdown=CLOSING_SECONDS, proxy_headers=False,
        )  # fmt: skip
        self._uvicorn = _DrainingUvicorn(config, self._drain)

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def run(self) -> None:
        """Serves until a signal or `stop` ends it. Raises what loading the model raised."""
        self._loop = asyncio.get_running_loop()
        loading = asyncio.create_task(self._load_model())
        background = [
            asyncio.create_task(work) for work in (trim_malloc_periodically(malloc_trim()), self._watch_engine())
        ]
        try:
            with self._socket:
                await self._uvicorn.serve(sockets=[self._socket])
        finally:
            for task in (loading, *background):
                task.cancel()
            await asyncio.gather(loading, *background, return_exceptions=True)
            await self._stop_batches()
            self.service.close()
            await self.service.closing.aclose()
            if self._engine is not None:
                await _run_in_thread(self._shut_down)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Does what a first signal does, from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._uvicorn.start_draining)

    async def _watch_engine(self) -> None:
        """Ends the server if its engine has stopped, so that a supervisor restarts it."""
        while self._engine is None or self._engine.broken is None:
            await asyncio.sleep(1)
        log.error("the engine has stopped", exc_info=self._engine.broken)
        self._failure = RuntimeError("the engine has stopped; the log says why")
        self._uvicorn.should_exit = True

    async def _load_model(self) -> None:
        self.is_loading = True
        try:
            model = await _run_in_thread(self._load)
            self._engine = start_engine(model, self._settings)
            self.is_loading = False
            self.service.attach_engine(self._engine, served_name(model.name))
            if self._worker is not None:
                self._worker.start(asyncio.get_running_loop())
        except asyncio.CancelledError:
            raise
        # A panic of a Rust library is not an Exception.
        except BaseException as error:
            self.is_loading = False
            self._failure = error
            self._uvicorn.should_exit = True
            return
        settings, service = self._settings, self.service
        print(
            f"redraft: serving {', '.join(service.model_names)} at {self.url} "
            f"({counted(settings.max_concurrent, 'request')} at once, {settings.max_queue} waiting, context "
            f"{service.max_context:,} tokens{', with a key' if settings.api_key else ''})",
            flush=True,
        )

    async def _stop_batches(self) -> None:
        if self._worker is not None and self._store is not None:
            await _run_in_thread(self._worker.stop)
            self._store.close()
            self._store = None

    def _shut_down(self) -> None:
        assert self._engine is not None
        self._engine.shutdown(finish=False)

    async def _drain(self) -> None:
        """Refuses new requests, lets running ones finish within the time limit, and closes."""
        self.service.is_draining = True
        running = self.service.slots.taken
        log.info("shutting down: %s in progress, %g s left", counted(running, "answer"), self._settings.drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                while self.service.slots.taken:
                    await asyncio.sleep(POLL_SECONDS)
        await self._stop_batches()
        if self._engine is not None:
            # Cancelling what is left tells its clients.
            await _run_in_thread(self._shut_down)
        self._uvicorn.should_exit = True


class _DrainingUvicorn(uvicorn.Server):
    """Uvicorn, which on a signal would stop listening at once; here `drain` decides when."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Any]) -> None:
        super().__init__(config)
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is not None or not self.started:
            self.force_exit = self.should_exit = True
            return
        # A handler may run between any two instructions; a task is started from within the loop.
        asyncio.get_running_loop().call_soon_threadsafe(self.start_draining)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Aborts connections, so that their requests end in order; uvicorn would cancel them with a traceback each."""
        delay = 0.0 if self.force_exit else CLOSING_SECONDS / 2
        aborting = asyncio.get_running_loop().call_later(delay, self._abort)
        try:
            await super().shutdown(sockets)
        finally:
            aborting.cancel()

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def start_draining(self) -> None:
        """Starts to drain, unless it has started; to be called in the event loop."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())


async def _run_in_thread(work: Callable[[], Result]) -> Result:
    """Returns the result of `work` from a thread of its own: it waits for no other work, and no exit waits for it."""
    future: Future[Result] = Future()
    # The thread sets the result even where nobody waits for it any more.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)


def _bind(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        # Two sockets may bind one address, but only one can listen.
        listening.listen()
    except OSError as error:
        listening.close()
        raise OSError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}): choose another host or port"
        ) from error
    return listening


def _set_up_logging(settings: ServerSettings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else text)
    for name, level in (("redraft.server", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
