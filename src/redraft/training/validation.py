"""Validation during training: losses and generated answers on examples the model is not trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.generation.loop import generate
from redraft.generation.result import Generation
from redraft.model.transformer import Transformer
from redraft.training.data.examples import Example, make_batch
from redraft.training.objective import losses


@dataclass(frozen=True)
class Scores:
    """The scores of one validation.

    exact: share of answers that equal the example's, token for token; losses in nats, without unrolling.
    """

    exact: float
    steps_per_canvas: float
    canvas_loss: float
    encoder_loss: float

    def __str__(self) -> str:
        return (
            f"exact {self.exact:.1%}  steps per canvas {self.steps_per_canvas:.1f}  "
            f"canvas {self.canvas_loss:.4f}  encoder {self.encoder_loss:.4f}"
        )


Validator = Callable[[Transformer], Scores]


def make_validator(
    examples: Sequence[Example],
    sampler: SamplerSettings,
    *,
    answers: int | None = None,
    prompt_weight: float = 1.0,
    batch_size: int = 16,
    answer: Callable[..., Generation] = generate,
) -> Validator:
    """Returns a validator over `examples`; the model answers the first `answers` of them (None: all).

    Every validation uses the same noise and seeds. answer: called as `generate` is. ValueError if there are no
    examples.
    """
    answered = examples[:answers]
    if not answered:
        raise ValueError("there is nothing to validate on: at least one example is required")

    @torch.no_grad()
    def validate(model: Transformer) -> Scores:
        config, device = model.config, model.embed_tokens.weight.device
        sums, weights = torch.zeros(2, device="cpu"), torch.zeros(2, device="cpu")
        for first in range(0, len(examples), batch_size):
            part = examples[first : first + batch_size]
            batch = make_batch(part, config.canvas_length, config.vocab_size, Counter(0, step=first)).to(device)
            loss = losses(model, batch, prompt_weight=prompt_weight)
            counts = torch.tensor([batch.open_positions, batch.encoder_weight(prompt_weight)], device="cpu")
            sums += torch.stack((loss.canvas, loss.encoder)).cpu() * counts
            weights += counts
        results = []
        for index, example in enumerate(answered):
            settings = sampler.replace(seed=index, max_new_tokens=len(example.answer))
            results.append(answer(model, example.prompt, settings, start=canvas_start(example)))
        # The last token of an example's answer is the EOS, which a result leaves out.
        exact = [
            result.finish_reason == "stop" and result.token_ids == example.answer[:-1]
            for result, example in zip(results, answered, strict=True)
        ]
        steps = [count for result in results for count in result.steps_per_canvas]
        canvas, encoder = (sums / weights).tolist()
        return Scores(sum(exact) / len(exact), sum(steps) / len(steps), canvas, encoder)

    return validate


def canvas_start(example: Example) -> CanvasStart | None:
    """Returns what an example's canvas begins as: None for noise, else noise but for what is pinned."""
    if not example.pinned:
        return None
    held = range(max(example.pinned) + 1)
    tokens = tuple(example.answer[at] if at in example.pinned else None for at in held)
    return CanvasStart(tokens=tokens, pinned=example.pinned)
