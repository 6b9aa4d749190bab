"""`redraft bench memory`: the memory of a model of some shape, measured with random weights."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from redraft.benchmark.memory import measure_shape
from redraft.cli import options
from redraft.cli.output import JsonLineOption, report


def memory(
    model: Annotated[
        str, typer.Argument(help='A shape: "26b-a4b", "bundled", a folder, or a name on the hub.')
    ] = "26b-a4b",
    *,
    to: Annotated[str, typer.Option(help="How the weights are stored: int8 or int4.")] = "int4",
    steps: Annotated[int, typer.Option(help="Denoising steps; the first one reads the file.")] = 3,
    folder: Annotated[
        Path | None, typer.Option(help="Where the weights are written and kept; kept ones are measured again.")
    ] = None,
    as_json: JsonLineOption = False,
) -> None:
    """Write random weights of a shape, load them in a fresh process and denoise one canvas. Linux only.

    Without --folder the weights go to a temporary folder and are deleted.
    """
    options.check_at_least(1, steps=steps)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        bar = progress.add_task(f"random weights in {to}", total=None)
        measured = measure_shape(
            model, to, steps=steps, folder=folder,
            report=lambda done, total: progress.update(bar, completed=done, total=total),
        )  # fmt: skip
    row = [f"{measured[key] / 1e9:.2f} GB" for key in ("file_bytes", "peak_resident", "peak_anonymous")]
    row += [f"{measured[key]:.2f} s" for key in ("load_seconds", "first_step_seconds", "seconds_per_step")]
    report(
        {"bench": "memory", "model": model, "stored": to, **measured},
        title=f"{model}, {to}, random weights: one canvas of {measured['canvas_length']} tokens",
        columns=("file", "peak resident", "of it anonymous", "load", "first step", "step"), rows=[row],
        as_json=as_json,
    )  # fmt: skip
