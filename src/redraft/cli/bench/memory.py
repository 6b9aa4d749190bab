"""`redraft bench memory`: what a model of some shape takes of this machine, measured with random weights."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options
from redraft.cli.bench import speed as bench_speed


def memory(
    model: Annotated[
        str, typer.Argument(help='A shape: "26b-a4b", "bundled", a folder, or a name on the hub.')
    ] = "26b-a4b",
    *,
    to: Annotated[str, typer.Option(help="What the weights are stored as: int8 or int4.")] = "int4",
    steps: Annotated[int, typer.Option(help="Denoising steps; the first one reads the file.")] = 3,
    folder: Annotated[
        Path | None, typer.Option(help="Where the weights are written, and kept; one that was kept is measured again.")
    ] = None,
    as_json: bench_speed.AsJson = False,
) -> None:
    """Write random weights of a shape, load them in a fresh process and denoise one canvas. Linux only.

    Without --folder the weights go to a temporary folder and are deleted.
    """
    options.check_at_least(1, steps=steps)
    if not Path("/proc/self/status").is_file():
        raise ValueError("bench memory reads /proc/self/status, which this system does not have: it needs Linux")
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from redraft.benchmark.memory import measure_footprint
    from redraft.model import Precision
    from redraft.weights import Checkpoint, check_available, fetch_config, read_config
    from redraft.weights.memory import running_bytes
    from redraft.weights.quantize import TARGETS
    from redraft.weights.synthetic import write_synthetic

    if to not in TARGETS:
        raise ValueError(f"--to is {to!r}, must be {' or '.join(TARGETS)}")
    config = read_config(fetch_config(model))
    precision = Precision.of_bits(TARGETS[to])[0].name
    # Before gigabytes are written.
    check_available(
        running_bytes(config, precision), f"{model} in {precision}", "free some, or run it where there is more"
    )
    temporary = None if folder is not None else Path(tempfile.mkdtemp(prefix="redraft-"))
    target = folder or temporary
    assert target is not None
    console = Console(stderr=True)
    try:
        if not (target / "config.json").exists():
            parts = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
            with Progress(
                *parts, console=console, transient=True, disable=as_json or not console.is_terminal
            ) as progress:
                task = progress.add_task(f"random weights in {to}", total=None)
                write_synthetic(
                    target, config, to, lambda done, total: progress.update(task, completed=done, total=total)
                )
        checkpoint = Checkpoint.open(target)
        if checkpoint.bits != TARGETS[to] or checkpoint.config != config:
            raise ValueError(f"{target} holds another checkpoint than {model} in {to}; name a new folder")
        found = {"bench": "memory", "model": model, "stored": to, **measure_footprint(target, steps)}
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    if not as_json:
        row = [f"{found[key] / 1e9:.2f} GB" for key in ("file_bytes", "peak_resident", "peak_anonymous")]
        row += [f"{found[key]:.2f} s" for key in ("load_seconds", "first_step_seconds", "seconds_per_step")]
        columns = ("file", "peak resident", "of it anonymous", "load", "first step", "step")
        title = f"{model}, {to}, random weights: one canvas of {found['canvas_length']} tokens"
        bench_speed.show(title, columns, [row])
    print(json.dumps(found))
