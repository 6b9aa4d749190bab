"""Batches at work: threads of the server that run each as a job, on its engine, and go on after whatever ended it."""

import asyncio
import functools
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from redraft.batch.executors.protocol import ExecutorFailed, Outcome
from redraft.batch.job import Job, JobSettings
from redraft.batch.progress import Progress
from redraft.batch.requests import JobRow
from redraft.batch.results import OPENAI
from redraft.batch.rows import CheckedJob, JobFile
from redraft.server.batches.executor import ServiceExecutor, check_body
from redraft.server.batches.store import BatchStore
from redraft.server.service import Service
from redraft.utils.rows.journal import RunIdentity

log = logging.getLogger("redraft.server")

BATCHES_AT_ONCE = 4
"""Others wait. A long one shall not keep a short one from beginning."""
IN_FLIGHT_FRACTION = 1 / 8
"""Of the requests that the engine works on, the part that one batch takes: who comes meanwhile waits for their step."""
ENDED = ("completed", "failed", "cancelled", "expired")


class BatchStopped(Exception):
    """Raised in a job that is not to go on. status: what its batch becomes; None where the server ends."""

    def __init__(self, status: str | None) -> None:
        super().__init__()
        self.status = status


class BatchWorker:
    """Runs the store's batches until it is stopped; each is journaled, so that another server goes on with it."""

    def __init__(self, store: BatchStore, service: Service) -> None:
        self._store, self._service = store, service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()
        self._claimed: set[str] = set()
        self._is_stopping = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(BATCHES_AT_ONCE)]

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins, once the service has its engine. loop: the service's."""
        self._loop = loop
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Says that there is a new batch."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends within a second; what is not finished goes on when it is started again. Not for the event loop."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        while (claimed := self._claim()) is not None:
            owner, batch = claimed
            try:
                self._run(owner, batch)
            except Exception:
                log.exception("batch %s failed", batch["id"])
                self._end(batch["id"], "failed", errors=[{"code": "server_error", "message": "see the server's log"}])

    def _claim(self) -> tuple[str, dict[str, Any]] | None:
        """Waits for a batch that no other thread works on; None when the server ends."""
        with self._changed:
            while not self._is_stopping:
                for owner, batch in self._store.unfinished():
                    if batch["id"] not in self._claimed:
                        self._claimed.add(batch["id"])
                        return owner, batch
                self._changed.wait()
        return None

    def _run(self, owner: str, batch: Mapping[str, Any]) -> None:
        id, service = batch["id"], self._service
        check = functools.partial(check_body, models=service.model_names)
        file = JobFile(self._store.path(batch["input_file_id"]), format=OPENAI, check_body=check)
        try:
            checked = file.check()
        except (ValueError, OSError) as error:
            self._end(id, "failed", errors=[{"code": "invalid_file", "message": str(error)}])
            return
        if faults := _faults(checked, file, batch["endpoint"]):
            self._end(id, "failed", errors=faults)
            return
        counts = {"total": checked.rows, "completed": 0, "failed": 0}
        self._store.change_batch(
            id, unless=("cancelling",), status="in_progress", in_progress_at=int(time.time()), request_counts=counts
        )
        identity = RunIdentity({"the model": service.name}, {})
        settings = JobSettings(result_format=OPENAI, unordered=True, seed=_seed_of(id))
        job = Job(self._store.job_folder(id), file, checked, identity=identity, settings=settings)
        try:
            job.run(self._executor, functools.partial(self._tick, id, batch["expires_at"]))
            self._store.change_batch(id, status="finalizing", finalizing_at=int(time.time()))
            status = "completed"
        except (BatchStopped, ExecutorFailed) as error:
            if self._is_stopping or isinstance(error, ExecutorFailed) or error.status is None:
                # The engine ends, and so does the server: the next one goes on.
                return
            status = error.status
            job.write_finished()
        self._end(id, status, **self._outputs(owner, job))

    def _tick(self, id: str, expires_at: int, progress: Progress) -> None:
        if self._is_stopping:
            raise BatchStopped(None)
        counts = {
            "total": progress.total, "completed": progress.done - progress.failed, "failed": progress.failed,
        }  # fmt: skip
        batch = self._store.change_batch(id, request_counts=counts)
        if batch["status"] == "cancelling":
            raise BatchStopped("cancelled")
        if time.time() > expires_at and progress.done < progress.total:
            raise BatchStopped("expired")

    def _end(self, id: str, status: str, *, errors: list[dict[str, Any]] | None = None, **changes: Any) -> None:
        told = None if errors is None else {"object": "list", "data": errors}
        now = int(time.time())
        self._store.change_batch(id, unless=ENDED, status=status, errors=told, **{f"{status}_at": now}, **changes)

    def _outputs(self, owner: str, job: Job) -> dict[str, Any]:
        """Divides a job's results into the files of answers and of errors, and returns their ids; none for no rows."""
        found = {}
        parts = {name: job.folder / f"{name}.jsonl" for name in ("output", "error")}
        with (
            parts["output"].open("wb") as output,
            parts["error"].open("wb") as errors,
            job.results_path.open("rb") as rows,
        ):
            for row in rows:
                response = json.loads(row)["response"]
                (output if response is not None and response["status_code"] == 200 else errors).write(row)
        for name, path in parts.items():
            if path.stat().st_size:
                file = self._store.add_file(owner, path, name=f"{job.folder.name}_{name}.jsonl", purpose="batch_output")
                found[f"{name}_file_id"] = file["id"]
        return found

    @asynccontextmanager
    async def _executor(self) -> AsyncIterator["BridgedExecutor"]:
        assert self._loop is not None
        in_flight = max(1, int(self._service.settings.max_concurrent * IN_FLIGHT_FRACTION))
        yield BridgedExecutor(ServiceExecutor(self._service, in_flight), self._loop)


class BridgedExecutor:
    """An executor of another thread's event loop."""

    def __init__(self, executor: ServiceExecutor, loop: asyncio.AbstractEventLoop) -> None:
        self._executor, self._loop = executor, loop
        self.in_flight = executor.in_flight

    async def answer(self, row: JobRow) -> Outcome:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._executor.answer(row), self._loop))


def _faults(checked: CheckedJob, file: JobFile, endpoint: str) -> list[dict[str, Any]]:
    """Returns the faults of a file as the API tells them; also a row for another endpoint is one."""
    faults = [(row.line, row.fault) for row in checked.faults]
    if not faults:
        faults = [
            (row.line, f"line {row.line}: url is {row.url!r}, but the batch is for {endpoint!r}")
            for row in file.rows(0)
            if isinstance(row, JobRow) and row.url != endpoint
        ][:1]
    return [{"code": "invalid_request", "message": fault, "line": line, "param": None} for line, fault in faults]


def _seed_of(id: str) -> int:
    """Returns a batch's seed, which must not be another after a restart."""
    return int(id.removeprefix("batch_")[:7], 16)
