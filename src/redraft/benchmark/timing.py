"""Comparable timing: medians and spread, ratios round by round, and the machine they were measured on."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from redraft.model.native.build import load_kernels

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The median, quartiles and number of some measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        low, median, high = quartiles
        return cls(median, low, high, len(values))

    def scaled(self, factor: float) -> "Spread":
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.count)

    def to_json(self) -> dict[str, float]:
        return {
            "median": float(f"{self.median:.5g}"),
            "low": float(f"{self.low:.5g}"),
            "high": float(f"{self.high:.5g}"),
            "count": self.count,
        }


@dataclass(frozen=True)
class Comparison:
    """What was measured of two programs in turn, and the ratio round by round."""

    ours: Spread
    theirs: Spread
    ratio: Spread


def alternate(
    rounds: int, *sides: Callable[[], T], warm_up: Sequence[Callable[[], object]] | None = None
) -> list[list[T]]:
    """Measures every side once a round, forwards and backwards by turns; returns the measurements of each side.

    warm_up: called before; by default the sides, which takes as long as one more round. What slows the machine for a
    while slows all sides alike.
    """
    for warm in sides if warm_up is None else warm_up:
        warm()
    found: list[list[T]] = [[] for _ in sides]
    for number in range(rounds):
        for side, measured in list(zip(sides, found, strict=True))[:: 1 if number % 2 else -1]:
            measured.append(side())
    return found


def seconds_of(run: Callable[[], object], repeats: int = 1) -> float:
    """Measures the mean seconds of one of `repeats` runs."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def ratio(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """Divides round by round: how many times as long the first took."""
    return Spread.of([a / b for a, b in zip(slower, faster, strict=True)])


def describe_machine() -> dict[str, Any]:
    """Describes what a measurement depends on; load: the number of processes that wanted to run."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "kernels": load_kernels() is not None,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "redraft": importlib.metadata.version("redraft"),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
