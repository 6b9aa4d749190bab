"""Canvases as drafts: what is left of one after its first tokens were settled, moved on and denoised again.

C canvas length, D hidden size.
"""

import dataclasses

import torch
from torch import Tensor

from redraft.diffusion.noise import initial_canvas
from redraft.diffusion.randomness import Counter
from redraft.diffusion.sampler import NO_DRAFT, CanvasState
from redraft.diffusion.settings import SamplerSettings


def moved_on(
    state: CanvasState,
    count: int,
    first: int,
    embedding: Tensor,
    *,
    settings: SamplerSettings,
    counter: Counter,
    vocab_size: int,
) -> CanvasState:
    """Moves one canvas on by `count` tokens, and holds the token `first`, of that embedding · √D [D], in its first row.

    What has stood behind keeps its tokens, its draft and its soft embedding; new rows are noise without a signal. The
    next step is the first of `settings.steps`, drawn for `counter`.
    """
    length, device = state.length, state.tokens.device
    noise = initial_canvas(counter, length, vocab_size, device)[None, length - count :]
    pinned = torch.arange(length, device=device)[None] == 0

    def shifted(rows: Tensor, new: Tensor) -> Tensor:
        return torch.cat([rows[:, count:], new], dim=1)

    def held(rows: Tensor) -> Tensor:
        return rows.masked_fill(pinned, first)

    soft = state.soft_embedding
    if soft is not None:
        soft = shifted(soft, soft.new_zeros(1, count, soft.shape[2]))
        soft[:, 0] = embedding
    return dataclasses.replace(
        state,
        settings=(settings,),
        counters=(dataclasses.replace(counter, step=settings.steps),),
        begun=(settings.steps,),
        tokens=held(shifted(state.tokens, noise)),
        active=torch.ones_like(state.active),
        draft=held(shifted(state.draft, noise)),
        unchanged=torch.full_like(state.unchanged, NO_DRAFT),
        accepted=shifted(state.accepted, torch.zeros_like(noise, dtype=torch.bool)),
        entropy=shifted(state.entropy, torch.full_like(noise, torch.inf, dtype=state.entropy.dtype)),
        soft_embedding=soft,
        pinned=pinned,
    )
