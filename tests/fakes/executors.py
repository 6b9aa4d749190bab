"""Executors that answer from the request alone, at once or when it suits a test."""

import asyncio
import random
from contextlib import asynccontextmanager

from redraft.batch.executors.protocol import answered, failed


class Killed(BaseException):
    """Ends a job as a kill would: nothing is tidied up but what the interpreter itself does."""


class FakeExecutor:
    """Answers with the prompt's length. Rows whose prompt has "bad" fail.

    seed: of the order in which rows are finished. kill_after: rows that are answered before Killed. `asked` keeps ids.
    """

    def __init__(self, *, in_flight: int = 4, seed: int = 0, kill_after: int | None = None) -> None:
        self.in_flight = in_flight
        self.asked: list[str] = []
        self._random, self._left = random.Random(seed), kill_after

    async def answer(self, row):
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        if self._left == 0:
            raise Killed
        if self._left is not None:
            self._left -= 1
        self.asked.append(row.id)
        return outcome_of(row)

    @asynccontextmanager
    async def open(self):
        yield self


def outcome_of(row):
    text = "".join(message["content"] for message in row.body.get("messages", ()))
    if "bad" in text:
        return failed("bad", f"{row.id} is bad")
    choice = {"index": 0, "message": {"role": "assistant", "content": f"{len(text)} é"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": len(text), "completion_tokens": 2, "total_tokens": len(text) + 2}
    return answered({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})
