"""Connections that wait for nobody: uvicorn's protocol with an end to its patience, and errors in the API's shape."""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from redraft.server import settings
from redraft.server.errors import ApiError


class Patience:
    """A timer that is begun once, however often that is asked for, until it is ended."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float, then: Callable[[], None]) -> None:
        """`then` is called after so many seconds, unless it ends before."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PatientProtocol(H11Protocol):
    """Uvicorn's protocol would wait for the head of a request, or for its answer to be taken, for ever."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._asking, self._taking = Patience(), Patience()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Writing pauses as soon as the system takes nothing more, so that the time of every byte left is watched.
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._asking.end()
        self._taking.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking.begin(settings.SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taking.end()

    def send_400_response(self, msg: str) -> None:
        """To what is no HTTP. Uvicorn would fail where an answer has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = ApiError(400, "this is no HTTP, or its head is too long").body.model_dump_json().encode()
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
        """Two lines in the log, with advice for somebody else, whenever a client offers HTTP/2."""

    def _watch(self) -> None:
        """A client has so long for the next head from when the last answer ended, what is left of a body included."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._asking.end()
        elif not self.transport.is_closing():
            self._asking.begin(settings.HEADER_SECONDS, self.transport.close)
