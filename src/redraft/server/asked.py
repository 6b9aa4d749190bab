"""What the API can be asked. Every field is obeyed; one that is not here, or has no such value, is refused by name.

The fields are OpenAI's (https://platform.openai.com/docs/api-reference), `canvas` and `chat_template_kwargs` excepted.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from redraft.server.settings import ALTERNATIVES, CHOICES, STOP_CHARACTERS, STOPS, TOP

LARGEST = 2**31 - 1


class Strict(BaseModel):
    """Unknown fields, NaN and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def only(*values: Any) -> Any:
    """The type of a field that others have and we do not: it may say what would happen anyway, and nothing else."""

    def check(value: Any) -> Any:
        same = (value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)
        if value is not None and not any(same):
            said, possible = json.dumps(value)[:100], json.dumps(values[0])
            raise ValueError(f"{said} is not supported; leave it out, or send {possible}")
        return value

    return Annotated[Any, AfterValidator(check), WithJsonSchema({"enum": [*values, None]}), Field(default=None)]


FIRST: Any = Field(fail_fast=True)
"""For every list: an error for each of a million wrong elements would take half a minute to write."""

Steps = Annotated[int, Field(ge=1, le=4096)]
NotNegative = Annotated[float, Field(ge=0)]
Stop = Annotated[str, Field(min_length=1, max_length=STOP_CHARACTERS)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
Tokens = Annotated[list[Annotated[int, Field(ge=0, le=LARGEST)]], Field(min_length=1), FIRST]


class Canvas(Strict):
    """How the canvas is denoised, and what is told of it. What is left out is the checkpoint's own.

    stream_drafts: an event for every denoising step; alternatives: with each draft, so many likeliest tokens of each
    position. autoregressive: token by token instead, greedily, for comparison.
    """

    steps: Steps | None = None
    entropy_bound: NotNegative | None = None
    t_min: NotNegative | None = None
    t_max: NotNegative | None = None
    canvas_length: Annotated[int, Field(ge=1, le=65_536)] | None = None
    stream_drafts: bool = False
    alternatives: Annotated[int, Field(ge=0, le=ALTERNATIVES)] = 0
    autoregressive: bool = False


class StreamOptions(Strict):
    """include_usage: a last chunk with what the answer took. continuous_usage_stats: every chunk tells it so far."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Generating(Strict):
    """What both ways to ask for text share."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS), FIRST] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    ignore_eos: bool = False
    canvas: Canvas = Canvas()

    top_p: only(1)  # type: ignore[valid-type]
    presence_penalty: only(0)  # type: ignore[valid-type]
    frequency_penalty: only(0)  # type: ignore[valid-type]
    logit_bias: only({})  # type: ignore[valid-type]

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def choices(self) -> int:
        return 1 if self.n is None else self.n


class TextPart(Strict):
    """A piece of a message. Pictures, sound and files are not read, and nothing is fetched."""

    type: Literal["text"]
    text: str


class CalledFunction(Strict):
    """arguments: a JSON object, as text. The name is what the model once wrote, whatever that was."""

    name: Annotated[str, Field(max_length=256)]
    arguments: str


class Call(Strict):
    """A tool call of an earlier answer."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], FIRST] | None = None
    name: str | None = None
    tool_calls: Annotated[list[Call], FIRST] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    refusal: only(None)  # type: ignore[valid-type]
    audio: only(None)  # type: ignore[valid-type]
    function_call: only(None)  # type: ignore[valid-type]
    annotations: only([])  # type: ignore[valid-type]


class Function(Strict):
    """A function that the model may call. parameters: a JSON schema, shown to the model and enforced by nobody."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: only(False)  # type: ignore[valid-type]


class Tool(Strict):
    """Something that the model may call."""

    type: Literal["function"]
    function: Function


class TemplateOptions(Strict):
    """enable_thinking: let the model think before it answers, where its template can ask for it."""

    enable_thinking: bool | None = None


class ChatRequest(Generating):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1), FIRST]
    max_completion_tokens: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None
    tools: Annotated[list[Tool], FIRST] | None = None
    tool_choice: only("auto", "none")  # type: ignore[valid-type]
    chat_template_kwargs: TemplateOptions | None = None

    response_format: only({"type": "text"})  # type: ignore[valid-type]
    parallel_tool_calls: only(True)  # type: ignore[valid-type]
    store: only(False)  # type: ignore[valid-type]
    metadata: only({})  # type: ignore[valid-type]
    modalities: only(["text"])  # type: ignore[valid-type]
    service_tier: only("auto", "default")  # type: ignore[valid-type]


class CompletionRequest(Generating):
    """POST /v1/completions: text as it stands, without the chat template."""

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Tokens
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=CHOICES), FIRST]
        | Annotated[list[Tokens], Field(min_length=1, max_length=CHOICES), FIRST]
    )
    logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None

    best_of: only(1)  # type: ignore[valid-type]
    echo: only(False)  # type: ignore[valid-type]
    suffix: only("")  # type: ignore[valid-type]

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, one or many."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else self.prompt


class TokenizeRequest(Strict):
    """POST /tokenize: a text as it stands, or a conversation through the chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1), FIRST] | None = None
    add_special_tokens: bool = True


class DetokenizeRequest(Strict):
    """POST /detokenize."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0, le=LARGEST)]], FIRST]
