"""From token ids of prompts and answers to the tensors of a training step.

B examples, C canvas length, N encoder tokens of all examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.diffusion.noise import corrupt
from redraft.diffusion.randomness import Counter, Purpose

LOWEST_LEVEL = 1e-4


@dataclass(frozen=True)
class Example:
    """Token ids of one prompt and of its answer, the EOS that ends it included."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class TrainingBatch:
    """A step's data.

    tokens int64 [N]: prompt and answer of every example, one after the other; lengths: each example's share of N;
    answered bool [N]: the tokens of answers.
    canvas_starts: tokens of each example before its chosen canvas. clean and noised int64 [B, C]: that canvas, filled
    with EOS behind the answer's end. conditioned bool [B]: examples with self-conditioning.
    """

    tokens: Tensor
    lengths: tuple[int, ...]
    answered: Tensor
    canvas_starts: tuple[int, ...]
    clean: Tensor
    noised: Tensor
    conditioned: Tensor


def make_batch(
    examples: Sequence[Example], canvas_length: int, vocab_size: int, counter: Counter, self_conditioning: float = 0.5
) -> TrainingBatch:
    """Chooses a canvas and a corruption level for each example; `counter` decides everything random.

    Per example: one of its non-empty canvases uniformly, level t ~ U(1e-4, 1), self-conditioning with the given
    probability (algorithm: "Training objective"). ValueError for an empty prompt or answer.
    """
    count = len(examples)
    chosen = counter.uniforms(count, Purpose.CANVAS_CHOICE).tolist()
    starts, canvases = [], []
    for example, uniform in zip(examples, chosen, strict=True):
        if not example.prompt or not example.answer:
            raise ValueError("an example needs at least one token in its prompt and one in its answer")
        canvas = int(uniform * -(-len(example.answer) // canvas_length))
        tokens = example.answer[canvas * canvas_length : (canvas + 1) * canvas_length]
        starts.append(len(example.prompt) + canvas * canvas_length)
        canvases.append(tokens + (example.answer[-1],) * (canvas_length - len(tokens)))
    clean = torch.tensor(canvases)
    level = LOWEST_LEVEL + (1 - LOWEST_LEVEL) * counter.uniforms(count, Purpose.CORRUPTION_LEVEL)
    return TrainingBatch(
        tokens=torch.tensor([token for example in examples for token in example.prompt + example.answer]),
        lengths=tuple(len(example.prompt) + len(example.answer) for example in examples),
        answered=torch.cat([torch.arange(len(e.prompt) + len(e.answer)) >= len(e.prompt) for e in examples]),
        canvas_starts=tuple(starts),
        clean=clean,
        noised=corrupt(clean, level, counter, vocab_size),
        conditioned=counter.uniforms(count, Purpose.SELF_CONDITIONING) < self_conditioning,
    )
