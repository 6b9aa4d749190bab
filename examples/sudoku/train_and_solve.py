"""Trains the Sudoku model from random weights and measures it: solved boards and steps, by grade.

Run `python examples/sudoku/train_and_solve.py FOLDER` where redraft is installed with its extras train and eval. It may
be interrupted at any time; the same command goes on. The result is FOLDER/solved.json, and printed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

STEP_LIMITS = (8, 4)
"""Denoising steps that a board may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, help="Steps of training.  [default: the recipe's]")
    parser.add_argument("--compile", action="store_true", help="Compile the layers; requires a C++ compiler.")
    parser.add_argument("--examples", type=int, default=200, help="Puzzles of each grade.")
    parser.add_argument("--train", nargs="*", default=[], metavar="NAME=VALUE", help="Other settings of the recipe.")
    options = parser.parse_args()
    run = options.folder / "run"
    train: list[object] = ["train", "sudoku", "--out", run, *(("--compile",) if options.compile else ())]
    train += [] if options.steps is None else ["--steps", options.steps]
    train += [part for setting in options.train for part in ("--set", setting)]
    subprocess.run(redraft(*train), check=True)
    found = {}
    for limit in STEP_LIMITS:
        solve = redraft("eval", "sudoku", "--pinned", "--model", run, "--examples", options.examples, "--json")
        done = subprocess.run([*solve, "--steps", str(limit)], check=True, stdout=subprocess.PIPE, text=True)
        found[f"at most {limit} steps"] = summary = json.loads(done.stdout)
        for grade, scores in summary["groups"].items():
            print(f"at most {limit} steps, {grade}: {scores['exact']:.1%} of {options.examples} boards solved, "
                  f"{scores['steps_per_canvas']} steps", flush=True)  # fmt: skip
    (options.folder / "solved.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def redraft(*arguments: object) -> list[str]:
    """Returns the command with these arguments, of the Python that runs this."""
    return [sys.executable, "-m", "redraft", *map(str, arguments)]


if __name__ == "__main__":
    main()
