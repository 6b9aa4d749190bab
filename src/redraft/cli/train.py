"""`redraft train`: runs a training recipe, and reports on runs."""

import contextlib
import json
import math
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from redraft.bundled.recipe import RECIPES
from redraft.cli import options
from redraft.cli.output import training_line
from redraft.training import TrainingResult, TrainingSettings, run_recipe
from redraft.training.run.processes import is_first_planned
from redraft.training.run.report import summarize, write_comparison, write_report
from redraft.training.run.watchers import TensorBoardEvents, Watcher
from redraft.weights.fetch import resolve
from redraft.weights.placement import pick_device

OutOption = Annotated[Path, typer.Option(help="Folder of the run; a run that is there is resumed.")]

app = typer.Typer(help="Train a model from a recipe.")


@dataclass(frozen=True)
class TrainingOptions:
    """The options of every training command: settings of the recipe, and arguments of the run."""

    settings: dict[str, Any]
    run: dict[str, Any]
    tensorboard: bool = False

    @contextmanager
    def watchers(self, out: Path) -> Iterator[list[Watcher]]:
        """Shows the run's line while it trains, and gives what watches it; `out` is its folder."""
        with training_line() if is_first_planned() else contextlib.nullcontext() as line:
            found: list[Watcher] = [] if line is None else [line]
            yield [*found, TensorBoardEvents(out)] if self.tensorboard else found


SETTING_HELP = {
    "steps": "Steps of the whole run; the learning rate falls over the last part.",
    "batch_size": "Examples per step.",
    "learning_rate": "The highest learning rate.",
    "accumulate": "Split a step's examples into this many parts, to save memory.",
    "ema": "Checkpoints hold the weights' moving average with this decay, for instance 0.999.",
    "validate_every": "Steps between validations; the best checkpoint is kept. 0: never.",
    "patience": "End the run after this many validations without improvement.",
    "distill_steps": "Then train so many steps towards fewer denoising steps; the report compares.",
}
"""The settings that have an option of their own."""
SETTING_TYPES = {name: kind for name, kind in get_type_hints(TrainingSettings).items() if name != "betas"}
EXPECTED_VALUES = {int: "an integer", float: "a number", bool: "true or false", float | None: "a number or null"}


def _make_training_options(
    *,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the layers: a fifth faster after half a minute; requires a C++ compiler."
        ),
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this time, with a checkpoint to resume from.")
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of the recipe; can be repeated."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's events into the run's folder too.")
    ] = False,
    device: options.DeviceOption = "auto",
    **settings: Any,
) -> TrainingOptions:
    options.check_positive(minutes=minutes)
    if tensorboard:
        options.require_package("tensorboard", "tensorboard")
    chosen = options.without_none(**settings, compile=compile or None)
    for name, value in map(_parse_setting, others or ()):
        if name in chosen:
            raise ValueError(f"--set {name}={json.dumps(value)}: {name} is given twice")
        chosen[name] = value
    stop_after = math.inf if minutes is None else minutes * 60
    run = {"stop_after": stop_after, "device": pick_device(device), "report": lambda line: print(line, flush=True)}
    return TrainingOptions(chosen, run, tensorboard)


with_training_options = options.receives(
    _make_training_options,
    *(options.optional_parameter(name, SETTING_TYPES[name], help) for name, help in SETTING_HELP.items()),
)


def _parse_setting(text: str) -> tuple[str, object]:
    """Parses a setting given as name=value, for instance unrolling=0.5 or matrix_factor=null."""
    name, _, value = text.partition("=")
    if name not in SETTING_TYPES:
        raise ValueError(f"--set {text}: there is no setting {name!r}; known: {', '.join(SETTING_TYPES)}")
    kind = SETTING_TYPES[name]
    with contextlib.suppress(ValueError):
        found = json.loads(value)
        if type(found) in ((bool,) if kind is bool else (int, float)) or (found is None and kind == float | None):
            return name, found
    raise ValueError(f"--set {text}: {value!r} is not a valid value for {name} (expected {EXPECTED_VALUES[kind]})")


def _add_recipe(name: str) -> None:
    """Adds the command that trains the recipe `name`; its help is the recipe's."""
    help_text = f"{RECIPES[name].__doc__} Requires the extra: pip install -e '.[train]' in the checkout."

    @app.command(name, help=help_text)
    @with_training_options
    def train(
        run: TrainingOptions,
        *,
        out: OutOption = Path("runs", name),
        start: Annotated[
            str | None,
            typer.Option(
                help='Checkpoint whose weights a new run starts from, instead of random ones: "bundled", a folder, or '
                "a name on the hub."
            ),
        ] = None,
    ) -> None:
        for package in ("faker", "codespell_lib", "matplotlib"):
            options.require_package(package, "train")
        recipe = RECIPES[name](easy_start=start is None, **run.settings)
        begun = None if start is None else resolve(start)
        with run.watchers(out) as watchers:
            result = run_recipe(recipe, out, start=begun, watchers=watchers, **run.run)
        print_result(result, ["sudoku", "--pinned"] if name == "sudoku" else ["extract"])


for _name in RECIPES:
    _add_recipe(_name)


def print_result(result: TrainingResult, tested: list[str] | None, *, base: str | None = None) -> None:
    """Prints the commands that continue a run that was cut and that test the checkpoint, and the summary of its log.

    base: what it is an adapter for; None: it is a whole model.
    """
    if not is_first_planned():
        return
    checkpoint = str(result.checkpoint)
    chosen = ["--model", checkpoint] if base is None else ["--model", base, "--adapter", checkpoint]
    if result.is_cut:
        print(shlex.join(["redraft", *sys.argv[1:]]))
    if tested:
        print(shlex.join(["redraft", "eval", *tested, *chosen]))
    if result.summary:
        print(json.dumps(result.summary | {"checkpoint": checkpoint, "report": str(result.report)}))


@app.command("report")
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folder of a run, finished or not; several folders to compare them.")
    ] = None,
    *,
    out: Annotated[Path | None, typer.Option(help="SVG file for a comparison.  [default: comparison.svg]")] = None,
) -> None:
    """Plot a run's losses, validations, learning rate and speed into an HTML file; print a summary as JSON.

    For several runs, the losses are plotted together, by step and by minute.
    """
    options.require_package("matplotlib", "train")
    folders = runs or [Path("runs/extract")]
    if out is not None and len(folders) == 1:
        raise ValueError("--out is for comparing several runs; the report of a single run stays in its folder")
    summaries = [summarize(folder) for folder in folders]
    drawn = write_report(folders[0]) if len(folders) == 1 else write_comparison(folders, out or Path("comparison.svg"))
    for summary in summaries:
        print(json.dumps(summary | {"report": str(drawn)}))
