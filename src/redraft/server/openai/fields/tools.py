"""The tools that a model may call, and which it must."""

from typing import Annotated, Any, Literal

from pydantic import Field

from redraft.server.openai.fields.base import StrictModel

FunctionName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


class Function(StrictModel):
    """A function that the model may call. parameters: a JSON Schema, shown to the model.

    strict: hold calls to the schema or refuse the request. Without it they are held to it where any call is held to
    something, as far as can be.
    """

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False


class Tool(StrictModel):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


class ChosenFunction(StrictModel):
    """The name of a function."""

    name: FunctionName


class NamedTool(StrictModel):
    """The one tool that the model must call."""

    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["auto", "none", "required"] | NamedTool
