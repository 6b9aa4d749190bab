"""A training session: trains a recipe in its folder, then draws the report and says what was reached."""

import contextlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from redraft.model.transformer import Transformer
from redraft.training.loop import train
from redraft.training.recipe import Recipe
from redraft.training.run.answers import limits_table
from redraft.training.run.log import is_stale, read_rows
from redraft.training.run.processes import from_first, is_first, joined
from redraft.training.run.report import REPORT_FILE, summarize, write_report
from redraft.training.run.state import RunFolder
from redraft.training.run.watchers import Watcher
from redraft.weights.placement import pick_device


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a run.

    checkpoint: the one with the best validation, else the newest. summary: see `summarize`; empty if nothing was
    logged. report: the HTML file; None if nothing was logged or matplotlib is missing. is_cut: the time was over before
    the planned steps were done; run again to continue.
    """

    model: Transformer
    checkpoint: Path
    summary: dict[str, Any]
    report: Path | None
    is_cut: bool = False


def run_recipe(
    recipe: Recipe,
    out: Path | str,
    *,
    start: Path | None = None,
    stop_after: float = math.inf,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
    watchers: Sequence[Watcher] = (),
) -> TrainingResult:
    """Trains a recipe in the folder `out`, or resumes the run there, and draws its report even if training fails.

    start: a checkpoint whose weights a new run starts from. stop_after: seconds. device: also "auto". report:
    receives progress lines. watchers: are told of each step.
    Processes that torchrun has started train together. Errors are those of `train`.
    """
    place = pick_device(device) if device == "auto" else torch.device(device)
    with joined(place) as own:
        return _run(recipe, Path(out), start, stop_after, own, from_first(report), watchers)


def _run(
    recipe: Recipe,
    out: Path,
    start: Path | None,
    stop_after: float,
    place: torch.device,
    report: Callable[[str], None],
    watchers: Sequence[Watcher],
) -> TrainingResult:
    folder = RunFolder(out, out / "companions")
    try:
        model = train(
            recipe, folder, report=report, start=start, stop_after=stop_after, device=place, watchers=watchers
        )
    finally:
        # On a full disk, the error that ended the run is the one to show.
        with contextlib.suppress(OSError):
            has_progress = any(row["kind"] == "progress" for row in read_rows(folder.path))
            if has_progress and is_first() and importlib.util.find_spec("matplotlib") is not None:
                write_report(folder.path)
    checkpoint = folder.checkpoints()[-1]
    if not has_progress:
        # The run had finished before runs had logs.
        return TrainingResult(model, checkpoint, {}, None)
    summary, steps, rows = summarize(folder.path), recipe.settings.total_steps, list(read_rows(folder.path))
    validations = [row for row in rows if row["kind"] == "validation"]
    reached = int(checkpoint.name.removeprefix("step-"))
    is_cut = reached < steps and not is_stale(validations, recipe.settings.patience)
    if is_cut:
        report(f"stopped by the time limit at step {reached} of {steps}; to go on, run it again")
    if compared := limits_table(rows):
        report("right answers with at most so many steps: before and after the steps that distil")
        for cells in compared:
            report("".join(f"{cell:>8}" for cell in cells))
    if summary["best"]:
        checkpoint = folder.checkpoint(summary["best"]["step"])
        report(f"validation took {summary['validation_share']:.0%} of the time")
    if len(validations) > 1:
        why = f"the best of {len(validations)} validations"
    else:
        why = "the one that was validated" if validations else "the last: no validation ran"
    report(f"as a model, {folder.path} is its {checkpoint.name} ({why})")
    drawn = folder.path / REPORT_FILE
    return TrainingResult(model, checkpoint, summary, drawn if drawn.exists() else None, is_cut)
