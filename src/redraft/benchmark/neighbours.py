"""Busy processes that compete for the CPUs while something is measured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from redraft.benchmark.timing import Spread, ratio

REPEATS = 10
"""Runs per round: one alone may fit between two turns of a neighbour."""

# It ends by itself when the process that started it is gone, however that ended.
BUSY_LOOP = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(10_000))"


@dataclass(frozen=True)
class SharedSpeed:
    """Seconds of a run on a quiet machine and beside neighbours, and the speed that is left, by round."""

    quiet: Spread
    shared: Spread
    share_of_quiet: Spread


def measure_shared_speed(run: Callable[[], object], neighbours: int, rounds: int) -> SharedSpeed:
    """Measures a run alone and beside so many busy processes, alternating."""

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(REPEATS):
            run()
        return (time.perf_counter() - start) / REPEATS

    quiet, shared = [], []
    with start_neighbours(neighbours) as running:
        run()
        for _ in range(rounds):
            quiet.append(seconds())
            with running():
                shared.append(seconds())
    return SharedSpeed(Spread.of(quiet), Spread.of(shared), ratio(quiet, shared))


@contextmanager
def start_neighbours(count: int) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Starts `count` processes that keep a CPU busy each, and stops them; yields a context in which they run."""
    processes = [subprocess.Popen([sys.executable, "-S", "-c", BUSY_LOOP]) for _ in range(count)]

    def send(number: int) -> None:
        for process in processes:
            os.kill(process.pid, number)

    @contextmanager
    def running() -> Iterator[None]:
        send(signal.SIGCONT)
        try:
            yield
        finally:
            send(signal.SIGSTOP)

    try:
        send(signal.SIGSTOP)
        yield running
    finally:
        for process in processes:
            process.kill()
            process.wait()
