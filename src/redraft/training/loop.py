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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from redraft.diffusion.randomness import Counter
from redraft.model.layers import Experts, Layer, Router
from redraft.model.linear.frozen import train_beside_quantized
from redraft.model.linear.methods import is_bfloat16_fast
from redraft.model.transformer import Transformer
from redraft.training.data.examples import TrainingBatch, make_batch
from redraft.training.initialization import open_start
from redraft.training.optimizer import WeightAverage
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run import processes
from redraft.training.run.answers import (
    AFTER,
    BEFORE,
    LIMIT_ROW,
    MAX_SHOWN,
    answer_all,
    exact_by_steps,
    record_shown,
)
from redraft.training.run.log import RunLog
from redraft.training.run.state import RunFolder
from redraft.training.run.trained import LoRA, Trained, WholeModel
from redraft.training.run.watchers import StepProgress, Watcher
from redraft.training.settings import TrainingSettings
from redraft.utils.signals import delay_interrupt, treat_sigterm_as_interrupt
from redraft.utils.words import counted
from redraft.weights.adapters.files import fingerprint
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.memory import peak_memory

T = TypeVar("T")


def train(
    recipe: Recipe,
    run: RunFolder,
    *,
    report: Callable[[str], None],
    start: Path | None = None,
    stop_after: float = math.inf,
    device: torch.device | str = "cpu",
    watchers: Sequence[Watcher] = (),
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
        training = _Training(recipe, data, run, report, checkpoint, torch.device(device), watchers)
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
                report(f"interrupted at step {training.step} of {recipe.settings.total_steps}; to go on, run it again")
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
        watchers: Sequence[Watcher],
    ) -> None:
        self.recipe, self.settings, self.data, self.run = recipe, recipe.settings, data, run
        self.report, self.device = report, device
        self.model = _make_model(recipe, start, device)
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
        self.watchers = watchers if processes.is_first() else ()
        self.log = RunLog(run.path, self.step, self.watchers)
        if self.step:
            report(f"resuming at step {self.step} from {run.path}")
            self._report_changed_settings()
        self.saved = self.logged = time.monotonic()
        self.sums, self.tokens, self.since = self._zeros(), 0, self.step

    def run_steps(self, stop_after: float) -> None:
        """Runs steps until the run is finished or must stop; the caller saves what is not yet saved."""
        end, total = time.monotonic() + stop_after, self.settings.total_steps
        if not self.step:
            self.show_answers(BEFORE)
        self.validate_if_due()
        self.compare_if_due()
        while self.step < total and not self.log.is_stale(self.settings.patience):
            self.update()
            for watcher in self.watchers:
                watcher.step(self._progress())
            now = time.monotonic()
            is_over, is_due = processes.agreed(now > end, now - self.saved > self.settings.checkpoint_minutes * 60)
            if is_over or self.step % self.settings.log_every == 0 or self.step == total:
                self.report_progress()
            self.validate_if_due()
            self.compare_if_due()
            if is_due:
                self.save()
            if is_over:
                break
        if self.log.best is not None and self.log.is_stale(self.settings.patience):
            best = self.log.best["step"]
            self.report(f"{counted(self.settings.patience, 'validation')} brought no improvement over step {best}")
        elif self.step < total:
            return
        if self.step > self.resumed:
            self.show_answers(AFTER)

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
        now, rate = self._progress(), self.settings.learning_rate_at(self.step - 1)
        self.report(f"{now.begun}  lr {rate:.2e}  {now.rest}")
        memory = {} if now.memory_bytes is None else {"memory_bytes": now.memory_bytes}
        self.log.add(
            "progress", self.step, canvas_loss=now.canvas_loss, encoder_loss=now.encoder_loss, learning_rate=rate,
            tokens_per_second=now.tokens_per_second, seconds=now.seconds, **memory,
        )  # fmt: skip
        self.sums, self.tokens, self.since = self._zeros(), 0, self.step
        self.logged += now.seconds

    def _progress(self) -> StepProgress:
        steps, seconds = self.step - self.since, max(time.monotonic() - self.logged, 1e-9)
        canvas, encoder = (self.sums / steps).tolist()
        total, is_gpu = self.settings.total_steps, self.device.type == "cuda"
        return StepProgress(
            step=self.step, total=total, canvas_loss=canvas, encoder_loss=encoder,
            tokens_per_second=self.tokens / seconds, seconds=seconds,
            seconds_left=(total - self.step) * seconds / steps,
            memory_bytes=torch.cuda.max_memory_allocated(self.device) if is_gpu else peak_memory(),
        )  # fmt: skip

    def show_answers(self, when: str) -> None:
        """Writes down what a few held-out rows are answered, for the report."""
        if (texts := self.data.texts) is None or not self.settings.validate_every:
            return
        started, shown = time.monotonic(), self.data.held_out[:MAX_SHOWN]
        results = self._evaluated(lambda model: answer_all(model, shown, self.recipe.sampler))
        if processes.is_first():
            record_shown(self.run.path, when, texts, shown, results)
        self.logged += time.monotonic() - started

    def compare_if_due(self) -> None:
        """Logs how many answers are right with how few steps, before the steps that distil and after them."""
        steps, distilled = self.settings.steps, self.settings.distill_steps
        is_known = any(row["kind"] == LIMIT_ROW and row["step"] == self.step for row in self.log.rows)
        if not distilled or self.step not in (steps, steps + distilled) or is_known:
            return
        started, asked = time.monotonic(), self.data.held_out[: self.settings.validation_answers]
        self.save()
        for row in self._evaluated(lambda model: list(exact_by_steps(model, asked, self.recipe.sampler))):
            self.log.add(LIMIT_ROW, self.step, **row)
        self.logged += time.monotonic() - started

    def validate_if_due(self) -> None:
        """Saves a checkpoint and validates its weights if it is time to; the best checkpoint of a run is kept."""
        every, steps, total = self.settings.validate_every, self.settings.steps, self.settings.total_steps
        is_due = self.step and every and (self.step % every == 0 or self.step in (steps, total))
        # A run that was killed between a checkpoint and its validation catches up.
        if self.validate is None or not is_due or any(row["step"] == self.step for row in self.log.validations):
            return
        started = time.monotonic()
        self.save()
        scores = self._evaluated(self.validate)
        seconds = time.monotonic() - started
        distilled = {"distilled": float(self.step > steps)} if total > steps else {}
        self.log.add("validation", self.step, **dataclasses.asdict(scores), **distilled, seconds=seconds)
        self.run.choose(best=self._best_step())
        self.report(f"step {self.step}/{total}  validation: {scores}")
        self.logged += seconds

    def _evaluated(self, evaluate: Callable[[Transformer], T]) -> T:
        weights = None if self.average is None else self.average.parameters
        # Answers have other sizes than steps.
        stance = torch.compiler.set_stance("force_eager") if self.settings.compile else contextlib.nullcontext()
        with stance, self.trained.validated(weights) as model:
            return evaluate(model)

    def save(self) -> None:
        """Writes a checkpoint, unless nothing has changed since this run was resumed."""
        if self.step > self.resumed:
            if self.step > self.since:
                # A resumed run does not repeat these steps, so they are logged now.
                self.report_progress()
            best = self._best_step()
            # What distilling began with is compared with what it made.
            keep = (best, self.settings.steps if self.settings.distill_steps else None)
            self.run.save(self.trained, self.optimizer, self.step, self.settings, self.average, keep=keep)
            self.run.choose(best)
            self.saved = time.monotonic()

    def _best_step(self) -> int | None:
        best = self.log.best
        return None if best is None else best["step"]

    def _make_batch(self) -> TrainingBatch:
        settings, model = self.settings, self.recipe.model
        return make_batch(
            self.data.examples(self.step), model.canvas_length, model.vocab_size,
            Counter(settings.seed, step=self.step), sampler=self.recipe.sampler, **settings.noise_at(self.step),
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
    """Raises ValueError if several processes can't divide the examples of a step."""
    count = processes.count()
    if count > 1 and settings.batch_size % (count * settings.accumulate):
        parts = f"{count} processes" + (f" × {settings.accumulate} parts" if settings.accumulate > 1 else "")
        raise ValueError(
            f"batch_size is {settings.batch_size}, must be a multiple of {count * settings.accumulate} for {parts}"
        )


def _make_model(recipe: Recipe, start: Checkpoint | None, device: torch.device) -> Transformer:
    # Random weights are drawn on the CPU: they are the same on every device, and in any number of processes.
    # Compiled layers cannot gather their weights: then every process has all of them.
    is_split = processes.count() > 1 and not recipe.settings.compile
    if start is not None and start.bits is not None:
        # Every process has all of it: of the pages of its file a machine keeps one copy.
        return train_beside_quantized(load_model(start, torch.float32, device))
    if start is not None and is_split:
        stored = start.load(dtype=None, device="cpu")
        return processes.sharded(lambda: Transformer(recipe.model), stored, device)
    model = Transformer(recipe.model)
    if start is None:
        recipe.initialize(model, recipe.settings.seed)
    else:
        model.load_state_dict(start.load(dtype=torch.float32, device="cpu"))
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
        # A router of one expert adds its gradient to one number, which inductor cannot compile for several threads.
        if isinstance(module, Experts) or (isinstance(module, Router) and module.proj.out_features == 1):
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign, no-untyped-call]
        elif isinstance(module, Layer):
            module.compile(dynamic=True)
