"""The fields that hold an answer to a form, by OpenAI's names and by vLLM's."""

from typing import Annotated, Any, Literal

from pydantic import Field

from redraft.server.openai.fields.base import FAIL_FAST, Label, StrictModel

Json = dict[str, Any] | str
"""A JSON Schema, as an object or as text."""
Choice = Annotated[list[str], Field(min_length=1), FAIL_FAST]


class TextFormat(StrictModel):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(StrictModel):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(StrictModel):
    """A JSON Schema. name, description: a client's own, which no answer depends on. strict: refuse it or keep it."""

    name: Label
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool = False


class JsonSchemaFormat(StrictModel):
    """A JSON value that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(StrictModel):
    """What an answer is held to, by vLLM's names: a JSON Schema, a pattern, one of some texts, rules, a JSON object."""

    json_: Json | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: Choice | None = None
    grammar: str | None = None
    json_object: bool | None = None
