"""Uniform noise: there is no mask token, a noised position holds a random token of the vocabulary."""

import torch
from torch import Tensor

from redraft.diffusion.randomness import Counter, Purpose


def initial_canvas(counter: Counter, length: int, vocab_size: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [length]: the canvas before its first denoising step."""
    return counter.random_tokens(length, vocab_size, Purpose.INITIAL_CANVAS, device=device)


def renoise(sample: Tensor, accepted: Tensor, noise: Tensor) -> Tensor:
    """Keeps `sample` where `accepted` is true, and takes `noise`, random tokens, elsewhere; all of one shape."""
    return torch.where(accepted, sample, noise)


def corrupt(tokens: Tensor, level: Tensor, counter: Counter, vocab_size: int) -> Tensor:
    """Replaces each of `tokens` int64 [B, C] by a random token with its row's probability, `level` [B]."""
    uniform = counter.uniforms(tokens.numel(), Purpose.CORRUPTION_MASK, device=tokens.device).view_as(tokens)
    noise = counter.random_tokens(tokens.numel(), vocab_size, Purpose.CORRUPTION_TOKEN, device=tokens.device)
    return torch.where(uniform < level[:, None], noise.view_as(tokens), tokens)
