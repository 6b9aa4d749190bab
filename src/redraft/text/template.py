"""Rendering of a checkpoint's chat template, an untrusted program, so that it can neither reach nor stall us.

Jinja's sandbox keeps a template from Python's objects but bounds neither time nor memory, and no hook inside the
interpreter can: one call of a filter may run for hours in C. So the template is rendered in a process of its own
(`template_worker.py`), started at the first rendering and kept for the next ones (a start costs about 50 ms, a
rendering well under one). What bounds it:

- time: a timer thread kills the process at the limit, wherever the template is; this works from any thread. Should we
  die first, the worker's own alarm ends it a second later (not on Windows);
- memory: an address-space limit on the worker (Linux only; elsewhere time and output bound it);
- size: of the source here, of the output in the worker as it is written;
- reach: the sandbox, and beyond it a process without our environment variables.
"""

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe

from redraft.text import template_worker
from redraft.utils.line_process import LineProcess

START_SECONDS = 60.0
STALLED = 10
"""How many times its processor time a rendering may take by the clock: other work may have the machine."""

# The worker must not import `redraft`, whose façade loads torch: it runs by path, with only Jinja's folders to import.
BOOT = "import runpy, sys; sys.path += sys.argv[2:]; runpy.run_path(sys.argv[1], run_name='__main__')"
ENVIRONMENT = ("TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True, kw_only=True)
class TemplateLimits:
    """Bounds of one rendering: seconds of processor time, characters of source and output, bytes of its process."""

    seconds: float = 2.0
    max_source: int = 256 * 1024
    max_output: int = 4 * 1024 * 1024
    max_memory: int = 512 * 1024 * 1024


class ChatTemplate:
    """A Jinja chat template with the functions checkpoints expect (`raise_exception`, `strftime_now`, `tojson`, ...).

    `literals` are replaced wherever the template itself writes them, in its text or in its string constants, and
    nowhere else. Safe to use from several threads (renderings take turns) and after a fork. Raises ValueError if the
    source is too long; a source that is not valid Jinja is refused by the first `render`.
    """

    def __init__(
        self, source: str, *, literals: Mapping[str, str] | None = None, limits: TemplateLimits | None = None
    ) -> None:
        self.source = source
        self.limits = limits or TemplateLimits()
        if len(source) > self.limits.max_source:
            raise ValueError(
                f"the chat template has {len(source)} characters, the limit is {self.limits.max_source}: shorten it"
            )
        setup = {"source": source, "literals": dict(literals or {}), **dataclasses.asdict(self.limits)}
        self._setup = json.dumps(setup).encode() + b"\n"
        # An astral character takes 12 bytes in JSON.
        self._max_reply = 12 * self.limits.max_output + 1024
        self._worker: LineProcess | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def render(self, variables: Mapping[str, object]) -> str:
        """Returns the rendered text. Variables are JSON values.

        Raises ValueError, in one line, if a variable is not JSON, or if the template is not valid Jinja, fails, calls
        `raise_exception`, or exceeds a limit.
        """
        try:
            request = json.dumps(variables).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the chat template accepts only JSON values: {error}") from None
        if self._owner != os.getpid():
            # A fork copied pipes, and perhaps a held lock, that belong to the parent's worker.
            self._worker, self._lock, self._owner = None, threading.Lock(), os.getpid()
        with self._lock:
            reply = json.loads(self._ask(request))
        if "error" in reply:
            raise ValueError(f"the chat template failed: {reply['error']}")
        text: str = reply["text"]
        return text

    def _ask(self, request: bytes) -> bytes:
        if self._worker is None or not self._worker.alive:
            self._stop()
            worker = LineProcess(_command(), ENVIRONMENT)
            if worker.exchange(self._setup, START_SECONDS, self._max_reply) is None:
                worker.stop()
                raise ValueError("the chat template's process did not start: check memory and process limits")
            self._worker = worker
        try:
            reply = self._worker.exchange(request, STALLED * self.limits.seconds, self._max_reply)
        except BaseException:
            # Interrupted between question and answer: the next caller must not get this one's answer.
            self._stop()
            raise
        if reply is not None:
            return reply
        timed_out = self._worker.timed_out.is_set()
        self._stop()
        if timed_out:
            raise ValueError(f"the chat template took longer than {self.limits.seconds:g} s: it loops or is too costly")
        raise ValueError("the chat template broke its process: it recurses too deeply or needs too much memory")

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


def _command() -> list[str]:
    folders = {str(Path(module.__file__ or "").resolve().parents[1]) for module in (jinja2, markupsafe)}
    return [sys.executable, "-I", "-S", "-c", BOOT, str(Path(template_worker.__file__).resolve()), *sorted(folders)]
