"""`redraft serve` in a process of its own, for the time of a measurement or a test."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

COMMAND = (sys.executable, "-c", "from redraft.cli import main; main()", "serve")
READY_MARK = " at http"
MAX_EXIT_SECONDS = 30.0


@dataclass(frozen=True)
class Serving:
    """A server that is ready: its URL without /v1, and its process."""

    url: str
    process: "subprocess.Popen[str]"


@contextmanager
def serving(model: str, *options: str) -> Iterator[Serving]:
    """Serves a model on a free port until the end of the block, with further options of `redraft serve`.

    Raises ValueError, with the server's last line, where it does not become ready.
    """
    # This process's key for another server is not meant for this one.
    environment = {name: value for name, value in os.environ.items() if name != "REDRAFT_API_KEY"}
    # The options say all of what is measured.
    environment["REDRAFT_CONFIG"] = os.devnull
    # It must run the same source as this process.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*COMMAND, model, "--port", "0", *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        previous = _exit_on_sigterm()
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            if READY_MARK not in ready:
                process.wait()
                raise ValueError(f"the server did not start: {_last_line(log) or ready.strip()}")
            yield Serving("http" + ready.partition(READY_MARK)[2].split()[0], process)
        finally:
            end(process)
            if previous is not None:
                signal.signal(signal.SIGTERM, previous)


def end(process: "subprocess.Popen[str]") -> int:
    """Ends a server, by force if it takes too long. Returns its exit code."""
    process.terminate()
    try:
        code = process.wait(MAX_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return code


def _exit_on_sigterm() -> Any:
    """Makes SIGTERM an exit, which ends the server too. Returns the previous handler, None where nothing changed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return None
    return signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1].removeprefix("redraft: ") if lines else ""
