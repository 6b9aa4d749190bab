"""Running the server: a socket at once, the model in a thread, the ready line, and an orderly end."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

import uvicorn

from redraft.api import Model
from redraft.async_engine import Engine
from redraft.engine import Limits
from redraft.server.app import Served, create_app
from redraft.server.edge import JsonFormatter
from redraft.server.memory import give_back_now_and_then
from redraft.server.protocol import PatientProtocol
from redraft.server.settings import HEADER_BYTES, ServerSettings

log = logging.getLogger("redraft.server")

Result = TypeVar("Result")

CLOSING_SECONDS = 2
"""How long connections may take to close when no request is left."""

POLL_SECONDS = 0.05


def serve(settings: ServerSettings, load: Callable[[], Model]) -> None:
    """Serves the model that `load` gives until SIGTERM or SIGINT; a second one ends it at once.

    OSError where the address cannot be had, before anything is loaded; what `load` raises, as it is.
    """
    _set_up_logging(settings)
    running = Running(settings, load)
    if settings.api_key is None and not settings.is_loopback:
        log.warning("whoever can reach %s can use this server: it has no API key", settings.host)
    asyncio.run(running.run())
    if running.is_loading:
        # Whoever wants it to end does not want to wait for gigabytes first, and a thread cannot be stopped.
        sys.stdout.flush()
        os._exit(0)


class Running:
    """One run of a server, for a thread that is the main one or not. Listens from the beginning.

    OSError where the address cannot be had.
    """

    def __init__(self, settings: ServerSettings, load: Callable[[], Model]) -> None:
        self._settings, self._load = settings, load
        self.served = Served(settings)
        self.is_loading = False
        self._socket = _bind(settings)
        # Not asked of the socket later: that may have been closed.
        self.host, self.port = self._socket.getsockname()[:2]
        self._engine: Engine | None = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            create_app(self.served), http=PatientProtocol, ws="none", loop="asyncio", lifespan="off", access_log=False,
            log_config=None, server_header=False, h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=CLOSING_SECONDS, proxy_headers=False,
        )  # fmt: skip
        self._server = _Server(config, self._drain)

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def run(self) -> None:
        """Until a signal or `stop` has ended it. Raises what the loading of the model raised."""
        self._loop = asyncio.get_running_loop()
        loading = asyncio.create_task(self._begin())
        beside = [asyncio.create_task(work) for work in (give_back_now_and_then(), self._watch_engine())]
        try:
            with self._socket:
                await self._server.serve(sockets=[self._socket])
        finally:
            for task in (loading, *beside):
                task.cancel()
            await asyncio.gather(loading, *beside, return_exceptions=True)
            if self._engine is not None:
                await _aside(self._shut_down)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """What a first signal does, from any thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._server.begin_to_drain)

    async def _watch_engine(self) -> None:
        """A server whose engine has stopped ends, so that what watches over it starts another."""
        while self._engine is None or self._engine.broken is None:
            await asyncio.sleep(1)
        log.error("the engine has stopped", exc_info=self._engine.broken)
        self._failure = RuntimeError("the engine has stopped; the log says why")
        self._server.should_exit = True

    async def _begin(self) -> None:
        self.is_loading = True
        try:
            model = await _aside(self._load)
            self._engine = self._start_engine(model)
            self.is_loading = False
            self.served.begin(self._engine, model.name.rstrip("/").rpartition("/")[2] or model.name)
        except asyncio.CancelledError:
            raise
        # A panic of a library in Rust is no Exception.
        except BaseException as error:
            self.is_loading = False
            self._failure = error
            self._server.should_exit = True
            return
        settings, served = self._settings, self.served
        print(
            f"redraft: serving {served.name} at {self.url} "
            f"({settings.max_concurrent} requests at once, {settings.max_queue} waiting, context "
            f"{served.max_context:,} tokens{', with a key' if settings.api_key else ''})",
            flush=True,
        )

    def _start_engine(self, model: Model) -> Engine:
        settings, config = self._settings, model.transformer.config
        canvas = max(config.canvas_length, model.defaults.canvas_length or 0)
        usual = Limits()
        return Engine(
            model,
            forward_tokens=max(usual.forward_tokens, canvas),
            admitted_requests=settings.max_concurrent,
            admitted_tokens=max(usual.admitted_tokens, config.max_context),
            # Counted in places, before a prompt is read; the engine's own queue shall never be what is full.
            queued_requests=settings.places,
        )

    def _shut_down(self) -> None:
        assert self._engine is not None
        self._engine.shutdown(finish=False)

    async def _drain(self) -> None:
        """Takes nothing on any more, lets what is held end as long as it may take, and closes."""
        self.served.draining = True
        held = self.served.places.taken
        log.info("shutting down: %d requests are held, they have %g s", held, self._settings.drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                while self.served.places.taken:
                    await asyncio.sleep(POLL_SECONDS)
        if self._engine is not None:
            # Those that had too little time are told so, by the cancellation of their answers.
            await _aside(self._shut_down)
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
        asyncio.get_running_loop().call_soon_threadsafe(self.begin_to_drain)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Requests whose connection is lost end in order; uvicorn would cancel them, with a traceback for each."""
        patience = 0.0 if self.force_exit else CLOSING_SECONDS / 2
        giving_up = asyncio.get_running_loop().call_later(patience, self._abort)
        try:
            await super().shutdown(sockets)
        finally:
            giving_up.cancel()

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def begin_to_drain(self) -> None:
        """In the event loop."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())


async def _aside(work: Callable[[], Result]) -> Result:
    """The result of `work` in a thread of its own: no other work is before it, and no exit waits for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def tell(give: Callable[[Any], None], what: Any) -> None:
        def give_if_wanted() -> None:
            if not done.done():
                give(what)

        # Where the loop has ended meanwhile nobody wants to know.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(give_if_wanted)

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            tell(done.set_exception, error)
        else:
            tell(done.set_result, result)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _bind(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        # Two may bind one address, but only one can listen at it.
        listening.listen()
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
