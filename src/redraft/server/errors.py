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


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """What pydantic finds wrong with a body; the first that is wrong is enough."""
    first = errors[0]
    place = [part for part in first["loc"] if part not in ("body", "query", "path")]
    # A union names its branches in the place, which are no part of the request.
    param = ".".join(str(part) for part in place if isinstance(part, int) or "[" not in str(part)) or None
    if first["type"] == "extra_forbidden":
        return refused(f"{param} is not supported; leave it out", param, "unsupported_parameter")
    message = str(first["msg"]).removeprefix("Value error, ")
    code = "unsupported_value" if first["type"] == "value_error" else "invalid_value"
    return refused(f"{param}: {message}" if param else message, param, code)


def from_http(error: HTTPException) -> ApiError:
    """One that the framework raised: no such route, a method that a route does not have."""
    if isinstance(error, ApiError):
        return error
    message = error.detail or HTTPStatus(error.status_code).phrase
    return ApiError(error.status_code, message, headers=error.headers)
