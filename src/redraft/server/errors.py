"""Refusals in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
"""By status; all others are "invalid_request_error"."""


LOOKED_AT, SHOWN = 1000, 200
"""Of the errors in one body so many are looked at, and so many characters of a name are told."""


class ErrorDetail(BaseModel):
    """What is wrong: in words, of which kind, with which parameter, and a code for programs."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


class ApiError(HTTPException):
    """A request that is refused, or could not be answered."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param, self.code = param, code

    @property
    def body(self) -> ErrorBody:
        """As it is sent."""
        kind = TYPES.get(self.status_code, "invalid_request_error")
        return ErrorBody(error=ErrorDetail(message=self.detail, type=kind, param=self.param, code=self.code))


def refused(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that asks for what cannot be."""
    return ApiError(400, message, param=param, code=code)


def retry_later(status: int, message: str, seconds: float, code: str) -> ApiError:
    """A request that may well be answered `seconds` from now."""
    return ApiError(status, message, code=code, headers={"Retry-After": str(max(1, round(seconds)))})


def from_validation(errors: Sequence[Mapping[str, Any]], body: object = None) -> ApiError:
    """What pydantic finds wrong with a body; the first that is wrong is enough.

    Where a field may be of several types there is an error for each: the one that got furthest into the body tells
    most.
    """
    found = [(_path(error, body), error) for error in errors[:LOOKED_AT]]
    first = found[0][0]
    path = max((path for path, _ in found if path[: len(first)] == first), key=_reach)
    here = [error for at, error in found if at == path]
    param = ".".join(map(str, path)) or None
    if here[0]["type"] == "extra_forbidden":
        return refused(f"{_shown(param)} is not supported; leave it out", _shown(param), "unsupported_parameter")
    if param is None:
        return refused("the body must be a JSON object with the request", None, "invalid_value")
    # What is of no right type is told all of them, and what is of one of them what else is wrong.
    wrong = [error for error in here if not str(error["type"]).endswith("_type")][:1] or here
    code = "unsupported_value" if wrong[0]["type"] == "value_error" else "invalid_value"
    told = " or ".join(dict.fromkeys(map(_told, wrong))).replace(" or must be ", " or ")
    return refused(f"{param}: {told}", param, code)


def _reach(path: tuple[str | int, ...]) -> tuple[int, list[int]]:
    """How far into the body a place is."""
    return len(path), [part for part in path if isinstance(part, int)]


def _path(error: Mapping[str, Any], body: object) -> tuple[str | int, ...]:
    """Where in the body; pydantic names the branches of unions in between, which are no part of the request."""
    path: list[str | int] = []
    at: Any = body
    place = error["loc"][1:]
    for number, part in enumerate(place, 1):
        is_missing = number == len(place) and error["type"] == "missing"
        if isinstance(at, dict) and (part in at or is_missing):
            at = at.get(part)
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _told(error: Mapping[str, Any]) -> str:
    if error["type"] == "missing":
        return "is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be", 1)


def _shown(text: str | None) -> str:
    """The client's own words, which may be long."""
    return "it" if text is None else text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def from_http(error: HTTPException) -> ApiError:
    """One that the framework raised: no such route, a method that a route does not have."""
    if isinstance(error, ApiError):
        return error
    message = error.detail or HTTPStatus(error.status_code).phrase
    return ApiError(error.status_code, message, headers=error.headers)
