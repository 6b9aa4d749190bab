"""The report of a run, drawn from its log: one HTML file that needs nothing else."""

import html
import io
import json
from collections.abc import Sequence
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
    target = folder / REPORT_FILE
    temporary = target.with_name(f".{REPORT_FILE}.partial")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)
    return target


def _curves(rows: Rows) -> str:
    """An SVG element with a panel for each quantity over the steps."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    progress = [row for row in rows if row["kind"] == "progress"]
    validations = [row for row in rows if row["kind"] == "validation"]
    panels: dict[str, list[tuple[str, Rows, str]]] = {
        "losses (nats)": [
            ("canvas", progress, "canvas_loss"),
            ("encoder", progress, "encoder_loss"),
            ("canvas, validation", validations, "canvas_loss"),
            ("encoder, validation", validations, "encoder_loss"),
        ],
        "exact match, validation": [("", validations, "exact")],
        "denoising steps per canvas, validation": [("", validations, "steps_per_canvas")],
        "learning rate": [("", progress, "learning_rate")],
        "tokens per second": [("", progress, "tokens_per_second")],
    }
    figure = Figure(figsize=(9, 12), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, (title, lines) in zip(figure.subplots(3, 2).flat, panels.items(), strict=False):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        for label, points, key in lines:
            if points:
                style = "o-" if points is validations else "-"
                axes.plot(
                    [row["step"] for row in points], [row[key] for row in points], style,
                    label=label, linewidth=1, markersize=3,
                )  # fmt: skip
        if not any(points for _, points, _ in lines):
            axes.text(0.5, 0.5, "none was made", transform=axes.transAxes, ha="center")
        if len(lines) > 1:
            axes.set_yscale("log")
            axes.legend(fontsize=7)
    figure.axes[-1].set_visible(False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]
