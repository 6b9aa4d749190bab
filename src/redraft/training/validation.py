"""How good a model is while it trains: on examples it does not train on, by its losses and by its answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.generation import generate
from redraft.model.transformer import Transformer
from redraft.training.data.examples import Example, make_batch
from redraft.training.objective import losses

BATCH = 16


@dataclass(frozen=True)
class Scores:
    """exact: share of answers that are the example's, token for token; losses in nats, without unrolling."""

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
    examples: Sequence[Example], settings: SamplerSettings, *, answers: int | None = None, prompt_weight: float = 1.0
) -> Validator:
    """A validator over `examples`, of which it answers the first `answers` (None: all), always with the same noise."""
    asked = examples[:answers]
    if not asked:
        raise ValueError("there is nothing to validate on: it needs at least one example")

    @torch.no_grad()
    def validate(model: Transformer) -> Scores:
        config = model.config
        sums, weights = torch.zeros(2), torch.zeros(2)
        for first in range(0, len(examples), BATCH):
            part = examples[first : first + BATCH]
            batch = make_batch(part, config.canvas_length, config.vocab_size, Counter(0, step=first))
            loss = losses(model, batch, prompt_weight=prompt_weight)
            counts = torch.tensor([len(part), batch.encoder_weight(prompt_weight)])
            sums += torch.stack((loss.canvas, loss.encoder)) * counts
            weights += counts
        results = [
            generate(model, example.prompt, settings.replace(seed=index, max_new_tokens=len(example.answer)))
            for index, example in enumerate(asked)
        ]
        # The last token of an answer is the EOS, which a result does not repeat.
        exact = [
            result.finish_reason == "stop" and result.token_ids == example.answer[:-1]
            for result, example in zip(results, asked, strict=True)
        ]
        steps = [count for result in results for count in result.steps_per_canvas]
        canvas, encoder = (sums / weights).tolist()
        return Scores(sum(exact) / len(exact), sum(steps) / len(steps), canvas, encoder)

    return validate
