"""The requests that the API takes. Every field is obeyed; an unknown one, or an impossible value, is refused by name.

A field that is null counts as absent, as in OpenAI's own clients; 1.0 is an integer, as in JSON Schema. The fields are
OpenAI's (https://platform.openai.com/docs/api-reference), except `canvas`, `chat_template_kwargs`, `strict`, and what
grounds an answer.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError

from redraft import SETTINGS, Setting
from redraft.generation.modes import Mode
from redraft.server.openai.fields.base import (
    FAIL_FAST,
    CacheMarks,
    Label,
    Note,
    StrictModel,
    no_op_field,
    without_nulls,
)
from redraft.server.openai.fields.structured import Choice, Json, ResponseFormat, StructuredOutputs
from redraft.server.openai.fields.tools import Tool, ToolChoice
from redraft.server.settings import (
    MAX_ALTERNATIVES,
    MAX_CHOICES,
    MAX_SAMPLER_SEED,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    MAX_TOP_LOGPROBS,
)

MAX_INTEGER = 2**31 - 1
MIN_SEED, MAX_SEED = -(2**63), 2**64 - 1
"""Clients send seeds of 64 bits, with a sign or without."""

MAX_TEMPERATURE = 2
"""OpenAI's limit, which is below the sampler's own."""

OPENAI_NAMES = {"max_new_tokens": "max_tokens", "temperature": "temperature", "seed": "seed", "index": "n"}
"""Sampler settings for which OpenAI's API has a field of its own; all others are fields of `canvas`."""

CANVAS_SETTINGS = tuple(setting for setting in SETTINGS if setting.name not in OPENAI_NAMES)


def setting_field(setting: Setting) -> Any:
    """Returns the type and default of the field for a sampler setting: None takes the checkpoint's own value."""
    if setting.choices:
        kind: Any = Literal[setting.choices]
    else:
        kind = Annotated[setting.type, Field(ge=setting.minimum, gt=setting.above, le=setting.maximum)]
    return kind | None, Field(default=None, description=setting.help)


Metadata = Annotated[dict[Label, Label], BeforeValidator(without_nulls), Field(max_length=16)]
"""A client's own notes on a request, which no answer depends on."""
NOT_STORED = "the answer is not stored, though store is true: send the whole conversation each time"
Stop = Annotated[str, Field(max_length=MAX_STOP_LENGTH)]
TokenId = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
TokenIds = Annotated[list[TokenId], Field(min_length=1), FAIL_FAST]
CanvasSettings: Any = create_model(
    "CanvasSettings", __base__=StrictModel, **{setting.name: setting_field(setting) for setting in CANVAS_SETTINGS}
)


class Canvas(CanvasSettings):  # type: ignore[misc]
    """How the canvas is denoised, and what is sent about it. A setting that is left out is the checkpoint's own.

    stream_drafts: send an event for every denoising step. alternatives: with each draft, this many likeliest tokens of
    each position. mode: how the answer is written, by default as the server has it; "verified" writes the same tokens
    as "autoregressive". autoregressive: true is an older name of that mode. start: what the first canvas
    begins as, token ids, null for noise, or a text; pinned: the positions that keep their token, or whether all do;
    strength: the share of the others that is noised, and of the steps that are run.
    """

    start: str | Annotated[list[TokenId | None], FAIL_FAST] | None = None
    pinned: bool | Annotated[list[TokenId], FAIL_FAST] = False
    strength: Annotated[float, Field(gt=0, le=1)] | None = None
    stream_drafts: bool = False
    alternatives: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] = 0
    mode: Mode | None = None
    autoregressive: bool = False


class StreamOptions(StrictModel):
    """Options of a stream. include_usage: a last chunk has the usage. continuous_usage_stats: every chunk has it.

    include_obfuscation: OpenAI pads the events where it is true, which says nothing; ours are never padded.
    """

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class PromptCacheOptions(StrictModel):
    """How a prompt is kept for later requests, which no answer depends on."""

    mode: Label | None = None
    ttl: Label | None = None
    comparison_response_id: Label | None = None
    prewarm: no_op_field(False)  # type: ignore[valid-type]


CUTS = {"top_p": (1,), "top_k": (-1, 0), "min_p": (0,)}
"""Fields that cut the distribution that tokens are drawn from, with the values that cut nothing."""


def check_cut(name: str, value: float | None, temperature: float) -> None:
    """Raises ValueError for a cut of what tokens are drawn from. At temperature 0 only noise is drawn, uncut."""
    if temperature > 0 and value is not None and value not in CUTS[name]:
        raise ValueError(
            f"{value} is not supported: at temperature {temperature:g} tokens are drawn from the whole distribution; "
            f"leave it out, or send {CUTS[name][0]}, or temperature 0"
        )


class SharedFields(StrictModel):
    """The fields that every request for an answer has. top_p changes nothing where nothing is drawn: see CUTS."""

    model: str | None = None
    stream: bool = False
    seed: Annotated[int, Field(ge=MIN_SEED, le=MAX_SEED)] | None = None
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    canvas: Canvas = Canvas()
    strict: bool = False
    schema_from_prompt: bool = False
    grounded: bool = False
    at_words: bool = False

    user: Annotated[str, Field(max_length=256)] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    metadata: Metadata | None = None

    @field_validator(*CUTS, check_fields=False)
    @classmethod
    def _check_cut(cls, value: Any, info: ValidationInfo) -> Any:
        # What the temperature is where none is sent, the model and the mode decide.
        check_cut(str(info.field_name), value, info.data.get("temperature") or 0)
        return value


def _without_zeros(biases: Any) -> Any:
    return {token: bias for token, bias in biases.items() if bias != 0} if isinstance(biases, dict) else biases


NO_BIAS = {"anyOf": [{"type": "object", "additionalProperties": {"const": 0}}, {"type": "null"}]}


class GenerationRequest(SharedFields):
    """The fields that both generating endpoints share.

    seed: -1 draws one, as no seed does; of others the lowest 63 bits count. stop: empty texts stop nothing. strict:
    refuse the request where it would be answered with `warnings`. response_format, structured_outputs: what the answer
    is held to; guided_json and the like: older names of structured_outputs' fields. schema_from_prompt, grounded,
    at_words: as `Model.generate` has them.
    """

    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS), FAIL_FAST] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    ignore_eos: bool = False

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Json | None = None
    guided_regex: str | None = None
    guided_choice: Choice | None = None
    guided_grammar: str | None = None

    top_k: Annotated[int, Field(ge=-1, le=MAX_INTEGER)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: no_op_field(1)  # type: ignore[valid-type]
    min_tokens: no_op_field(0)  # type: ignore[valid-type]
    presence_penalty: no_op_field(0)  # type: ignore[valid-type]
    frequency_penalty: no_op_field(0)  # type: ignore[valid-type]
    logit_bias: no_op_field({}, plain=_without_zeros, schema=NO_BIAS)  # type: ignore[valid-type]
    length_penalty: no_op_field(1)  # type: ignore[valid-type]
    use_beam_search: no_op_field(False)  # type: ignore[valid-type]
    best_of: no_op_field(1)  # type: ignore[valid-type]
    stop_token_ids: no_op_field([])  # type: ignore[valid-type]
    include_stop_str_in_output: no_op_field(False)  # type: ignore[valid-type]
    skip_special_tokens: no_op_field(True)  # type: ignore[valid-type]
    spaces_between_special_tokens: no_op_field(True)  # type: ignore[valid-type]

    @property
    def stop_texts(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or ()
        return tuple(text for text in given if text)

    @property
    def sampler_seed(self) -> int | None:
        """The seed of the answers, in the sampler's range; None for one that is drawn."""
        return None if self.seed in (None, -1) else self.seed & MAX_SAMPLER_SEED

    @property
    def num_choices(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def scores_prompt(self) -> bool:
        """Whether the causal pass reads the prompt, with at most one token behind it, and no canvas is written."""
        return False

    @property
    def wants_logprobs(self) -> bool:
        """Whether the log-probabilities of a conversation's answer are asked for."""
        return False


class TextPart(CacheMarks):
    """A part of a message. Images, audio and files are not read, and nothing is fetched."""

    type: Literal["text"]
    text: str


class RefusalPart(StrictModel):
    """A part of an earlier answer that says why there is none, which is not read."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """What of it is read: nothing."""
        return ""


TEXT_TAG, REFUSAL_TAG = "a text", "a refusal"
"""Names that no field has, since the places of errors are told without them."""


def part_kind(given: Any) -> str:
    """Returns the tag of a message's part: all that is no refusal is taken for a text, and told what that must be."""
    kind = given.get("type") if isinstance(given, dict) else getattr(given, "type", None)
    return REFUSAL_TAG if kind == "refusal" else TEXT_TAG


Part = Annotated[
    Annotated[TextPart, Tag(TEXT_TAG)] | Annotated[RefusalPart, Tag(REFUSAL_TAG)], Discriminator(part_kind)
]


class CalledFunction(StrictModel):
    """The function of an earlier tool call, under whatever name the model wrote. arguments: a JSON object, as text."""

    name: str
    arguments: str = ""
    parsed_arguments: Note


class EarlierToolCall(StrictModel):
    """A tool call of an earlier answer. index: where a stream had it."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class Message(CacheMarks):
    """A message of a conversation. type, id, index, status: a client's own notes, which no model reads.

    parsed, annotations: what somebody else made of an answer. reasoning: what other servers call reasoning_content.
    refusal, function_call, audio: what an earlier answer said otherwise than by content, which no chat template reads.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], FAIL_FAST] | None = None
    name: str | None = None
    tool_calls: Annotated[list[EarlierToolCall], FAIL_FAST] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    type: Literal["message", "text"] | None = None
    id: Label | int | None = None
    index: int | None = None
    status: Label | None = None

    refusal: str | None = None
    function_call: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    annotations: Note
    parsed: Note
    reasoning_details: no_op_field([])  # type: ignore[valid-type]


class TemplateOptions(StrictModel):
    """Options of the chat template. enable_thinking: let the model think first, if its template supports it."""

    enable_thinking: bool | None = None


class ChatRequest(GenerationRequest):
    """The request of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1), FAIL_FAST]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Annotated[list[Tool], FAIL_FAST] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: TemplateOptions | None = None

    functions: no_op_field([])  # type: ignore[valid-type]
    function_call: no_op_field("auto", "none")  # type: ignore[valid-type]
    verbosity: no_op_field("medium")  # type: ignore[valid-type]
    store: bool = False
    reasoning_effort: no_op_field("none")  # type: ignore[valid-type]
    add_generation_prompt: no_op_field(True)  # type: ignore[valid-type]
    continue_final_message: no_op_field(False)  # type: ignore[valid-type]
    echo: no_op_field(False)  # type: ignore[valid-type]
    modalities: no_op_field(["text"])  # type: ignore[valid-type]
    service_tier: no_op_field("auto", "default")  # type: ignore[valid-type]

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)


class CompletionRequest(GenerationRequest):
    """The request of POST /v1/completions: plain text, without the chat template.

    echo: give the prompt back before the answer; with logprobs, or without an answer, the prompt is scored instead.
    suffix: what follows the answer, which is the text between the two.
    """

    prompt: (
        Annotated[str, Field(min_length=1)]
        | TokenIds
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_CHOICES), FAIL_FAST]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_CHOICES), FAIL_FAST]
    )
    max_tokens: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool = False

    suffix: str = ""

    @field_validator("prompt", mode="before")
    @classmethod
    def _check_number(cls, given: Any) -> Any:
        # Of the types that the field may have, the length fits none: each would tell its own.
        if isinstance(given, list) and len(given) > MAX_CHOICES and not isinstance(given[0], int):
            told = "{given} prompts, the limit is {limit}: send the others in another request"
            raise PydanticCustomError("too_many_prompts", told, {"given": len(given), "limit": MAX_CHOICES})
        return given

    @property
    def scores_prompt(self) -> bool:
        return self.echo and (self.logprobs is not None or self.max_tokens == 0)

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else self.prompt


class TokenizeRequest(StrictModel):
    """The request of POST /tokenize: plain text, or a conversation through the chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1), FAIL_FAST] | None = None
    add_special_tokens: bool = True


class DetokenizeRequest(StrictModel):
    """The request of POST /detokenize."""

    model: str | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0, le=MAX_INTEGER)]], FAIL_FAST]
