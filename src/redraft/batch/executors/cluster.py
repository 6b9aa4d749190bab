"""A Ray cluster as a place where rows are answered: an actor for each engine, on whichever machines there are.

The journal stays with the process that runs the job. An actor that dies, or whose machine does, is begun again by Ray
where there is room, and its rows are given to it again: their seeds make the same answers of them.
"""

import asyncio
import importlib
import importlib.util
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from redraft.batch.executors.protocol import Executor, ExecutorFailed, Outcome, failed
from redraft.batch.job import OpenExecutor
from redraft.batch.requests import JobRow


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """A cluster and the actors on it. Raises ValueError for values out of range, and where Ray is not installed.

    address: "local" begins one on this machine, "auto" finds the one that this machine belongs to. actors: engines.
    cpus, gpus: of each. rows_per_actor: that each is given at a time.
    """

    address: str = "auto"
    actors: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    rows_per_actor: int = 64

    def __post_init__(self) -> None:
        for name in ("actors", "cpus", "rows_per_actor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must be above 0")
        if importlib.util.find_spec("ray") is None:
            raise ValueError("this needs Ray: pip install -e '.[ray]' in the checkout")


class RowActor:
    """What runs on the cluster: an executor, opened with the first row."""

    def __init__(self, open_executor: OpenExecutor) -> None:
        self._open = open_executor
        self._opened = AsyncExitStack()
        self._lock = asyncio.Lock()
        self._executor: Executor | None = None

    async def answer(self, row: JobRow) -> Outcome:
        async with self._lock:
            if self._executor is None:
                self._executor = await self._opened.enter_async_context(self._open())
        return await self._executor.answer(row)


class RayExecutor:
    """Gives each row to the actor that has the fewest."""

    def __init__(self, actors: list[Any], rows_per_actor: int) -> None:
        self._actors = actors
        self._running: Counter[int] = Counter()
        self.in_flight = len(actors) * rows_per_actor
        self._exceptions: Any = importlib.import_module("ray.exceptions")

    async def answer(self, row: JobRow) -> Outcome:
        """Answers one row. Raises ExecutorFailed where the cluster is gone, or an actor says that it cannot go on."""
        at = min(range(len(self._actors)), key=self._running.__getitem__)
        self._running[at] += 1
        try:
            outcome: Outcome = await self._actors[at].answer.remote(row)
            return outcome
        except self._exceptions.RayTaskError as error:
            if isinstance(error.cause, ExecutorFailed):
                raise ExecutorFailed(str(error.cause)) from error
            return failed("actor error", str(error.cause))
        except self._exceptions.RayError as error:
            raise ExecutorFailed(f"the cluster cannot go on: {error}") from error
        finally:
            self._running[at] -= 1


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects this process with a cluster until the end of the block, unless it is. Raises ExecutorFailed."""
    ray: Any = importlib.import_module("ray")
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False)
    except ConnectionError as error:
        raise ExecutorFailed(f"there is no Ray cluster at {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@asynccontextmanager
async def ray_executor(open_executor: OpenExecutor, settings: RaySettings) -> AsyncIterator[RayExecutor]:
    """Begins the actors, and ends them with the block. open_executor: called in each of them."""
    ray: Any = importlib.import_module("ray")
    connection = connected(settings.address)
    await asyncio.to_thread(connection.__enter__)
    kind = ray.remote(
        num_cpus=settings.cpus, num_gpus=settings.gpus, max_restarts=-1, max_task_retries=-1,
        max_concurrency=settings.rows_per_actor,
    )(RowActor)  # fmt: skip
    actors = [kind.remote(open_executor) for _ in range(settings.actors)]
    try:
        yield RayExecutor(actors, settings.rows_per_actor)
    finally:
        for actor in actors:
            ray.kill(actor)
        await asyncio.to_thread(connection.__exit__, None, None, None)
