"""Writes measured figures into docs/model-card.md, between `<!-- NAME -->` and `<!-- end of NAME -->`.

Run from the root of the checkout, on what the commands printed with --json:

    redraft eval wide --json --failures failed.jsonl > diffusion.jsonl
    redraft eval wide --json --mode verified > verified.jsonl
    redraft eval trust --json --picture docs/trust.svg > trust.json
    python tools/card.py --scores diffusion.jsonl verified.jsonl --failures failed-*.jsonl --trust trust.json
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from redraft.utils.files import write_whole

CARD = Path("docs/model-card.md")
FAILURES_SHOWN, CHARACTERS_SHOWN = 2, 90
"""Of each file of failures, and of each text in it."""


def scores(runs: Sequence[Sequence[dict[str, Any]]]) -> Iterator[str]:
    """Yields a table of the sets and their groups, with a column for each run, and the last one's share of fields."""
    modes = [run[0]["settings"].get("mode", "diffusion") for run in runs]
    exact = " | ".join(f"exact, {mode}" for mode in modes)
    yield f"| set, and its groups | cases | {exact} | fields right, {modes[-1]} | steps per canvas |"
    yield f"|---|---|{'---|' * (len(modes) + 2)}"
    for sets in zip(*runs, strict=True):
        (name,) = {one["task"] for one in sets}
        steps = sets[0]["steps_per_canvas"]
        yield f"| **{name}** | {sets[0]['examples']} | {columns(sets)} | {steps} |"
        for group in sets[0].get("groups", {}) if len(sets[0].get("groups", {})) > 1 else ():
            yield f"| {group} | | {columns([one['groups'][group] for one in sets])} | |"


def columns(runs: Sequence[dict[str, Any]]) -> str:
    """Returns how many records of a set each run has right, and how many fields the last, where there are any."""
    fields = runs[-1].get("fields_right")
    return " | ".join([*(share(one["exact"]) for one in runs), "" if fields is None else share(fields)])


def failures(files: Iterable[Path]) -> Iterator[str]:
    """Yields a table of the first failures of each file."""
    yield "| asked | right | got |"
    yield "|---|---|---|"
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()[:FAILURES_SHOWN]
        for row in map(json.loads, lines):
            yield f"| {' | '.join(cell(row[name]) for name in ('prompt', 'wanted', 'got'))} |"


def trust(measured: dict[str, Any]) -> Iterator[str]:
    """Yields a table of how far the numbers of trust are from the truth, and of accuracy by coverage."""
    groups = measured["groups"]
    shares = [name.removeprefix("right_at_") for name in next(iter(groups.values())) if name.startswith("right_at_")]
    columns = " | ".join(f"right at {one}" for one in shares)
    yield f"| | cases | mean probability | calibration error | {columns} |"
    yield f"|---|---|---|---|{'---|' * len(shares)}"
    for name, one in groups.items():
        right = " | ".join(share(one[f"right_at_{at}"]) for at in shares)
        said, error = share(one["mean_probability"]), share(one["calibration_error"])
        yield f"| {name} | {one['cases']} | {said} | {error} | {right} |"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def cell(text: str) -> str:
    """Returns a text as the code of a cell, on one line."""
    line = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return f"`{line if len(line) <= CHARACTERS_SHOWN else line[: CHARACTERS_SHOWN - 1] + '…'}`"


def replaced(page: str, name: str, lines: Iterable[str]) -> str:
    """Returns the page with the lines in the part of that name. Raises ValueError where it has no such part."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    made = "\n".join([begin, *lines, "", end])
    page, count = pattern.subn(lambda _: made, page)
    if count != 1:
        raise ValueError(f"{CARD} must have the part {name!r} once, it has it {count} times")
    return page


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("scores", "failures"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", default=[])
    parser.add_argument("--trust", type=Path)
    given = parser.parse_args()
    page = CARD.read_text(encoding="utf-8")
    if given.scores:
        page = replaced(page, "scores", scores([read_lines(file) for file in given.scores]))
    if given.failures:
        page = replaced(page, "failures", failures(given.failures))
    if given.trust is not None:
        page = replaced(page, "trust", trust(read_lines(given.trust)[0]))
    write_whole(CARD, page)


if __name__ == "__main__":
    main()
