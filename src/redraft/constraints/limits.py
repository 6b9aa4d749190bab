"""How much a build may take: states, seconds, memory. What is over is refused with the limit that it met."""

import time
from collections.abc import Callable
from dataclasses import dataclass

MIB = 1024 * 1024
CHECK_EVERY = 256
"""Expressions between two looks at the clock."""


@dataclass(frozen=True, kw_only=True)
class BuildLimits:
    """What one build may take.

    bytes: of expressions and of the automata's arrays, each estimated by itself. seconds: of processor time, so that a
    busy machine refuses nothing that a quiet one builds.
    """

    byte_states: int = 20_000
    token_states: int = 20_000
    arcs: int = 100_000
    bytes: int = 64 * MIB
    seconds: float = 2.0


class LimitExceeded(ValueError):
    """A constraint that is too large to build. limit: the name of the limit, a field of `BuildLimits`."""

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


class Budget:
    """What is left to one build of its limits. `cancel`, from any thread, ends the build at its next check.

    clock: what the seconds are counted by; by default those that the building thread computes.
    """

    def __init__(self, limits: BuildLimits | None = None, clock: Callable[[], float] = time.thread_time) -> None:
        self.limits = limits or BuildLimits()
        self._clock = clock
        self._ends = clock() + self.limits.seconds
        self._bytes = 0
        self._until_check = CHECK_EVERY
        self._is_cancelled = False

    def cancel(self) -> None:
        self._is_cancelled = True

    def spend(self, bytes: int) -> None:
        """Counts one expression of so many bytes."""
        self._bytes += bytes
        self._until_check -= 1
        if self._until_check <= 0:
            self._until_check = CHECK_EVERY
            self.check()

    def check(self) -> None:
        """Raises LimitExceeded if the time or the memory is spent, or the build was cancelled."""
        if self._is_cancelled:
            raise LimitExceeded("seconds", "the build of this constraint was cancelled")
        if self._clock() > self._ends:
            raise LimitExceeded(
                "seconds",
                f"this constraint takes longer than {self.limits.seconds:g} s of processor time to build: {_WAY_OUT}",
            )
        self.check_count("bytes", self._bytes)

    def check_count(self, limit: str, count: int) -> None:
        """Raises LimitExceeded if a count is above the limit of that name."""
        largest = getattr(self.limits, limit)
        if count > largest:
            unit = limit.replace("_", " ")
            raise LimitExceeded(limit, f"this constraint needs more than {largest:,} {unit}: {_WAY_OUT}")


_WAY_OUT = "shorten its lengths and repetitions, or split it into smaller ones"
