"""The report of a run, drawn from its log: one self-contained HTML file."""

import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.training.run.log import LOG_FILE, best_of, read_rows
from redraft.utils.files import write_whole

REPORT_FILE = "report.html"
Rows = Sequence[dict[str, Any]]


def summarize(folder: Path) -> dict[str, Any]:
    """Summarizes a run as one JSON object: its step, last losses, speed and best validation.

    ValueError if it has not logged any progress yet.
    """
    rows = list(read_rows(folder))
    progress = [row for row in rows if row["kind"] == "progress"]
    if not progress:
        raise ValueError(f"{folder / LOG_FILE} has no progress yet: there is nothing to report")
    validations = [row for row in rows if row["kind"] == "validation"]
    best = best_of(validations)
    seconds = sum(row["seconds"] for row in progress)
    last = progress[-1]
    return {
        "run": str(folder),
        "step": last["step"],
        "seconds": round(seconds, 1),
        "tokens_per_second": round(sum(row["tokens_per_second"] * row["seconds"] for row in progress) / seconds, 1),
        "canvas_loss": last["canvas_loss"],
        "encoder_loss": last["encoder_loss"],
        "best": None if best is None else {name: value for name, value in best.items() if name != "kind"},
    }


def write_report(folder: Path) -> Path:
    """Writes report.html beside a run's checkpoints. ValueError if there is nothing to draw."""
    summary = summarize(folder)
    rows = list(read_rows(folder))
    table = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(json.dumps(value))}</td></tr>"
        for name, value in summary.items()
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>redraft training run</title>'
        "<style>body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "th{text-align:left;padding-right:1em}svg{width:100%;height:auto}</style>"
        f"<h1>{html.escape(folder.name)}</h1><table>{table}</table>{_curves(rows)}</html>\n"
    )
    write_whole(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def write_comparison(folders: Sequence[Path], target: Path) -> Path:
    """Plots the losses and validations of several runs, by step and by minute, into one SVG file.

    ValueError if one of them has nothing to draw.
    """
    panels = compare(folders)
    write_whole(target, _draw(panels, rows=len(panels) // 2))
    return target


def compare(folders: Sequence[Path]) -> list["Panel"]:
    """Returns the panels of a comparison: each available quantity by step and by minute, one line per run."""
    panels = []
    for title, kind, key in (
        ("canvas loss (nats)", "progress", "canvas_loss"),
        ("encoder loss (nats)", "progress", "encoder_loss"),
        ("exact match, validation", "validation", "exact"),
    ):
        by_step, by_minute = Panel(title, "step", []), Panel(title, "minute", [])
        for name, folder in zip(_names(folders), folders, strict=True):
            summarize(folder)
            steps, minutes, values, seconds = [], [], [], 0.0
            for row in read_rows(folder):
                seconds += row.get("seconds", 0.0)
                if row["kind"] == kind:
                    steps.append(row["step"])
                    minutes.append(seconds / 60)
                    values.append(row[key])
            marked = kind == "validation"
            by_step.lines.append(Line(name, steps, values, marked))
            by_minute.lines.append(Line(name, minutes, values, marked))
        if any(line.x for line in by_step.lines):
            panels += [by_step, by_minute]
    return panels


def _names(folders: Sequence[Path]) -> list[str]:
    """Returns the shortest ends of the paths that tell the folders apart."""
    paths = [folder.resolve().parts for folder in folders]
    length = next(n for n in range(1, 100) if len({path[-n:] for path in paths}) == len(set(paths)))
    return ["/".join(path[-length:]) for path in paths]


@dataclass(frozen=True)
class Line:
    """A curve of a panel; `marked` shows its points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """A plot of a quantity over steps or minutes."""

    title: str
    over: str
    lines: list[Line]


def _curves(rows: Rows) -> str:
    progress = [row for row in rows if row["kind"] == "progress"]
    validations = [row for row in rows if row["kind"] == "validation"]

    def line(label: str, points: Rows, key: str) -> Line:
        return Line(label, [row["step"] for row in points], [row[key] for row in points], points is validations)

    losses = [
        line("canvas", progress, "canvas_loss"),
        line("encoder", progress, "encoder_loss"),
        line("canvas, validation", validations, "canvas_loss"),
        line("encoder, validation", validations, "encoder_loss"),
    ]
    panels = [
        Panel("losses (nats)", "step", losses),
        Panel("exact match, validation", "step", [line("", validations, "exact")]),
        Panel("denoising steps per canvas, validation", "step", [line("", validations, "steps_per_canvas")]),
        Panel("learning rate", "step", [line("", progress, "learning_rate")]),
        Panel("tokens per second", "step", [line("", progress, "tokens_per_second")]),
    ]
    return _draw(panels, rows=3)


def _draw(panels: Sequence[Panel], rows: int) -> str:
    """Returns an SVG element with the panels in `rows` rows of two; losses have a logarithmic axis."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4 * rows), layout="constrained")
    FigureCanvasSVG(figure)
    places = list(figure.subplots(rows, 2).flat)
    for axes, panel in zip(places, panels, strict=False):
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.over, fontsize=8)
        for line in panel.lines:
            if line.x:
                style = "o-" if line.marked else "-"
                axes.plot(line.x, line.y, style, label=line.label, linewidth=1, markersize=3)
        if not any(line.x for line in panel.lines):
            axes.text(0.5, 0.5, "no validations", transform=axes.transAxes, ha="center")
        if "loss" in panel.title:
            axes.set_yscale("log")
        if len(panel.lines) > 1 and any(line.x for line in panel.lines):
            axes.legend(fontsize=7)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]
