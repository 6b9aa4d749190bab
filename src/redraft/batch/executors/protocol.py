"""Where rows are answered: the one protocol of the local engine, of an endpoint and of a cluster."""

from collections.abc import Mapping
from typing import Any, Protocol

from redraft.batch.requests import JobRow

Outcome = Mapping[str, Any]
"""What became of a row: `status` and `body` of the response as HTTP has them, where there was one; `error` with `kind`
and `message` where it is not an answer. It is JSON."""


class Executor(Protocol):
    """What answers rows. in_flight: how many are to be given to it at a time, so that it never runs dry."""

    in_flight: int

    async def answer(self, row: JobRow) -> Outcome:
        """Answers one row. What is wrong with the row alone is an outcome; ExecutorFailed ends the whole job."""
        ...


class ExecutorFailed(Exception):
    """Raised where no row can be answered any more, in a sentence that says why."""


def answered(body: Mapping[str, Any]) -> Outcome:
    return {"status": 200, "body": body}


def failed(kind: str, message: str, *, status: int | None = None, body: Any = None) -> Outcome:
    """Returns the outcome of a row that has no answer. kind: one word or two, by which errors are counted."""
    response = {} if status is None else {"status": status, "body": body}
    return {**response, "error": {"kind": kind, "message": message}}
