"""How many threads compute, and how they wait for each other. OpenMP reads both once: this imports no torch.

An operation of a small model takes microseconds, and its threads meet at a barrier after each. GNU OpenMP lets the
first to arrive spin for about 3 ms: beside a busy neighbour, which holds the core that the others need, most of a step
is spent so. A short spin followed by sleep costs nothing on a quiet machine.
"""

import logging
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SPIN_COUNT = 1000
"""Turns of GNU OpenMP's spin before a thread sleeps, a few microseconds. Its own default is 300,000."""

WAITING_VARIABLES = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
LATE = (
    "torch was imported before redraft, so its threads spin where they wait: beside other busy processes that is many "
    "times slower. Import redraft first, or start the program with GOMP_SPINCOUNT=%d"
)

MAX_THREADS = 1024

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")


def configure_threads() -> None:
    """Tells OpenMP how many threads to start and how they wait. What the environment already says is left alone.

    Called when `redraft` is imported. Where torch was imported before, only the number of threads can still be chosen:
    OpenMP has read how they wait, and has no call to change it. If there is more than one, the log then says so.
    """
    _choose_number()
    if not WAITING_VARIABLES & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
        torch = sys.modules.get("torch")
        if torch and sys.platform == "linux" and torch.get_num_threads() > 1:
            # Not a warning: those are errors in many a test suite, and the order of imports is not always one's own.
            logging.getLogger(__name__).warning(LATE, SPIN_COUNT)


def _choose_number() -> None:
    environment = os.environ
    try:
        threads = requested_threads()
    except ValueError:
        return  # Whoever computes raises it: an import is no place for that.
    if threads is None and "OMP_NUM_THREADS" not in environment and (cpus := available_cpus()) < visible_cpus():
        threads = cpus
    if threads is None:
        return
    environment["OMP_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def requested_threads() -> int | None:
    """Returns the number that REDRAFT_THREADS asks for, None if it is not set. Raises ValueError for a bad one."""
    text = os.environ.get("REDRAFT_THREADS")
    return _parse("REDRAFT_THREADS", text) if text else None


def use_threads(number: int) -> None:
    """Computes with this many threads from now on, in this process and in those that it starts.

    Raises ValueError for a number below 1 or above MAX_THREADS.
    """
    os.environ["REDRAFT_THREADS"] = str(_parse("--threads", str(number)))
    configure_threads()


def _parse(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_THREADS):
        raise ValueError(f"{name} is {text}, must be a whole number from 1 to {MAX_THREADS}")
    return int(text)


def visible_cpus() -> int:
    """Returns the number of CPUs that this process may run on: its affinity."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have none to tell
        return os.cpu_count() or 1


def available_cpus() -> int:
    """Returns the CPUs that this process may keep busy: its affinity, or less under a control group's quota."""
    return max(1, min([visible_cpus(), *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yields the CPUs that each control group around this process allows, version 2 and 1 (`docker --cpus=2`)."""
    try:
        lines = CGROUP_OF_PROCESS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        is_second = not controllers
        if not is_second and "cpu" not in controllers.split(","):
            continue
        root = CGROUP_ROOT if is_second else CGROUP_ROOT / "cpu"
        path = PurePosixPath(group.lstrip("/"))
        # In a container the path may be the host's, whose folders are not there: the root then has the quota.
        for folder in (root / path, *(root / parent for parent in path.parents)):
            if quota := _read_quota(folder, is_second):
                yield quota


def _read_quota(folder: Path, is_second: bool) -> float | None:
    try:
        if is_second:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None
