"""`redraft eval frontier`: which sampler settings are worth their time."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

import redraft
from redraft.cli import options
from redraft.cli.output import show_table
from redraft.evaluation.frontier import (
    FrontierMeasurement,
    Point,
    choose,
    draw,
    grid,
    pareto,
    sampler_settings,
    write_settings,
)
from redraft.evaluation.tasks import TASKS
from redraft.model.precision import check_precision
from redraft.utils.files import write_whole
from redraft.utils.words import counted

TRIED = {
    "steps": ("steps", "8,16,48"),
    "entropy_bound": ("entropy_bounds", "0.1,1"),
    "confidence_threshold": ("confidence_thresholds", "0.005,0.05"),
}
"""Settings that are tried beside the schedule: the name of the option, and its default."""
SETTINGS = [setting for setting in redraft.SETTINGS if setting.name in TRIED]


def _make_choices(
    *,
    temperatures: Annotated[
        str, typer.Option(help="Schedules to try, each as t_min:t_max.")
    ] = "0.3:0.6,0.4:0.8,0.8:0.8",
    precisions: Annotated[str, typer.Option(help="Precisions to try.")] = "float32",
    **tried: str,
) -> list[dict[str, Any]]:
    """Returns every combination of the values that the options name, each checked."""
    schedules = []
    for schedule in temperatures.split(","):
        low, _, high = schedule.partition(":")
        t_min, t_max = options.parse_numbers("temperatures", f"{low},{high}", float)
        schedules.append({"t_min": t_min, "t_max": t_max})
    values: dict[str, list[Any]] = {"precision": precisions.split(","), "schedule": schedules}
    for setting in SETTINGS:
        option = TRIED[setting.name][0]
        values[setting.name] = options.parse_numbers(option.replace("_", "-"), tried[option], setting.type)
    choices = grid(values)
    for choice in choices:
        check_precision(choice["precision"])
        options.check_settings(sampler_settings(choice))
    return choices


def _tried_parameter(setting: redraft.Setting) -> inspect.Parameter:
    name, default = TRIED[setting.name]
    option = Annotated[str, typer.Option(help=f"{setting.help} Values to try, separated by commas.")]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)


@options.receives(_make_choices, *map(_tried_parameter, SETTINGS))
def frontier(
    choices: list[dict[str, Any]],
    task: Annotated[str, typer.Argument(help="The task to measure on: extract, normalize or repair.")] = "extract",
    *,
    model: options.ModelOption = "bundled",
    device: options.DeviceOption = "auto",
    examples: Annotated[int, typer.Option(help="Examples, of a set apart from the test set.")] = 120,
    tolerance: Annotated[float, typer.Option(help="How far below the best the chosen point may be.")] = 0.01,
    points: Annotated[
        Path | None, typer.Option(help="File that keeps what is measured; an existing one is continued.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw all points and the frontier into this SVG file.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Make the chosen point the checkpoint's own settings.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Every example is answered with this seed.")] = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Try sampler settings: which give how much quality at what speed, and which nothing else beats."""
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}; there are {', '.join(TASKS)}")
    options.check_at_least(1, examples=examples)
    cases = TASKS[task].tuning_cases(examples)
    if not 0 <= tolerance <= 1:
        raise ValueError(f"--tolerance is {tolerance}, must lie between 0 and 1")
    options.check_folder("points", points)
    options.check_folder("picture", picture)
    if write and len({choice["precision"] for choice in choices}) > 1:
        raise ValueError("--write: a checkpoint has no precision of its own; give one of --precisions")
    if picture is not None:
        options.require_package("matplotlib", "eval")
    if task != "extract":
        options.require_package("rapidfuzz", "eval")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(counted(len(choices), "setting"), total=len(choices) * len(cases))
        measurement = FrontierMeasurement(
            task=TASKS[task], model=model, device=device, examples=examples, seed=seed,
            report=lambda _: progress.advance(bar),
        )  # fmt: skip
        measured = []
        for point in measurement.points(choices, points):
            measured.append(point)
            progress.update(bar, completed=len(measured) * len(cases))
    best, chosen = pareto(measured), choose(measured, tolerance)
    if picture is not None:
        write_whole(picture, draw(measured, best, chosen, f"{task}, {counted(len(cases), 'example')}"))
    if write:
        write_settings(model, chosen)
    if as_json:
        result = {
            "task": task, "examples": len(cases), "model": model, "measured": len(measured),
            "frontier": [dataclasses.asdict(point) for point in best], "chosen": dataclasses.asdict(chosen),
            "written": write,
        }  # fmt: skip
        print(json.dumps(result))
        return
    speeds = ("tokens_per_second", "tokens_per_forward", "steps_per_canvas")
    show_table(
        ((_format(one), f"{one.quality:.1%}", *(str(getattr(one, name)) for name in speeds)) for one in best),
        ("settings", "exact", "tokens/s", "tokens/forward", "steps/canvas"),
    )
    print(f"chosen: {_format(chosen)}")


def _format(point: Point) -> str:
    return " ".join(f"{name}={value}" for name, value in point.settings.items())
