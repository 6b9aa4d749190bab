"""Connections with time limits: uvicorn's protocol, which by itself waits for ever, and errors in the API's format."""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from redraft.server.openai.errors import ApiError
from redraft.server.settings import ServerSettings


class Timer:
    """A timer that is started once, however often it is asked to, until it is stopped."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls `callback` after this many seconds unless it is stopped before."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(seconds, callback)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class TimedProtocol(H11Protocol):
    """Uvicorn's protocol with limits on how long a client may take to send a head and to receive a response."""

    def __init__(self, settings: ServerSettings, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._settings = settings
        self._head_timer, self._send_timer = Timer(), Timer()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Writing pauses as soon as the system takes nothing more, so that every byte that is left is timed.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        self._time_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.stop()
        self._send_timer.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer.start(self._settings.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._send_timer.stop()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP. Uvicorn would fail where a response has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = ApiError(400, "the request is not valid HTTP, or its head is too long")
            body = error.body.model_dump_json().encode()
            headers = [
                ("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close"),
            ]  # fmt: skip
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Logs nothing; uvicorn logs two lines of advice whenever a client offers HTTP/2."""

    def _time_head(self) -> None:
        """Limits the time from the end of a response to the next head, what is left of a body included."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_timer.stop()
        elif not self.transport.is_closing():
            self._head_timer.start(self._settings.header_seconds, self.transport.close)
