"""The items of a response's input and output: messages, calls of functions, and what came of those."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from redraft.server.openai.fields.base import FAIL_FAST, Label, StrictModel, no_op_field
from redraft.server.openai.fields.tools import Function, FunctionName


class InputPart(StrictModel):
    """A part of an input message. Images, audio and files are not read, and nothing is fetched."""

    type: Literal["input_text", "output_text", "text"]
    text: str

    annotations: no_op_field([])  # type: ignore[valid-type]
    logprobs: no_op_field([])  # type: ignore[valid-type]


Content = str | Annotated[list[InputPart], FAIL_FAST]


class NotedItem(StrictModel):
    """What every item of an input may have. id, status: a client's own notes, which no answer depends on."""

    id: Label | None = None
    status: Label | None = None


class InputMessage(NotedItem):
    """A message of the input, or of an earlier response's output."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class FunctionCallInput(NotedItem):
    """A call of a function, from an earlier response's output."""

    type: Literal["function_call"]
    call_id: Label
    name: str
    arguments: str


class FunctionCallOutput(NotedItem):
    """What came of a call: a text, or parts of one."""

    type: Literal["function_call_output"]
    call_id: Label
    output: Content


def _type_of(given: Any) -> str:
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return kind if kind in ("function_call", "function_call_output") else "message"


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCallInput, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")],
    Discriminator(_type_of),
]


class _OfFunction(StrictModel):
    """What is said of a function. Its type comes first: what else is wrong with another matters less."""

    type: Literal["function"]


class FlatTool(Function, _OfFunction):
    """A function that the model may call."""


class FlatChoice(_OfFunction):
    """The one function that the model must call."""

    name: FunctionName


def messages_of(given: list[InputMessage | FunctionCallInput | FunctionCallOutput]) -> list[dict[str, Any]]:
    """Returns items as messages of chat completions, which have calls beside the content of the message before them."""
    messages: list[dict[str, Any]] = []
    for item in given:
        match item:
            case InputMessage():
                messages.append({"role": item.role, "content": text_of_parts(item.content)})
            case FunctionCallOutput():
                found = {"role": "tool", "tool_call_id": item.call_id, "content": text_of_parts(item.output)}
                messages.append(found)
            case FunctionCallInput():
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                function = {"name": item.name, "arguments": item.arguments}
                messages[-1].setdefault("tool_calls", []).append({"id": item.call_id, "function": function})
    return messages


def text_of_parts(content: str | list[InputPart]) -> str:
    """Returns the text of an item's content."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


class OutputText(BaseModel):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[Any] = Field(default=[], max_length=0)


Status = Literal["in_progress", "completed", "incomplete"]


class OutputMessage(BaseModel):
    """What the model says."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Status = "in_progress"
    content: list[OutputText] = []


class OutputCall(BaseModel):
    """A function that the model calls. arguments: JSON, if the model wrote valid JSON."""

    id: str
    type: Literal["function_call"] = "function_call"
    call_id: str
    name: str
    arguments: str = ""
    status: Status = "in_progress"


OutputItem = OutputMessage | OutputCall
