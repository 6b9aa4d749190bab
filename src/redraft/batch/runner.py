"""Feeding: as many rows as an executor wants at a time, and each into the journal when it is finished."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from redraft.batch.executors.protocol import Executor, Outcome
from redraft.batch.requests import JobRow
from redraft.utils.rows.journal import SYNC_ROWS, SYNC_SECONDS, Journal

TURN_ROWS = 16
"""So many rows a worker takes before the others have a turn, where its executor never waits."""


async def answer_all(
    rows: Iterator[JobRow],
    executor: Executor,
    journal: Journal,
    finish: Callable[[JobRow, Outcome], object],
    tick: Callable[[], object],
) -> None:
    """Answers rows; `finish` gets each with its outcome, in the order of their ends, and writes it into the journal.

    It holds `executor.in_flight` rows and no more. The journal is synced, and `tick` called, every 256 rows or half a
    second. Raises ExecutorFailed, OSError of the journal, and what reading the rows raises; what was finished until
    then is in the journal.
    """
    due = asyncio.Event()

    async def work() -> None:
        for number, row in enumerate(rows, 1):
            finish(row, await executor.answer(row))
            if journal.unsynced >= SYNC_ROWS:
                due.set()
            if number % TURN_ROWS == 0:
                await asyncio.sleep(0)

    async def keep() -> None:
        while True:
            # Not wait_for: in Python 3.11 a cancellation that comes together with the event is lost in it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_SECONDS):
                    await due.wait()
            due.clear()
            if journal.unsynced:
                # Rows go on meanwhile: a disk takes its time.
                await asyncio.to_thread(journal.sync)
            tick()

    keeper = asyncio.create_task(keep())
    workers = [asyncio.create_task(work()) for _ in range(executor.in_flight)]
    try:
        await _first_failure(keeper, workers)
    finally:
        for task in (keeper, *workers):
            task.cancel()
        await asyncio.gather(keeper, *workers, return_exceptions=True)
        if journal.unsynced:
            journal.sync()
        tick()


async def _first_failure(keeper: asyncio.Task[None], workers: list[asyncio.Task[None]]) -> None:
    """Waits for all workers. Raises the first exception of one, or of the keeper, as it is."""
    left: set[asyncio.Task[None]] = {keeper, *workers}
    while len(left) > 1:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
