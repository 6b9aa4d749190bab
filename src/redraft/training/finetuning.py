"""Fine-tuning a checkpoint on rows of prompts and answers."""

import hashlib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from redraft.api import pick_device
from redraft.diffusion.settings import SamplerSettings
from redraft.evaluation.cases import read_rows
from redraft.text import TextTokenizer
from redraft.training.data.rows import RowExamples, hold_out, make_examples, write_companions, write_rows
from redraft.training.loop import check_memory
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run.session import TrainingResult, run_recipe
from redraft.training.run.state import RunFolder
from redraft.training.settings import TrainingSettings, proven_settings
from redraft.weights.config.file import read_config, read_generation_config
from redraft.weights.fetch import fetch_config, resolve

MAX_EPOCHS = 1_000_000
HELD_OUT_FILE = "held_out.jsonl"
"""In the run's folder: the rows that are held out for validation, if no others are given."""


def finetune(
    rows: Path | str,
    out: Path | str,
    *,
    start: Path | str = "bundled",
    validation: Path | str | None = None,
    epochs: float = 3.0,
    stop_after: float = math.inf,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
    **settings: Any,
) -> TrainingResult:
    """Fine-tunes a checkpoint on the rows of a file, in the folder `out`; a run that is there is resumed.

    rows: JSON lines with "prompt" and "answer". start: "bundled", a folder, or a name on the hub. validation: rows to
    validate on; None holds out a twentieth of the rows. epochs: how often each row is trained on unless `steps` is
    given. stop_after: seconds. device: also "auto". report: receives the lines of progress. settings: any of
    TrainingSettings. ValueError for bad rows and settings, and if the model does not fit into memory, before any work.
    """
    file, other = Path(rows), None if validation is None else Path(validation)
    trained, held_out = read_rows(file), read_rows(other) if other else []
    if both := {row.prompt for row in trained} & {row.prompt for row in held_out}:
        raise ValueError(f"{len(both)} prompts of {other} are in {file} too, for instance {min(both)[:60]!r}")
    config = read_config(fetch_config(start))
    device = pick_device(device) if device == "auto" else torch.device(device)
    if device.type == "cpu":
        check_memory(config)
    folder = resolve(start)
    tokenizer = TextTokenizer.load(folder)
    tokenizer.check_fits(config.vocab_size, folder)
    if not held_out:
        trained, held_out = hold_out(trained)
    examples = make_examples(trained, file, tokenizer, config)
    chosen = finetuning_settings(len(examples), epochs, has_validation=bool(held_out), **settings)
    # The rows of a file are often sorted.
    validated = random.Random("validation").sample(held_out, min(chosen.validation_examples, len(held_out)))
    unseen = make_examples(validated, other or file, tokenizer, config)
    sampler = SamplerSettings.from_generation_config(read_generation_config(folder) or {})

    def data(run: RunFolder) -> TrainingData:
        report(
            f"{len(examples)} rows to train on, {len(unseen)} to validate on "
            f"(answering {min(len(unseen), chosen.validation_answers)}), {chosen.steps} steps"
        )
        if other is None:
            write_rows(run.path / HELD_OUT_FILE, held_out)
        write_companions(folder, run.companions, f"Fine-tuned from {start} on {file.name}.", trained)
        lines = [row.line for row in trained]
        source = RowExamples(examples, lines, batch_size=chosen.batch_size, seed=chosen.seed)
        return TrainingData(source, unseen, source.describe)

    identity = {"rows": _digest(file), "validation": _digest(other or file), "start": str(folder.resolve())}
    recipe = Recipe(model=config, settings=chosen, data=data, sampler=sampler, identity=identity)
    return run_recipe(recipe, out, start=folder, stop_after=stop_after, device=device, report=report)


def finetuning_settings(count: int, epochs: float, *, has_validation: bool, **overrides: Any) -> TrainingSettings:
    """Returns the settings for `count` rows: the bundled model's, at an eighth of its learning rate.

    ValueError for `epochs` out of range, and for validation settings if there is nothing to validate on.
    """
    base = proven_settings(steps=1)
    settings = {"learning_rate": 2.5e-4, "decay_share": 0.5, "prompt_weight": 0.0, "validate_every": 0, **overrides}
    if "steps" not in overrides:
        if not 0 < epochs <= MAX_EPOCHS:
            raise ValueError(f"epochs is {epochs}, must be above 0 and at most {MAX_EPOCHS:,}")
        # A batch size that is out of range is refused below.
        settings["steps"] = math.ceil(count * epochs / max(1, overrides.get("batch_size", base.batch_size)))
    steps = int(settings["steps"])
    if not has_validation and (overrides.get("validate_every") or overrides.get("patience")):
        raise ValueError("there are no rows to validate on: give others to validate on, or at least 20 rows")
    if has_validation and "validate_every" not in overrides:
        settings["validate_every"] = max(1, steps // 5)
    settings.setdefault("warmup_steps", min(base.warmup_steps, steps // 10))
    return proven_settings(**settings)


def _digest(file: Path) -> str:
    return f"{file.name} (sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:12]})"
