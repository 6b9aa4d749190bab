"""Busy processes beside a measurement: they run when they are let, and are gone afterwards."""

import os
import time
from pathlib import Path

from redraft.benchmark.neighbours import REPEATS, measure_shared_speed, start_neighbours


def children() -> dict[int, tuple[str, int]]:
    """The state and CPU ticks of this process's children that are neighbours."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            command = (status.parent / "cmdline").read_bytes()
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if b"os.getppid() == parent" in command and fields[1] == str(os.getpid()):
            found[int(status.parent.name)] = (fields[0], int(fields[11]) + int(fields[12]))
    return found


def test_they_run_only_when_they_are_let_and_are_gone_afterwards():
    with start_neighbours(2) as running:
        until(lambda: [state for state, _ in children().values()] == ["T", "T"])
        before = sum(ticks for _, ticks in children().values())
        with running():
            until(lambda: sum(ticks for _, ticks in children().values()) > before + 5)
        until(lambda: [state for state, _ in children().values()] == ["T", "T"])
    assert children() == {}


def test_a_run_is_measured_alone_and_beside_them():
    calls = []
    found = measure_shared_speed(lambda: calls.append(len(children())), neighbours=1, rounds=2)
    assert len(calls) == 3 * 2 * REPEATS
    assert set(calls) == {1}
    assert (found.ours.count, found.theirs.count, found.ratio.count) == (2, 2, 2)


def until(is_true) -> None:
    end = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)
