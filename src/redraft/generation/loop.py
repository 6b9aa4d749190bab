"""Generation, one request at a time, as plainly as it can be written.

    prompt ──encoder pass──▶ KV cache ◀──────────────── commit ◀───────────────┐
                                │ read only                                    │
    noise ──▶ canvas ──▶ denoiser pass ──▶ readout ──▶ accept ──▶ stop? ──yes──┴─▶ answer
                ▲              ▲               │          │         │no
                │              └─soft embedding┘          ▼         ▼
                └───────────────────────────────────── renoise ◀────┘

Steps count down, s = S … 1. C canvas length.
"""

import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from redraft.diffusion.noise import initial_canvas, renoise
from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.settings import MAX_SEED, SamplerSettings
from redraft.model.attention import KVCache
from redraft.model.batch import FlatBatch, Pass
from redraft.model.readout.plain import TopTokens
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer
from redraft.utils.canvas import cut_canvas


@dataclass(frozen=True)
class DenoisingStep:
    """One denoiser pass and what the sampler made of it.

    canvas: index of the canvas; step: how many were to go, this one included; draft, renoised int64 [C]: the argmax
    and the canvas that the next step reads; accepted bool [C]; entropy float32 [C] in nats; finished: no step follows;
    top: each position's likeliest tokens, where they were asked for.
    """

    canvas: int
    step: int
    temperature: float
    draft: Tensor
    renoised: Tensor
    accepted: Tensor
    entropy: Tensor
    finished: bool
    top: TopTokens | None = None


@dataclass(frozen=True)
class Generation:
    """A finished answer.

    token_ids: the answer without the EOS that ended it, cut at max_new_tokens. canvases: what was written, whole.
    tokens_per_forward: answer tokens, the EOS included, per denoiser pass. Seconds are wall clock.
    """

    token_ids: tuple[int, ...]
    finish_reason: str
    seed: int
    steps_per_canvas: tuple[int, ...]
    tokens_per_forward: float
    prefill_seconds: float
    denoising_seconds: float
    commit_seconds: float
    canvases: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def seconds(self) -> float:
        return self.prefill_seconds + self.denoising_seconds + self.commit_seconds

    @property
    def tokens_per_second(self) -> float:
        return len(self.token_ids) / self.seconds if self.seconds else 0.0


def generate(model: Transformer, prompt: Sequence[int], settings: SamplerSettings) -> Generation:
    """Runs `denoising_steps` to its end."""
    return end_of(denoising_steps(model, prompt, settings))


def end_of(steps: Generator[object, None, Generation]) -> Generation:
    """The answer that a generator of its steps returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Generation = end.value
            return result


@torch.inference_mode()
def denoising_steps(
    model: Transformer, prompt: Sequence[int], settings: SamplerSettings
) -> Generator[DenoisingStep, None, Generation]:
    """Yields every denoising step of an answer to `prompt` (token ids); the generator's return value is the answer.

    ValueError for an empty prompt, for ids outside the vocabulary, for a prompt that leaves no room for a canvas in the
    context, and for logits that are not finite.
    """
    config = model.config
    length = settings.canvas_length or config.canvas_length
    check_prompt(prompt, length, config.vocab_size, config.max_context)
    seed = secrets.randbelow(MAX_SEED) if settings.seed is None else settings.seed
    cache = KVCache(config)
    answer: list[int] = []
    canvases: list[tuple[int, ...]] = []
    steps_per_canvas: list[int] = []
    clock = _Clock()

    pending = list(prompt)
    while True:
        _encode(model, pending, cache)
        clock.lap("prefill" if not canvases else "commit")

        counter = Counter(seed, settings.choice, canvas=len(canvases))
        step = None
        taken = 0
        for step in denoise(model, cache, settings, counter, length):
            taken += 1
            clock.lap("denoising")
            yield step
            clock.restart()
        assert step is not None
        steps_per_canvas.append(taken)
        pending = step.draft.tolist()
        canvases.append(tuple(pending))

        part, finish_reason = cut_canvas(pending, config.eos_ids, settings.max_new_tokens - len(answer))
        answer += part
        if finish_reason is None and cache.length + 2 * length > config.max_context:
            finish_reason = "length"
        if finish_reason:
            break

    written = len(answer) + (finish_reason == "stop")
    return Generation(
        token_ids=tuple(answer),
        finish_reason=finish_reason,
        seed=seed,
        steps_per_canvas=tuple(steps_per_canvas),
        tokens_per_forward=written / sum(steps_per_canvas),
        prefill_seconds=clock.seconds["prefill"],
        denoising_seconds=clock.seconds["denoising"],
        commit_seconds=clock.seconds["commit"],
        canvases=tuple(canvases),
    )


def denoise(
    model: Transformer, cache: KVCache, settings: SamplerSettings, counter: Counter, length: int
) -> Iterator[DenoisingStep]:
    """Refines one canvas of `length` tokens, which follow what `cache` holds, from noise to its last step."""
    device = model.embed_tokens.weight.device
    vocab_size = model.config.vocab_size
    schedule, acceptance, stopping = settings.schedule, settings.acceptance_rule, settings.stopping_rule
    canvas = initial_canvas(counter, length, vocab_size, device)
    soft_embedding: Tensor | None = None
    drafts: list[Tensor] = []
    for step in range(settings.steps, 0, -1):
        temperature = schedule.at(step, settings.steps)
        at_step = Counter(counter.seed, counter.choice, counter.canvas, step)

        batch = FlatBatch.single(canvas, cache.length, Pass.DENOISER, soft_embedding=soft_embedding)
        hidden = model(batch, model.attention(batch.segments, (cache,)))
        uniform = at_step.uniforms(length, Purpose.SAMPLE, device=device)
        read = streamed_readout(model, hidden, temperature, uniform)
        if not read.entropy.isfinite().all():
            raise not_finite(counter.canvas, step)

        sample = read.argmax if settings.temperature == 0 else read.sample
        accepted = acceptance.accept(read.entropy, step, settings.steps)
        canvas = renoise(sample, accepted, at_step, vocab_size)
        soft_embedding = read.soft_embedding
        drafts.append(read.argmax)
        finished = step == 1 or stopping.stops(read.entropy, drafts)
        yield DenoisingStep(counter.canvas, step, temperature, read.argmax, canvas, accepted, read.entropy, finished)
        if finished:
            return


def not_finite(canvas: int, step: int) -> ValueError:
    """What is wrong where a denoising step's logits hold NaN or infinity."""
    return ValueError(
        f"the model's logits are not finite in canvas {canvas}, step {step}: "
        "the weights or the precision they run in are broken; try float32"
    )


def check_prompt(prompt: Sequence[int], canvas_length: int, vocab_size: int, max_context: int) -> None:
    """ValueError unless `prompt` has tokens, all of the vocabulary, and leaves room for a canvas."""
    if not prompt:
        raise ValueError("the prompt is empty; it needs at least one token")
    # The two ends first: a server checks long prompts many times.
    if (min(prompt) < 0 or max(prompt) >= vocab_size) and (
        bad := [token for token in prompt if not 0 <= token < vocab_size][:3]
    ):
        raise ValueError(f"token ids {bad} of the prompt lie outside the vocabulary of {vocab_size}")
    if len(prompt) + canvas_length > max_context:
        raise ValueError(
            f"the prompt has {len(prompt)} tokens and a canvas {canvas_length}; the context holds {max_context}: "
            "shorten the prompt or the canvas"
        )


def _encode(model: Transformer, tokens: list[int], cache: KVCache) -> None:
    """Prefill and commit are the same: an encoder pass that appends to the cache."""
    device = model.embed_tokens.weight.device
    batch = FlatBatch.single(torch.tensor(tokens, device=device), cache.length, Pass.ENCODER)
    context = model.attention(batch.segments, (cache,))
    model(batch, context)
    context.advance()


class _Clock:
    """Wall-clock seconds by phase."""

    def __init__(self) -> None:
        self.seconds = {"prefill": 0.0, "denoising": 0.0, "commit": 0.0}
        self._last = time.perf_counter()

    def restart(self) -> None:
        """What went by since the last lap was somebody else's time."""
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now
