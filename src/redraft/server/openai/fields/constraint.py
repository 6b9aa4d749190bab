"""The constraint that a request's fields ask for."""

from typing import Any

from redraft.constraints.build import ConstraintSpec, spec_of
from redraft.server.constraints import Wanted
from redraft.server.openai.errors import bad_request
from redraft.server.openai.fields.structured import JsonObjectFormat, JsonSchemaFormat, TextFormat
from redraft.server.openai.requests import GenerationRequest

OLD_NAMES = ("json", "regex", "choice", "grammar")
"""Fields of structured_outputs that were fields of the request itself, guided_json and so on."""


def wanted_constraint(request: GenerationRequest, format_name: str = "response_format") -> Wanted | None:
    """Returns the constraint that a request asks for, or None. ApiError for two of them, and for one that is too long.

    format_name: what the endpoint calls the field response_format.
    """
    outputs = request.structured_outputs
    given: dict[str, Any] = {} if outputs is None else {
        f"structured_outputs.{name}": getattr(outputs, "json_" if name == "json" else name)
        for name in (*OLD_NAMES, "json_object")
    }  # fmt: skip
    given |= {f"guided_{name}": getattr(request, f"guided_{name}") for name in OLD_NAMES}
    given[format_name] = None if isinstance(request.response_format, TextFormat) else request.response_format
    named = {name: value for name, value in given.items() if value is not None and value is not False}
    if not named:
        return None
    if len(named) > 1:
        raise bad_request(f"{' and '.join(named)} are given: an answer has one constraint; send one", list(named)[1])
    ((param, value),) = named.items()
    try:
        if param == format_name:
            return _of_format(value, param)
        return Wanted(_spec(param.replace("guided_", "structured_outputs.").partition(".")[2], value), param)
    except ValueError as error:
        raise bad_request(str(error), param, "invalid_value") from error


def _of_format(given: JsonObjectFormat | JsonSchemaFormat, param: str) -> Wanted:
    any_object = ConstraintSpec(kind="json_object")
    if isinstance(given, JsonObjectFormat) or given.json_schema.schema_ is None:
        return Wanted(any_object, param)
    schema = given.json_schema.schema_
    kind = schema.get("type", "object")
    fallback = any_object if kind == "object" else _spec("json", {"type": kind})
    return Wanted(_spec("json", schema), param, None if given.json_schema.strict else fallback)


def _spec(kind: str, value: Any) -> ConstraintSpec:
    if kind == "json_object":
        return ConstraintSpec(kind="json_object")
    if kind == "json" and isinstance(value, str):
        return ConstraintSpec(kind="json_schema", text=value)
    spec = spec_of(**{"schema" if kind == "json" else kind: value})
    assert spec is not None
    return spec
