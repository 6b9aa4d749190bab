"""`redraft bench`: how fast it is, and how fast it should be."""

import dataclasses
import json
import statistics
import sys
from typing import Annotated, Any

import typer

from redraft.cli import bench_load, bench_memory, bench_speed, options

app = typer.Typer(help="Measure and predict speed; each command ends in one JSON line.")


@app.callback()
def group() -> None:
    """Measure and predict speed; each command ends in one JSON line."""


app.command("step")(bench_speed.step)
app.command("compare")(bench_speed.compare)
app.command("load")(bench_load.load)
app.command("memory")(bench_memory.memory)


@app.command("plan")
def plan(
    model: Annotated[
        str, typer.Argument(help='"bundled", "26b-a4b", "a", "b", a folder, or a name on the hub.')
    ] = "26b-a4b",
    *,
    device: Annotated[
        str, typer.Option(help="h100, h200, rtx-5090 or rtx-4090; all without one. here: this machine, measured.")
    ] = "",
    precision: Annotated[
        str, typer.Option(help="What weights are stored as: bf16, fp8, int8 or int4; here float32, bf16 or int8.")
    ] = "fp8",
    requests: Annotated[str, typer.Option(help="Requests at once, with commas between them.")] = "1,8,32",
    context: Annotated[int, typer.Option(help="Tokens of context of each.")] = 1000,
    tokens_per_forward: Annotated[float, typer.Option(help="Answer tokens of a denoising step, as measured.")] = 19.7,
    share: Annotated[float, typer.Option(help="Share of the device's peaks that is taken to be reached.")] = 1.0,
    check: Annotated[
        bool, typer.Option("--check", help="With --device here: measure the steps too, and print the ratio.")
    ] = False,
) -> None:
    """Predict milliseconds of a step and tokens per second, with a canvas and token by token."""
    from rich.console import Console
    from rich.table import Table

    from redraft.measure.here import measure_here
    from redraft.measure.plan import DEVICES, PUBLISHED
    from redraft.measure.plan import plan as predict
    from redraft.measure.shapes import subject_config
    from redraft.weights.fetch import RELEASED

    if device and device not in (*DEVICES, "here"):
        raise ValueError(f"--device is {device!r}, must be one of {', '.join(DEVICES)}, here")
    if check and device != "here":
        raise ValueError("--check measures this machine; give --device here")
    counts = options.numbers("requests", requests, int)
    config = subject_config(model)
    chosen = [measure_here(precision)] if device == "here" else [DEVICES[device]] if device else [*DEVICES.values()]
    predicted: list[dict[str, Any]] = []
    for one in chosen:
        for count in counts:
            found = predict(config, one, precision, requests=count, context=context,
                            tokens_per_forward=tokens_per_forward, share=share)  # fmt: skip
            about: dict[str, Any] = {"device": one.name, "source": one.source, "requests": count}
            if model == RELEASED and one.name in PUBLISHED:
                about["published"] = PUBLISHED[one.name]
            predicted.append(about | dataclasses.asdict(found))
    if check:
        for row in predicted:
            row["measured_seconds"] = _measured(model, precision, row["requests"], context)
            row["ratio"] = round(row["denoising_seconds"] / row["measured_seconds"], 3)
    table = Table(title=f"PREDICTED, not measured: {model}, {precision}, {tokens_per_forward} tokens per forward")
    for name in ("device", "requests", "ms per step", "tokens/s", "token by token", "break-even", "fits"):
        table.add_column(name)
    if check:
        table.add_column("measured ms")
        table.add_column("ratio")
    for row in predicted:
        table.add_row(
            row["device"], str(row["requests"]), f"{row['denoising_seconds'] * 1000:.2f}",
            f"{row['tokens_per_second']:,.0f}", f"{row['autoregressive_tokens_per_second']:,.0f}",
            f"{row['break_even']:.1f}", "yes" if row["fits"] else "no",
            *([f"{row['measured_seconds'] * 1000:.2f}", f"{row['ratio']:.2f}"] if check else []),
        )  # fmt: skip
    Console(stderr=True).print(table)
    for name in {row["device"]: None for row in predicted if "published" in row}:
        print(f"published by others for {name}: {PUBLISHED[name]}", file=sys.stderr)
    print(
        json.dumps(
            {
                "predicted": predicted, "model": model, "precision": precision, "context": context,
                "tokens_per_forward": tokens_per_forward, "share": share,
            }
        )
    )  # fmt: skip


def _measured(model: str, precision: str, batch: int, context: int) -> float:
    """Seconds of a denoising step, the median of a few."""
    from redraft.measure.shapes import subject
    from redraft.measure.steps import Step
    from redraft.model import prepare

    step = Step(prepare(subject(model, precision), precision), batch, context)
    return statistics.median([step.stages()["step"] for _ in range(7)][2:])
