"""Server-sent events, and work that ends as soon as the client has disconnected."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")

KEEP_ALIVE_SECONDS = 15.0
"""Proxies close a connection on which nothing happens: after this long a comment is sent."""


class ClientDisconnected(Exception):
    """The client closed its connection, or had it closed because it did not receive what it was sent."""


async def run_until_disconnect(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Returns the result of `work`; cancels it and raises ClientDisconnected as soon as the client disconnects."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response of server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html.

    `events` is closed, which cancels its work, however the response ends. Raises ClientDisconnected.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # Its length is not known.
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def work() -> None:
            try:
                await self._send(send)
            finally:
                await self._events.aclose()  # type: ignore[attr-defined]

        await run_until_disconnect(receive, work())

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        upcoming = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                done, _ = await asyncio.wait({upcoming}, timeout=KEEP_ALIVE_SECONDS)
                chunk = upcoming.result() if done else b": waiting\n\n"
                if chunk is None:
                    break
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if done:
                    upcoming = asyncio.ensure_future(anext(self._events, None))
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(data: str, kind: str | None = None) -> bytes:
    """Returns one event; `data` is one line."""
    named = "" if kind is None else f"event: {kind}\n"
    return f"{named}data: {data}\n\n".encode()


DONE = event("[DONE]")
