"""Generation, one request at a time, as plainly as it can be written.

    prompt ──encoder pass──▶ KV cache ◀──────────────── commit ◀───────────────┐
                                │ read only                                    │
    noise ──▶ canvas ──▶ denoiser pass ──▶ readout ──▶ accept ──▶ stop? ──yes──┴─▶ answer
                ▲              ▲               │          │         │no
                │              └─soft embedding┘          ▼         ▼
                └───────────────────────────────────── renoise ◀────┘

Steps count down, s = S … 1. C canvas length. What happens inside a step is `diffusion/sampler.py`.
"""

import secrets
from collections.abc import Generator, Iterator, Sequence

import torch

from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import Sampler
from redraft.diffusion.settings import MAX_SEED, SamplerSettings
from redraft.generation.result import AnswerRecord, DenoisingStep, Generation, check_prompt, not_finite, result_of
from redraft.model.attention import KVCache
from redraft.model.batch import FlatBatch, Pass
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import Transformer


def generate(model: Transformer, prompt: Sequence[int], settings: SamplerSettings) -> Generation:
    """Runs `denoising_steps` to its end."""
    return result_of(denoising_steps(model, prompt, settings))


@torch.inference_mode()
def denoising_steps(
    model: Transformer, prompt: Sequence[int], settings: SamplerSettings
) -> Generator[DenoisingStep, None, Generation]:
    """Yields every denoising step of an answer to `prompt` (token ids); the generator's return value is the answer.

    Raises ValueError for an empty prompt, for ids outside the vocabulary, for a prompt that leaves no room for a canvas
    in the context, and for logits that are not finite.
    """
    config = model.config
    length = settings.canvas_length or config.canvas_length
    check_prompt(prompt, length, config.vocab_size, config.max_context)
    seed = secrets.randbelow(MAX_SEED) if settings.seed is None else settings.seed
    record = AnswerRecord(settings.max_new_tokens, config.eos_ids, seed)
    cache, pending = KVCache(config), list(prompt)
    finish_reason = None
    while finish_reason is None:
        _encode(model, pending, cache)
        record.lap("commit" if record.canvases else "prefill")
        place = Counter(seed, settings.choice, canvas=len(record.canvases))
        for step in denoise(model, cache, settings, place, length):
            record.lap("denoising")
            yield step
            record.restart()
        pending = step.draft.tolist()
        _, finish_reason = record.add(pending, steps=settings.steps - step.step + 1)
        if finish_reason is None and cache.length + 2 * length > config.max_context:
            finish_reason = "length"
    return record.generation(finish_reason)


def denoise(
    model: Transformer, cache: KVCache, settings: SamplerSettings, place: Counter, length: int
) -> Iterator[DenoisingStep]:
    """Refines one canvas of `length` tokens, which follow what `cache` holds, from noise to its last step."""
    sampler = Sampler(model.config.vocab_size)
    state = sampler.init([settings], [place], length, device=model.embed_tokens.weight.device)
    finished = False
    while not finished:
        (temperature,), step = state.temperatures, state.counters[0].step
        soft_embedding = None if state.soft_embedding is None else state.soft_embedding[0]
        batch = FlatBatch.single(state.tokens[0], cache.length, Pass.DENOISER, soft_embedding=soft_embedding)
        hidden = model(batch, model.attention(batch.segments, (cache,)))
        readout = streamed_readout(model, hidden, temperature, sampler.uniforms(state))
        if not readout.entropy.isfinite().all():
            raise not_finite(f"in canvas {place.canvas}, step {step}")
        state = sampler.step(state, readout)
        finished = not state.active
        (draft,) = sampler.finalize(state)
        yield DenoisingStep(
            place.canvas, step, temperature, draft, state.tokens[0], state.accepted[0], state.entropy[0], finished
        )


def _encode(model: Transformer, tokens: list[int], cache: KVCache) -> None:
    """Prefill and commit are the same: an encoder pass that appends to the cache."""
    device = model.embed_tokens.weight.device
    batch = FlatBatch.single(torch.tensor(tokens, device=device), cache.length, Pass.ENCODER)
    context = model.attention(batch.segments, (cache,))
    model(batch, context)
    context.advance()
