"""The training loop: data → losses → optimizer, with a progress line, checkpoints and resume.

Every random choice of a step follows from (seed, step), so a resumed run goes on as if it had never stopped.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from redraft.diffusion.randomness import Counter
from redraft.model.transformer import Transformer
from redraft.training.examples import Example, make_batch
from redraft.training.objective import losses
from redraft.training.recipes import Recipe
from redraft.training.state import RunFolder

ExampleSource = Callable[[int], Sequence[Example]]
"""The examples of a step, the same for the same step."""


@dataclass(frozen=True)
class Progress:
    """Means since the last line of progress; tokens are those of prompts and answers."""

    step: int
    steps: int
    canvas_loss: float
    encoder_loss: float
    learning_rate: float
    tokens_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        left = time.strftime("%H:%M:%S", time.gmtime(self.seconds_left))
        return (
            f"step {self.step}/{self.steps}  canvas {self.canvas_loss:.4f}  encoder {self.encoder_loss:.4f}  "
            f"lr {self.learning_rate:.2e}  {self.tokens_per_second:,.0f} tokens/s  {left} left"
        )


def initialise(model: Transformer, seed: int) -> None:
    """Draws the weights of a new model: matrices normal with the usual 1/sqrt(inputs), norms at 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            nn.init.ones_(parameter)
        else:
            # An embedding row is scaled by sqrt(D) on its way in and is an output direction on its way out.
            std = parameter.shape[-1] ** -0.5
            scale = 0.5 if name.endswith(("o_proj.weight", "down_proj", "down_proj.weight")) else 1.0
            nn.init.normal_(parameter, std=std * scale, generator=generator)


def make_optimizer(model: Transformer, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    settings = recipe.settings
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)


def train(
    recipe: Recipe,
    source: ExampleSource,
    run: RunFolder,
    *,
    report: Callable[[str], None],
    stop_after: float = math.inf,
) -> Transformer:
    """Trains in a run's folder, from its newest checkpoint if it has one; returns the model.

    Stops early, with a checkpoint, after `stop_after` seconds or on KeyboardInterrupt. ValueError when a loss is no
    longer finite: the last checkpoint stays as it is.
    """
    settings = recipe.settings
    model = Transformer(recipe.model)
    initialise(model, settings.seed)
    optimizer = make_optimizer(model, recipe)
    step = resumed = run.resume(model, optimizer)
    if step:
        report(f"resuming at step {step} from {run.path}")
    started = saved = logged = time.monotonic()
    sums, tokens, since = torch.zeros(2), 0, step

    try:
        while step < settings.steps:
            batch = make_batch(
                source(step), recipe.model.canvas_length, recipe.model.vocab_size,
                Counter(settings.seed, step=step), settings.self_conditioning,
            )  # fmt: skip
            rate = settings.learning_rate_at(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.autocast):
                loss = losses(model, batch)
            if not torch.isfinite(loss.total):
                raise ValueError(
                    f"the loss of step {step} is {loss.total.item()}; the last checkpoint in {run.path} is untouched"
                )
            torch.autograd.backward(loss.total)
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            sums += torch.stack((loss.canvas.detach(), loss.encoder.detach()))
            tokens += sum(batch.lengths)
            now = time.monotonic()
            if step % settings.log_every == 0 or step == settings.steps:
                canvas, encoder = (sums / (step - since)).tolist()
                speed = tokens / (now - logged)
                left = (settings.steps - step) * (now - logged) / (step - since)
                progress = Progress(step, settings.steps, canvas, encoder, rate, speed, left)
                report(str(progress))
                sums, tokens, since, logged = torch.zeros(2), 0, step, now
            if now - saved > settings.checkpoint_minutes * 60:
                run.save(model, optimizer, step, settings)
                saved = now
            if now - started > stop_after:
                break
    except KeyboardInterrupt:
        report(f"interrupted at step {step}")
    if step > resumed:
        run.save(model, optimizer, step, settings)
    return model
