"""The training objective: denoise a corrupted canvas and predict the next tokens of prompt and answer.

B examples, K canvases of each, C canvas length, N encoder tokens, D hidden, V vocabulary.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import CanvasState, Sampler
from redraft.diffusion.settings import SamplerSettings
from redraft.model.batch import FlatBatch, Pass, Segment
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
    """The mean cross-entropies in nats: of all canvas positions, and (weighted) of all tokens the encoder predicts."""

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
    positions count alike, kept or replaced; in the encoder loss, prompt tokens have weight `prompt_weight`. Gradients
    flow through the cache into the encoder; the passes that feed self-conditioning have none. The encoder's rows are
    padded to a multiple of `row_block` with tokens that nothing attends to and no loss counts, so that steps share
    the sizes of their products (see Experts.row_block).
    """
    count = batch.tokens.shape[0]
    padding = -count % row_block
    device = batch.tokens.device
    prefix = PrefixAttention(model.config, batch.lengths, min(row_block, LENGTH_BLOCK), device=device)
    lengths = (*batch.lengths, padding) if padding else batch.lengths
    tokens = F.pad(batch.tokens, (0, padding), value=model.config.pad_id)
    hidden = model(_flat(tokens, lengths, (0,) * len(lengths), Pass.ENCODER), prefix)
    # Each row predicts the next token, except an example's last row and the padding.
    following = F.pad(batch.tokens[1:], (0, padding + 1), value=NO_TARGET)
    following[torch.tensor(batch.lengths, device=device).cumsum(0) - 1] = NO_TARGET
    weights = torch.where(F.pad(batch.answered[1:], (0, padding + 1)), 1.0, prompt_weight) * (following != NO_TARGET)
    each = F.cross_entropy(model.head.logits(hidden), following, ignore_index=NO_TARGET, reduction="none")
    encoder = (each * weights).sum() / weights.sum()

    canvas = F.cross_entropy(denoise(model, batch, prefix, sampler), batch.clean.flatten())
    return Losses(canvas, encoder)


def denoise(
    model: Transformer, batch: TrainingBatch, prefix: PrefixAttention, sampler: SamplerSettings = DEFAULT_SAMPLER
) -> Tensor:
    """Returns logits float32 [B · K · C, V] of the noised canvases, after unrolling where the batch asks for it."""
    canvases, soft_embedding = batch.noised, None
    if batch.conditioned.any():
        canvases, soft_embedding = _first_passes(model, batch, prefix, sampler)
        soft_embedding = soft_embedding.flatten(0, 2)
    return _denoise(model, canvases, batch.canvas_starts, prefix, soft_embedding)


@torch.no_grad()
def _first_passes(
    model: Transformer, batch: TrainingBatch, prefix: PrefixAttention, sampler: SamplerSettings
) -> tuple[Tensor, Tensor]:
    """What conditioned examples are denoised from: canvases int64 [B, K, C] and soft embeddings [B, K, C, D].

    One pass for each; where it is unrolled, one for each of its steps, whose outcome is the next one's canvas.
    """
    canvases, soft_embedding = batch.noised, torch.empty(0, device=batch.noised.device)
    for step in range(max(1, int(batch.unrolled.max()))):
        # Over the chosen examples only, and the first without signal.
        active = batch.unrolled > step if step else batch.conditioned
        signal = soft_embedding[active].flatten(0, 2) if step else None
        logits = _denoise(model, canvases[active], batch.canvas_starts[active], prefix.select(active), signal)
        logits = logits.view(-1, *canvases.shape[1:], logits.shape[-1])
        unrolled = batch.unrolled > step
        if unrolled.any():
            temperature = torch.where(unrolled, batch.temperature.float(), 1.0)[active]
            logits = logits / temperature[:, None, None, None]
        found = model.head.soft_embedding(logits)
        if not step:
            soft_embedding = found.new_zeros(*canvases.shape, found.shape[-1])
        soft_embedding[active] = found
        if unrolled.any():
            uniforms, noise = batch.sample_uniforms[unrolled, step], batch.renoise_tokens[unrolled, step]
            among = unrolled[active]
            canvases = canvases.clone()
            canvases[unrolled] = next_canvases(logits[among], found[among], uniforms, noise, sampler)
    return torch.where(batch.shown, batch.clean, canvases), soft_embedding


def next_canvases(
    logits: Tensor, soft_embedding: Tensor, uniforms: Tensor, noise: Tensor, settings: SamplerSettings
) -> Tensor:
    """Returns the canvases int64 [..., C] that the sampler's next step reads, of this one's scaled logits [..., C, V].

    soft_embedding [..., C, D] is theirs; uniforms float64 and noise int64 [..., C] decide samples and renoised tokens.
    A model that only knows right tokens and noise trusts whatever makes sense in a canvas, its own mistakes too; from
    states of its own sampling it learns to take them back (Step-unrolled Denoising Autoencoders, arXiv:2112.06749).
    """
    rows, canvases = logits.flatten(0, -2), noise.flatten(0, -2)
    sample, entropy = sample_and_entropy(rows, uniforms.flatten())
    readout = Readout(sample, rows.argmax(dim=-1), entropy, soft_embedding.flatten(0, -2))
    places = [Counter(0, step=settings.steps)] * canvases.shape[0]
    state = CanvasState.starting(canvases, [settings] * canvases.shape[0], places)
    # The numbers are the batch's own, not those of the places.
    return Sampler(logits.shape[-1]).step(state, readout, noise=noise.flatten()).tokens.view_as(noise)


def _denoise(
    model: Transformer, noised: Tensor, starts: Tensor, prefix: PrefixAttention, soft_embedding: Tensor | None
) -> Tensor:
    lengths = (noised.shape[2],) * starts.numel()
    flat = _flat(noised.flatten(), lengths, tuple(starts.flatten().tolist()), Pass.DENOISER)
    flat = dataclasses.replace(flat, soft_embedding=soft_embedding)
    return model.head.logits(model(flat, CanvasAttention(model.config, prefix, starts, noised.shape[2])))


def _flat(tokens: Tensor, lengths: tuple[int, ...], positions: tuple[int, ...], kind: Pass) -> FlatBatch:
    segments, start, device = [], 0, tokens.device
    for slot, (length, position) in enumerate(zip(lengths, positions, strict=True)):
        segments.append(Segment(slot, start, length, position, kind))
        start += length
    token_positions = torch.cat(
        [torch.arange(at, at + length, device=device) for length, at in zip(lengths, positions, strict=True)]
    )
    return FlatBatch(tokens, token_positions, tuple(segments))
