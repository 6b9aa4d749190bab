"""`redraft serve` in a process of its own: started for a measurement or a test, and ended with it."""

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
READY = " at http"
ENDING_SECONDS = 30.0


@dataclass(frozen=True)
class Serving:
    """A server that is ready: its URL without /v1, and its process."""

    url: str
    process: "subprocess.Popen[str]"


@contextmanager
def serving(model: str, *options: str) -> Iterator[Serving]:
    """Serves a model on a free port until the end of the block, with further options of `redraft serve`.

    ValueError, with the server's last line, where it does not come to be ready.
    """
    # A key that this process has for another server is not meant for this one.
    environment = {name: value for name, value in os.environ.items() if name != "REDRAFT_API_KEY"}
    # It shall be of the same source as this process.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*COMMAND, model, "--port", "0", *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        before = _sigterm_as_exit()
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            if READY not in ready:
                process.wait()
                raise ValueError(f"the server did not start: {_last_line(log) or ready.strip()}")
            yield Serving("http" + ready.partition(READY)[2].split()[0], process)
        finally:
            end(process)
            if before is not None:
                signal.signal(signal.SIGTERM, before)


def end(process: "subprocess.Popen[str]") -> int:
    """Asks it to end, and waits; kills what does not. Its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        code = process.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return code


def _sigterm_as_exit() -> Any:
    """So that who is asked to end does not leave its server behind. What was there before, None where it stays."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return None
    return signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    lines = log.read().strip().splitlines()
    return lines[-1].removeprefix("redraft: ") if lines else ""
