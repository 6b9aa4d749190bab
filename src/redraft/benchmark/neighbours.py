"""Busy processes that compete for the CPUs while something is measured."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# It ends by itself when the process that started it is gone, however that ended.
BUSY_LOOP = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(10_000))"


class Neighbours:
    """Processes that do nothing but keep a CPU busy; they stand still until they are let run."""

    def __init__(self, count: int) -> None:
        self._processes = [subprocess.Popen([sys.executable, "-S", "-c", BUSY_LOOP]) for _ in range(count)]
        self._send(signal.SIGSTOP)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Lets them run during the block."""
        self._send(signal.SIGCONT)
        try:
            yield
        finally:
            self._send(signal.SIGSTOP)

    def close(self) -> None:
        """Ends them."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _send(self, number: int) -> None:
        for process in self._processes:
            os.kill(process.pid, number)
