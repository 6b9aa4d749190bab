"""`redraft eval frontier`: which sampler settings are worth their time."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli import options

if TYPE_CHECKING:
    from redraft.evaluation.cases import Case
    from redraft.evaluation.frontier import Point
    from redraft.evaluation.tasks import Score


def frontier(
    task: Annotated[str, typer.Argument(help="The task to measure on: extract, normalize or repair.")] = "extract",
    *,
    model: options.ModelOption = "bundled",
    device: options.DeviceOption = "auto",
    examples: Annotated[int, typer.Option(help="Examples, of a set apart from the test set.")] = 120,
    steps: Annotated[str, typer.Option(help="Values to try, with commas between them.")] = "8,16,48",
    entropy_bounds: Annotated[str, typer.Option(help="Values to try.")] = "0.1,1",
    temperatures: Annotated[
        str, typer.Option(help="Schedules to try, each as t_min:t_max.")
    ] = "0.3:0.6,0.4:0.8,0.8:0.8",
    confidence_thresholds: Annotated[str, typer.Option(help="Mean entropies to stop at, to try.")] = "0.005,0.05",
    precisions: Annotated[str, typer.Option(help="Precisions to try.")] = "float32",
    tolerance: Annotated[float, typer.Option(help="How much below the best the chosen point may be.")] = 0.01,
    points: Annotated[
        Path | None, typer.Option(help="File that keeps what is measured; one that is there is gone on with.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw all points and the frontier into this SVG file.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Make the chosen point the checkpoint's own settings.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Every example is answered with this seed.")] = 0,
    as_json: options.JsonOption = False,
) -> None:
    """Try sampler settings: which give how much quality at what speed, and which nothing else beats."""
    from rich.console import Console
    from rich.progress import Progress

    from redraft.evaluation.frontier import choose, draw, pareto, sweep
    from redraft.evaluation.tasks import TASKS
    from redraft.utils.files import write_whole
    from redraft.weights import resolve

    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}; there are {', '.join(TASKS)}")
    options.check_at_least(1, examples=examples)
    cases = TASKS[task].tuning_cases(examples)
    if not 0 <= tolerance <= 1:
        raise ValueError(f"--tolerance is {tolerance}, must lie between 0 and 1")
    for name, file in (("points", points), ("picture", picture)):
        if file is not None and not file.parent.is_dir():
            raise ValueError(f"--{name}: there is no folder {str(file.parent)!r}")
    choices = _choices(steps, entropy_bounds, temperatures, confidence_thresholds, precisions)
    if write and len({choice["precision"] for choice in choices}) > 1:
        raise ValueError("--write: a checkpoint has no precision of its own; give one of --precisions")
    if picture is not None:
        options.require_package("matplotlib", "eval")
    if task != "extract":
        options.require_package("rapidfuzz", "eval")
    # With the time the checkpoint's files were written: one that trains on is another under the same name.
    stamps = {file.name: file.stat().st_mtime_ns for file in sorted(resolve(model).glob("*.safetensors"))}
    of = {"task": task, "model": model, "files": stamps, "examples": examples, "device": device, "seed": seed}

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"{len(choices)} settings", total=len(choices) * len(cases))
        measure = _measure(cases, TASKS[task].score, model, device, seed, lambda: progress.advance(bar))
        measured = []
        for point in sweep(choices, measure, points, of):
            measured.append(point)
            progress.update(bar, completed=len(measured) * len(cases))
    best, chosen = pareto(measured), choose(measured, tolerance)
    if picture is not None:
        write_whole(picture, draw(measured, best, chosen, f"{task}, {len(cases)} examples"))
    if write:
        _write(model, chosen)
    result = {
        "task": task,
        "examples": len(cases),
        "model": model,
        "measured": len(measured),
        "frontier": [dataclasses.asdict(point) for point in best],
        "chosen": dataclasses.asdict(chosen),
        "written": write,
    }
    if as_json:
        print(json.dumps(result))
    else:
        _show(best, chosen)


def _choices(
    steps: str, entropy_bounds: str, temperatures: str, confidence_thresholds: str, precisions: str
) -> list[dict[str, Any]]:
    """Every combination of what the options name, each checked."""
    from redraft.api import check_precision
    from redraft.evaluation.frontier import grid

    schedules = []
    for schedule in temperatures.split(","):
        low, _, high = schedule.partition(":")
        t_min, t_max = options.parse_numbers("temperatures", f"{low},{high}", float)
        schedules.append({"t_min": t_min, "t_max": t_max})
    choices = grid(
        {
            "precision": precisions.split(","),
            "schedule": schedules,
            "steps": options.parse_numbers("steps", steps, int),
            "entropy_bound": options.parse_numbers("entropy-bounds", entropy_bounds, float),
            "confidence_threshold": options.parse_numbers("confidence-thresholds", confidence_thresholds, float),
        }
    )
    for choice in choices:
        check_precision(choice["precision"])
        options.check_settings(_of_sampler(choice))
    return choices


def _of_sampler(choice: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in choice.items() if name != "precision"}


def _measure(
    cases: "list[Case]", score: "Score", model: str, device: str, seed: int, tick: Callable[[], None]
) -> "Callable[[dict[str, Any]], Point]":
    """What measures one choice of settings; a model is loaded once for each precision."""
    import redraft
    from redraft.evaluation.frontier import Point
    from redraft.evaluation.tasks import Made, run_cases, summarise

    loaded: dict[str, redraft.Model] = {}

    def measure(choice: dict[str, Any]) -> Point:
        precision = choice["precision"]
        if precision not in loaded:
            loaded[precision] = redraft.load(model, device=device, precision=precision)

        def answer(prompt: str) -> Made:
            result = loaded[precision].generate(prompt, seed=seed, **_of_sampler(choice))
            return Made.here(result.text, result.generation)

        summary = summarise(run_cases(cases, score, answer, lambda _: (), lambda _: tick()))
        names = ("exact", "tokens_per_second", "tokens_per_forward", "steps_per_canvas")
        return Point(choice, *(summary[name] for name in names))

    return measure


def _write(model: str, chosen: "Point") -> None:
    """Makes the settings of a point the checkpoint's own."""
    import redraft
    from redraft.weights import read_generation_config, resolve, write_generation_config

    folder = resolve(model)
    config = read_generation_config(folder)
    settings = redraft.SamplerSettings.from_generation_config(config).replace(**_of_sampler(chosen.settings))
    write_generation_config(folder, config | settings.to_generation_config())


def _show(best: "list[Point]", chosen: "Point") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("settings", "exact", "tokens/s", "tokens/forward", "steps/canvas")
    for point in best:
        speeds = (point.tokens_per_second, point.tokens_per_forward, point.steps_per_canvas)
        table.add_row(_told(point), f"{point.quality:.1%}", *map(str, speeds))
    console = Console()
    console.print(table)
    console.print(f"chosen: {_told(chosen)}")


def _told(point: "Point") -> str:
    return " ".join(f"{name}={value}" for name, value in point.settings.items())
