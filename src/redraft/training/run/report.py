"""The report of a run, drawn from its log: one self-contained HTML file."""

import html
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.training.run.answers import AFTER, BEFORE, limits_table, read_shown
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
    # The validations of older runs were not timed.
    validating = sum(row.get("seconds", 0.0) for row in validations)
    last = progress[-1]
    return {
        "run": str(folder),
        "step": last["step"],
        "seconds": round(seconds, 1),
        "tokens_per_second": round(sum(row["tokens_per_second"] * row["seconds"] for row in progress) / seconds, 1),
        "canvas_loss": last["canvas_loss"],
        "encoder_loss": last["encoder_loss"],
        "validation_share": round(validating / (seconds + validating), 3),
        "memory_bytes": max(int(row.get("memory_bytes", 0)) for row in progress) or None,
        "best": None if best is None else {name: value for name, value in best.items() if name != "kind"},
    }


def write_report(folder: Path) -> Path:
    """Writes report.html beside a run's checkpoints. ValueError if there is nothing to draw."""
    summary, rows = summarize(folder), list(read_rows(folder))
    table = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(json.dumps(value))}</td></tr>"
        for name, value in summary.items()
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>redraft training run</title>'
        "<style>body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "th{text-align:left;padding-right:1em}svg{width:100%;height:auto}"
        "td{vertical-align:top;padding-right:1em}td.text{white-space:pre-wrap;overflow-wrap:anywhere}"
        "thead th{border-bottom:1px solid}</style>"
        f"<h1>{html.escape(folder.name)}</h1><table>{table}</table>{_curves(rows)}{_limits(rows)}{_answers(folder)}"
        "</html>\n"
    )
    write_whole(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def _limits(rows: Rows) -> str:
    compared = limits_table(rows)
    if not compared:
        return ""
    head = ("denoising steps at most", "right before distilling", "after")
    return f"<h2>Fewer steps</h2>{_table(head, compared)}"


def _answers(folder: Path) -> str:
    shown = read_shown(folder)
    if not shown:
        return ""
    cells = [[row.get(name, "") for name in ("prompt", "expected", BEFORE, AFTER)] for row in shown]
    head = ("prompt", "right answer", "before", "after")
    return f"<h2>Answers to rows that were held out</h2>{_table(head, cells)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    lines = ("".join(f'<td class="text">{html.escape(cell)}</td>' for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def write_comparison(folders: Sequence[Path], target: Path) -> Path:
    """Plots the losses and validations of several runs, by step and by minute, into one SVG file.

    ValueError if one of them has nothing to draw.
    """
    panels = compare(folders)
    write_whole(target, _draw(panels, rows=len(panels) // 2))
    return target


def compare(folders: Sequence[Path]) -> list["Panel"]:
    """Returns the panels of a comparison: each available quantity by step and by minute, one line per run."""
    for folder in folders:
        summarize(folder)
    logs = [(name, list(read_rows(folder))) for name, folder in zip(_names(folders), folders, strict=True)]
    panels = [
        Panel(title, over, [_line(name, rows, kind, key, over) for name, rows in logs])
        for title, kind, key in (
            ("canvas loss (nats)", "progress", "canvas_loss"),
            ("encoder loss (nats)", "progress", "encoder_loss"),
            ("exact match, validation", "validation", "exact"),
        )
        for over in ("step", "minute")
    ]
    return [panel for panel in panels if any(line.x for line in panel.lines)]


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
    marked: bool


@dataclass(frozen=True)
class Panel:
    """A plot of a quantity over steps or minutes."""

    title: str
    over: str
    lines: list[Line]


def _line(label: str, rows: Rows, kind: str, key: str, over: str = "step") -> Line:
    minutes = [seconds / 60 for seconds in itertools.accumulate(row.get("seconds", 0.0) for row in rows)]
    points = [(row, minute) for row, minute in zip(rows, minutes, strict=True) if row["kind"] == kind]
    x = [row["step"] if over == "step" else minute for row, minute in points]
    return Line(label, x, [row[key] for row, _ in points], marked=kind == "validation")


def _curves(rows: Rows) -> str:
    def panel(title: str, *curves: tuple[str, str, str]) -> Panel:
        return Panel(title, "step", [_line(label, rows, kind, key) for label, kind, key in curves])

    losses = (
        ("canvas", "progress", "canvas_loss"),
        ("encoder", "progress", "encoder_loss"),
        ("canvas, validation", "validation", "canvas_loss"),
        ("encoder, validation", "validation", "encoder_loss"),
    )
    panels = [
        panel("losses (nats)", *losses),
        panel("exact match, validation", ("", "validation", "exact")),
        panel("denoising steps per canvas, validation", ("", "validation", "steps_per_canvas")),
        panel("learning rate", ("", "progress", "learning_rate")),
        panel("tokens per second", ("", "progress", "tokens_per_second")),
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
