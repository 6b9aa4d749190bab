"""Bodies of requests: JSON to the letter, and no work for what no request needs."""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.responses import Response

from redraft.server.errors import refused
from redraft.server.settings import FIELDS


class StrictRequest(Request):
    """A request whose body is JSON to the letter: UTF-8, no NaN, no lone surrogates, and not nested without end."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            found = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise refused(f"the body is no JSON: {error}", code="invalid_json") from error
        if body.count(b":") > FIELDS:
            await asyncio.to_thread(_check_objects, found)
        return found


def _check_objects(body: object) -> None:
    """An error for each of half a million unknown fields would take ten seconds to write."""
    left = [body]
    while left:
        one = left.pop()
        if isinstance(one, dict) and len(one) > FIELDS:
            raise refused(f"an object of the body has {len(one)} fields, the limit is {FIELDS}", code="invalid_value")
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        left += [part for part in inside if isinstance(part, dict | list)]


class StrictRoute(APIRoute):
    """A route that reads its body so."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
