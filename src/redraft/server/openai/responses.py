"""The objects that the API sends: OpenAI's, and beside them ours: `canvas`, denoising steps, drafts."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from redraft.generation.result import Verification

FinishReason = Literal["stop", "length", "tool_calls"]


class PromptTokensDetails(BaseModel):
    """The number of prompt tokens that had been read for an earlier request."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens, and what they took: denoiser passes, and answer tokens (the EOS included) per pass.

    causal_passes: of answers that are written causally; they count as passes too.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    denoising_steps: int
    causal_passes: int | None = None
    tokens_per_forward: float


Spans = dict[str, tuple[int, int]]
"""Where each text of a grounded answer stands in the last message, in characters, by its path."""


class ConstraintInfo(BaseModel):
    """What a constraint had to do. log_mass: of each canvas, in nats; below about -20 the model was overruled.

    choices: of a choice, how probable each text was in the last step.
    """

    log_mass: list[float]
    guided_steps: int
    states: int
    choices: dict[str, float] | None = None


class CanvasInfo(BaseModel):
    """How an answer was written. The same mode, seed and settings give it again. seconds: from admission to the end.

    steps_per_canvas: in mode "verified" the steps of each draft. verification: of a drafted answer, the causal passes
    (rounds), those over a draft, the denoiser passes, and the tokens kept per round. parts: of an answer that was made
    from those to several prompts, how many.
    """

    mode: str
    seed: int | None
    steps_per_canvas: list[int]
    verification: Verification | None = None
    seconds: float
    constraint: ConstraintInfo | None = None
    parts: int | None = None


class ValueTrustInfo(BaseModel):
    """What is known of one value of a JSON answer.

    path: keys and indices that lead to it. places: where it stands in the last message, in characters; none for a value
    that does not stand there.
    """

    path: list[str | int]
    places: list[tuple[int, int]] | None = None
    mean_entropy: float | None = None
    max_entropy: float | None = None
    log_prob: float | None = None
    min_log_prob: float | None = None
    probability: float | None = None


class TrustInfo(BaseModel):
    """What is known about an answer without knowing the truth; the reasons, in words, are its `warnings`.

    probability: that all of it is right, of a checkpoint that is calibrated. Entropies in nats, when each token became
    final; log-probabilities as the causal reading has them. What is not known is left out.
    """

    probability: float | None = None
    settled: bool | None = None
    mean_entropy: float | None = None
    max_entropy: float | None = None
    log_prob: float | None = None
    min_log_prob: float | None = None
    valid: bool | None = None
    known_prompt: bool | None = None
    values: list[ValueTrustInfo] = []


class TopLogprob(BaseModel):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer, with the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """Log-probabilities of each content token, from the last denoising step of its canvas, at temperature 1."""

    content: list[TokenLogprob]


class CompletionLogprobs(BaseModel):
    """Log-probabilities in the format of text completions; text_offset counts characters from the text's start.

    Of a prompt's first token, which nothing stands before, they are null.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class FunctionCall(BaseModel):
    """The function of a tool call. arguments: JSON, if the model wrote valid JSON."""

    name: str
    arguments: str


class MessageToolCall(BaseModel):
    """A tool call that the model asks for."""

    index: int | None = None
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class AssistantMessage(BaseModel):
    """An answer, or in a stream the next piece of one."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[MessageToolCall] | None = None


class ChatChoice(BaseModel):
    """One of the n answers."""

    index: int
    message: AssistantMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason
    canvas: CanvasInfo
    warnings: list[str] | None = None
    trust: TrustInfo | None = None
    spans: Spans | None = None


class Reply(BaseModel):
    """What every answer and every part of one begins with.

    warnings: what is not as it was asked for, and what may be wrong with the choices, each of which has its own too; of
    a stream the chunk that ends the last choice has them.
    """

    id: str
    object: str
    created: int
    model: str
    warnings: list[str] | None = None


class ChatCompletion(Reply):
    """The response to POST /v1/chat/completions."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(BaseModel):
    """The next piece of one of the n answers."""

    index: int
    delta: AssistantMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None
    canvas: CanvasInfo | None = None
    warnings: list[str] | None = None
    trust: TrustInfo | None = None
    spans: Spans | None = None


class ChatChunk(Reply):
    """An event of a streamed answer."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]
    usage: Usage | None = None


class TextChoice(BaseModel):
    """One answer to POST /v1/completions, or in a stream its next piece."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    canvas: CanvasInfo | None = None
    warnings: list[str] | None = None
    trust: TrustInfo | None = None
    spans: Spans | None = None


class TextCompletion(Reply):
    """The response to POST /v1/completions, or in a stream an event of it."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[TextChoice]
    usage: Usage | None = None


class DraftStep(BaseModel):
    """A denoising step. Lists have one entry per position; entropies are in nats.

    step counts from 1. tokens: the likeliest. noisy: what the next step reads. text: the answer if it stopped here.
    alternatives: texts with log-probabilities. forced: 1 where a constraint leaves nothing but this text.
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
    forced: list[int] | None = None
    text: str


class DraftChunk(Reply):
    """The typed event of a denoising step. Its `choices` are empty, so that clients that do not know it skip it."""

    object: Literal["chat.completion.draft", "text_completion.draft"]
    choices: list[Any] = Field(default=[], max_length=0)
    draft: DraftStep


class VerifiedRound(BaseModel):
    """What a causal pass wrote, and made of the draft that it may have read, as the texts of tokens.

    kept: those of the draft that it would have written too; written: its own behind them; rejected: the draft's rest.
    """

    index: int
    kept: list[str]
    written: list[str]
    rejected: list[str]


class VerifiedChunk(Reply):
    """The typed event of a verified draft. Its `choices` are empty, as those of a draft are."""

    object: Literal["chat.completion.verified", "text_completion.verified"]
    choices: list[Any] = Field(default=[], max_length=0)
    verified: VerifiedRound


class TokenizeResponse(BaseModel):
    """The token ids of a prompt. warnings: what a conversation would be answered with, whatever the answer."""

    tokens: list[Annotated[int, Field(ge=0)]]
    count: int
    max_model_len: int
    warnings: list[str] | None = None


class DetokenizeResponse(BaseModel):
    """The text of token ids, control tokens as their names."""

    prompt: str


class TokenizerInfo(BaseModel):
    """A tokenizer's control tokens by name, its size, and the context.

    Not the chat template: a client that wrote a conversation by itself would have control tokens as text.
    """

    bos_token: str | None = None
    eos_token: str | None = None
    vocab_size: int
    model_max_length: int


class Health(BaseModel):
    """Whether the process runs ("ok"), or requests are answered ("ready")."""

    status: Literal["ok", "ready"]
