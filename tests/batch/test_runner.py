"""Feeding rows to an executor: it ends, wherever the journal is synced."""

import asyncio
from types import SimpleNamespace

import pytest

from redraft.batch.executors.protocol import answered
from redraft.batch.runner import answer_all
from redraft.utils.rows.journal import SYNC_ROWS


class AtOnce:
    in_flight = 8

    async def answer(self, row):
        return answered({"id": row})


@pytest.mark.parametrize("number", range(SYNC_ROWS - 2, SYNC_ROWS + 20))
def test_it_ends_also_where_a_sync_is_due_with_the_last_rows(number):
    journal = SimpleNamespace(unsynced=0)
    journal.sync = lambda: setattr(journal, "unsynced", 0)
    finished = []

    def finish(row, _):
        finished.append(row)
        journal.unsynced += 1

    async def run():
        async with asyncio.timeout(20):
            await answer_all(iter(range(number)), AtOnce(), journal, finish, lambda: None)

    asyncio.run(run())
    assert sorted(finished) == list(range(number))
    assert journal.unsynced == 0
