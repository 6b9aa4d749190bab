"""Uniform noise: there is no mask token, a noised position holds a random token of the vocabulary."""

import torch
from torch import Tensor

from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.start import CanvasStart


def initial_canvas(counter: Counter, length: int, vocab_size: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [length]: the canvas before its first denoising step."""
    return counter.random_tokens(length, vocab_size, Purpose.INITIAL_CANVAS, device=device)


def started(noise: Tensor, start: CanvasStart, counter: Counter) -> Tensor:
    """Returns what a canvas of `noise` int64 [C] begins as: with the given tokens, but those of them that are noised.

    counter: its place, before the first step.
    """
    tokens = [-1 if token is None else token for token in start.tokens]
    given = torch.tensor(tokens, dtype=torch.int64, device=noise.device)
    stands = given >= 0
    if start.strength is not None:
        uniforms = counter.uniforms(len(given), Purpose.CORRUPTION_MASK, device=noise.device)
        stands &= uniforms >= start.strength
        stands[sorted(start.pinned)] |= True
    return torch.cat([torch.where(stands, given, noise[: len(given)]), noise[len(given) :]])


def renoise(sample: Tensor, accepted: Tensor, noise: Tensor) -> Tensor:
    """Keeps `sample` where `accepted` is true, and takes `noise`, random tokens, elsewhere; all of one shape."""
    return torch.where(accepted, sample, noise)


def corrupt(tokens: Tensor, level: Tensor, counter: Counter, vocab_size: int) -> Tensor:
    """Replaces each of `tokens` int64 [B, C] by a random token with its row's probability, `level` [B]."""
    uniform = counter.uniforms(tokens.numel(), Purpose.CORRUPTION_MASK, device=tokens.device).view_as(tokens)
    noise = counter.random_tokens(tokens.numel(), vocab_size, Purpose.CORRUPTION_TOKEN, device=tokens.device)
    return torch.where(uniform < level[:, None], noise.view_as(tokens), tokens)
