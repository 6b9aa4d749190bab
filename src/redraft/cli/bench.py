"""`redraft bench`: how fast it is, and how fast it should be."""

import dataclasses
import json
from typing import Annotated

import typer

from redraft.cli import bench_memory, options

app = typer.Typer(help="Measure and predict speed; each command ends in one JSON line.")


@app.callback()
def group() -> None:
    """Measure and predict speed; each command ends in one JSON line."""


app.command("memory")(bench_memory.memory)


@app.command("plan")
def plan(
    model: Annotated[str, typer.Argument(help='"bundled", "26b-a4b", a folder, or a name on the hub.')] = "26b-a4b",
    *,
    device: Annotated[str, typer.Option(help="h100, h200, rtx-5090 or rtx-4090; all without one.")] = "",
    precision: Annotated[str, typer.Option(help="What weights are stored as: bf16, fp8, int8 or int4.")] = "fp8",
    requests: Annotated[str, typer.Option(help="Requests at once, with commas between them.")] = "1,8,32",
    context: Annotated[int, typer.Option(help="Tokens of context of each.")] = 1000,
    tokens_per_forward: Annotated[float, typer.Option(help="Answer tokens of a denoising step, as measured.")] = 19.7,
    share: Annotated[float, typer.Option(help="Share of the device's peaks that is taken to be reached.")] = 1.0,
) -> None:
    """Predict milliseconds of a step and tokens per second, with a canvas and token by token. Nothing is measured."""
    from rich.console import Console
    from rich.table import Table

    from redraft.measure.plan import DEVICES
    from redraft.measure.plan import plan as predict
    from redraft.weights import fetch_config, read_config

    if device and device not in DEVICES:
        raise ValueError(f"--device is {device!r}, must be one of {', '.join(DEVICES)}")
    counts = options.numbers("requests", requests, int)
    config = read_config(fetch_config(model))
    rows = [
        (one, count, predict(config, one, precision, requests=count, context=context,
                             tokens_per_forward=tokens_per_forward, share=share))
        for one in ([DEVICES[device]] if device else DEVICES.values())
        for count in counts
    ]  # fmt: skip
    table = Table(title=f"PREDICTED, not measured: {model}, {precision}, {tokens_per_forward} tokens per forward")
    for name in ("device", "requests", "ms per step", "tokens/s", "token by token", "break-even", "fits"):
        table.add_column(name)
    for one, count, found in rows:
        table.add_row(
            one.name, str(count), f"{found.denoising_seconds * 1000:.2f}", f"{found.tokens_per_second:,.0f}",
            f"{found.autoregressive_tokens_per_second:,.0f}", f"{found.break_even:.1f}", "yes" if found.fits else "no",
        )  # fmt: skip
    Console(stderr=True).print(table)
    predicted = [{"device": one.name, "source": one.source, "requests": count, **dataclasses.asdict(found)}
                 for one, count, found in rows]  # fmt: skip
    print(
        json.dumps(
            {
                "predicted": predicted, "model": model, "precision": precision, "context": context,
                "tokens_per_forward": tokens_per_forward, "share": share,
            }
        )
    )  # fmt: skip
