"""From token ids of prompts and answers to the tensors of a training step.

B examples, K canvases of each, C canvas length, N encoder tokens of all examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redraft.diffusion.noise import corrupt
from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.schedule import LinearTemperature

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
    canvas_starts int64 [B, K]: tokens of each example before the chosen canvas. clean and noised int64 [B, K, C]: that
    canvas, filled with EOS behind the answer's end. conditioned bool [B]: examples with self-conditioning. unrolled
    int64 [B]: how many of the sampler's steps their canvases are taken further, at most S and only where conditioned,
    at temperature [B], with the uniform numbers sample_uniforms float64 and tokens renoise_tokens int64 [B, S, K, C].
    shown bool [B, K, C]: where an unrolled canvas then holds the clean token.
    """

    tokens: Tensor
    lengths: tuple[int, ...]
    answered: Tensor
    canvas_starts: Tensor
    clean: Tensor
    noised: Tensor
    conditioned: Tensor
    unrolled: Tensor
    temperature: Tensor
    sample_uniforms: Tensor
    renoise_tokens: Tensor
    shown: Tensor

    def encoder_weight(self, prompt_weight: float) -> float:
        """Sum of what tokens count in the encoder loss: all but each example's first, which nothing predicts."""
        answered = int(self.answered.sum())
        return answered + prompt_weight * (len(self.answered) - answered - len(self.lengths))

    def split(self, parts: int) -> list["TrainingBatch"]:
        """The same in at most so many smaller ones of whole examples."""
        size = -(-len(self.lengths) // parts)
        bounds = range(0, len(self.lengths), size)
        tokens = [sum(self.lengths[at : at + size]) for at in bounds]
        pieces = zip(bounds, torch.split(self.tokens, tokens), torch.split(self.answered, tokens), strict=True)
        per_example = ("canvas_starts", "clean", "noised", "conditioned", "unrolled", "temperature", "sample_uniforms")
        return [
            TrainingBatch(
                tokens=of_tokens,
                lengths=self.lengths[at : at + size],
                answered=of_answered,
                **{name: getattr(self, name)[at : at + size] for name in (*per_example, "renoise_tokens", "shown")},
            )
            for at, of_tokens, of_answered in pieces
        ]


def make_batch(
    examples: Sequence[Example],
    canvas_length: int,
    vocab_size: int,
    counter: Counter,
    self_conditioning: float = 0.5,
    canvases_per_example: int = 1,
    unrolling: float = 0.0,
    unrolling_steps: int = 1,
    unrolling_from_noise: float = 0.0,
    unrolling_shown: float = 0.0,
) -> TrainingBatch:
    """Chooses canvases and their corruption levels for each example; `counter` decides everything random.

    Per canvas: one of the example's non-empty ones uniformly and level t ~ U(1e-4, 1); per example: self-conditioning
    with the given probability (algorithm: "Training objective"), and a share `unrolling` of those is unrolled by one to
    `unrolling_steps` steps, a share `unrolling_from_noise` of their canvases from nothing but noise, as generation
    begins; each then shows some of the right tokens, of all of them a share `unrolling_shown`. Where an example has
    several canvases, their levels and their places stand evenly apart, each still uniform by itself: less of a step's
    noise is chance. ValueError for an empty prompt or answer.
    """
    count, each = len(examples), canvases_per_example
    apart = torch.arange(each, dtype=torch.float64) / each
    chosen = (counter.uniforms(count, Purpose.CANVAS_CHOICE)[:, None] + apart) % 1
    starts, canvases = [], []
    for example, uniforms in zip(examples, chosen.tolist(), strict=True):
        if not example.prompt or not example.answer:
            raise ValueError("an example needs at least one token in its prompt and one in its answer")
        for uniform in uniforms:
            canvas = int(uniform * -(-len(example.answer) // canvas_length))
            tokens = example.answer[canvas * canvas_length : (canvas + 1) * canvas_length]
            starts.append(len(example.prompt) + canvas * canvas_length)
            canvases.append(tokens + (example.answer[-1],) * (canvas_length - len(tokens)))
    clean = torch.tensor(canvases)
    conditioned = counter.uniforms(count, Purpose.SELF_CONDITIONING) < self_conditioning
    further = counter.uniforms(count, Purpose.UNROLLING) / max(unrolling, 1e-12)
    unrolled = torch.where(conditioned & (further < 1), 1 + (further * unrolling_steps).long(), 0)
    level = (counter.uniforms(count, Purpose.CORRUPTION_LEVEL)[:, None] + apart) % 1
    level = LOWEST_LEVEL + (1 - LOWEST_LEVEL) * level
    stretched = (level / max(1 - unrolling_from_noise, 1e-12)).clamp(max=1)
    level = torch.where(unrolled[:, None] > 0, stretched, level)
    noised = corrupt(clean, level.flatten(), counter, vocab_size)
    # Of a uniform number u, u^(1/m - 1) has the mean m.
    share = (counter.uniforms(count, Purpose.SHOWN_SHARE)[:, None] + apart) % 1
    share = share ** (1 / max(unrolling_shown, 1e-12) - 1)
    shape, schedule = (count, each, canvas_length), LinearTemperature()
    shown = counter.uniforms(clean.numel(), Purpose.SHOWN).view(shape) < share[:, :, None]
    of_steps, drawn = (unrolling_steps, *shape), unrolling_steps * clean.numel()
    return TrainingBatch(
        tokens=torch.tensor([token for example in examples for token in example.prompt + example.answer]),
        lengths=tuple(len(example.prompt) + len(example.answer) for example in examples),
        answered=torch.cat([torch.arange(len(e.prompt) + len(e.answer)) >= len(e.prompt) for e in examples]),
        canvas_starts=torch.tensor(starts).view(count, each),
        clean=clean.view(shape),
        noised=noised.view(shape),
        conditioned=conditioned,
        unrolled=unrolled,
        # Where in a run of the sampler it is taken further: anywhere.
        temperature=schedule.t_min + (schedule.t_max - schedule.t_min) * counter.uniforms(count, Purpose.TEMPERATURE),
        sample_uniforms=counter.uniforms(drawn, Purpose.SAMPLE).view(of_steps).transpose(0, 1),
        renoise_tokens=counter.random_tokens(drawn, vocab_size, Purpose.RENOISE).view(of_steps).transpose(0, 1),
        shown=shown & (unrolled > 0)[:, None, None],
    )
