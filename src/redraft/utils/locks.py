"""A lock on a folder that keeps processes apart."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextmanager
def lock_folder(folder: Path, *, busy: str, wait: bool = False) -> Iterator[None]:
    """Holds the one lock of an existing folder, which ends with the process at the latest.

    Raises ValueError(busy) where the lock is taken, also by this process; with `wait` it waits instead. Windows has no
    such lock: there nothing is held.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(busy) from None
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Tells whether a process holds the lock of a folder now."""
    try:
        with lock_folder(folder, busy=""):
            return False
    except ValueError:
        return True
