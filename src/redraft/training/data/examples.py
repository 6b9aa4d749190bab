"""Training examples as token ids, and the tensors of a training step made from them.

B examples, K canvases of each, C canvas length, N encoder tokens of all examples.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from redraft.diffusion.noise import corrupt
from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.settings import SamplerSettings

MIN_LEVEL = 1e-4
DEFAULT_SAMPLER = SamplerSettings()


@dataclass(frozen=True)
class Example:
    """The token ids of a prompt and its answer, including the EOS that ends it.

    pinned: positions in the answer's first canvas that generation will be given. They are never noised, and no loss
    counts them.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    pinned: frozenset[int] = frozenset()


ExampleSource = Callable[[int], Sequence[Example]]
"""Returns the examples of a step, always the same for the same step."""


@dataclass(frozen=True)
class TrainingBatch:
    """The data of one training step.

    tokens int64 [N]: prompt and answer of every example, concatenated; lengths: each example's share of N;
    answered bool [N]: the tokens of answers.
    canvas_starts int64 [B, K]: number of the example's tokens before the chosen canvas. clean and noised int64
    [B, K, C]: that canvas, filled with EOS after the answer's end. pinned bool [B, K, C]: positions that hold the clean
    token in every step, and in no loss. conditioned bool [B]: examples with
    self-conditioning. unrolled int64 [B]: number of sampler steps applied to the canvases, 0 unless conditioned, at
    temperature [B]. places: for each of the B · K canvases the counter of the first of these steps. shown bool
    [B, K, C]: positions of an unrolled canvas that are then set to the clean token. least_passes: so many passes
    come before the one that is learned from, even if no example needs them.
    """

    tokens: Tensor
    lengths: tuple[int, ...]
    answered: Tensor
    canvas_starts: Tensor
    clean: Tensor
    noised: Tensor
    pinned: Tensor
    conditioned: Tensor
    unrolled: Tensor
    temperature: Tensor
    shown: Tensor
    places: tuple[Counter, ...]
    least_passes: int = 0

    @property
    def first_passes(self) -> int:
        """How many passes come before the one that is learned from."""
        own = max(1, int(self.unrolled.max())) if self.conditioned.any() else 0
        return max(own, self.least_passes)

    @property
    def open_positions(self) -> int:
        """How many positions the mean of the canvas loss is over."""
        return self.pinned.numel() - int(self.pinned.sum())

    def encoder_weight(self, prompt_weight: float) -> float:
        """Returns the sum of the tokens' weights in the encoder loss; the first of an example is not predicted."""
        answered = int(self.answered.sum())
        return answered + prompt_weight * (len(self.answered) - answered - len(self.lengths))

    def to(self, device: torch.device | str) -> "TrainingBatch":
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return dataclasses.replace(self, **tensors)

    def split(self, parts: int) -> list["TrainingBatch"]:
        size = -(-len(self.lengths) // parts)
        bounds = range(0, len(self.lengths), size)
        tokens = [sum(self.lengths[at : at + size]) for at in bounds]
        pieces = zip(bounds, torch.split(self.tokens, tokens), torch.split(self.answered, tokens), strict=True)
        per_example = ("canvas_starts", "clean", "noised", "pinned", "conditioned", "unrolled", "temperature", "shown")
        canvases = self.noised.shape[1]
        return [
            TrainingBatch(
                tokens=of_tokens,
                lengths=self.lengths[at : at + size],
                answered=of_answered,
                places=self.places[at * canvases : (at + size) * canvases],
                **{name: getattr(self, name)[at : at + size] for name in per_example},
            )
            for at, of_tokens, of_answered in pieces
        ]


def make_batch(
    examples: Sequence[Example],
    canvas_length: int,
    vocab_size: int,
    counter: Counter,
    *,
    sampler: SamplerSettings = DEFAULT_SAMPLER,
    self_conditioning: float = 0.5,
    canvases_per_example: int = 1,
    unrolling: float = 0.0,
    unrolling_steps: int = 1,
    unrolling_from_noise: float = 0.0,
    unrolling_shown: float = 0.0,
) -> TrainingBatch:
    """Chooses a canvas and a corruption level for each example; `counter` determines all random choices.

    Each canvas is drawn uniformly from the example's non-empty ones, with level t ~ U(1e-4, 1). Each example is
    self-conditioned with the given probability (algorithm: "Training objective"). A share `unrolling` of those is
    unrolled by 1 to `unrolling_steps` steps at a temperature of the `sampler`'s schedule: a share
    `unrolling_from_noise` of their canvases from pure noise, as generation starts, the others from the step that would
    find as much noise if every step removed the same share of it. Each canvas then shows some of the right tokens, a
    share `unrolling_shown` on average. If an example has several canvases, their levels and positions are evenly
    spaced, each still uniform by itself: this reduces the variance of a step. All tensors are on the CPU. ValueError
    for an empty prompt or answer, and for pins outside the first canvas or in all of it.
    """
    count, each = len(examples), canvases_per_example
    spacing = torch.arange(each, dtype=torch.float64, device="cpu") / each
    chosen = (counter.uniforms(count, Purpose.CANVAS_CHOICE)[:, None] + spacing) % 1
    starts, canvases, pins = [], [], []
    for example, uniforms in zip(examples, chosen.tolist(), strict=True):
        if not example.prompt or not example.answer:
            raise ValueError("an example needs at least one token in its prompt and one in its answer")
        _check_pins(example, canvas_length)
        for uniform in uniforms:
            canvas = int(uniform * -(-len(example.answer) // canvas_length))
            tokens = example.answer[canvas * canvas_length : (canvas + 1) * canvas_length]
            starts.append(len(example.prompt) + canvas * canvas_length)
            canvases.append(tokens + (example.answer[-1],) * (canvas_length - len(tokens)))
            pins.append([canvas == 0 and position in example.pinned for position in range(canvas_length)])
    clean, pinned = torch.tensor(canvases, device="cpu"), torch.tensor(pins, device="cpu")
    conditioned = counter.uniforms(count, Purpose.SELF_CONDITIONING) < self_conditioning
    draw = counter.uniforms(count, Purpose.UNROLLING) / max(unrolling, 1e-12)
    unrolled = torch.where(conditioned & (draw < 1), 1 + (draw * unrolling_steps).long(), 0)
    level = (counter.uniforms(count, Purpose.CORRUPTION_LEVEL)[:, None] + spacing) % 1
    level = MIN_LEVEL + (1 - MIN_LEVEL) * level
    stretched = (level / max(1 - unrolling_from_noise, 1e-12)).clamp(max=1)
    level = torch.where(unrolled[:, None] > 0, stretched, level)
    noised = torch.where(pinned, clean, corrupt(clean, level.flatten(), counter, vocab_size))
    # For a uniform number u, u^(1/m - 1) has mean m.
    share = (counter.uniforms(count, Purpose.SHOWN_SHARE)[:, None] + spacing) % 1
    share = share ** (1 / max(unrolling_shown, 1e-12) - 1)
    shape, schedule = (count, each, canvas_length), sampler.scaled_schedule
    shown = counter.uniforms(clean.numel(), Purpose.SHOWN).view(shape) < share[:, :, None]
    # Training steps take the place of choices: each has random numbers of its own.
    places = tuple(
        Counter(counter.seed, index=counter.step, canvas=index, step=max(math.ceil(noise * sampler.steps), least))
        for index, (noise, least) in enumerate(
            zip(level.flatten().tolist(), unrolled.repeat_interleave(each).tolist(), strict=True)
        )
    )
    return TrainingBatch(
        tokens=torch.tensor([token for e in examples for token in e.prompt + e.answer], device="cpu"),
        lengths=tuple(len(example.prompt) + len(example.answer) for example in examples),
        answered=torch.tensor(
            [i >= len(e.prompt) for e in examples for i in range(len(e.prompt) + len(e.answer))], device="cpu"
        ),
        canvas_starts=torch.tensor(starts, device="cpu").view(count, each),
        clean=clean.view(shape),
        noised=noised.view(shape),
        pinned=pinned.view(shape),
        conditioned=conditioned,
        unrolled=unrolled,
        # As at any step of the sampler's schedule.
        temperature=schedule.t_min + (schedule.t_max - schedule.t_min) * counter.uniforms(count, Purpose.TEMPERATURE),
        shown=shown & (unrolled > 0)[:, None, None],
        places=places,
    )


def _check_pins(example: Example, canvas_length: int) -> None:
    size = min(canvas_length, len(example.answer))
    if bad := sorted(position for position in example.pinned if not 0 <= position < size):
        raise ValueError(f"position {bad[0]} of an example is pinned, the first canvas of its answer has {size} tokens")
    if len(example.pinned) == canvas_length:
        raise ValueError(f"all {canvas_length} positions of an example's canvas are pinned: there is nothing to learn")
