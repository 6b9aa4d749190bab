"""What the API tells: OpenAI's objects, and beside them what is ours: `canvas`, denoising steps, drafts."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Finish = Literal["stop", "length", "tool_calls"]


class CachedTokens(BaseModel):
    """How many tokens of the prompt had been read for an earlier request."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens, and what they took: denoiser passes, and answer tokens (the EOS included) per pass."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    denoising_steps: int
    tokens_per_forward: float


class CanvasTold(BaseModel):
    """seed: with it and the same settings the answer comes again. seconds: from the start of work to its end."""

    seed: int | None
    steps_per_canvas: list[int]
    seconds: float


class TopLogprob(BaseModel):
    """A token, and the log-probability that the model gives it."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """One of the answer, with those that were likeliest in its place."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """Of each token of the content, as the model has them in the last step of its canvas, at temperature 1."""

    content: list[TokenLogprob]


class OldLogprobs(BaseModel):
    """The same in the shape of text completions; text_offset counts characters from the answer's start."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class FunctionTold(BaseModel):
    """arguments: JSON, if the model wrote it well."""

    name: str
    arguments: str


class CallTold(BaseModel):
    """A tool that the model wants to be called."""

    index: int | None = None
    id: str
    type: Literal["function"] = "function"
    function: FunctionTold


class MessageTold(BaseModel):
    """An answer; in a stream the next piece of one."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallTold] | None = None


class ChatChoice(BaseModel):
    """One of the n answers."""

    index: int
    message: MessageTold
    logprobs: Logprobs | None = None
    finish_reason: Finish
    canvas: CanvasTold


class ChatCompletion(BaseModel):
    """The answer to POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(BaseModel):
    """The next piece of one of the n answers."""

    index: int
    delta: MessageTold
    logprobs: Logprobs | None = None
    finish_reason: Finish | None = None
    canvas: CanvasTold | None = None


class ChatChunk(BaseModel):
    """An event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class TextChoice(BaseModel):
    """One answer to POST /v1/completions, in a stream its next piece."""

    index: int
    text: str
    logprobs: OldLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    canvas: CanvasTold | None = None


class TextCompletion(BaseModel):
    """The answer to POST /v1/completions, in a stream an event of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None


class DraftTold(BaseModel):
    """A denoising step. Lists have an entry for every position; entropies are in nats.

    step counts from 1; tokens: the likeliest; noisy: what the next step reads; text: the answer if it ended here.
    alternatives: text and log-probability.
    """

    index: int
    canvas: int
    step: int
    steps_left: int
    finished: bool
    temperature: float
    mean_entropy: float
    accepted: list[int]
    entropies: list[float]
    tokens: list[str]
    noisy: list[str]
    alternatives: list[list[tuple[str, float]]] | None = None
    text: str


class Draft(BaseModel):
    """The typed event of a denoising step. Its empty `choices` let clients pass over it that do not know it."""

    id: str
    object: Literal["chat.completion.draft", "text_completion.draft"]
    created: int
    model: str
    choices: list[Any] = Field(default=[], max_length=0)
    draft: DraftTold


class CanvasDefaults(BaseModel):
    """What a request gets that does not say otherwise."""

    canvas_length: int
    steps: int
    entropy_bound: float
    t_min: float
    t_max: float
    temperature: float
    max_tokens: int


class CardTold(BaseModel):
    """What a checkpoint says of itself."""

    purpose: str
    limits: str
    examples: list[str]
    single_turn: bool


class ModelTold(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "redraft"
    max_model_len: int
    canvas: CanvasDefaults
    card: CardTold


class ModelList(BaseModel):
    """The one model there is."""

    object: Literal["list"] = "list"
    data: list[ModelTold]


class Tokenized(BaseModel):
    """Token ids of a prompt."""

    tokens: list[Annotated[int, Field(ge=0)]]
    count: int
    max_model_len: int


class Detokenized(BaseModel):
    """The text of token ids, control tokens as their names."""

    prompt: str


class Health(BaseModel):
    """Whether it lives, or can be asked."""

    status: Literal["ok", "ready"]
