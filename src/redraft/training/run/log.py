"""The log of a run: one JSON object per line, for its report and for decisions that depend on its past."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from redraft.training.run.processes import is_first
from redraft.training.run.watchers import Watcher
from redraft.utils.files import write_whole

LOG_FILE = "log.jsonl"


class RunLog:
    """The log of a run up to a step. Each row has a kind ("progress" or "validation"), a step and numbers."""

    def __init__(self, folder: Path, step: int, watchers: Sequence[Watcher] = ()) -> None:
        """Opens the log of a run that continues from `step`; rows of later steps are dropped, to be logged again."""
        self._watchers = watchers
        self.path = folder / LOG_FILE
        self.rows = [row for row in read_rows(folder) if row["step"] <= step]
        if self.path.exists() and is_first():
            write_whole(self.path, "".join(map(_line, self.rows)))

    def add(self, kind: str, step: int, **values: float) -> None:
        """Appends a row. OSError naming the file if it cannot be written, for instance on a full disk."""
        row = {"kind": kind, "step": step} | {name: float(f"{value:.6g}") for name, value in values.items()}
        self.rows.append(row)
        if not is_first():
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(f"cannot write {self.path}: {error}; the checkpoints beside it are untouched") from None
        for watcher in self._watchers:
            watcher.logged(row)

    @property
    def validations(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == "validation"]

    @property
    def best(self) -> dict[str, Any] | None:
        return best_of(self.validations)

    def is_stale(self, patience: int) -> bool:
        """Returns whether `patience` validations have passed since the best one; never for 0."""
        return is_stale(self.validations, patience)


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows that a run has logged so far, without a last line that a kill cut off."""
    path = folder / LOG_FILE
    if not path.exists():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if line.endswith("\n"):
            try:
                yield json.loads(line)
            except ValueError:
                raise ValueError(f"{path}, line {number} is damaged; remove it to continue") from None


def best_of(validations: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the validation with the most exact answers; lower canvas loss, then the earlier step, breaks ties.

    One that comes after steps that distil is better than any before them.
    """
    return max(validations, key=lambda row: (row.get("distilled", 0), row["exact"], -row["canvas_loss"]), default=None)


def is_stale(validations: Sequence[dict[str, Any]], patience: int) -> bool:
    """Returns whether `patience` validations have passed since the best one; never for 0."""
    best = best_of(validations)
    if not patience or best is None:
        return False
    return len([row for row in validations if row["step"] > best["step"]]) >= patience


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
