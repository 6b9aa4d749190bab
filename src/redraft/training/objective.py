"""The training objective: denoise a corrupted canvas and predict the next tokens of prompt and answer.

B examples, K canvases of each, C canvas length, N encoder tokens, D hidden, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.diffusion.settings import SamplerSettings
from redraft.model.batch import FlatBatch, Pass, SegmentInput
from redraft.model.readout.plain import sample_and_entropy
from redraft.model.readout.query import Readout
from redraft.model.transformer import Transformer
from redraft.training.attention import CanvasAttention, PrefixAttention
from redraft.training.data.examples import DEFAULT_SAMPLER, TrainingBatch

NO_TARGET = -100
LENGTH_BLOCK = 32
"""The longest example of a step is padded to a multiple of this for attention, if rows are padded at all."""


@dataclass(frozen=True)
class Losses:
    """The mean cross-entropies in nats: of open canvas positions, and (weighted) of the tokens the encoder predicts."""

    canvas: Tensor
    encoder: Tensor

    @property
    def total(self) -> Tensor:
        return self.canvas + self.encoder


def losses(
    model: Transformer,
    batch: TrainingBatch,
    *,
    sampler: SamplerSettings = DEFAULT_SAMPLER,
    row_block: int = 1,
    prompt_weight: float = 1.0,
) -> Losses:
    """Computes the losses of an encoder pass over clean prompts and answers and a denoiser pass over noised canvases.

    Each canvas sees the cache cut at its start, and unrolled ones take steps of the `sampler` first. All canvas
    positions but those that are pinned count alike, kept or replaced; in the encoder loss, prompt tokens have weight
    `prompt_weight`. Gradients flow through the cache into the encoder; the passes that feed self-conditioning have
    none. The encoder's rows are padded to a multiple of `row_block` with tokens that nothing attends to and no loss
    counts, so that steps share the sizes of their products (see Experts.row_block).
    """
    count = batch.tokens.shape[0]
    padding = -count % row_block
    device = batch.tokens.device
    prefix = PrefixAttention(model.config, batch.lengths, min(row_block, LENGTH_BLOCK), device=device)
    lengths = (*batch.lengths, padding) if padding else batch.lengths
    tokens = F.pad(batch.tokens, (0, padding), value=model.config.pad_id)
    hidden = model(
        FlatBatch.of([SegmentInput(part, 0, Pass.ENCODER) for part in torch.split(tokens, list(lengths))]), prefix
    )
    # Each row predicts the next token, except an example's last row and the padding.
    following = F.pad(batch.tokens[1:], (0, padding + 1), value=NO_TARGET)
    following[torch.tensor(batch.lengths, device=device).cumsum(0) - 1] = NO_TARGET
    weights = torch.where(F.pad(batch.answered[1:], (0, padding + 1)), 1.0, prompt_weight) * (following != NO_TARGET)
    # The readout costs as much as layers do: rows without weight have none.
    read = weights.nonzero().squeeze(1)
    each = F.cross_entropy(model.head.logits(hidden[read]), following[read], reduction="none")
    encoder = (each * weights[read]).sum() / weights.sum()

    open_tokens = batch.clean.masked_fill(batch.pinned, NO_TARGET)
    canvas = F.cross_entropy(denoise(model, batch, prefix, sampler), open_tokens.flatten(), ignore_index=NO_TARGET)
    return Losses(canvas, encoder)


def denoise(
    model: Transformer, batch: TrainingBatch, prefix: PrefixAttention, sampler: SamplerSettings = DEFAULT_SAMPLER
) -> Tensor:
    """Returns logits float32 [B · K · C, V] of the noised canvases, after unrolling where the batch asks for it."""
    canvases, soft_embedding = batch.noised, None
    if batch.first_passes:
        canvases, soft_embedding = _first_passes(model, batch, prefix, sampler)
    return _denoise(model, canvases, batch.canvas_starts, prefix, soft_embedding)


@torch.no_grad()
def _first_passes(
    model: Transformer, batch: TrainingBatch, prefix: PrefixAttention, settings: SamplerSettings
) -> tuple[Tensor, Tensor]:
    """Returns what examples are denoised from: canvases int64 [B, K, C] and soft embeddings [B · K · C, D].

    Conditioned examples take one pass; where they are unrolled, one for each of their steps. A model that only knows
    right tokens and noise trusts whatever makes sense in a canvas, its own mistakes too; from states of its own
    sampling it learns to take them back (Step-unrolled Denoising Autoencoders, arXiv:2112.06749).
    """
    sampler, (_, canvases, length) = Sampler(model.config.vocab_size), batch.noised.shape
    is_unrolled = batch.unrolled > 0
    temperature = torch.where(is_unrolled, batch.temperature.float(), 1.0)
    states = dataclasses.replace(
        CanvasState.starting(
            batch.noised.flatten(0, 1),
            [settings] * len(batch.places),
            batch.places,
            pinned=batch.pinned.flatten(0, 1) if batch.pinned.any() else None,
        ),
        # A step gives a canvas that is not active a soft embedding and leaves its tokens alone.
        active=is_unrolled.repeat_interleave(canvases),
        soft_embedding=model.embed_tokens.weight.new_zeros(len(batch.places), length, model.config.hidden_size),
    ).split()
    for step in range(batch.first_passes):
        chosen = batch.unrolled > step if step else batch.conditioned
        is_idle = not chosen.any()
        if is_idle:
            # The other processes gather the weights of this pass, for which they need this one.
            chosen = torch.arange(len(chosen), device=chosen.device) == 0
        indices = chosen.repeat_interleave(canvases).nonzero().flatten().tolist()
        part = [states[i] for i in indices]
        tokens = torch.cat([state.tokens for state in part]).view(-1, canvases, length)
        signal = _soft_embeddings(part) if step else None
        logits = _denoise(model, tokens, batch.canvas_starts[chosen], prefix.select(chosen), signal)
        logits = logits / temperature[chosen].repeat_interleave(canvases * length)[:, None]
        sample, entropy = sample_and_entropy(logits, sampler.uniforms(*part))
        readout = Readout(sample, logits.argmax(dim=-1), entropy, model.head.soft_embedding(logits))
        for i, state in () if is_idle else zip(indices, sampler.step_each(part, readout), strict=True):
            states[i] = state
    tokens = torch.cat([state.tokens for state in states]).view_as(batch.noised)
    return torch.where(batch.shown, batch.clean, tokens), _soft_embeddings(states)


def _soft_embeddings(states: Sequence[CanvasState]) -> Tensor:
    return torch.cat([one.flatten(0, 1) for state in states if (one := state.soft_embedding) is not None])


def _denoise(
    model: Transformer, noised: Tensor, starts: Tensor, prefix: PrefixAttention, soft_embedding: Tensor | None
) -> Tensor:
    places = zip(noised.flatten(0, 1), starts.flatten().tolist(), strict=True)
    flat = FlatBatch.of([SegmentInput(canvas, start, Pass.DENOISER) for canvas, start in places])
    flat = dataclasses.replace(flat, soft_embedding=soft_embedding)
    return model.head.logits(model(flat, CanvasAttention(model.config, prefix, starts, noised.shape[2])))
