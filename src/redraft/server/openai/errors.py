"""Errors as OpenAI's API has them: {"error": {"message", "type", "param", "code"}}."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from redraft.server.openai.requests import (
    OPENAI_NAMES,
    Canvas,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from redraft.server.openai.responses_api.protocol import ResponsesRequest
from redraft.utils.words import counted

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "service_unavailable_error",
    508: "server_error",
}
"""By status; all others are "invalid_request_error"."""

MAX_ERRORS_EXAMINED = 1000
"""Of the validation errors of one request body."""

REQUESTS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
"""By route, the request whose fields one may have meant."""

LIMITS = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_output_tokens")
OTHER_NAMES: dict[type[BaseModel], dict[str, str]] = {
    ChatRequest: {
        **OPENAI_NAMES, "max_output_tokens": "max_tokens", "prompt": "messages", "input": "messages",
        "instructions": "a message of role system", "text": "response_format",
    },
    CompletionRequest: {
        **OPENAI_NAMES, **dict.fromkeys(LIMITS, "max_tokens"), "messages": "prompt", "input": "prompt",
    },
    ResponsesRequest: {
        **dict.fromkeys(LIMITS, "max_output_tokens"), "temperature": "temperature", "seed": "seed",
        "messages": "input", "prompt": "input", "response_format": "text.format",
        "reasoning_effort": "reasoning.effort", "verbosity": "text.verbosity",
    },
}  # fmt: skip
"""What requests for an answer call sampler settings, and fields of each other."""

NEAR_SIMILARITY = 0.8
"""A misspelled name shares about this much with the one that is meant."""

MAX_NAME_SHOWN = 200
"""Characters of a client's own name for a field."""


class ErrorDetail(BaseModel):
    """What is wrong: in words, its type, the parameter, and a code for programs."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every response that is an error."""

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
        kind = ERROR_TYPES.get(self.status_code, "invalid_request_error")
        return ErrorBody(error=ErrorDetail(message=self.detail, type=kind, param=self.param, code=self.code))

    def response(self) -> Response:
        return Response(
            self.body.model_dump_json(), self.status_code, dict(self.headers or {}), media_type="application/json"
        )


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def retry_later(status: int, message: str, seconds: float, code: str) -> ApiError:
    return ApiError(status, message, code=code, headers={"Retry-After": str(max(1, round(seconds)))})


def from_validation(errors: Sequence[Mapping[str, Any]], route: str, body: object = None) -> ApiError:
    """Returns pydantic's validation errors as one error, about the first field that is wrong. route: its path.

    Where a field has several types there is an error for each: the one that got furthest into the body says most. What
    is missing may be there by another name, which is then what is told.
    """
    found = [(_path(error, body), error) for error in errors[:MAX_ERRORS_EXAMINED]]
    first = found[0][0]
    model = REQUESTS.get(route)
    if model is not None and found[0][1]["type"] == "missing" and len(first) == 1:
        unknown = [path for path, error in found if error["type"] == "extra_forbidden" and len(path) == 1]
        first = next((path for path in unknown if _meant(str(path[0]), model) == first[0]), first)
    path = max((path for path, _ in found if path[: len(first)] == first), key=_depth)
    here = [error for at, error in found if at == path]
    param = ".".join(map(str, path)) or None
    if here[0]["type"] == "extra_forbidden":
        name = _shortened(param)
        return bad_request(f"{name} is not supported; {_way_out(name, model, body)}", name, "unsupported_parameter")
    if param is None:
        return bad_request("the request body must be a JSON object", None, "invalid_value")
    # A value of the wrong type is told all the types; one of a right type what else is wrong with it.
    wrong = [error for error in here if not str(error["type"]).endswith("_type")][:1] or here
    code = "unsupported_value" if wrong[0]["type"] == "value_error" else "invalid_value"
    message = " or ".join(dict.fromkeys(map(_message, wrong))).replace(" or must be ", " or ")
    return bad_request(f"{param}: {message}", param, code)


def from_http(error: HTTPException) -> ApiError:
    """Returns an error that the framework raised, such as an unknown route or method, as one of ours."""
    if isinstance(error, ApiError):
        return error
    message = error.detail or HTTPStatus(error.status_code).phrase
    return ApiError(error.status_code, message, headers=error.headers)


def _way_out(name: str, model: type[BaseModel] | None, body: object) -> str:
    """Returns what to do about a field that a request has not: it may have another place or name, or be misspelled."""
    place, _, own = name.rpartition(".")
    if model is None or place not in ("", "canvas") or (place and "canvas" not in model.model_fields):
        return "leave it out"
    if place:
        fields = OTHER_NAMES[model] | {field: field for field in model.model_fields}
        if own in fields:
            return f"send {fields[own]} beside canvas"
        near = get_close_matches(own, Canvas.model_fields, n=1, cutoff=NEAR_SIMILARITY)
        return f"did you mean canvas.{near[0]}?" if near else "leave it out"
    if name in Canvas.model_fields and "canvas" in model.model_fields:
        return f"send it as canvas.{name}"
    meant = _meant(name, model)
    if meant is None:
        return "leave it out"
    if isinstance(body, dict) and body.get(meant) is not None:
        return f"leave it out, since there is {meant}"
    if model is CompletionRequest and name == "messages":
        return "send it to /v1/chat/completions, or a text as prompt"
    return f"send it as {meant}" if name in OTHER_NAMES.get(model, ()) else f"did you mean {meant}?"


def _meant(name: str, model: type[BaseModel]) -> str | None:
    """Returns the field of a request that another name is, or is like; None if there is none."""
    if (known := OTHER_NAMES.get(model, {}).get(name)) is not None:
        return known
    near = get_close_matches(name, model.model_fields, n=1, cutoff=NEAR_SIMILARITY)
    return near[0] if near else None


def _depth(path: tuple[str | int, ...]) -> tuple[int, list[int]]:
    return len(path), [part for part in path if isinstance(part, int)]


def _path(error: Mapping[str, Any], body: object) -> tuple[str | int, ...]:
    """Where in the body an error is, without the branches of unions that pydantic names in between."""
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


def _message(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind.endswith(("too_short", "too_long")):
        noun = "character" if kind.startswith("string") else "element"
        is_short = kind.endswith("too_short")
        limit = counted(context["min_length" if is_short else "max_length"], noun)
        return f"must have at {'least' if is_short else 'most'} {limit}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "must be an object"
    if kind == "union_tag_not_found":
        return f"{context['discriminator']} is missing".replace("'", "")
    if kind == "union_tag_invalid":
        *others, last = context["expected_tags"].split(", ")
        name = context["discriminator"].replace("'", "")
        return f"{name} is '{context['tag']:.80}', must be {' or '.join(filter(None, [', '.join(others), last]))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should be", "must be", 1)
    return re.sub(r"\ban? valid (?=([a-z]))", lambda found: "an " if found[1] in "aeiou" else "a ", message)


def _shortened(name: str | None) -> str:
    return "it" if name is None else name if len(name) <= MAX_NAME_SHOWN else f"{name[:MAX_NAME_SHOWN]}..."
