"""Busy processes that compete for the CPUs while something is measured."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from redraft.benchmark.timing import Comparison, Spread, alternate, ratio, seconds_of

REPEATS = 10
"""Runs per round: one alone may fit between two turns of a neighbour."""

# It ends by itself when the process that started it is gone, however that ended.
BUSY_LOOP = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(10_000))"


def measure_shared_speed(run: Callable[[], object], neighbours: int, rounds: int) -> Comparison:
    """Measures the seconds of a run alone ("ours") and beside so many busy processes; the ratio is the speed left."""
    quiet, busy = measure_in_turn(lambda: seconds_of(run, REPEATS), neighbours, rounds)
    return Comparison(Spread.of(quiet), Spread.of(busy), ratio(quiet, busy))


def measure_in_turn(measure: Callable[[], float], neighbours: int, rounds: int) -> list[list[float]]:
    """Measures once a round alone and once beside so many busy processes; returns the measurements of each."""
    with start_neighbours(neighbours) as running:

        def measure_beside() -> float:
            with running():
                return measure()

        return alternate(rounds, measure, measure_beside)


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
