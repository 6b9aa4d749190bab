"""The training loop: data → losses → optimizer, with progress lines, checkpoints and resuming.

All random choices of a step follow from (seed, step), so a resumed run continues as if it had never stopped.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from redraft.diffusion.randomness import Counter
from redraft.model.config import ModelConfig
from redraft.model.layers import Experts, Layer
from redraft.model.linear.frozen import train_beside_quantized
from redraft.model.linear.methods import is_bfloat16_fast
from redraft.model.linear.quantized import Form, is_quantized
from redraft.model.transformer import Transformer
from redraft.training.data.examples import TrainingBatch, make_batch
from redraft.training.initialization import open_start, start_weights
from redraft.training.optimizer import WeightAverage
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run import processes
from redraft.training.run.log import RunLog
from redraft.training.run.state import RunFolder
from redraft.training.run.trained import LoRA, Trained, WholeModel
from redraft.training.settings import LoRASettings, TrainingSettings, lora_targets
from redraft.training.validation import Scores, Validator
from redraft.utils.signals import delay_interrupt, treat_sigterm_as_interrupt
from redraft.utils.words import counted
from redraft.weights.adapters.files import fingerprint
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.memory import check_available


def check_memory(config: ModelConfig, lora: LoRASettings | None = None, bits: int | None = None) -> None:
    """Raises ValueError if what training keeps of every weight exceeds the free memory.

    Of a run on several machines, each has its share. That is the weight, in float32 or `bits`; of what is trained its
    gradient and the optimizer's two averages too, and of a whole model the copy that is validated. The activations of a
    step come on top.
    """
    shapes = config.parameter_shapes()
    few = {name: shape for name, shape in shapes.items() if bits is not None and is_quantized(name)}
    needed = 4 * sum(math.prod(shape) for name, shape in shapes.items() if name not in few)
    needed += sum(Form.of(shape, bits).num_bytes for shape in few.values() if bits is not None)
    if lora is None:
        needed, way_out = 5 * needed, "train an adapter, or choose a smaller model"
    else:
        adapted = lora_targets(config, lora.targets).values()
        ranks = sum(math.prod(stack) * lora.rank * (rows + columns) for *stack, rows, columns in adapted)
        needed += 4 * 4 * ranks
        way_out = (
            "choose a smaller model" if bits else "quantize the base (redraft quantize), or choose a smaller model"
        )
    check_available(
        math.ceil(needed * processes.share_here()), "training this model, with gradients and optimizer,", way_out
    )


def train(
    recipe: Recipe,
    run: RunFolder,
    *,
    report: Callable[[str], None],
    start: Path | None = None,
    stop_after: float = math.inf,
    device: torch.device | str = "cpu",
) -> Transformer:
    """Trains in a run's folder, from its newest checkpoint or else from the weights of `start`; returns the model.

    Stops early, with a checkpoint, after `stop_after` seconds, when `patience` is exhausted, or on Ctrl-C and SIGTERM,
    which raise KeyboardInterrupt; of several processes, these end without a checkpoint. ValueError if a loss is not
    finite (the last checkpoint is untouched), if another run trains in the folder, or if it holds another recipe's run.
    """
    _check_processes(recipe.settings)
    # What an adapter is trained beside is not in its checkpoints.
    is_needed = start is not None and (recipe.lora is not None or not run.checkpoints())
    checkpoint = None
    if start is not None and is_needed:
        checkpoint = open_start(start, recipe.model, is_frozen=recipe.lora is not None)
    with run.locked(), treat_sigterm_as_interrupt():
        if recipe.identity:
            run.claim(**recipe.identity)
        data = processes.first_then_others(lambda: recipe.data(run))
        training = _Training(recipe, data, run, report, checkpoint, torch.device(device))
        try:
            training.run_steps(stop_after)
            training.save()
        except KeyboardInterrupt:
            if processes.count() > 1:
                # They may stand at different places, and a checkpoint needs them all.
                report(f"interrupted; to go on from the newest checkpoint in {run.path}, run it again")
                raise
            # A second Ctrl-C does not prevent the save.
            with delay_interrupt():
                training.save()
                report(f"interrupted at step {training.step} of {recipe.settings.steps}; to go on, run it again")
            raise
        return training.model


class _Training:
    """A run in progress."""

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        run: RunFolder,
        report: Callable[[str], None],
        start: Checkpoint | None,
        device: torch.device,
    ) -> None:
        self.recipe, self.settings, self.data, self.run = recipe, recipe.settings, data, run
        self.report, self.device = report, device
        self.model = _make_model(recipe, start, run, device)
        for module in self.model.modules():
            if isinstance(module, Experts):
                module.row_block = self.settings.row_block
        self.trained: Trained = WholeModel(self.model)
        if recipe.lora is not None:
            assert start is not None, "an adapter has a base"
            self.trained = LoRA(
                self.model, recipe.lora, base=str(start.folder), fingerprint=fingerprint(start),
                bits=start.bits, seed=self.settings.seed,
            )  # fmt: skip
        if self.settings.compile:
            _compile_layers(self.model)
        if self.settings.gradient_checkpointing:
            checkpoint_layers(self.model)
        self.autocast = self.settings.autocast and is_bfloat16_fast(device)
        if self.settings.autocast and not self.autocast:
            report("this CPU has no instructions for bfloat16: training in float32")
        self.optimizer = recipe.optimizer(self.trained.module, self.settings)
        self.average = WeightAverage(self.trained.module, self.settings.ema) if self.settings.ema else None
        self.validate = None
        if data.held_out:
            self.validate = recipe.validation(
                data.held_out, recipe.sampler, answers=self.settings.validation_answers,
                prompt_weight=self.settings.prompt_weight,
            )  # fmt: skip
        self.step = self.resumed = run.resume(self.trained, self.optimizer, self.average)
        self.log = RunLog(run.path, self.step)
        if self.step:
            report(f"resuming at step {self.step} from {run.path}")
            self._report_changed_settings()
        self.saved = self.logged = time.monotonic()
        self.sums, self.tokens, self.since = self._zeros(), 0, self.step

    def run_steps(self, stop_after: float) -> None:
        """Runs steps until the run is finished or must stop; the caller saves what is not yet saved."""
        end = time.monotonic() + stop_after
        self.validate_if_due()
        while self.step < self.settings.steps and not self.log.is_stale(self.settings.patience):
            self.update()
            now = time.monotonic()
            is_over, is_due = processes.agreed(now > end, now - self.saved > self.settings.checkpoint_minutes * 60)
            if is_over or self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
                self.report_progress()
            self.validate_if_due()
            if is_due:
                self.save()
            if is_over:
                break
        if self.log.best is not None and self.log.is_stale(self.settings.patience):
            best = self.log.best["step"]
            self.report(f"{counted(self.settings.patience, 'validation')} brought no improvement over step {best}")

    def update(self) -> None:
        settings = self.settings
        self.trained.begin(self.step)
        batch = self._make_batch()
        rate = settings.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        total = batch.encoder_weight(settings.prompt_weight)
        means = self._zeros()
        for part in _own_parts(batch, settings.accumulate):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                loss = self.recipe.objective(
                    self.model, part.to(self.device), sampler=self.recipe.sampler, row_block=settings.row_block,
                    prompt_weight=settings.prompt_weight,
                )  # fmt: skip
            # Weighted by its share in the means over the whole batch.
            canvas = loss.canvas * (part.open_positions / batch.open_positions)
            encoder = loss.encoder * (part.encoder_weight(settings.prompt_weight) / total)
            # Gradients are averaged over the processes, whose losses add up.
            torch.autograd.backward((canvas + encoder) * processes.count())
            means += torch.stack((canvas.detach(), encoder.detach()))
        processes.average_gradients(self.trained.module)
        self._check_finite("loss", processes.total(means).sum())
        norm = nn.utils.clip_grad_norm_(self.trained.module.parameters(), settings.clip_norm)
        self._check_finite("gradient", processes.whole(norm))
        # Half an update must not be saved as a step.
        with delay_interrupt():
            self.optimizer.step()
            if self.average is not None:
                self.average.update(self.trained.module, self.step)
            self.step += 1
        self.optimizer.zero_grad()
        self.sums += means
        self.tokens += sum(batch.lengths)

    def report_progress(self) -> None:
        """Reports and logs the means since the last progress line; tokens are those of prompts and answers."""
        now, total = time.monotonic(), self.settings.steps
        steps, seconds = self.step - self.since, now - self.logged
        canvas, encoder = (self.sums / steps).tolist()
        rate, speed = self.settings.learning_rate_at(self.step - 1), self.tokens / seconds
        minutes, left = divmod(int((total - self.step) * seconds / steps), 60)
        self.report(
            f"step {self.step}/{total}  canvas {canvas:.4f}  encoder {encoder:.4f}  lr {rate:.2e}  "
            f"{speed:,.0f} tokens/s  {minutes // 60:02}:{minutes % 60:02}:{left:02} left"
        )
        self.log.add(
            "progress", self.step, canvas_loss=canvas, encoder_loss=encoder, learning_rate=rate,
            tokens_per_second=speed, seconds=seconds,
        )  # fmt: skip
        self.sums, self.tokens, self.since, self.logged = self._zeros(), 0, self.step, now

    def validate_if_due(self) -> None:
        """Saves a checkpoint and validates its weights if it is time to; the best checkpoint of a run is kept."""
        every, steps = self.settings.validate_every, self.settings.steps
        is_due = self.step and every and (self.step % every == 0 or self.step == steps)
        # A run that was killed between a checkpoint and its validation catches up.
        if self.validate is None or not is_due or any(row["step"] == self.step for row in self.log.validations):
            return
        started = time.monotonic()
        self.save()
        scores = self._scores(self.validate)
        seconds = time.monotonic() - started
        self.log.add("validation", self.step, **dataclasses.asdict(scores), seconds=seconds)
        self.run.choose(best=self._best_step())
        self.report(f"step {self.step}/{steps}  validation: {scores}")
        self.logged += seconds

    def _scores(self, validate: Validator) -> Scores:
        weights = None if self.average is None else self.average.parameters
        # Answers have other sizes than steps.
        stance = torch.compiler.set_stance("force_eager") if self.settings.compile else contextlib.nullcontext()
        with stance, self.trained.validated(weights) as model:
            return validate(model)

    def save(self) -> None:
        """Writes a checkpoint, unless nothing has changed since this run was resumed."""
        if self.step > self.resumed:
            if self.step > self.since:
                # A resumed run does not repeat these steps, so they are logged now.
                self.report_progress()
            best = self._best_step()
            self.run.save(self.trained, self.optimizer, self.step, self.settings, self.average, keep=best)
            self.run.choose(best)
            self.saved = time.monotonic()

    def _best_step(self) -> int | None:
        best = self.log.best
        return None if best is None else best["step"]

    def _make_batch(self) -> TrainingBatch:
        settings, model = self.settings, self.recipe.model
        return make_batch(
            self.data.examples(self.step), model.canvas_length, model.vocab_size,
            Counter(settings.seed, step=self.step), sampler=self.recipe.sampler,
            self_conditioning=settings.self_conditioning, canvases_per_example=settings.canvases_per_example,
            unrolling=settings.unrolling, unrolling_steps=settings.unrolling_steps,
            unrolling_from_noise=settings.unrolling_from_noise, unrolling_shown=settings.unrolling_shown,
        )  # fmt: skip

    def _zeros(self) -> Tensor:
        return torch.zeros(2, device=self.device)

    def _report_changed_settings(self) -> None:
        # Through JSON, which has no tuples.
        current, saved = json.loads(json.dumps(dataclasses.asdict(self.settings))), self.run.saved_settings()
        # A setting that is newer than the checkpoint had its default. (Those without one always existed.)
        defaults = {field.name: field.default for field in dataclasses.fields(self.settings)}
        for name, value in current.items() if saved else ():
            if value != (old := saved.get(name, defaults[name])):
                self.report(f"{name} was {old} and is {value} from here on")

    def _check_finite(self, name: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            first = self.step * self.settings.batch_size
            numbered = f"examples {first} to {first + self.settings.batch_size - 1} of the run"
            examples = numbered if self.data.describe is None else self.data.describe(self.step)
            raise ValueError(
                f"the {name} of step {self.step}, {examples}, is {value.item()}; "
                f"the last checkpoint in {self.run.path} is untouched"
            )


def _check_processes(settings: TrainingSettings) -> None:
    """Raises ValueError if several processes can't divide the examples of a step, or are to compile."""
    count = processes.count()
    if count > 1 and settings.batch_size % (count * settings.accumulate):
        parts = f"{count} processes" + (f" × {settings.accumulate} parts" if settings.accumulate > 1 else "")
        raise ValueError(
            f"batch_size is {settings.batch_size}, must be a multiple of {count * settings.accumulate} for {parts}"
        )
    if count > 1 and settings.compile:
        raise ValueError(f"compile is for one process, not {count}: leave it out")


def _make_model(recipe: Recipe, start: Checkpoint | None, run: RunFolder, device: torch.device) -> Transformer:
    # Random weights are drawn on the CPU: they are the same on every device, and in any number of processes.
    is_split = processes.count() > 1
    if start is not None and start.bits is not None:
        # Every process has all of it: of the pages of its file a machine keeps one copy.
        return train_beside_quantized(load_model(start, torch.float32, device))
    if start is not None and is_split:
        stored = start_weights(start, recipe.model, run.companions, dtype=None)
        return processes.sharded(lambda: Transformer(recipe.model), stored, device)
    model = Transformer(recipe.model)
    if start is None:
        recipe.initialize(model, recipe.settings.seed)
    else:
        model.load_state_dict(start_weights(start, recipe.model, run.companions))
    if is_split:
        return processes.sharded(lambda: Transformer(recipe.model), model.state_dict(), device)
    return model.to(device)


def _own_parts(batch: TrainingBatch, accumulate: int) -> list[TrainingBatch]:
    """Returns this process's parts of a batch, which runs as many passes for each as the others do for theirs."""
    count, parts = processes.count(), batch.split(accumulate * processes.count())
    if count == 1:
        return parts
    together = [parts[at : at + count] for at in range(0, len(parts), count)]
    return [
        dataclasses.replace(group[processes.rank()], least_passes=max(part.first_passes for part in group))
        for group in together
    ]


def checkpoint_layers(model: Transformer) -> None:
    """Lets a layer keep only what goes into it, and what the attention's context keeps; the rest is computed again."""
    for layer in model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _compile_layers(model: Transformer) -> None:
    """Lets torch fuse a layer's operations between matrix products; attention and experts are left out."""
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
        raise ValueError(
            "compile requires a C++ compiler and finds none (g++, clang++ or the one that CXX names): leave it out"
        )
    # Two kinds of layers, three passes and the parts around attention and experts: more variants than the default 8.
    torch._dynamo.config.recompile_limit = 64
    for module in model.modules():
        if isinstance(module, Experts):
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign, no-untyped-call]
        elif isinstance(module, Layer):
            module.compile(dynamic=True)
