"""The items of a response's input and output: messages, calls of functions, and what came of those."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from redraft.server.openai.fields.base import FAIL_FAST, CacheMarks, Label, Note, StrictModel
from redraft.server.openai.fields.tools import Function, FunctionName
from redraft.server.openai.requests import REFUSAL_TAG, TEXT_TAG, RefusalPart, part_kind


class InputPart(CacheMarks):
    """A part of an input message. Images, audio and files are not read, and nothing is fetched.

    annotations, logprobs, parsed: what else was said of an earlier answer.
    """

    type: Literal["input_text", "output_text", "text"]
    text: str

    annotations: Note
    logprobs: Note
    parsed: Note


Part = Annotated[
    Annotated[InputPart, Tag(TEXT_TAG)] | Annotated[RefusalPart, Tag(REFUSAL_TAG)], Discriminator(part_kind)
]
Content = str | Annotated[list[Part], FAIL_FAST]


class NotedItem(StrictModel):
    """What every item of an input may have. id, status: a client's own notes, which no answer depends on."""

    id: Label | None = None
    status: Label | None = None


class InputMessage(NotedItem):
    """A message of the input, or of an earlier response's output. phase: which of a turn's messages it was."""

    type: Literal["message"] = "message"
    phase: Label | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class FunctionCallInput(NotedItem):
    """A call of a function, from an earlier response's output."""

    type: Literal["function_call"]
    call_id: Label
    name: str
    arguments: str = ""
    parsed_arguments: Note


class Thought(StrictModel):
    """A part of what a model thought."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningInput(NotedItem):
    """What a model thought before the item that follows. summary, encrypted_content: for people, and for its server."""

    type: Literal["reasoning"]
    content: Annotated[list[Thought], FAIL_FAST] | None = None
    summary: Note
    encrypted_content: Note


class FunctionCallOutput(NotedItem):
    """What came of a call: a text, or parts of one."""

    type: Literal["function_call_output"]
    call_id: Label
    output: Content


def _type_of(given: Any) -> str:
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return kind if kind in ("function_call", "function_call_output", "reasoning") else "message"


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCallInput, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[ReasoningInput, Tag("reasoning")],
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


def messages_of(
    given: list[InputMessage | FunctionCallInput | FunctionCallOutput | ReasoningInput],
) -> list[dict[str, Any]]:
    """Returns items as messages of chat completions, where an answer's thoughts and calls are beside its content.

    Thoughts that no answer follows are left out.
    """
    messages: list[dict[str, Any]] = []
    thoughts = ""
    for item in given:
        match item:
            case ReasoningInput():
                thoughts += "".join(part.text for part in item.content or ())
                continue
            case InputMessage():
                messages.append({"role": item.role, "content": text_of_parts(item.content)})
                if refused := "".join(part.refusal for part in item.content if isinstance(part, RefusalPart)):
                    messages[-1]["refusal"] = refused
            case FunctionCallOutput():
                found = {"role": "tool", "tool_call_id": item.call_id, "content": text_of_parts(item.output)}
                messages.append(found)
            case FunctionCallInput():
                if not messages or messages[-1]["role"] != "assistant" or thoughts:
                    messages.append({"role": "assistant", "content": ""})
                function = {"name": item.name, "arguments": item.arguments}
                messages[-1].setdefault("tool_calls", []).append({"id": item.call_id, "function": function})
        if thoughts and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"] = thoughts
        thoughts = ""
    return messages


def text_of_parts(content: str | list[InputPart | RefusalPart]) -> str:
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
