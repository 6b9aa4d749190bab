"""How good a fine-tuned model is after 50, 200, 1,000 and 10,000 rows: trains, tests and draws the curve.

Run `python examples/support-mails/curve.py FOLDER` where redraft is installed with its extras train and eval. It may be
interrupted at any time; the same command goes on. The results are FOLDER/curve.json and FOLDER/curve.svg.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

from make_mails import KNOWN, UNKNOWN, write
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from task import COLUMNS, PROMPT, redraft, write_cases

ROWS = "50,200,1000,10000"
TESTS = {"known": "new mails in wordings of the rows", "unknown": "new mails in other wordings"}
MODES = ("auto", "diffusion")
STYLES = {"auto": "o-", "diffusion": "o--"}
SEEDS = {"rows": 1, "known": 3, "unknown": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default=ROWS, help="Numbers of rows, separated by commas.  [default: %(default)s]")
    parser.add_argument("--tested", type=int, default=100, help="Mails of each test.  [default: %(default)s]")
    parser.add_argument("--steps", type=int, help="Steps of each training.  [default: what the number of rows gives]")
    options = parser.parse_args()
    counts = sorted(map(int, options.rows.split(",")))
    make_data(options.folder, counts, options.tested)
    results = options.folder / "curve.json"
    points: dict[str, Any] = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    for count in counts:
        if str(count) not in points:
            points[str(count)] = measure(options.folder, count, options.tested, options.steps)
            write_whole(results, json.dumps(points, indent=2) + "\n")
        print(f"{count:,} rows: {points[str(count)]}", flush=True)
    draw(points, options.folder / "curve.svg")


def make_data(folder: Path, counts: list[int], tested: int) -> None:
    """Writes a table for each number of rows, the larger ones beginning as the smaller ones, and the two tests."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: frozenset[str] = frozenset()
    for count in counts:
        rows |= write(folder / f"{count}.csv", count, SEEDS["rows"], KNOWN)
    for name, wordings in (("known", KNOWN), ("unknown", UNKNOWN)):
        write(folder / f"{name}.csv", tested, SEEDS[name], wordings, without=rows)
        write_cases(folder / f"{name}.csv", tested)


def measure(folder: Path, count: int, tested: int, steps: int | None) -> dict[str, Any]:
    """Trains an adapter on so many rows, or goes on with it; what it gets right of each test, and in how many steps."""
    run = folder / f"run-{count}"
    train = ["finetune", folder / f"{count}.csv", "--template", PROMPT, "--columns", ",".join(COLUMNS), "--out", run]
    subprocess.run(redraft(*train, *([] if steps is None else ["--steps", steps])), check=True)
    point: dict[str, Any] = {"tested": tested}
    for name in TESTS:
        point[name] = {mode: answer(folder / f"{name}.jsonl", run, mode) for mode in MODES}
    return point


def answer(cases: Path, run: Path, mode: str) -> dict[str, float]:
    """Has the adapter answer a test; the share of right answers, and the denoising steps of a canvas."""
    test = redraft("eval", "rows", cases, "--adapter", run, "--mode", mode, "--max-new-tokens", 64, "--json")
    summary = json.loads(subprocess.run(test, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {key: summary[key] for key in ("exact", "steps_per_canvas")}


def draw(points: dict[str, Any], path: Path) -> None:
    """Draws the share of right answers in each mode, and the steps of those by diffusion, over the number of rows."""
    counts = sorted(map(int, points))
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasSVG(figure)
    panels = ((("exact", "right in every character"), MODES), (("steps_per_canvas", "denoising steps"), MODES[1:]))
    for axes, ((key, label), modes) in zip(figure.subplots(1, 2), panels, strict=True):
        for (name, title), color in zip(TESTS.items(), ("tab:blue", "tab:orange"), strict=True):
            for mode in modes:
                values = [points[str(count)][name][mode][key] for count in counts]
                axes.plot(counts, values, STYLES[mode], color=color, label=f"{title}, {mode}", markersize=4)
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.set_ylim(0, 1.02 if key == "exact" else None)
        axes.set_xlabel("rows")
        axes.set_ylabel(label)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="svg", metadata={"Date": None})
    partial.replace(path)


def write_whole(path: Path, text: str) -> None:
    """Writes a file under another name first: an interrupted run leaves the old one."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
