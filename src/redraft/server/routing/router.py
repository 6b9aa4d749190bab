"""The router: middleware that sends each request for an answer the way that the rules have for it."""

import contextlib
import json
import secrets
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redraft.server.middleware.body import parse_body
from redraft.server.middleware.sse import run_until_disconnect
from redraft.server.openai.errors import ApiError, bad_request
from redraft.server.routing.endpoint import OUR_FIELDS, VIA_HEADER, EndpointClient, send_error
from redraft.server.routing.relay import HeldResponse, MarkedResponse, Route, WayLeft
from redraft.server.routing.request import COMPLETIONS_PATH, ROUTED_PATHS, choose, read_request
from redraft.server.routing.rules import RoutingRule, RoutingRules, Way
from redraft.server.service import Service

NO_RULE = Route(rule=None, way=None, why="no rule takes it")


class RequestRouter:
    """Middleware behind the reader of bodies: it chooses a way, and another where the rules say when to fall back."""

    def __init__(self, app: ASGIApp, service: Service, rules: RoutingRules) -> None:
        self._app, self._service, self._rules = app, service, rules
        self._id = secrets.token_hex(8)
        self._endpoints = {
            name: EndpointClient(name, way) for name, way in rules.ways.items() if way.endpoint is not None
        }
        for endpoint in self._endpoints.values():
            service.closing.push_async_callback(endpoint.client.aclose)
        self._routed = service.metrics.add_counter(
            "routed", "Requests by rule, way and outcome: answered, refused, failed, or left for the fallback",
            "rule", "way", "outcome",
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST" or scope["path"] not in ROUTED_PATHS:
            await self._app(scope, receive, send)
            return
        message = await receive()
        body: Any = None
        # What is wrong with a body is told by the endpoint that it was sent to.
        with contextlib.suppress(ApiError):
            body = await parse_body(message["body"])
        chosen = choose(self._rules, read_request(scope["path"], body)) if isinstance(body, dict) else None
        if chosen is None:
            marked = MarkedResponse(send, NO_RULE)
            await self._answer_here(scope, _replay(message["body"], receive), marked)
            self._note(scope, NO_RULE, _outcome(marked.status))
            return
        await self._send_by(*chosen, body, scope, receive, send)

    async def _send_by(
        self, rule: RoutingRule, why: str, body: Mapping[str, Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Sends a request the way of a rule, and on from there for as long as there is a reason to fall back."""
        name, tried = rule.to, list[WayLeft]()
        while True:
            way = self._rules.ways[name]
            sent, left_out = self._body_for(way, rule, scope["path"], body)
            route = Route(rule=rule.name, way=name, why=why, left_out=left_out, tried=tuple(tried))
            if way.fallback is None:
                marked = MarkedResponse(send, route)
                has_failed = await self._answer(name, sent, scope, receive, marked)
                self._note(scope, route, "failed" if has_failed else _outcome(marked.status))
                return
            # What was sent cannot be taken back: the answer is held until it is known to be the one that is given.
            held = HeldResponse()
            await self._answer(name, sent, scope, receive, held)
            reason = _reason_to_leave(way, held)
            self._note(scope, route, "fallback" if reason else "failed" if held.failure() else _outcome(held.status))
            if reason is None:
                await held.send_to(MarkedResponse(send, route))
                return
            tried.append(WayLeft(name, reason))
            name = way.fallback

    async def _answer(self, name: str, body: Mapping[str, Any], scope: Scope, receive: Receive, send: Send) -> bool:
        """Answers a request in one way. Returns whether an endpoint failed to."""
        if name not in self._endpoints:
            await self._answer_here(scope, _replay(json.dumps(body).encode("ascii"), receive), send)
            return False
        # Of the log's line: no route of this application saw it.
        scope["route"] = SimpleNamespace(path=scope["path"])
        passed = Headers(scope=scope).get(VIA_HEADER, "")
        try:
            if self._id in passed.split(","):
                raise ApiError(
                    508, "the rules of the servers that this request passed send it in a circle: it has been here "
                    "before", code="route_circle",
                )  # fmt: skip
            via = ",".join(filter(None, (passed, self._id)))
            with self._service.slots.reserve(1):
                forwarding = self._endpoints[name].forward(scope["path"], body, via, send)
                failure = await run_until_disconnect(receive, forwarding)
        except ApiError as error:
            await send_error(failure := error, send)
        if failure is not None:
            scope["state"]["facts"]["error"] = failure.code
        return failure is not None and failure.status_code >= 500

    async def _answer_here(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The framework writes into the scope, and a request may come here twice.
        inner = dict(scope)
        try:
            await self._app(inner, receive, send)
        finally:
            scope["route"] = inner.get("route")

    def _body_for(
        self, way: Way, rule: RoutingRule, path: str, body: Mapping[str, Any]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Returns what is sent one way, and the fields that are left out of it."""
        sent = dict(body)
        if way.endpoint is not None:
            if way.model is not None:
                sent["model"] = way.model
            left_out = () if way.redraft else tuple(name for name in OUR_FIELDS if body.get(name))
            if "canvas" in left_out and body.get("strict"):
                raise bad_request(
                    f"the request is strict, and rule {rule.name!r} sends it to an endpoint that has no canvas: leave "
                    "canvas out", "canvas", "strict",
                )  # fmt: skip
            return {name: value for name, value in sent.items() if name not in left_out}, left_out
        if way.adapter is not None:
            sent["model"] = way.adapter
        elif body.get("model") in (rule.models or ()) and body["model"] not in self._service.model_names:
            # A name that only the rules have.
            del sent["model"]
        canvas = {} if body.get("canvas") is None else body["canvas"]
        is_scored = path == COMPLETIONS_PATH and body.get("echo")
        if way.mode is not None and isinstance(canvas, dict) and not is_scored:
            says_how = canvas.get("mode") is not None or canvas.get("autoregressive")
            sent["canvas"] = canvas if says_how else {**canvas, "mode": way.mode}
        return sent, ()

    def _note(self, scope: Scope, route: Route, outcome: str) -> None:
        """Counts where a request went, and writes it into its line of the log."""
        self._routed.labels(route.rule or "none", route.way or "none", outcome).inc()
        facts = scope["state"]["facts"]
        facts |= {"rule": route.rule, "way": route.way}
        if outcome == "fallback":
            facts["fell_back_from"] = [*facts.get("fell_back_from", ()), route.way]


def _reason_to_leave(way: Way, held: HeldResponse) -> str | None:
    """Returns why the answer of a way is not given, but that of its fallback; None where it is given."""
    if (failure := held.failure()) is not None or held.status != 200:
        return failure if way.on_failure else None
    if way.min_trust is None:
        return None
    if (trust := held.trust()) is None:
        return "the probability that its answer is right is not known"
    return (
        f"its answer is right with a probability of {trust:.2g}, below {way.min_trust:g}"
        if trust < way.min_trust
        else None
    )


def _outcome(status: int) -> str:
    return "answered" if status < 400 else "refused" if status < 500 else "failed"


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns what receives a body at once, and then what the client does."""
    given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return given.pop() if given else await receive()

    return replayed
