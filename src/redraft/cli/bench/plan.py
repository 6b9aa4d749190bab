"""`redraft bench plan`: how fast a device should be, and this machine's prediction beside what is measured."""

import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli import options
from redraft.cli.bench import speed as bench_speed

if TYPE_CHECKING:
    from redraft.benchmark.roofline.plan import Device, Plan
    from redraft.benchmark.timing import Spread


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
    as_json: bench_speed.AsJson = False,
) -> None:
    """Predict milliseconds of a step and tokens per second, with a canvas and token by token."""
    from redraft.benchmark.models import subject_config
    from redraft.benchmark.roofline.measured import measure_here
    from redraft.benchmark.roofline.plan import DEVICES, PUBLISHED
    from redraft.benchmark.roofline.plan import plan as predict
    from redraft.benchmark.timing import machine
    from redraft.weights.fetch import RELEASED

    if device and device not in (*DEVICES, "here"):
        raise ValueError(f"--device is {device!r}, must be one of {', '.join(DEVICES)}, here")
    if check and device != "here":
        raise ValueError("--check measures this machine; give --device here")
    counts = options.parse_numbers("requests", requests, int)
    config = subject_config(model)
    state = machine()
    chosen = [measure_here(precision)] if device == "here" else [DEVICES[device]] if device else [*DEVICES.values()]
    predicted: list[dict[str, Any]] = []
    for one in chosen:
        for count in counts:
            found = predict(config, one, precision, requests=count, context=context,
                            tokens_per_forward=tokens_per_forward, share=share)  # fmt: skip
            row = _row(one, count, found)
            if model == RELEASED and one.name in PUBLISHED:
                row["published"] = PUBLISHED[one.name]
            if check:
                measured = _measured(model, precision, count, context)
                row["measured_seconds"] = measured.to_json()
                row["ratio"] = round(found.denoising_seconds / measured.median, 3)
            predicted.append(row)
    if not as_json:
        _show(f"PREDICTED, not measured: {model}, {precision}, {tokens_per_forward} tokens per forward", predicted)
    print(
        json.dumps(
            {
                "bench": "plan", "predicted": predicted, "model": model, "precision": precision, "context": context,
                "tokens_per_forward": tokens_per_forward, "share": share, "machine": state,
            }
        )
    )  # fmt: skip


def _row(device: "Device", requests: int, found: "Plan") -> dict[str, Any]:
    """What is predicted, as JSON has it: where token by token is always faster there is no break-even."""
    row = {"device": device.name, "source": device.source, "requests": requests, **dataclasses.asdict(found)}
    if math.isinf(found.break_even):
        row["break_even"] = None
    return row


def _show(title: str, predicted: list[dict[str, Any]]) -> None:
    columns = ["device", "requests", "ms per step", "tokens/s", "token by token", "break-even", "fits"]
    if check := "ratio" in predicted[0]:
        columns += ["measured ms", "ratio"]
    rows = []
    for row in predicted:
        even = row["break_even"]
        rows.append([
            row["device"], str(row["requests"]), f"{row['denoising_seconds'] * 1000:.2f}",
            f"{row['tokens_per_second']:,.0f}", f"{row['autoregressive_tokens_per_second']:,.0f}",
            "never" if even is None else f"{even:.1f}", "yes" if row["fits"] else "no",
        ])  # fmt: skip
        if check:
            measured = {name: row["measured_seconds"][name] * 1000 for name in ("median", "low", "high")}
            rows[-1] += ["{median:.2f} ({low:.2f} to {high:.2f})".format(**measured), f"{row['ratio']:.2f}"]
    bench_speed.show(title, tuple(columns), rows)
    for name, published in {row["device"]: row["published"] for row in predicted if "published" in row}.items():
        print(f"published by others for {name}: {published}", file=sys.stderr)


def _measured(model: str, precision: str, batch: int, context: int) -> "Spread":
    """Seconds of a denoising step, of a few after two that warm up."""
    from redraft.benchmark.models import subject
    from redraft.benchmark.steps import Step
    from redraft.benchmark.timing import Spread
    from redraft.model import prepare

    step = Step(prepare(subject(model, precision), precision), batch, context)
    return Spread.of([step.stages()["step"] for _ in range(7)][2:])
