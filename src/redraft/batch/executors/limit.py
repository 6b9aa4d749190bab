"""How many requests at a time an endpoint answers well: found by trying, and found again when that changes."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

FIRST_LIMIT = 4
MIN_WINDOW = 8
"""Answers after which a limit is judged, at least; else as many as the limit."""
MIN_GAIN = 1.05
"""A larger limit that brings no more answers per second than this times as many brings nothing but waiting."""
HELD_WINDOWS = 8
"""As many windows a limit is kept after a larger one brought nothing."""
STEP = 0.1
"""By this part a limit grows once it has been too large; before, it doubles."""


class AdaptiveLimit:
    """Slots for requests, fewer or more of them as the endpoint bears.

    It doubles while that brings more answers per second, is halved where the endpoint says it is busy, and then grows
    slowly. Where more at a time only makes each wait longer it goes back. most: slots at most. clock: for tests.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self._clock = most, clock
        self.size = float(min(FIRST_LIMIT, most))
        self._running = 0
        self._free = asyncio.Condition()
        self._paused_until, self._cut_at = 0.0, -math.inf
        self._doubles = True
        self._before: tuple[float, float] | None = None
        self._held = 0
        self._begin_window()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator["RequestSlot"]:
        """Waits for a slot, and for the end of a pause that the endpoint asked for; frees it after the block."""
        async with self._free:
            await self._free.wait_for(lambda: self._running < max(1, int(self.size)))
            self._running += 1
        try:
            while (left := self._paused_until - self._clock()) > 0:
                await asyncio.sleep(left)
            yield RequestSlot(self, self._clock())
        finally:
            async with self._free:
                self._running -= 1
                self._free.notify_all()

    def succeed(self) -> None:
        """Counts an answer; after a window of them the limit may change."""
        self._answers += 1
        if self._answers < max(MIN_WINDOW, self.size):
            return
        rate = self._answers / max(self._clock() - self._window_began, 1e-9)
        if self._held:
            self._held -= 1
        elif self._before is not None and self.size > self._before[0] and rate < MIN_GAIN * self._before[1]:
            self.size, self._held, self._doubles = self._before[0], HELD_WINDOWS, False
        else:
            self._before = (self.size, rate)
            grown = 2 * self.size if self._doubles else self.size + max(1.0, STEP * self.size)
            self.size = min(float(self.most), grown)
        self._begin_window()

    def refuse(self, started: float, pause: float | None) -> None:
        """Halves the limit, once for all requests that were under way, and waits as long as the endpoint asks."""
        now = self._clock()
        if started > self._cut_at:
            self.size, self._doubles, self._before, self._cut_at = max(1.0, self.size / 2), False, None, now
            self._begin_window()
        if pause is not None:
            self._paused_until = max(self._paused_until, now + pause)

    def _begin_window(self) -> None:
        self._answers, self._window_began = 0, self._clock()


class RequestSlot:
    """A request under way, and what to say of it."""

    def __init__(self, limit: AdaptiveLimit, started: float) -> None:
        self._limit, self._started = limit, started

    def succeed(self) -> None:
        self._limit.succeed()

    def refuse(self, pause: float | None) -> None:
        self._limit.refuse(self._started, pause)
