"""The request of POST /v1/responses, and the objects that it is answered with."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from redraft.server.openai.fields.base import FAIL_FAST, StrictModel, no_op_field
from redraft.server.openai.fields.structured import JsonObjectFormat, NamedSchema, TextFormat
from redraft.server.openai.requests import MAX_INTEGER, ChatRequest, SharedFields
from redraft.server.openai.responses import CanvasInfo, Spans, TrustInfo
from redraft.server.openai.responses_api.items import (
    FlatChoice,
    FlatTool,
    InputItem,
    InputMessage,
    OutputItem,
    ReasoningInput,
    messages_of,
)
from redraft.text.prompts.conversation import INSTRUCTIONS

SAME_AS_CHAT = (
    "model", "stream", "temperature", "top_p", "user", "seed", "canvas", "strict", "store", "schema_from_prompt",
    "grounded", "at_words", "parallel_tool_calls",
)  # fmt: skip
"""The fields that chat completions have too."""


class FlatSchemaFormat(NamedSchema):
    """A JSON value that fits a schema."""

    type: Literal["json_schema"]


class TextOptions(StrictModel):
    """What the answer's text is held to."""

    format: Annotated[TextFormat | JsonObjectFormat | FlatSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: no_op_field("medium")  # type: ignore[valid-type]

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The format as chat completions have it."""
        if isinstance(self.format, FlatSchemaFormat):
            schema = self.format.model_dump(by_alias=True, exclude={"type"})
            return {"type": "json_schema", "json_schema": schema}
        return None if self.format is None else {"type": self.format.type}


class ReasoningOptions(StrictModel):
    """How much is thought before the answer, and what is shown of it: nothing of either."""

    effort: no_op_field("none")  # type: ignore[valid-type]
    summary: no_op_field()  # type: ignore[valid-type]
    generate_summary: no_op_field()  # type: ignore[valid-type]
    context: no_op_field("auto")  # type: ignore[valid-type]
    mode: no_op_field("standard")  # type: ignore[valid-type]


class ResponsesStreamOptions(StrictModel):
    """Options of a stream. include_obfuscation: as in chat completions, events are never padded."""

    include_obfuscation: bool = False


class ResponsesRequest(SharedFields):
    """The request of POST /v1/responses. seed, canvas, strict and what grounds are those of chat completions.

    include: there are no thoughts that could be encrypted. max_tool_calls: counts OpenAI's own tools, which none are.
    """

    input: Annotated[str, Field(min_length=1)] | Annotated[list[InputItem], Field(min_length=1), FAIL_FAST]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    stream_options: ResponsesStreamOptions | None = None
    store: bool = False
    text: TextOptions = TextOptions(verbosity=None)
    tools: Annotated[list[FlatTool], FAIL_FAST] | None = None
    tool_choice: Literal["auto", "none", "required"] | FlatChoice | None = None
    parallel_tool_calls: bool | None = None

    reasoning: ReasoningOptions | None = None
    top_logprobs: no_op_field(0)  # type: ignore[valid-type]
    include: no_op_field([], ["reasoning.encrypted_content"])  # type: ignore[valid-type]
    max_tool_calls: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    truncation: no_op_field("disabled")  # type: ignore[valid-type]
    background: no_op_field(False)  # type: ignore[valid-type]
    service_tier: no_op_field("auto", "default")  # type: ignore[valid-type]

    @field_validator("input")
    @classmethod
    def _check_said(cls, given: Any) -> Any:
        if isinstance(given, list) and all(isinstance(item, ReasoningInput) for item in given):
            raise ValueError("must have a message, and has thoughts only")
        return given

    def to_chat(self) -> ChatRequest:
        """Returns the same request as one of chat completions."""
        messages = messages_of(
            [InputMessage(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        )
        if self.instructions:
            messages.insert(0, {"role": "system", "content": self.instructions, "id": INSTRUCTIONS})
        fields = self.model_dump(
            exclude_unset=True,
            include={*SAME_AS_CHAT},
        )
        return ChatRequest.model_validate(
            fields
            | {
                "messages": messages,
                "max_completion_tokens": self.max_output_tokens,
                "response_format": self.text.response_format,
                "tools": [{"type": "function", "function": _function(tool)} for tool in self.tools or ()] or None,
                "tool_choice": _chosen(self.tool_choice),
            }
        )


class InputTokensDetails(BaseModel):
    """The number of input tokens that had been read for an earlier request."""

    cached_tokens: int


class OutputTokensDetails(BaseModel):
    """The number of output tokens that were thoughts: they are not told apart here."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Tokens by the names of this protocol, and what they took."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int
    denoising_steps: int
    tokens_per_forward: float


class IncompleteDetails(BaseModel):
    """Why an answer was cut."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseObject(BaseModel):
    """The response to POST /v1/responses."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"
    incomplete_details: IncompleteDetails | None = None
    model: str
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    store: Literal[False] = False
    metadata: dict[str, str] | None = None
    output: list[OutputItem] = []
    usage: ResponseUsage | None = None
    canvas: CanvasInfo | None = None
    warnings: list[str] | None = None
    trust: TrustInfo | None = None
    spans: Spans | None = None


def _function(tool: FlatTool) -> dict[str, Any]:
    return tool.model_dump(exclude={"type"})


def _chosen(choice: str | FlatChoice | None) -> str | dict[str, Any] | None:
    if isinstance(choice, FlatChoice):
        return {"type": "function", "function": {"name": choice.name}}
    return choice
