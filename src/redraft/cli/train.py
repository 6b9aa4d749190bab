"""`redraft train`: run a training recipe."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli import options

VALIDATION_EXAMPLES = 128
VALIDATION_ANSWERS = 64

app = typer.Typer(help="Train a model from a recipe.")


@app.callback()
def group() -> None:
    """Train a model from a recipe."""


def _command(name: str) -> Callable[..., None]:
    """The command that runs the recipe of this name."""

    def command(
        *,
        out: Annotated[
            Path, typer.Option(help="Folder of the run; a run that is there goes on where it stood.")
        ] = Path("runs") / name,
        start: Annotated[
            Path | None,
            typer.Option(
                help="Checkpoint whose weights a new run begins with, instead of random ones and an easy start."
            ),
        ] = None,
        steps: Annotated[
            int | None, typer.Option(help="Steps of the whole run; its learning rate falls over the last 40 %.")
        ] = None,
        batch_size: Annotated[int | None, typer.Option(help="Examples a step.")] = None,
        learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
        compiled: Annotated[
            bool,
            typer.Option(
                "--compile", help="Compile the layers: a fifth faster after half a minute; needs a C++ compiler."
            ),
        ] = False,
        accumulate: Annotated[
            int | None, typer.Option(help="Work a step's examples off in so many parts, for less memory.")
        ] = None,
        ema: Annotated[
            float | None,
            typer.Option(help="Checkpoints hold the weights' moving average with this decay, for instance 0.999."),
        ] = None,
        validate_every: Annotated[
            int | None, typer.Option(help="Steps between validations; the best checkpoint is kept. 0: never.")
        ] = None,
        patience: Annotated[
            int | None, typer.Option(help="End the run after so many validations that bring nothing better.")
        ] = None,
        minutes: Annotated[
            float | None, typer.Option(help="Stop after so long, with a checkpoint to go on from.")
        ] = None,
        threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    ) -> None:
        if minutes is not None and not 0 < minutes < math.inf:
            raise ValueError(f"--minutes is {minutes}, must be above 0")
        options.check_at_least(1, threads=threads)
        overrides = options.given(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate, accumulate=accumulate, ema=ema,
            validate_every=validate_every, patience=patience,
        )  # fmt: skip
        _run(
            name, out, overrides | {"compile": compiled}, start=start, threads=threads,
            stop_after=math.inf if minutes is None else minutes * 60,
        )  # fmt: skip

    return command


app.command("extract", help="Extraction of named fields as JSON. Needs the extra: pip install 'redraft[train]'.")(
    _command("extract")
)
app.command("bundled", help="The bundled model: extraction, also of messy texts, normalising values, mending typos.")(
    _command("bundled")
)


def _run(
    name: str, out: Path, overrides: dict[str, Any], *, start: Path | None, threads: int | None, stop_after: float
) -> None:
    for package in ("faker", "codespell_lib", "matplotlib"):
        options.needs(package, "train")
    import torch

    from redraft.text import TextTokenizer
    from redraft.training import loop, recipes
    from redraft.training.data.bundled import BundledExamples
    from redraft.training.data.extraction.task import SHIPPED_SETTINGS, ExtractionExamples, prepare_companions
    from redraft.training.log import read_rows
    from redraft.training.report import REPORT_FILE, summarise, write_report
    from redraft.training.state import RunFolder
    from redraft.training.validation import make_validator

    make_recipe, make_source = {
        "extract": (recipes.extract, ExtractionExamples),
        "bundled": (recipes.bundled, BundledExamples),
    }[name]
    recipe = make_recipe(**overrides)
    if threads is not None:
        torch.set_num_threads(threads)
    companions = out / "companions"
    run = RunFolder(out, companions)
    if start is not None and not run.checkpoints():
        loop.check_start(start, recipe)
    prepare_companions(companions)
    source = make_source(recipe.settings.batch_size, TextTokenizer.load(companions), easy_start=start is None)
    validate = make_validator(
        source.validation(VALIDATION_EXAMPLES), SHIPPED_SETTINGS, answers=VALIDATION_ANSWERS,
        prompt_weight=recipe.settings.prompt_weight,
    )  # fmt: skip
    try:
        loop.train(
            recipe, source, run, report=lambda line: print(line, flush=True), validate=validate, start=start,
            stop_after=stop_after,
        )  # fmt: skip
    finally:
        if any(row["kind"] == "progress" for row in read_rows(out)):
            write_report(out)
    if not (out / REPORT_FILE).exists():
        # It was over before, and made before runs had logs.
        print(f"redraft eval extract --model {run.checkpoints()[-1]}")
        return
    summary = summarise(out)
    best = run.checkpoint(summary["best"]["step"]) if summary["best"] else run.checkpoints()[-1]
    print(f"redraft eval extract --model {best}")
    print(json.dumps(summary | {"checkpoint": str(best), "report": str(out / REPORT_FILE)}))


@app.command("report")
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")] = Path("runs/extract"),
) -> None:
    """Draw a run's losses, validations, learning rate and speed into an HTML file; print where it stands as JSON."""
    options.needs("matplotlib", "train")
    from redraft.training.report import summarise, write_report

    summary = summarise(run)
    print(json.dumps(summary | {"report": str(write_report(run))}))
