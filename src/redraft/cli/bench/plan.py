"""`redraft bench plan`: how fast a device should be, and this machine's prediction beside what is measured."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from redraft.benchmark.models import benchmark_config, load_benchmark_model
from redraft.benchmark.roofline.measured import measure_roofline
from redraft.benchmark.roofline.plan import DEVICES, KEPT_PER_ROUND, PUBLISHED
from redraft.benchmark.roofline.plan import plan as predict
from redraft.benchmark.steps import Step
from redraft.benchmark.timing import Spread, describe_machine
from redraft.cli import options
from redraft.cli.output import JsonLineOption, report
from redraft.model.preparation import prepare
from redraft.weights.fetch import RELEASED


def plan(
    model: Annotated[
        str, typer.Argument(help='"bundled", "26b-a4b", "a", "b", a folder, or a name on the hub.')
    ] = "26b-a4b",
    *,
    device: Annotated[
        str, typer.Option(help="h100, h200, rtx-5090 or rtx-4090; all by default. here: this machine, measured.")
    ] = "",
    precision: Annotated[
        str, typer.Option(help="How weights are stored: bf16, fp8, int8 or int4; here float32, bf16 or int8.")
    ] = "fp8",
    requests: Annotated[str, typer.Option(help="Concurrent requests, separated by commas.")] = "1,8,32",
    context: Annotated[int, typer.Option(help="Tokens of context of each.")] = 1000,
    tokens_per_forward: Annotated[float, typer.Option(help="Answer tokens per denoising step, as measured.")] = 19.7,
    kept_per_round: Annotated[
        float, typer.Option(help="Tokens that a round of verified drafts keeps, as measured.")
    ] = KEPT_PER_ROUND,
    passes_per_round: Annotated[float, typer.Option(help="Denoiser passes of a round.")] = 1.0,
    share: Annotated[float, typer.Option(help="Share of the device's peaks that is reached.")] = 1.0,
    check: Annotated[
        bool, typer.Option("--check", help="With --device here: measure the steps too, and print the ratio.")
    ] = False,
    as_json: JsonLineOption = False,
) -> None:
    """Predict milliseconds of a step and tokens per second of each way to decode."""
    if device and device not in (*DEVICES, "here"):
        raise ValueError(f"--device is {device!r}, must be one of {', '.join(DEVICES)}, here")
    if check and device != "here":
        raise ValueError("--check measures this machine; give --device here")
    counts = options.parse_numbers("requests", requests, int)
    config = benchmark_config(model)
    machine = describe_machine()
    devices = [measure_roofline(precision)] if device == "here" else [DEVICES[device]] if device else DEVICES.values()
    predicted: list[dict[str, Any]] = []
    for one, count in itertools.product(devices, counts):
        prediction = predict(
            config, one, precision, requests=count, context=context, tokens_per_forward=tokens_per_forward, share=share,
            kept_per_round=kept_per_round, passes_per_round=passes_per_round,
        )  # fmt: skip
        row = {"device": one.name, "source": one.source, "requests": count, **prediction.to_json()}
        if model == RELEASED and one.name in PUBLISHED:
            row["published"] = PUBLISHED[one.name]
        if check:
            measured = _measure(model, precision, count, context)
            row["measured_seconds"] = measured.to_json()
            row["ratio"] = round(prediction.denoising_seconds / measured.median, 3)
        predicted.append(row)
    columns, rows = table_of(predicted)
    published = {row["device"]: row["published"] for row in predicted if "published" in row}
    report(
        {
            "bench": "plan", "predicted": predicted, "model": model, "precision": precision, "context": context,
            "tokens_per_forward": tokens_per_forward, "kept_per_round": kept_per_round,
            "passes_per_round": passes_per_round, "share": share, "machine": machine,
        },
        *(f"published by others for {name}: {speed}" for name, speed in published.items()),
        title=f"PREDICTED, not measured: {model}, {precision}, {tokens_per_forward} tokens per forward, "
        f"{kept_per_round} kept per round",
        columns=columns, rows=rows, as_json=as_json,
    )  # fmt: skip


def table_of(predicted: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    columns = ["device", "requests", "ms per step", "tokens/s", "token by token", "break-even", "verified", "fits"]
    if is_checked := "ratio" in predicted[0]:
        columns += ["measured ms", "ratio"]
    rows = []
    for row in predicted:
        even = row["break_even"]
        rows.append([
            row["device"], str(row["requests"]), f"{row['denoising_seconds'] * 1000:.2f}",
            f"{row['tokens_per_second']:,.0f}", f"{row['autoregressive_tokens_per_second']:,.0f}",
            "never" if even is None else f"{even:.1f}", f"{row['verified_tokens_per_second']:,.0f}",
            "yes" if row["fits"] else "no",
        ])  # fmt: skip
        if is_checked:
            measured = {name: row["measured_seconds"][name] * 1000 for name in ("median", "low", "high")}
            rows[-1] += ["{median:.2f} ({low:.2f} to {high:.2f})".format(**measured), f"{row['ratio']:.2f}"]
    return columns, rows


def _measure(model: str, precision: str, batch: int, context: int) -> Spread:
    """Seconds of a denoising step: five, after two that warm up."""
    step = Step(prepare(load_benchmark_model(model, precision), precision), batch, context)
    return Spread.of([step.stages()["step"] for _ in range(7)][2:])
