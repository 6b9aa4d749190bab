"""Connections that wait for nobody: uvicorn's protocol with an end to its patience, and errors in the API's shape."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from redraft.server import settings
from redraft.server.errors import ApiError


class PatientProtocol(H11Protocol):
    """Uvicorn's protocol would wait for the head of a request, or for its answer to be taken, for ever."""

    _asking: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

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
        self._asking = _forget(self._asking)
        self._taking = _forget(self._taking)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(settings.SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taking = _forget(self._taking)

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
            self._asking = _forget(self._asking)
        elif self._asking is None and not self.transport.is_closing():
            self._asking = self.loop.call_later(settings.HEADER_SECONDS, self.transport.close)


def _forget(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
