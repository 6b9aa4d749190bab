"""`redraft train`: run a training recipe."""

import math
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options

app = typer.Typer(help="Train a model from a recipe.")


@app.callback()
def group() -> None:
    """Train a model from a recipe."""


@app.command("extract")
def extract(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run; a run that is there goes on where it stood.")] = Path(
        "runs/extract"
    ),
    steps: Annotated[
        int | None, typer.Option(help="Steps of the whole run; its learning rate falls over the last 40 %.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the layers: a fifth faster after half a minute; needs a C++ compiler."),
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long, with a checkpoint to go on from.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
) -> None:
    """Train the bundled model: extraction of named fields as JSON. Needs the extra: pip install 'redraft[train]'."""
    try:
        import faker  # noqa: F401
    except ImportError:
        raise ValueError("training needs Faker for its data: pip install 'redraft[train]'") from None
    import torch

    from redraft.text import TextTokenizer
    from redraft.training import loop, recipes
    from redraft.training.extraction.task import ExtractionExamples, prepare_companions
    from redraft.training.state import RunFolder

    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"--minutes is {minutes}, must be above 0")
    options.check_at_least(1, threads=threads)
    recipe = recipes.extract(
        **options.given(steps=steps, batch_size=batch_size, learning_rate=learning_rate), compile=compiled
    )
    if threads is not None:
        torch.set_num_threads(threads)
    companions = out / "companions"
    prepare_companions(companions)
    run = RunFolder(out, companions)
    source = ExtractionExamples(recipe, TextTokenizer.load(companions))
    stop_after = math.inf if minutes is None else minutes * 60
    loop.train(recipe, source, run, report=lambda line: print(line, flush=True), stop_after=stop_after)
    if made := run.checkpoints():
        print(f"redraft eval extract --model {made[-1]}")
