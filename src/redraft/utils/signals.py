"""Ctrl-C and SIGTERM, where they would do harm or go unheard. Imports nothing that takes time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Raises KeyboardInterrupt at the end of what is inside instead of in its middle; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def termination_is_ctrl_c() -> Iterator[None]:
    """What SIGTERM does inside is what ctrl-C does: schedulers and `kill` let a run save itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heard(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            # A shell's background processes ignore ctrl-C.
            raise KeyboardInterrupt
        handler(number, frame)

    before = signal.signal(signal.SIGTERM, heard)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
