"""The training loop: data → losses → optimizer, with a progress line, checkpoints and resume.

Every random choice of a step follows from (seed, step), so a resumed run goes on as if it had never stopped.
"""

import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from redraft.diffusion.randomness import Counter
from redraft.model.config import ModelConfig
from redraft.model.layers import Experts, Layer
from redraft.model.transformer import Transformer
from redraft.training.average import Average
from redraft.training.data.examples import Example, make_batch
from redraft.training.objective import losses
from redraft.training.optimizer import MuonAdamW
from redraft.training.recipe import Recipe
from redraft.training.run.log import RunLog
from redraft.training.run.state import RunFolder
from redraft.training.validation import Validator
from redraft.utils.signals import delay_interrupt, treat_sigterm_as_interrupt
from redraft.weights import Checkpoint, check_available

ExampleSource = Callable[[int], Sequence[Example]]
"""The examples of a step, the same for the same step. One with a method `describe` says of a step what they are."""

BRANCH_SIZE = 0.25
OUTPUT_SIZE = 0.3


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
        minutes, seconds = divmod(int(self.seconds_left), 60)
        left = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
        return (
            f"step {self.step}/{self.steps}  canvas {self.canvas_loss:.4f}  encoder {self.encoder_loss:.4f}  "
            f"lr {self.learning_rate:.2e}  {self.tokens_per_second:,.0f} tokens/s  {left} left"
        )


def initialise(model: Transformer, seed: int) -> None:
    """Draws the weights of a new model: matrices normal with the usual 1/sqrt(inputs), most norms at 1.

    Attention scores are not scaled and their queries and keys are normalised, so it is the two norms' weights that give
    scores of size 1 at the start; at 1 they would give sqrt(head size), a softmax that is nearly one-hot and hardly
    learns. Branches start small beside the residual, which then is the embedding of the token itself: the last norm
    keeps the tied output from being sure of that token.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            nn.init.constant_(parameter, parameter.shape[0] ** -0.25)
        elif name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            nn.init.constant_(parameter, BRANCH_SIZE)
        elif name == "norm.weight":
            nn.init.constant_(parameter, OUTPUT_SIZE)
        else:
            nn.init.ones_(parameter)


def check_start(path: Path, recipe: Recipe) -> Checkpoint:
    """The checkpoint that a run is to begin with.

    ValueError where it is none, quantized, or of another shape than the recipe's.
    """
    checkpoint = Checkpoint.open(path)
    checkpoint.check_unquantized()
    if checkpoint.config != recipe.model:
        raise ValueError(f"{path} holds a model of another shape than the recipe's; begin with another, or without one")
    return checkpoint


def check_memory(config: ModelConfig) -> None:
    """ValueError where what training keeps of every weight, in float32, is more than is free here.

    That is the weight, its gradient, the optimizer's two averages and the copy that is validated; what a step computes
    comes on top.
    """
    needed = 5 * 4 * sum(math.prod(shape) for shape in config.parameter_shapes().values())
    check_available(needed, "training this model, with gradients and optimizer,", "choose a smaller model")


def make_optimizer(model: Transformer, recipe: Recipe) -> MuonAdamW:
    """Three groups: the layers' matrices, by Muon where the recipe says so; other matrices; vectors, undecayed.

    Each group's `factor` is what the learning rate of a step is multiplied by.
    """
    settings = recipe.settings
    matrices, tables, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors.append(parameter)
        elif name.startswith(("embed_tokens", "self_conditioning")) or "router" in name:
            # The first and last have rows of one token's and one expert's: to move all of them alike would make rare
            # ones restless. And nothing norms what self-conditioning adds to the canvas before it is added: moved by
            # steps of one size it grows until the canvas cannot be seen beside it.
            tables.append(parameter)
        else:
            matrices.append(parameter)
    decay, muon = settings.weight_decay, settings.matrix_factor is not None
    groups = [
        {"params": matrices, "muon": muon, "factor": settings.matrix_factor or 1.0, "weight_decay": decay},
        {"params": tables, "factor": 1.0, "weight_decay": decay},
        {"params": vectors, "factor": settings.vector_factor, "weight_decay": 0.0},
    ]
    return MuonAdamW([group | {"betas": settings.betas} for group in groups])


def train(
    recipe: Recipe,
    source: ExampleSource,
    run: RunFolder,
    *,
    report: Callable[[str], None],
    validate: Validator | None = None,
    start: Path | None = None,
    stop_after: float = math.inf,
) -> Transformer:
    """Trains in a run's folder, from its newest checkpoint or else the weights of `start`; returns the model.

    Stops early, with a checkpoint, after `stop_after` seconds, when `patience` is over, or on ctrl-C and SIGTERM, which
    raise KeyboardInterrupt. ValueError when a loss is no longer finite (the last checkpoint stays as it is) and where
    another process trains in the folder.
    """
    with run.locked(), treat_sigterm_as_interrupt():
        training = _Training(recipe, source, run, report, validate, start)
        try:
            training.go(stop_after)
            training.save()
        except KeyboardInterrupt:
            # Who presses twice has it saved all the same.
            with delay_interrupt():
                training.save()
                report(f"interrupted at step {training.step}")
            raise
        return training.model


class _Training:
    """A run under way."""

    def __init__(
        self,
        recipe: Recipe,
        source: ExampleSource,
        run: RunFolder,
        report: Callable[[str], None],
        validate: Validator | None,
        start: Path | None,
    ) -> None:
        self.recipe, self.settings, self.source, self.run = recipe, recipe.settings, source, run
        self.report, self.validate = report, validate
        self.model = Transformer(recipe.model)
        if start is None or run.checkpoints():
            initialise(self.model, self.settings.seed)
        else:
            self.model.load_state_dict(check_start(start, recipe).load(dtype=torch.float32, device="cpu"))
        for module in self.model.modules():
            if isinstance(module, Experts):
                module.row_block = self.settings.row_block
        if self.settings.compile:
            _compile_layers(self.model)
        self.optimizer = make_optimizer(self.model, recipe)
        self.average = Average(self.model, self.settings.ema) if self.settings.ema else None
        self.step = self.resumed = run.resume(self.model, self.optimizer, self.average)
        self.log = RunLog(run.path, self.step)
        if self.step:
            report(f"resuming at step {self.step} from {run.path}")
            # As JSON has them, which knows no tuples.
            now, before = json.loads(json.dumps(dataclasses.asdict(self.settings))), run.saved_settings()
            # A run of before a setting was there had its default. (Those without one were there from the start.)
            defaults = {field.name: field.default for field in dataclasses.fields(self.settings)}
            for name, value in now.items() if before else ():
                if value != (was := before.get(name, defaults[name])):
                    report(f"{name} was {was} and is {value} from here on")
        self.saved = self.logged = time.monotonic()
        self.sums, self.tokens, self.since = torch.zeros(2), 0, self.step

    def go(self, stop_after: float) -> None:
        """Steps until the run is over or has to stop; what it has not saved then is for the caller to save."""
        end = time.monotonic() + stop_after
        self.measure()
        while self.step < self.settings.steps and not self.log.is_stale(self.settings.patience):
            self.update()
            over = time.monotonic() > end
            if over or self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
                self.tell()
            self.measure()
            if time.monotonic() - self.saved > self.settings.checkpoint_minutes * 60:
                self.save()
            if over:
                break
        if self.log.best is not None and self.log.is_stale(self.settings.patience):
            self.report(
                f"{self.settings.patience} validations brought nothing better than step {self.log.best['step']}"
            )

    def update(self) -> None:
        """One step of the optimizer."""
        settings, model = self.settings, self.recipe.model
        batch = make_batch(
            self.source(self.step), model.canvas_length, model.vocab_size, Counter(settings.seed, step=self.step),
            settings.self_conditioning, settings.canvases_per_example, settings.unrolling, settings.unrolling_steps,
            settings.unrolling_from_noise,
            settings.unrolling_shown,
        )  # fmt: skip
        rate = settings.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        total = batch.encoder_weight(settings.prompt_weight)
        found = torch.zeros(2)
        for part in batch.split(settings.accumulate):
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.autocast):
                loss = losses(self.model, part, row_block=settings.row_block, prompt_weight=settings.prompt_weight)
            # What it counts in the means over the whole batch.
            canvas = loss.canvas * (len(part.lengths) / len(batch.lengths))
            encoder = loss.encoder * (part.encoder_weight(settings.prompt_weight) / total)
            self._check_finite("loss", canvas + encoder)
            torch.autograd.backward(canvas + encoder)
            found += torch.stack((canvas.detach(), encoder.detach()))
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self._check_finite("gradient", norm)
        # Half an update must not be saved as a step.
        with delay_interrupt():
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.model, self.step)
            self.step += 1
        self.optimizer.zero_grad()
        self.sums += found
        self.tokens += sum(batch.lengths)

    def tell(self) -> None:
        """Reports and logs the means since the last time."""
        now = time.monotonic()
        steps, seconds = self.step - self.since, now - self.logged
        rate = self.settings.learning_rate_at(self.step - 1)
        canvas, encoder = (self.sums / steps).tolist()
        left = (self.settings.steps - self.step) * seconds / steps
        progress = Progress(self.step, self.settings.steps, canvas, encoder, rate, self.tokens / seconds, left)
        self.report(str(progress))
        self.log.add(
            "progress", self.step, canvas_loss=canvas, encoder_loss=encoder, learning_rate=rate,
            tokens_per_second=self.tokens / seconds, seconds=seconds,
        )  # fmt: skip
        self.sums, self.tokens, self.since, self.logged = torch.zeros(2), 0, self.step, now

    def measure(self) -> None:
        """Validates, where it is time to, the weights that a checkpoint of now holds; the best one of a run is kept."""
        every, steps = self.settings.validate_every, self.settings.steps
        due = self.step and every and (self.step % every == 0 or self.step == steps)
        # A run that was killed between its checkpoint and its validation makes up for it.
        if self.validate is None or not due or any(row["step"] == self.step for row in self.log.validations):
            return
        begun = time.monotonic()
        self.save()
        # A plain twin: the model that trains may be compiled, and fills up rows.
        twin = Transformer(self.recipe.model)
        twin.load_state_dict(self.model.state_dict() if self.average is None else self.average.state_dict(self.model))
        scores = self.validate(twin.requires_grad_(False))
        self.log.add("validation", self.step, **dataclasses.asdict(scores))
        self.report(f"step {self.step}/{steps}  validation: {scores}")
        self.logged += time.monotonic() - begun

    def save(self) -> None:
        """Writes a checkpoint, unless nothing has changed since this run was resumed."""
        if self.step > self.resumed:
            if self.step > self.since:
                # What a resumed run does not repeat is in the log.
                self.tell()
            best = self.log.best
            keep = None if best is None else best["step"]
            self.run.save(self.model, self.optimizer, self.step, self.settings, self.average, keep=keep)
            self.saved = time.monotonic()

    def _check_finite(self, name: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            first = self.step * self.settings.batch_size
            numbered = f"examples {first} to {first + self.settings.batch_size - 1} of the run"
            describe = getattr(self.source, "describe", None)
            examples = numbered if describe is None else describe(self.step)
            raise ValueError(
                f"the {name} of step {self.step}, {examples}, is {value.item()}; "
                f"the last checkpoint in {self.run.path} is untouched"
            )


def _compile_layers(model: Transformer) -> None:
    """Lets torch fuse what a layer does between its products; attention and experts stay as they are."""
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
        raise ValueError("--compile needs a C++ compiler and finds none (g++, clang++ or what CXX names): leave it out")
    # Two kinds of layers, three passes and the parts around attention and experts: more variants than the usual 8.
    torch._dynamo.config.recompile_limit = 64
    for module in model.modules():
        if isinstance(module, Experts):
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign, no-untyped-call]
        elif isinstance(module, Layer):
            module.compile(dynamic=True)
