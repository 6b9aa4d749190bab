"""A soak test: many requests of mixed lengths to a server, some abandoned at a random moment. Does it stay healthy?

Run from the checkout's root: `python tools/soak.py --requests 20000`. Starts `redraft serve` itself, or takes --url
and, for its memory, --pid. Ends with one JSON line, and with exit code 1 where a criterion is not met: no error, no
more memory at the end than after a tenth, the last tenth as fast as the first, nothing left running, no child left.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from redraft.benchmark.load.driver import EndpointTarget
from redraft.benchmark.load.prompts import filler_prompts
from redraft.benchmark.load.serving import end, serving
from redraft.benchmark.timing import describe_machine
from redraft.client.errors import RequestFailed
from redraft.client.stream import Endpoint, EndpointConnection, is_local, list_models
from redraft.evaluation.tasks import TASKS

MAX_IDLE_SECONDS, TIMEOUT, PROGRESS_SECONDS = 20.0, 300.0, 5.0
TASK_SHARE = 0.5
WORDS = ((1, 10), (10, 60), (60, 250))
ANSWERS = (4, 16, 64, 128)
GAUGES = ("redraft_requests_running", "redraft_requests_waiting")


@dataclass(frozen=True)
class Planned:
    """A request. left: the share of a recent answer's time after which its client disconnects, or None."""

    prompt: str
    settings: dict[str, Any]
    streamed: bool
    left: float | None


@dataclass(frozen=True)
class Sample:
    """The server's state at one moment: bytes, sockets, child processes, and the zombies among them."""

    done: int
    memory: int | None
    sockets: int | None
    children: int | None
    zombies: int | None
    running: float
    waiting: float


@dataclass
class Outcomes:
    """The outcomes of the requests so far. ends: when each of them ended, and whether it was answered."""

    ends: list[tuple[float, bool]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    usual_seconds: float = 0.5
    samples: list[Sample] = field(default_factory=list)

    def record(self, outcome: str, message: str = "") -> None:
        """Records the end of a request."""
        self.ends.append((time.perf_counter(), outcome == "answered"))
        self.outcomes[outcome] += 1
        self.messages.setdefault(outcome, message)


def plan(count: int, disconnects: float, seed: int, steps: int) -> Iterator[Planned]:
    """Plans `count` requests, the same for the same seed; `steps` limits a canvas's, 0 leaves that to the server."""
    rng = random.Random(f"soak/{seed}")
    canvas = {"canvas": {"steps": steps}} if steps else {}
    fillers = [filler_prompts(low, high, seed) for low, high in WORDS]
    # The bundled model answers these at length, and filler text with next to nothing.
    tasks = [case.prompt for task in TASKS.values() for case in task.cases()]
    for _ in range(count):
        yield Planned(
            prompt=rng.choice(tasks) if rng.random() < TASK_SHARE else next(rng.choice(fillers)),
            settings={"max_tokens": rng.choice(ANSWERS), "seed": rng.randrange(2**31)} | canvas,
            streamed=rng.random() < 0.7,
            left=rng.random() if rng.random() < disconnects else None,
        )


class Monitor:
    """The server from outside: its /metrics, and its process in /proc if it runs on this machine."""

    def __init__(self, url: str, pid: int | None, key: str | None) -> None:
        self._url, self._pid = url, pid
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client = httpx2.AsyncClient(timeout=TIMEOUT, headers=headers, trust_env=not is_local(url))

    async def sample(self, done: int) -> Sample:
        """Samples its state; one of the sockets is our own."""
        metrics = await self._client.get(f"{self._url}/metrics")
        metrics.raise_for_status()
        values = dict(line.rsplit(" ", 1) for line in metrics.text.splitlines() if line.startswith(GAUGES))
        running, waiting = (float(values[name]) for name in GAUGES)
        facts = (None, None, None, None) if self._pid is None else process_facts(self._pid)
        memory, sockets, children, zombies = facts
        return Sample(done, memory, sockets, children, zombies, running, waiting)

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.aclose()


def process_facts(pid: int) -> tuple[int, int, int, int]:
    """Returns (bytes of memory, open sockets, child processes, zombies among them)."""
    process = Path(f"/proc/{pid}")
    memory = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    sockets = 0
    for one in (process / "fd").iterdir():
        try:
            sockets += str(one.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue
    children = [int(child) for listed in process.glob("task/*/children") for child in _text(listed).split()]
    zombies = sum(" Z " in _text(Path(f"/proc/{child}/stat")) for child in children)
    return memory, sockets, len(children), zombies


def _text(path: Path) -> str:
    """The text of a file in /proc; empty if the process has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def soak(
    planned: Iterator[Planned], count: int, concurrency: int, endpoint: Endpoint, monitor: Monitor
) -> Outcomes:
    """Sends all requests, `concurrency` in flight; samples the server after each hundredth and at the end."""
    found = Outcomes()
    found.samples.append(await monitor.sample(0))
    watching = asyncio.create_task(_watch(monitor, count, found))
    try:
        async with endpoint.connect() as connection:
            await asyncio.gather(*(_work(planned, connection, found) for _ in range(concurrency)))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    found.samples.append(await _idle_sample(monitor, count, found.samples[0]))
    return found


async def _work(planned: Iterator[Planned], connection: EndpointConnection, found: Outcomes) -> None:
    for one in planned:
        start = time.perf_counter()
        leaving = None if one.left is None else one.left * found.usual_seconds
        try:
            async with asyncio.timeout(leaving):
                if one.streamed:
                    target = EndpointTarget(connection, one.settings)
                    tokens = (await target.answer(one.prompt, lambda: None)).tokens
                else:
                    tokens = (await connection.complete(one.prompt, **one.settings)).tokens
        except TimeoutError:
            found.record("left")
            continue
        except RequestFailed as error:
            found.record(error.kind, str(error))
            continue
        found.usual_seconds += (time.perf_counter() - start - found.usual_seconds) / 50
        found.tokens += tokens or 0
        found.record("answered")


async def _watch(monitor: Monitor, count: int, found: Outcomes) -> None:
    start = shown = time.perf_counter()
    sampled = 0
    while True:
        await asyncio.sleep(0.1)
        done = len(found.ends)
        if done - sampled >= count / 100:
            sampled = done
            try:
                found.samples.append(await monitor.sample(done))
            except httpx2.HTTPError as error:
                found.outcomes["no metrics"] += 1
                found.messages.setdefault("no metrics", str(error))
        if (now := time.perf_counter()) - shown > PROGRESS_SECONDS:
            shown = now
            last = found.samples[-1]
            memory = "" if last.memory is None else f", {last.memory / 2**20:.0f} MB, {last.sockets} sockets"
            outcomes = ", ".join(f"{name} {number}" for name, number in found.outcomes.items())
            print(f"{done:,} of {count:,} in {now - start:.0f} s: {outcomes}{memory}", file=sys.stderr, flush=True)


async def _idle_sample(monitor: Monitor, done: int, before: Sample) -> Sample:
    """The server's state once it is idle, or after the time in which it should have become so."""
    limit = time.perf_counter() + MAX_IDLE_SECONDS
    while True:
        last = await monitor.sample(done)
        idle = last.running == last.waiting == 0 and (last.sockets or 0) <= (before.sockets or 0)
        if idle or time.perf_counter() > limit:
            return last
        await asyncio.sleep(0.1)


def judge(found: Outcomes, growth: float, slower: float) -> tuple[dict[str, Any], list[str]]:
    """Returns the report and the criteria that are not met."""
    count = len(found.ends)
    tenth = max(1, count // 10)
    errors = {name: number for name, number in found.outcomes.items() if name not in ("answered", "left")}
    first, last = _rate(found.ends[: tenth + 1]), _rate(found.ends[-tenth - 1 :])
    before, after = found.samples[0], found.samples[-1]
    early = next((one for one in found.samples if one.done >= tenth), after)
    # Means, since it varies with the running requests and is returned to the system now and then.
    filled = _memory(one for one in found.samples if tenth <= one.done <= 2 * tenth)
    last_memory = _memory(one for one in found.samples if one.done >= count - tenth)
    failed = [f"errors: {name} ({number}): {found.messages[name]}" for name, number in errors.items()]
    if not 1 - slower <= last / first:
        failed.append(f"the last tenth was answered at {last:.2f} requests a second, the first at {first:.2f}")
    if filled is not None and last_memory is not None and last_memory > (1 + growth) * filled:
        failed.append(f"memory grew from {filled:,} bytes in the second tenth to {last_memory:,} in the last")
    if after.running or after.waiting:
        failed.append(f"{after.running:.0f} requests are running and {after.waiting:.0f} waiting after the end")
    if (after.sockets or 0) > (before.sockets or 0):
        failed.append(f"{before.sockets} sockets were open at the start, {after.sockets} after the end")
    # The chat template is rendered in a child, which comes with the first request.
    if (after.children or 0) > (early.children or 0) or after.zombies:
        failed.append(f"{early.children} children after a tenth, {after.children} at the end, {after.zombies} zombies")
    report = {
        "requests": count, "outcomes": dict(found.outcomes), "errors": errors, "answer_tokens": found.tokens,
        "seconds": round(found.ends[-1][0] - found.ends[0][0], 1),
        "requests_per_second": {
            "first_tenth": round(first, 3), "last_tenth": round(last, 3), "ratio": round(last / first, 3),
            "all": round(_rate(found.ends), 3),
        },
        "memory_bytes": {
            "start": before.memory, "second_tenth": filled, "last_tenth": last_memory, "end": after.memory,
            "most": max((one.memory for one in found.samples if one.memory is not None), default=None),
        },
        "sockets": {"start": before.sockets, "end": after.sockets},
        "children": {"after_a_tenth": early.children, "end": after.children, "zombies": after.zombies},
        "running": after.running, "waiting": after.waiting,
    }  # fmt: skip
    return report, failed


def _memory(samples: Iterable[Sample]) -> int | None:
    """The mean of the samples that know it."""
    known = [one.memory for one in samples if one.memory is not None]
    return round(sum(known) / len(known)) if known else None


def _rate(ends: list[tuple[float, bool]]) -> float:
    """Answered requests a second, from the first end to the last."""
    seconds = ends[-1][0] - ends[0][0]
    return sum(answered for _, answered in ends[1:]) / seconds if seconds > 0 else 1e-9


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[tuple[str, int | None, Any]]:
    """Yields (URL, process id, process to end)."""
    if arguments.url:
        yield arguments.url.rstrip("/").removesuffix("/v1"), arguments.pid, None
        return
    options = ("--max-concurrent", str(arguments.max_concurrent), "--precision", arguments.precision)
    with serving(arguments.model, *options) as running:
        yield running.url, running.process.pid, running.process


def main() -> int:
    """Runs the soak test; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--disconnects", type=float, default=0.05, help="share of requests that are abandoned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4, help="most denoising steps of a canvas; 0: the model's own")
    parser.add_argument("--precision", default="bf16", help="of the server that is started")
    parser.add_argument("--model", default="bundled", help="what to serve")
    parser.add_argument("--max-concurrent", type=int, default=16, help="of the server that is started")
    parser.add_argument("--url", help="a running server, instead")
    parser.add_argument("--pid", type=int, help="its process")
    parser.add_argument(
        "--growth", type=float, default=0.1, help="share by which memory may grow from the second tenth to the last"
    )
    parser.add_argument("--slower", type=float, default=0.1, help="share by which the last tenth may be slower")
    arguments = parser.parse_args()
    key = os.environ.get("REDRAFT_API_KEY") if arguments.url else None

    async def run(url: str, pid: int | None) -> Outcomes:
        name, *_ = await asyncio.to_thread(lambda: list_models(url + "/v1", key=key, timeout=TIMEOUT))
        monitor = Monitor(url, pid, key)
        endpoint = Endpoint(url=url + "/v1", model=name, key=key, timeout=TIMEOUT)
        planned = plan(arguments.requests, arguments.disconnects, arguments.seed, arguments.steps)
        try:
            return await soak(planned, arguments.requests, arguments.concurrency, endpoint, monitor)
        finally:
            await monitor.close()

    with _server(arguments) as (url, pid, process):
        report, failed = judge(asyncio.run(run(url, pid)), arguments.growth, arguments.slower)
        if process is not None and (code := end(process)) != 0:
            failed.append(f"the server ended with {code}")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    facts = {
        "steps": arguments.steps,
        "concurrency": arguments.concurrency,
        "disconnects": arguments.disconnects,
        "seed": arguments.seed,
    }
    print(json.dumps({"soak": "server", **facts, **report, "failed": failed, "machine": describe_machine()}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
