"""Ctrl-C and SIGTERM, where they would do harm or go unheard. Imports nothing that takes time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def delay_interrupt() -> Iterator[None]:
    """Delays a ctrl-C to the end of the block, where the handler from before gets it: asyncio's, too, or none.

    Does nothing outside the main thread, and where the handler is not Python's to put back.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    received: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def treat_sigterm_as_interrupt() -> Iterator[None]:
    """Handles SIGTERM like ctrl-C within the block, so that schedulers and `kill` let a run save itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            # A shell's background processes ignore ctrl-C.
            raise KeyboardInterrupt
        handler(number, frame)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
