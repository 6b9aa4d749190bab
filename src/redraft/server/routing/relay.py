"""What is done to a response on its way to the client: marked with the way it came, or held back until it is whole."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

ROUTE_HEADER = "X-Redraft-Route"
JSON, EVENTS = "application/json", "text/event-stream"


@dataclass(frozen=True)
class WayLeft:
    """A way that a request was sent first, and why its answer was not given."""

    way: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Route:
    """Which way an answer came, and why: `route` of an answer, and the header.

    rule: None where no rule took the request. way: None for the served model as it answers without rules. left_out:
    fields of the request that the way has no use for. tried: the ways before it.
    """

    rule: str | None
    way: str | None
    why: str
    left_out: tuple[str, ...] = ()
    tried: tuple[WayLeft, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value != ()}


class MarkedResponse:
    """Sends a response on with its route: in a header, and in an answer, or the first event of one, as a field."""

    def __init__(self, send: Send, route: Route) -> None:
        self._send, self._route = send, json.dumps(route.to_json()).encode()
        self.status = 200
        self._start: Message | None = None
        self._parts: list[bytes] = []
        self._kind = ""
        self._is_marked = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._start is not None:
            self._parts.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._finish(self._start)
        else:
            if self._kind == EVENTS and not self._is_marked and _is_answer_event(body := message.get("body", b"")):
                message = {**message, "body": self._with_route(body.rstrip()) + b"\n\n"}
                self._is_marked = True
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        self.status = message["status"]
        message = {**message, "headers": list(message["headers"])}
        headers = MutableHeaders(scope=message)
        headers[ROUTE_HEADER] = self._route.decode()
        self._kind = headers.get("content-type", "").partition(";")[0]
        if self._kind == JSON and message["status"] == 200:
            # Its length is not known before the route is in it.
            self._start = message
        else:
            await self._send(message)

    async def _finish(self, start: Message) -> None:
        body = self._with_route(b"".join(self._parts).rstrip())
        MutableHeaders(scope=start)["content-length"] = str(len(body))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _with_route(self, text: bytes) -> bytes:
        """Returns a JSON object, or an event that ends in one, with the route as its last field."""
        if not text.endswith(b"}"):
            return text
        # Spliced, not parsed and written anew: numbers and texts stay as they are.
        separator = b"" if text[:-1].rstrip().endswith(b"{") else b","
        return text[:-1] + separator + b'"route":' + self._route + b"}"


class HeldResponse:
    """A response that is kept until it is whole, to be sent on or thrown away."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    async def send_to(self, send: Send) -> None:
        for message in self.messages:
            await send(message)

    @property
    def status(self) -> int:
        return self.messages[0]["status"] if self.messages else 500

    def failure(self) -> str | None:
        """Returns why there is no answer, in words, where that is not the request's fault; None otherwise."""
        status = self.status
        if status != 200 and status != 429 and status < 500:
            return None
        for body in self._objects():
            if error := body.get("error") or (body if body.get("type") in ("error", "response.failed") else None):
                message = error.get("message", "no reason given") if isinstance(error, dict) else error
                return f"it failed{'' if status == 200 else f' with {status}'}: {message}"
        return None if status == 200 else f"it failed with {status}"

    def trust(self) -> float | None:
        """Returns the least probability, of its answers, that one is right; None where one has none."""
        found = [choice.get("trust") for body in self._objects() for choice in _ended_choices(body)]
        probabilities = [trust.get("probability") if isinstance(trust, dict) else None for trust in found]
        known = [one for one in probabilities if isinstance(one, int | float)]
        return min(known) if known and len(known) == len(found) else None

    def _objects(self) -> Iterator[Mapping[str, Any]]:
        """Yields the objects of a response: the one of its body, or of each of its events."""
        bodies = [message.get("body", b"") for message in self.messages if message["type"] == "http.response.body"]
        kind = dict(self.messages[0]["headers"]).get(b"content-type", b"").decode() if self.messages else ""
        texts = [event_data(body) for body in bodies] if kind.startswith(EVENTS) else [b"".join(bodies).decode()]
        for text in texts:
            try:
                found = json.loads(text)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found


def event_data(body: bytes) -> str:
    """Returns the data of one server-sent event."""
    lines = body.decode("utf-8", "replace").split("\n")
    return "\n".join(line.partition(":")[2].removeprefix(" ") for line in lines if line.startswith("data:"))


def _is_answer_event(body: bytes) -> bool:
    """Tells whether a part of a stream is an event that every client reads: no comment, and none of redraft's own."""
    return body.startswith((b"data: {", b"event: response.", b"event: error"))


def _ended_choices(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the choices of an answer, of an event those that end with it; a response is a choice of its own."""
    response = body.get("response", body)
    if isinstance(response, dict) and response.get("object") == "response" and response.get("output"):
        yield response
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("finish_reason") is not None:
            yield choice
