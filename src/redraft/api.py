"""The façade: `load` returns a Model, which answers text with text."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

import torch

from redraft.diffusion.acceptance import Acceptance
from redraft.diffusion.schedule import LinearTemperature
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.stopping import Stopping
from redraft.generation.autoregressive import generate_autoregressive
from redraft.generation.loop import denoising_steps, generate
from redraft.generation.result import DenoisingStep, Generation, check_prompt
from redraft.model.precision import Precision, check_precision
from redraft.model.preparation import prepare
from redraft.model.transformer import Transformer
from redraft.text import AnswerStream, Content, Delta, End, TextTokenizer
from redraft.utils.forks import check_not_forked, mark_loaded
from redraft.utils.threads import requested_threads
from redraft.weights.card import Card
from redraft.weights.card import read_card as _read_card
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.config.file import read_generation_config
from redraft.weights.fetch import resolve
from redraft.weights.memory import check_fits

Prompt = str | Sequence[Mapping[str, object]]
"""A user's text, or a conversation as a list of {"role": ..., "content": ...}."""

ROLES = ("system", "developer", "user", "assistant", "model", "tool")
"""The roles of a message. "model" is what Gemma calls the assistant."""


class SamplerArguments(TypedDict, total=False):
    """The sampler settings as keyword arguments, for editors and type checkers; `redraft.SETTINGS` explains them."""

    max_new_tokens: int
    canvas_length: int | None
    steps: int
    t_min: float
    t_max: float
    temperature: float
    schedule: LinearTemperature
    acceptance: Literal["entropy_bound", "linear_quota"] | Acceptance
    entropy_bound: float
    stopping: Literal["stable_and_confident", "every_position_confident"] | Stopping
    stability_threshold: int
    confidence_threshold: float
    entropy_limit: float
    seed: int | None
    choice: int


@dataclass(frozen=True)
class Draft:
    """A denoising step, and the text that its canvas would add if it stopped here."""

    step: DenoisingStep
    text: str


@dataclass(frozen=True)
class Committed:
    """The next part of the answer that is final. Its text may be empty if a canvas ends inside a character."""

    text: str


@dataclass(frozen=True)
class Result:
    """A finished answer: its text, and how it was generated."""

    text: str
    generation: Generation
    model: str

    def __str__(self) -> str:
        return self.text

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.generation.token_ids

    @property
    def finish_reason(self) -> str:
        """Why the answer ended: "stop" for an EOS, "length" for max_new_tokens or the context."""
        return self.generation.finish_reason

    @property
    def tokens_per_forward(self) -> float:
        return self.generation.tokens_per_forward

    @property
    def seed(self) -> int:
        return self.generation.seed

    def to_json(self) -> dict[str, Any]:
        """Returns what `redraft generate --json` prints; seconds are wall clock, the prefill included."""
        generation = self.generation
        return {
            "text": self.text,
            "token_ids": list(generation.token_ids),
            "finish_reason": generation.finish_reason,
            "steps_per_canvas": list(generation.steps_per_canvas),
            "tokens_per_forward": round(generation.tokens_per_forward, 3),
            "seconds": round(generation.seconds, 4),
            "tokens_per_second": round(generation.tokens_per_second, 1),
            "seed": generation.seed,
            "model": self.model,
        }


class Model:
    """A loaded checkpoint that answers text with text. Made by `load`."""

    def __init__(
        self, name: str, transformer: Transformer, tokenizer: TextTokenizer, defaults: SamplerSettings, card: Card
    ) -> None:
        self.name = name
        self.card = card
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.defaults = defaults

    def __repr__(self) -> str:
        config = self.transformer.config
        return f"<Model {self.name!r}: canvas of {config.canvas_length} tokens, context of {config.max_context:,}>"

    def generate(self, prompt: Prompt, **settings: Unpack[SamplerArguments]) -> Result:
        """Answers one prompt. `settings` are sampler settings and override the checkpoint's own.

        ValueError for an empty prompt, one beyond the context, and for settings that are unknown or out of range;
        RuntimeError in a process that was forked after the model was loaded.
        """
        check_not_forked()
        chosen = self.defaults.replace(**settings)
        generation = generate(self.transformer, self.encode(prompt), chosen)
        return Result(self.tokenizer.decode(generation.token_ids), generation, self.name)

    def stream(self, prompt: Prompt, **settings: Unpack[SamplerArguments]) -> Iterator[Draft | Committed | Result]:
        """Yields a Draft for each step, Committed text for each canvas, and finally the Result.

        Raises what `generate` raises, and does so when called, before the first event is read.
        """
        check_not_forked()
        chosen = self.defaults.replace(**settings)
        ids = self.encode(prompt)
        config = self.transformer.config
        check_prompt(ids, chosen.canvas_length or config.canvas_length, config.vocab_size, config.max_context)
        return self._events(ids, chosen)

    def generate_autoregressive(self, prompt: Prompt, **settings: Unpack[SamplerArguments]) -> Result:
        """Answers one prompt token by token, without a canvas, taking the likeliest token each time: for comparison.

        Only max_new_tokens of the settings is used. Raises what `generate` raises.
        """
        check_not_forked()
        chosen = self.defaults.replace(**settings)
        generation = generate_autoregressive(self.transformer, self.encode(prompt), chosen)
        return Result(self.tokenizer.decode(generation.token_ids), generation, self.name)

    def map(self, prompts: Iterable[Prompt], **settings: Unpack[SamplerArguments]) -> Iterator[Result]:
        """Yields the results of prompts, lazily and in order, each the one that `generate` gives."""
        check_prompts("map", prompts)
        for prompt in prompts:
            yield self.generate(prompt, **settings)

    def encode(self, prompt: Prompt, **template_variables: Any) -> list[int]:
        """Returns a prompt's token ids: through the chat template if there is one, else as plain text after BOS.

        Raises ValueError for a prompt that is empty, of another type, or has a message that is malformed.
        """
        if isinstance(prompt, str):
            if not prompt.strip():
                raise ValueError("the prompt is empty; write something to answer")
            if not self.tokenizer.has_chat_template:
                return self.encode_plain(prompt)
            prompt = [{"role": "user", "content": prompt}]
        check_conversation(prompt)
        return self.tokenizer.encode_chat(prompt, **template_variables)

    def encode_plain(self, text: str) -> list[int]:
        """Returns the token ids of a plain text, after BOS if the model has one."""
        bos = self.transformer.config.bos_id
        return ([] if bos is None else [bos]) + self.tokenizer.encode(text)

    def _events(self, ids: list[int], settings: SamplerSettings) -> Iterator[Draft | Committed | Result]:
        answer = AnswerText(self, settings)
        steps = denoising_steps(self.transformer, ids, settings)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                yield from answer.finish(end.value)
                return
            yield answer.draft(step)
            if step.finished:
                yield answer.commit(step.draft.tolist())


class AnswerText:
    """The façade's events of one answer, from its denoising steps and finished canvases.

    stop_ids: tokens that end the answer; None takes the model's EOS ids.
    """

    def __init__(self, model: Model, settings: SamplerSettings, stop_ids: Sequence[int] | None = None) -> None:
        self._name = model.name
        self._stream = AnswerStream(
            model.tokenizer,
            stop_ids=model.transformer.config.eos_ids if stop_ids is None else stop_ids,
            max_tokens=settings.max_new_tokens,
        )
        self._text = ""

    def draft(self, step: DenoisingStep) -> Draft:
        return Draft(step, self._stream.draft(step.draft.tolist()))

    def commit(self, token_ids: Sequence[int]) -> Committed:
        """The text that a finished canvas makes certain."""
        return self._committed(self._stream.commit(token_ids))

    def finish(self, generation: Generation) -> Iterator[Committed | Result]:
        """The rest of the text, where there is any, and the result."""
        if (rest := self._committed(self._stream.finish(generation.finish_reason))).text:
            yield rest
        yield Result(self._text, generation, self._name)

    def _committed(self, told: Iterable[Delta | End]) -> Committed:
        parts = [event.part for event in told if isinstance(event, Delta)]
        text = "".join(part.text for part in parts if isinstance(part, Content))
        self._text += text
        return Committed(text)


def check_prompts(name: str, prompts: object) -> None:
    """Raises ValueError unless `prompts`, given to the method called `name`, can be a list of prompts."""
    if isinstance(prompts, str | bytes | Mapping):
        kind = "one string" if isinstance(prompts, str) else f"a {type(prompts).__name__}"
        raise ValueError(f"{name} takes a list of prompts, got {kind}; use generate, or put it into a list")
    if not isinstance(prompts, Iterable):
        raise ValueError(f"{name} takes a list of prompts, got {_brief(prompts)}")


def check_conversation(prompt: object) -> None:
    """Raises ValueError, with the message's number and the way out, unless `prompt` is a list of messages."""
    if isinstance(prompt, Mapping):
        raise ValueError(f"the prompt is one message, {_brief(prompt)}; put it into a list: [message]")
    if not isinstance(prompt, list | tuple):
        raise ValueError(
            f'the prompt is {_brief(prompt)}, must be text or a list of messages [{{"role": "user", "content": "..."}}]'
        )
    if not prompt:
        raise ValueError("the conversation is empty; it needs at least one message")
    for at, message in enumerate(prompt):
        _check_message(at, message)
    last = prompt[-1].get("content")
    if isinstance(last, str) and not last.strip():
        raise ValueError("the last message is empty; write something to answer")


def _check_message(at: int, message: object) -> None:
    if not isinstance(message, Mapping):
        raise ValueError(f'message {at} is {_brief(message)}, must be a dict {{"role": ..., "content": ...}}')
    if "role" not in message:
        raise ValueError(f"message {at} has no role; give it one of {', '.join(ROLES)}")
    if message["role"] not in ROLES:
        raise ValueError(f"message {at} has the role {_brief(message['role'])}, must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if content is None:
        # What else an assistant says, such as tool calls, may be the whole message.
        if not any(value is not None for key, value in message.items() if key not in ("role", "content")):
            raise ValueError(f"message {at}, of role {message['role']}, has no content; give it a text")
    elif not isinstance(content, str | list | tuple):
        raise ValueError(f"message {at} has the content {_brief(content)}, must be text")


def _brief(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def load(name_or_path: str | os.PathLike[str] = "bundled", *, device: str = "auto", precision: str = "auto") -> Model:
    """Loads a checkpoint: "bundled", a folder, or a name on the Hugging Face hub (fetched, or taken from its cache).

    device: "auto" (CUDA where there is one, untested here), "cpu" or "cuda". precision: "float32"; "bf16"; "int8"
    (integer products, the rest in bf16); "int8-weight-only" or "int4-weight-only" (the layers' matrices in so many
    bits, products in bf16: for memory); "auto" is float32 on a CPU where the weights take less than 4 GB, else bf16,
    and of a quantized checkpoint what it is stored in. ValueError says what is wrong with it, before anything is read
    where it would not fit into memory.
    """
    mark_loaded()
    requested_threads()  # a bad REDRAFT_THREADS is refused before anything is read
    place = pick_device(device)
    check_precision(precision)
    folder = resolve(os.fspath(name_or_path))
    checkpoint = Checkpoint.open(folder)
    chosen = choose_precision(checkpoint, place, precision)
    if place.type == "cpu":
        check_fits(checkpoint, chosen)
    transformer = prepare(load_model(checkpoint, dtype=Precision.named(chosen).dtype, device=place), chosen)
    tokenizer = TextTokenizer.load(folder)
    tokenizer.check_fits(transformer.config.vocab_size, folder)
    defaults = SamplerSettings.from_generation_config(read_generation_config(folder) or {})
    return Model(os.fspath(name_or_path), transformer, tokenizer, defaults, _read_card(folder))


def read_card(name_or_path: str | os.PathLike[str] = "bundled") -> Card:
    """Returns a checkpoint's own description, without loading it."""
    return _read_card(resolve(os.fspath(name_or_path)))


def pick_device(device: str) -> torch.device:
    """Returns the torch device of a name; ValueError if it is unknown or not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}, must be auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda' but torch finds no CUDA device here; use cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(checkpoint: Checkpoint, device: torch.device, precision: str) -> str:
    """The precision that "auto" is for a checkpoint, or the one asked for; ValueError where it cannot give it."""
    if checkpoint.bits is not None:
        possible = [one.name for one in Precision.of_bits(checkpoint.bits)]
        if precision == "auto":
            usable = (one for one in Precision.of_bits(checkpoint.bits) if device.type == "cpu" or not one.is_integer)
            return next(usable).name
        if precision not in possible:
            raise ValueError(
                f"precision is {precision!r}, but the matrices of {checkpoint.folder} are stored in {checkpoint.bits} "
                f"bits: what was rounded away does not come back. Take {' or '.join(possible)}, or the checkpoint that "
                "it was made from"
            )
        return precision
    if precision != "auto":
        return precision
    # The products of small models are too small to gain from bfloat16 on a CPU, and many CPUs have no unit for it.
    return "float32" if device.type == "cpu" and checkpoint.num_bytes < 4_000_000_000 else "bf16"
