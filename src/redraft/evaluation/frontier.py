"""The frontier: which sampler settings give which quality at which speed, and which of them nothing else beats."""

import functools
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from redraft.api import Model
from redraft.diffusion.settings import SamplerSettings
from redraft.evaluation.evaluate import Outcome, evaluate, summarise
from redraft.evaluation.subject import ModelSubject
from redraft.evaluation.tasks import EvaluationTask
from redraft.loading import load
from redraft.utils.files import write_whole
from redraft.weights.config.file import read_generation_config, write_generation_config
from redraft.weights.fetch import resolve

OBJECTIVES = ("quality", "tokens_per_second", "tokens_per_forward")
"""What is better the higher it is."""


@dataclass(frozen=True)
class Point:
    """The measurement of one choice of settings. quality: share of exact answers; settings include the precision."""

    settings: dict[str, Any]
    quality: float
    tokens_per_second: float
    tokens_per_forward: float
    steps_per_canvas: float


def sampler_settings(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a choice of settings without its precision."""
    return {name: value for name, value in choice.items() if name != "precision"}


@dataclass(frozen=True, kw_only=True)
class FrontierMeasurement:
    """A measurement of choices of settings, on cases of a task that are not in its test set.

    model: as `load` takes it; report: called after each case.
    """

    task: EvaluationTask
    model: str = "bundled"
    device: str = "auto"
    examples: int = 120
    seed: int = 0
    report: Callable[[Outcome], None] = lambda _: None

    def points(self, choices: Iterable[dict[str, Any]], file: Path | None = None) -> Iterator[Point]:
        """Measures each choice, "precision" and sampler settings; a model is loaded once for each precision.

        file: as `sweep` takes it.
        """
        cases = self.task.tuning_cases(self.examples)

        @functools.cache
        def model(precision: str) -> Model:
            return load(self.model, device=self.device, precision=precision)

        def measure(choice: dict[str, Any]) -> Point:
            subject = ModelSubject(
                model(choice["precision"]), {"seed": self.seed, **sampler_settings(choice)}, mode="diffusion"
            )
            summary = summarise(evaluate(subject, cases, self.task.score, self.report))
            names = ("exact", "tokens_per_second", "tokens_per_forward", "steps_per_canvas")
            return Point(choice, *(summary[name] for name in names))

        return sweep(choices, measure, file, self.identity() if file else {})

    def identity(self) -> dict[str, Any]:
        """Returns what tells this measurement from others: a checkpoint that is trained further keeps its name."""
        stamps = {file.name: file.stat().st_mtime_ns for file in sorted(resolve(self.model).glob("*.safetensors"))}
        return {
            "task": self.task.name, "model": self.model, "files": stamps, "examples": self.examples,
            "device": self.device, "seed": self.seed,
        }  # fmt: skip


def write_settings(model: str, point: Point) -> None:
    """Makes a point's sampler settings the checkpoint's own."""
    folder = resolve(model)
    config = read_generation_config(folder)
    settings = SamplerSettings.from_generation_config(config).replace(**sampler_settings(point.settings))
    write_generation_config(folder, config | settings.to_generation_config())


def grid(choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns every combination of the choices; a choice may set several settings at once, as a dictionary."""
    found = []
    for values in itertools.product(*choices.values()):
        settings: dict[str, Any] = {}
        for name, value in zip(choices, values, strict=True):
            settings |= value if isinstance(value, dict) else {name: value}
        found.append(settings)
    return found


def pareto(points: Sequence[Point], objectives: Sequence[str] = OBJECTIVES) -> list[Point]:
    """Returns the points that no other equals in all objectives and beats in one, best quality first."""

    def beats(one: Point, other: Point) -> bool:
        pairs = [(getattr(one, name), getattr(other, name)) for name in objectives]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    chosen = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(chosen, key=lambda point: (-point.quality, -point.tokens_per_second))


def choose(points: Sequence[Point], tolerance: float) -> Point:
    """Returns the point with the fewest steps whose quality is at most `tolerance` below the best."""
    best = max(point.quality for point in points)
    near = [point for point in points if point.quality >= best - tolerance - 1e-9]
    return min(near, key=lambda point: (point.steps_per_canvas, -point.quality))


def sweep(
    settings: Iterable[dict[str, Any]],
    measure: Callable[[dict[str, Any]], Point],
    file: Path | None,
    identity: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Point]:
    """Measures each choice of settings that `file` does not hold, and appends it.

    identity: what is measured, and on what. Raises ValueError for a file whose points are of something else.
    """
    known = {json.dumps(point.settings, sort_keys=True): point for point in _read(file, identity)} if file else {}
    for one in settings:
        key = json.dumps(one, sort_keys=True)
        if key not in known:
            known[key] = measure(one)
            if file:
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"of": dict(identity), "point": asdict(known[key])}) + "\n")
        yield known[key]


def _read(path: Path, identity: Mapping[str, Any]) -> list[Point]:
    """Reads the points of a file; removes a last line that was cut off when the process was killed."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        write_whole(path, "".join(lines))
    points = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            point, measured = Point(**row["point"]), row["of"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}, line {number} is not a measured point; choose another file") from None
        if measured != identity:
            raise ValueError(f"{path} holds points of {measured}, not of {dict(identity)}; choose another file")
        points.append(point)
    return points


def draw(points: Sequence[Point], best: Sequence[Point], chosen: Point, title: str) -> str:
    """Draws an SVG of quality over tokens per forward and over tokens per second, with the frontier as a line."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasSVG(figure)
    figure.suptitle(title)
    panels = (("tokens_per_forward", "tokens per forward"), ("tokens_per_second", "tokens per second"))
    for axes, (name, label) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.scatter(
            [getattr(p, name) for p in points], [p.quality for p in points], s=12, color="0.6", label="measured"
        )
        line = sorted((getattr(p, name), p.quality) for p in pareto(best, ("quality", name)))
        axes.plot(*zip(*line, strict=True), "o-", color="C0", linewidth=1, markersize=4, label="frontier")
        axes.plot(getattr(chosen, name), chosen.quality, "*", color="C3", markersize=12, label="chosen")
        axes.set_xlabel(label)
        axes.set_ylabel("exact")
    figure.axes[0].legend(fontsize=8)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
