"""The training loop: data → losses → optimizer, with a progress line, checkpoints and resume.

Every random choice of a step follows from (seed, step), so a resumed run goes on as if it had never stopped.
"""

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from redraft.diffusion.randomness import Counter
from redraft.model.layers import Experts, Layer
from redraft.model.transformer import Transformer
from redraft.training.examples import Example, make_batch
from redraft.training.muon import MuonAdamW
from redraft.training.objective import losses
from redraft.training.recipes import Recipe
from redraft.training.state import RunFolder

ExampleSource = Callable[[int], Sequence[Example]]
"""The examples of a step, the same for the same step."""

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


def make_optimizer(model: Transformer, recipe: Recipe) -> MuonAdamW:
    """Three groups: the layers' matrices, by Muon where the recipe says so; embedding and routers; vectors, undecayed.

    Each group's `factor` is what the learning rate of a step is multiplied by.
    """
    settings = recipe.settings
    matrices, tables, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors.append(parameter)
        elif name.startswith("embed_tokens") or "router" in name:
            # Their rows are one token's and one expert's: to move all of them alike would make rare ones restless.
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
    stop_after: float = math.inf,
) -> Transformer:
    """Trains in a run's folder, from its newest checkpoint if it has one; returns the model.

    Stops early, with a checkpoint, after `stop_after` seconds or on KeyboardInterrupt, which it raises again.
    ValueError when a loss is no longer finite (the last checkpoint stays as it is) and where another process trains in
    the folder.
    """
    with run.locked():
        return _train(recipe, source, run, report, stop_after)


def _train(  # noqa: C901 - one loop, read from top to bottom
    recipe: Recipe, source: ExampleSource, run: RunFolder, report: Callable[[str], None], stop_after: float
) -> Transformer:
    settings = recipe.settings
    model = Transformer(recipe.model)
    initialise(model, settings.seed)
    for module in model.modules():
        if isinstance(module, Experts):
            module.row_block = settings.row_block
    if settings.compile:
        _compile_layers(model)
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
                Counter(settings.seed, step=step), settings.self_conditioning, settings.canvases_per_example,
            )  # fmt: skip
            rate = settings.learning_rate_at(step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.autocast):
                loss = losses(model, batch, row_block=settings.row_block, prompt_weight=settings.prompt_weight)
            _check_finite("loss", loss.total, step, run)
            torch.autograd.backward(loss.total)
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            _check_finite("gradient", norm, step, run)
            with _ctrl_c_waits():
                optimizer.step()
                step += 1
            optimizer.zero_grad()
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
        raise
    if step > resumed:
        run.save(model, optimizer, step, settings)
    return model


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


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Raises KeyboardInterrupt at the end instead of in the middle: half an update must not be saved as a step."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _check_finite(name: str, value: Tensor, step: int, run: RunFolder) -> None:
    if not torch.isfinite(value):
        raise ValueError(f"the {name} of step {step} is {value.item()}; the last checkpoint in {run.path} is untouched")
