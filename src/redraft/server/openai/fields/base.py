"""What the models of all requests share: strictness, nulls, and fields that may only say what happens anyway."""

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

FAIL_FAST: Any = Field(fail_fast=True)
"""For every list: writing an error for each of a million wrong elements would take half a minute."""

Label = Annotated[str, Field(max_length=1024)]
"""A client's own name for something, which no answer depends on."""


Note = Annotated[Any, Field(default=None)]
"""What a client, or another server, says of an earlier answer beside what it said: it is not read, whatever it is."""


def without_nulls(given: Any) -> Any:
    """Returns an object without its members that are null, which count as absent; anything else as it is."""
    return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


def _allow_null(schema: dict[str, Any]) -> None:
    """Says in a model's schema that optional fields, and fields of any other name, may be null."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        if (
            name not in required
            and {"type": "null"} not in field.get("anyOf", ())
            and None not in field.get("enum", ())
        ):
            outer = {key: field.pop(key) for key in ("title", "default", "description") if key in field}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **outer}
    schema["additionalProperties"] = {"type": "null"}


def _whole(value: Any, depth: int = 2) -> Any:
    """Returns a value with whole floats as integers, in lists too: some clients know only one type of number."""
    if isinstance(value, list) and value and depth and isinstance(value[0], float | list):
        return [_whole(one, depth - 1) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class StrictModel(BaseModel):
    """A model for which unknown fields, NaN and values of another type are errors. Null is absent, 1.0 an integer."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra=_allow_null)

    @model_validator(mode="before")
    @classmethod
    def _read_json(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {name: _whole(value) for name, value in given.items() if value is not None}
        return given


class CacheMarks(StrictModel):
    """Where somebody's cache may end, by Anthropic's name and by OpenAI's; ours needs no such mark."""

    cache_control: dict[str, Any] | None = None
    prompt_cache_breakpoint: dict[str, Any] | None = None


def no_op_field(*values: Any, plain: Callable[[Any], Any] | None = None, schema: Any = None) -> Any:
    """Returns the type of a field that OpenAI has and we do not: it may only say what happens anyway, or be null.

    plain: gives a value without what in it says nothing. schema: that of the field, where it may be more than `values`.
    """
    way_out = f"leave it out, or send {json.dumps(values[0])}" if values else "leave it out"

    def check(value: Any) -> Any:
        said = value if plain is None else plain(value)
        same = (said == one and isinstance(said, bool) == isinstance(one, bool) for one in values)
        if value is not None and not any(same):
            raise ValueError(f"{json.dumps(value)[:100]} is not supported; {way_out}")
        return value

    described = WithJsonSchema(schema or {"enum": [*values, None]})
    return Annotated[Any, AfterValidator(check), described, Field(default=None)]
