"""The frontier: which sampler settings give how much quality at what speed, and which of them nothing else beats."""

import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redraft.utils.files import write_whole

BETTER = ("quality", "tokens_per_second", "tokens_per_forward")
"""What is the better the higher it is."""


@dataclass(frozen=True)
class Point:
    """What one choice of settings brought. quality: share of exact answers; precision is among the settings."""

    settings: dict[str, Any]
    quality: float
    tokens_per_second: float
    tokens_per_forward: float
    steps_per_canvas: float


def grid(choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the choices; a choice may set several settings at once, as a dictionary."""
    found = []
    for values in itertools.product(*choices.values()):
        settings: dict[str, Any] = {}
        for name, value in zip(choices, values, strict=True):
            settings |= value if isinstance(value, dict) else {name: value}
        found.append(settings)
    return found


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other one equals or beats in everything and beats in something, the best quality first."""

    def beats(one: Point, other: Point) -> bool:
        pairs = [(getattr(one, name), getattr(other, name)) for name in BETTER]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    chosen = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(chosen, key=lambda point: (-point.quality, -point.tokens_per_second))


def choose(points: Sequence[Point], tolerance: float) -> Point:
    """The one with the fewest steps among those whose quality is at most `tolerance` below the best."""
    best = max(point.quality for point in points)
    near = [point for point in points if point.quality >= best - tolerance - 1e-9]
    return min(near, key=lambda point: (point.steps_per_canvas, -point.quality))


def sweep(
    settings: Iterable[dict[str, Any]],
    measure: Callable[[dict[str, Any]], Point],
    done: Path | None,
    of: Mapping[str, Any] | None = None,
) -> Iterator[Point]:
    """Measures each choice of settings. What stands in the file `done` is taken from it, and what is new is added.

    `of` says what is measured on what. ValueError for a file whose points are of something else.
    """
    known = {json.dumps(point.settings, sort_keys=True): point for point in _read(done, of or {})} if done else {}
    for one in settings:
        key = json.dumps(one, sort_keys=True)
        if key not in known:
            known[key] = measure(one)
            if done:
                with done.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"of": of or {}, "point": asdict(known[key])}) + "\n")
        yield known[key]


def _read(path: Path, of: Mapping[str, Any]) -> list[Point]:
    """The points of a file; a last line that a kill cut off is taken out of it."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        write_whole(path, "".join(lines))
    points = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            point, measured = Point(**row["point"]), row["of"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}, line {number} is no point of a frontier; choose another file") from None
        if measured != of:
            raise ValueError(f"{path} was measured with {measured}, this is {dict(of)}; choose another file")
        points.append(point)
    return points


def draw(points: Sequence[Point], best: Sequence[Point], chosen: Point, title: str) -> str:
    """An SVG of quality over tokens per forward and over tokens per second; the frontier is a line."""
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
        edge = sorted((getattr(p, name), p.quality) for p in _edge(best, name))
        axes.plot(*zip(*edge, strict=True), "o-", color="C0", linewidth=1, markersize=4, label="frontier")
        axes.plot(getattr(chosen, name), chosen.quality, "*", color="C3", markersize=12, label="chosen")
        axes.set_xlabel(label)
        axes.set_ylabel("exact")
    figure.axes[0].legend(fontsize=8)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _edge(points: Sequence[Point], name: str) -> list[Point]:
    """The frontier in two dimensions: what is faster than everything that is at least as good."""
    edge: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.quality, -getattr(p, name))):
        if not edge or getattr(point, name) > getattr(edge[-1], name):
            edge.append(point)
    return edge
