"""Building constraints in a process of its own: pure Python, it would hold up every other thread of this one."""

import base64
import json
import sys
import threading
from pathlib import Path

import numpy as np

from redraft.constraints.build import ConstraintSpec, described
from redraft.constraints.limits import MIB, BuildLimits
from redraft.constraints.process import worker
from redraft.constraints.tokens import TokenAutomaton
from redraft.constraints.tool_calls import ChatSpec
from redraft.constraints.vocabulary import Vocabulary
from redraft.utils.line_process import LineProcess

START_SECONDS = 60.0
PATIENCE = 5
"""As many times the processor's seconds that a build may take it may last, before its process is ended."""
MAX_MEMORY = 150 * MIB
"""What the process may take beyond its vocabulary."""
MAX_REPLY = 64 * MIB
ENVIRONMENT = ("TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")
BOOT = (
    "import os, sys; os.environ['OPENBLAS_NUM_THREADS'] = '1'; sys.path += sys.argv[1:]; "
    "from redraft.constraints.process.worker import main; main()"
)


class BuildRefused(ValueError):
    """A constraint that was not built. reason: "schema", "invalid", "too_large" or "broken"."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Builder:
    """A process that builds constraints with one vocabulary, one at a time; started at need, and again if it dies.

    seconds: the processor's time that one build may take. Safe to use from several threads.
    """

    def __init__(self, vocabulary: Vocabulary, *, seconds: float = BuildLimits().seconds) -> None:
        self._vocabulary, self._seconds = vocabulary, seconds
        self._process: LineProcess | None = None
        self._lock = threading.Lock()
        self._is_stopped = False

    def start(self) -> None:
        """Starts the process, unless it runs. RuntimeError if it does not start."""
        with self._lock:
            self._running()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self._process is None or not self._process.alive else self._process.pid

    def build(self, spec: ConstraintSpec | ChatSpec) -> TokenAutomaton:
        """Returns the automaton of a constraint. BuildRefused if it is refused, RuntimeError without a process."""
        given = {"spec": worker.spec_to_json(spec), "seconds": self._seconds}
        reply = self._ask(json.dumps(given).encode() + b"\n")
        if "refused" in reply:
            raise BuildRefused(reply["refused"], reply["reason"])
        return described(TokenAutomaton.from_bytes(base64.b64decode(reply["automaton"])), spec, self._vocabulary)

    def stop(self) -> None:
        """Ends the process for good; a build that it is at is refused."""
        self._is_stopped = True
        # Without the lock, which that build holds.
        self._end()

    def _end(self) -> None:
        if (process := self._process) is not None:
            process.stop()

    def _ask(self, line: bytes) -> dict[str, str]:
        with self._lock:
            # It may have been killed for what is not this constraint's doing: once more, and not again.
            for _ in range(2):
                process = self._running()
                reply = process.exchange(line, PATIENCE * self._seconds, MAX_REPLY)
                if reply is not None:
                    found: dict[str, str] = json.loads(reply)
                    return found
                process.stop()
                if process.timed_out.is_set():
                    told = f"this constraint is not built after {PATIENCE * self._seconds:g} s: shorten it"
                    raise BuildRefused(told, "too_large")
        raise BuildRefused("the process that builds constraints died over this one, twice", "broken")

    def _running(self) -> LineProcess:
        if self._is_stopped:
            raise BuildRefused("no more constraints are built: shutting down", "broken")
        if self._process is None or not self._process.alive:
            self._end()
            process = LineProcess(_command(), ENVIRONMENT)
            setup = {"vocabulary": worker.vocabulary_to_json(self._vocabulary), "memory": MAX_MEMORY}
            if process.exchange(json.dumps(setup).encode() + b"\n", START_SECONDS, MAX_REPLY) is None:
                process.stop()
                raise RuntimeError("the process that builds constraints did not start: check memory and limits")
            self._process = process
        return self._process


def _command() -> list[str]:
    # Only what it needs, by the folders that hold it.
    folders = [Path(worker.__file__).resolve().parents[3], Path(np.__file__).resolve().parents[1]]
    return [sys.executable, "-I", "-S", "-c", BOOT, *map(str, folders)]
