"""A process that answers each line on its standard input with one on its standard output, and can be ended any time."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence

OUT_OF_TIME = -signal.SIGPROF if sys.platform != "win32" else None
"""The return code of a process that ended at its own limit of processor time."""


class LineProcess:
    """The child process and one line of conversation with it at a time.

    environment: the names of the variables of ours that it gets. timed_out: set once it was killed for being slow, or
    ended at its own limit of processor time.
    """

    def __init__(self, command: Sequence[str], environment: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in environment if name in os.environ},
        )
        self.timed_out = threading.Event()
        self.stop = weakref.finalize(self, _end, self._process, os.getpid())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def exchange(self, line: bytes, seconds: float, max_reply: int) -> bytes | None:
        """Returns the reply to a line; None if the process ended, was killed after `seconds`, or wrote too much."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        try:
            stdin.write(line)
            stdin.flush()
            reply = stdout.readline(max_reply)
        except OSError:
            return None
        finally:
            timer.cancel()
            timer.join()
        if reply.endswith(b"\n"):
            return reply
        if len(reply) < max_reply:  # its end, not too long a line
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self._process.wait(1.0) == OUT_OF_TIME:
                    self.timed_out.set()
        return None

    def _expire(self) -> None:
        self.timed_out.set()
        self._process.kill()


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return
    process.kill()
    try:
        process.communicate()
    except OSError:  # what was not yet written to it
        process.wait()
