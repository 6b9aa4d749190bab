"""The report of a run, drawn from its log: one HTML file that needs nothing else."""

import html
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.training.log import LOG_FILE, best_of, read_rows

REPORT_FILE = "report.html"
Rows = Sequence[dict[str, Any]]


def summarise(folder: Path) -> dict[str, Any]:
    """A run in one JSON object: where it stands, its last losses, its speed and its best validation.

    ValueError where it has not logged anything yet.
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
    """Writes report.html beside a run's checkpoints. ValueError where there is nothing to draw."""
    summary = summarise(folder)
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
    write_atomically(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def write_comparison(folders: Sequence[Path], target: Path) -> Path:
    """Draws several runs' losses over steps and over minutes, and their validations, into an SVG file.

    ValueError where one of them has nothing to draw.
    """
    panels: Panels = {
        "canvas loss (nats) by step": [],
        "canvas loss (nats) by minute": [],
        "encoder loss (nats) by step": [],
        "encoder loss (nats) by minute": [],
    }
    for folder in folders:
        summarise(folder)
        rows = [row for row in read_rows(folder) if row["kind"] == "progress"]
        minutes = [seconds / 60 for seconds in itertools.accumulate(row["seconds"] for row in rows)]
        steps = [row["step"] for row in rows]
        for name in ("canvas", "encoder"):
            losses = [row[f"{name}_loss"] for row in rows]
            panels[f"{name} loss (nats) by step"].append(Line(folder.name, steps, losses))
            panels[f"{name} loss (nats) by minute"].append(Line(folder.name, minutes, losses))
    write_atomically(target, _draw(panels, rows=2))
    return target


@dataclass(frozen=True)
class Line:
    """A curve of a panel; few points are marked."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    marked: bool = False


Panels = dict[str, list[Line]]


def _curves(rows: Rows) -> str:
    """An SVG element with a panel for each quantity over the steps."""
    progress = [row for row in rows if row["kind"] == "progress"]
    validations = [row for row in rows if row["kind"] == "validation"]

    def line(label: str, points: Rows, key: str) -> Line:
        return Line(label, [row["step"] for row in points], [row[key] for row in points], points is validations)

    return _draw(
        {
            "losses (nats)": [
                line("canvas", progress, "canvas_loss"),
                line("encoder", progress, "encoder_loss"),
                line("canvas, validation", validations, "canvas_loss"),
                line("encoder, validation", validations, "encoder_loss"),
            ],
            "exact match, validation": [line("", validations, "exact")],
            "denoising steps per canvas, validation": [line("", validations, "steps_per_canvas")],
            "learning rate": [line("", progress, "learning_rate")],
            "tokens per second": [line("", progress, "tokens_per_second")],
        },
        rows=3,
    )


def _draw(panels: Panels, rows: int) -> str:
    """An SVG element with the panels in `rows` rows of two; those of several lines have a logarithmic axis."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4 * rows), layout="constrained")
    FigureCanvasSVG(figure)
    places = figure.subplots(rows, 2).flat
    for axes, (title, lines) in zip(places, panels.items(), strict=False):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(title.partition(" by ")[2] or "step", fontsize=8)
        for line in lines:
            if line.x:
                style = "o-" if line.marked else "-"
                axes.plot(line.x, line.y, style, label=line.label, linewidth=1, markersize=3)
        if not any(line.x for line in lines):
            axes.text(0.5, 0.5, "none was made", transform=axes.transAxes, ha="center")
        if len(lines) > 1:
            axes.set_yscale("log")
            axes.legend(fontsize=7)
    for axes in list(places)[len(panels) :]:
        axes.set_visible(False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def write_atomically(target: Path, text: str) -> None:
    """Under another name first: a file that is there is whole."""
    temporary = target.with_name(f".{target.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
