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

from redraft.constraints.tokens import TokenAutomaton
from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import Sampler
from redraft.diffusion.settings import MAX_SEED, SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.generation.constrained import ConstrainedCanvas, classes_of, constrain
from redraft.generation.decisions import choice_probabilities
from redraft.generation.result import AnswerRecord, DenoisingStep, Generation, check_prompt, not_finite, to_its_end
from redraft.generation.scoring import log_probs_of
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.linear.low_rank import AdapterMatrices
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from redraft.model.transformer import ForwardResult, Transformer


@torch.inference_mode()
def denoising_steps(
    model: Transformer,
    prompt: Sequence[int],
    settings: SamplerSettings,
    constraint: TokenAutomaton | None = None,
    adapter: str | None = None,
    start: CanvasStart | None = None,
    *,
    is_scored: bool = False,
) -> Generator[DenoisingStep, None, Generation]:
    """Yields every denoising step of an answer to `prompt` (token ids); the generator's return value is the answer.

    constraint: the language that the answer is to be of. adapter: the name of one that the model holds. start: what the
    first canvas begins as. is_scored: whether the causal pass reads the answer too, for its log-probabilities; it
    changes nothing else. Raises ValueError for an empty prompt, for ids outside the vocabulary, for a prompt that
    leaves no room for a canvas in the context, for a constraint that no answer can meet, with what is pinned, and for
    logits that are not finite.
    """
    config = model.config
    length = settings.canvas_length or config.canvas_length
    check_prompt(prompt, length, config.vocab_size, config.max_context)
    seed = secrets.randbelow(MAX_SEED) if settings.seed is None else settings.seed
    record = AnswerRecord(
        room=settings.max_new_tokens,
        stop_ids=config.eos_ids,
        seed=seed,
        max_context=config.max_context,
        vocab_size=config.vocab_size,
        constraint=constraint,
        start=start,
        is_scored=is_scored,
    )
    record.check(len(prompt), length)
    cache, pending, finish_reason = KVCache(config), list(prompt), None
    adapted = model.adapter(adapter)
    while finish_reason is None:
        # Prefill and commit are the same: an encoder pass that appends to the cache.
        result = _encode(model, pending, cache, adapted)
        (cache,) = result.caches
        if is_scored and record.canvases:
            record.score(log_probs_of(model.head, result.hidden[:-1], pending[1:]))
        record.lap("commit" if record.canvases else "prefill")
        place = Counter(seed, settings.index, canvas=len(record.canvases))
        held = record.constrained_canvas(length, committed=cache.length)
        for step in denoise(model, cache, settings, place, length, held, adapted, record.canvas_start):
            record.take(step)
            yield step
            record.restart()
        pending = step.draft.tolist()
        _, finish_reason = record.add(pending, step.number, committed=cache.length)
    if unscored := record.unscored:
        hidden = _encode(model, unscored, cache, adapted).hidden
        record.score(log_probs_of(model.head, hidden, pending[1 : len(unscored) + 1]))
        record.lap("commit")
    return record.generation(finish_reason)


generate = to_its_end(denoising_steps)
"""Runs `denoising_steps` to its end."""


def _encode(
    model: Transformer, tokens: Sequence[int], cache: KVCache, adapter: AdapterMatrices | None
) -> ForwardResult:
    ids = torch.tensor(tokens, device=model.embed_tokens.weight.device)
    return model.run(FlatBatch.single(ids, cache.length, Pass.ENCODER, adapter=adapter), (cache,))


def denoise(
    model: Transformer,
    cache: KVCache,
    settings: SamplerSettings,
    place: Counter,
    length: int,
    held: ConstrainedCanvas | None = None,
    adapter: AdapterMatrices | None = None,
    start: CanvasStart | None = None,
) -> Iterator[DenoisingStep]:
    """Refines one canvas of `length` tokens, which follow what `cache` holds, from noise to its last step.

    held: the constraint that it is under. adapter: one that the model holds. start: what it begins as, if not as noise.
    """
    sampler = Sampler(model.config.vocab_size)
    state = sampler.init([settings], [place], length, device=model.embed_tokens.weight.device, starts=[start])
    finished = False
    while not finished:
        (temperature,), step = state.temperatures, state.counters[0].step
        signal = None if state.soft_embedding is None else state.soft_embedding[0]
        batch = FlatBatch.single(state.tokens[0], cache.length, Pass.DENOISER, soft_embedding=signal, adapter=adapter)
        hidden = model.run(batch, (cache,)).hidden
        query = ReadoutQuery(temperature, sampler.uniforms(state), classes=classes_of([held], [state]))
        readout = streamed_readout(model.head, hidden, query)
        (held,), overruling = constrain([held], [state], model.head, hidden, readout)
        state = sampler.step(state, readout, overruling)
        ((is_finite, is_active),) = sampler.verdicts(state)
        if not is_finite:
            raise not_finite(f"in canvas {place.canvas}, step {step}")
        finished, (draft,) = not is_active, sampler.finalize(state)
        choices = choice_probabilities(model.head, hidden, state, held) if finished else None
        yield DenoisingStep(
            canvas=place.canvas,
            step=step,
            number=state.begun[0] - step + 1,
            temperature=temperature,
            draft=draft,
            renoised=state.tokens[0],
            accepted=state.accepted[0],
            entropy=state.entropy[0],
            finished=finished,
            guided=held is not None and held.is_guided,
            log_mass=None if held is None else held.log_mass,
            choices=choices,
        )
