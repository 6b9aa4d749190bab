"""Many requests of mixed lengths for a server, some of them left at a random moment: does it stay as it was?

Run from the checkout's root: `python tools/soak.py --requests 20000`. Starts `redraft serve` itself, or takes --url
and, for its memory, --pid. Ends with one JSON line, and with exit code 1 where a criterion is not met: no error, as
much memory at the end as after a tenth, as fast in the last tenth as in the first, nothing left in work, no child left.
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

from redraft.benchmark.load.driver import NotAnswered, filler_prompts
from redraft.benchmark.load.serving import end, serving
from redraft.benchmark.timing import machine
from redraft.evaluation.endpoint import Endpoint, first_model, is_here
from redraft.evaluation.tasks import TASKS

FREED_SECONDS, TIMEOUT, PROGRESS_SECONDS = 20.0, 300.0, 5.0
TASK_SHARE = 0.5
WORDS = ((1, 10), (10, 60), (60, 250))
ANSWERS = (4, 16, 64, 128)
GAUGES = ("redraft_requests_running", "redraft_requests_waiting")


@dataclass(frozen=True)
class Planned:
    """One request. left: after which share of the time that answers take of late its client goes, or None."""

    prompt: str
    settings: dict[str, Any]
    streamed: bool
    left: float | None


@dataclass(frozen=True)
class Sample:
    """What the server is like at some moment: bytes, sockets, child processes, and those of them that are zombies."""

    done: int
    memory: int | None
    sockets: int | None
    children: int | None
    zombies: int | None
    running: float
    waiting: float


@dataclass
class Found:
    """What became of the requests so far. ends: when each of them ended, and whether it was answered."""

    ends: list[tuple[float, bool]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    usual_seconds: float = 0.5
    samples: list[Sample] = field(default_factory=list)

    def note(self, outcome: str, message: str = "") -> None:
        """One request has ended."""
        self.ends.append((time.perf_counter(), outcome == "answered"))
        self.outcomes[outcome] += 1
        self.messages.setdefault(outcome, message)


def plan(count: int, disconnects: float, seed: int, steps: int) -> Iterator[Planned]:
    """So many requests, the same for the same seed; `steps` bounds a canvas's, 0 leaves that to the server."""
    rng = random.Random(f"soak/{seed}")
    canvas = {"canvas": {"steps": steps}} if steps else {}
    fillers = [filler_prompts(low, high, seed) for low, high in WORDS]
    # The bundled model has much to say to these, and next to nothing to filling text.
    tasks = [case.prompt for task in TASKS.values() for case in task.cases()]
    for _ in range(count):
        yield Planned(
            prompt=rng.choice(tasks) if rng.random() < TASK_SHARE else next(rng.choice(fillers)),
            settings={"max_tokens": rng.choice(ANSWERS), "seed": rng.randrange(2**31)} | canvas,
            streamed=rng.random() < 0.7,
            left=rng.random() if rng.random() < disconnects else None,
        )


class Watched:
    """The server from outside: what it tells at /metrics, and what /proc knows of its process where that is here."""

    def __init__(self, url: str, pid: int | None, key: str | None) -> None:
        self._url, self._pid = url, pid
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client = httpx2.AsyncClient(timeout=TIMEOUT, headers=headers, trust_env=not is_here(url))

    async def sample(self, done: int) -> Sample:
        """As it is now; one socket is the one that asks."""
        told = await self._client.get(f"{self._url}/metrics")
        told.raise_for_status()
        values = dict(line.rsplit(" ", 1) for line in told.text.splitlines() if line.startswith(GAUGES))
        running, waiting = (float(values[name]) for name in GAUGES)
        facts = (None, None, None, None) if self._pid is None else process_facts(self._pid)
        memory, sockets, children, zombies = facts
        return Sample(done, memory, sockets, children, zombies, running, waiting)

    async def close(self) -> None:
        """Its connection."""
        await self._client.aclose()


def process_facts(pid: int) -> tuple[int, int, int, int]:
    """(bytes of memory, open sockets, child processes, those of them that have ended and nobody waited for)."""
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
    """A file of a process that may end meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def soak(planned: Iterator[Planned], count: int, concurrency: int, target: Endpoint, watched: Watched) -> Found:
    """Sends all, so many at a time, and looks at the server now and then: after each hundredth, and at the end."""
    found = Found()
    found.samples.append(await watched.sample(0))
    workers = [asyncio.create_task(_work(planned, target, found)) for _ in range(concurrency)]
    watching = asyncio.create_task(_watch(watched, count, found))
    try:
        await asyncio.gather(*workers)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await target.__aexit__(None, None, None)
    found.samples.append(await _freed(watched, count, found.samples[0]))
    return found


async def _work(planned: Iterator[Planned], target: Endpoint, found: Found) -> None:
    for one in planned:
        begun = time.perf_counter()
        leaving = None if one.left is None else one.left * found.usual_seconds
        try:
            async with asyncio.timeout(leaving):
                if one.streamed:
                    tokens = (await target.answer(one.prompt, lambda: None, **one.settings)).tokens
                else:
                    tokens = (await target.whole(one.prompt, **one.settings)).tokens
        except TimeoutError:
            found.note("left")
            continue
        except NotAnswered as error:
            found.note(error.kind, str(error))
            continue
        found.usual_seconds += (time.perf_counter() - begun - found.usual_seconds) / 50
        found.tokens += tokens or 0
        found.note("answered")


async def _watch(watched: Watched, count: int, found: Found) -> None:
    begun = shown = time.perf_counter()
    looked = 0
    while True:
        await asyncio.sleep(0.1)
        done = len(found.ends)
        if done - looked >= count / 100:
            looked = done
            try:
                found.samples.append(await watched.sample(done))
            except httpx2.HTTPError as error:
                found.outcomes["no metrics"] += 1
                found.messages.setdefault("no metrics", str(error))
        if (now := time.perf_counter()) - shown > PROGRESS_SECONDS:
            shown = now
            last = found.samples[-1]
            memory = "" if last.memory is None else f", {last.memory / 2**20:.0f} MB, {last.sockets} sockets"
            outcomes = ", ".join(f"{name} {number}" for name, number in found.outcomes.items())
            print(f"{done:,} of {count:,} in {now - begun:.0f} s: {outcomes}{memory}", file=sys.stderr, flush=True)


async def _freed(watched: Watched, done: int, before: Sample) -> Sample:
    """How the server is once it has nothing left to do, or when it should have had."""
    limit = time.perf_counter() + FREED_SECONDS
    while True:
        last = await watched.sample(done)
        idle = last.running == last.waiting == 0 and (last.sockets or 0) <= (before.sockets or 0)
        if idle or time.perf_counter() > limit:
            return last
        await asyncio.sleep(0.1)


def judge(found: Found, growth: float, slower: float) -> tuple[dict[str, Any], list[str]]:
    """What was found, and the criteria that are not met."""
    count = len(found.ends)
    tenth = max(1, count // 10)
    errors = {name: number for name, number in found.outcomes.items() if name not in ("answered", "left")}
    first, last = _rate(found.ends[: tenth + 1]), _rate(found.ends[-tenth - 1 :])
    before, after = found.samples[0], found.samples[-1]
    early = next((one for one in found.samples if one.done >= tenth), after)
    # Means, since it goes up and down with what is in work, and is given back now and then.
    filled = _memory(one for one in found.samples if tenth <= one.done <= 2 * tenth)
    last_memory = _memory(one for one in found.samples if one.done >= count - tenth)
    failed = [f"errors: {name} ({number}): {found.messages[name]}" for name, number in errors.items()]
    if not 1 - slower <= last / first:
        failed.append(f"the last tenth was answered at {last:.2f} requests a second, the first at {first:.2f}")
    if filled is not None and last_memory is not None and last_memory > (1 + growth) * filled:
        failed.append(f"memory grew from {filled:,} bytes in the second tenth to {last_memory:,} in the last")
    if after.running or after.waiting:
        failed.append(f"{after.running:.0f} requests are in work and {after.waiting:.0f} wait after the end")
    if (after.sockets or 0) > (before.sockets or 0):
        failed.append(f"{before.sockets} sockets were open at the start, {after.sockets} after the end")
    # The chat template is rendered in a child, which comes with the first request.
    if (after.children or 0) > (early.children or 0) or after.zombies:
        failed.append(f"{early.children} children after a tenth, {after.children} at the end, {after.zombies} zombies")
    told = {
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
    return told, failed


def _memory(samples: Iterable[Sample]) -> int | None:
    """The mean of those that know it."""
    known = [one.memory for one in samples if one.memory is not None]
    return round(sum(known) / len(known)) if known else None


def _rate(ends: list[tuple[float, bool]]) -> float:
    """Answered requests a second, from the first end to the last."""
    seconds = ends[-1][0] - ends[0][0]
    return sum(answered for _, answered in ends[1:]) / seconds if seconds > 0 else 1e-9


@contextmanager
def _server(asked: argparse.Namespace) -> Iterator[tuple[str, int | None, Any]]:
    """(URL, process id, process to be ended)."""
    if asked.url:
        yield asked.url.rstrip("/").removesuffix("/v1"), asked.pid, None
        return
    options = ("--max-concurrent", str(asked.max_concurrent), "--precision", asked.precision)
    with serving(asked.model, *options) as running:
        yield running.url, running.process.pid, running.process


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--disconnects", type=float, default=0.05, help="share of requests that are left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps", type=int, default=4, help="denoising steps of a canvas at most; 0: as the model has it"
    )
    parser.add_argument("--precision", default="bf16", help="of the server that is started")
    parser.add_argument("--model", default="bundled", help="what to serve")
    parser.add_argument("--max-concurrent", type=int, default=16, help="of the server that is started")
    parser.add_argument("--url", help="a server that runs, instead")
    parser.add_argument("--pid", type=int, help="its process")
    parser.add_argument(
        "--growth", type=float, default=0.1, help="share by which memory may grow from the second tenth to the last"
    )
    parser.add_argument("--slower", type=float, default=0.1, help="share by which the last tenth may be slower")
    asked = parser.parse_args()
    key = os.environ.get("REDRAFT_API_KEY") if asked.url else None

    async def run(url: str, pid: int | None) -> Found:
        name = await asyncio.to_thread(lambda: first_model(url + "/v1", key=key, timeout=TIMEOUT))
        watched = Watched(url, pid, key)
        target = Endpoint(url + "/v1", name, key=key, settings={}, timeout=TIMEOUT)
        planned = plan(asked.requests, asked.disconnects, asked.seed, asked.steps)
        try:
            return await soak(planned, asked.requests, asked.concurrency, target, watched)
        finally:
            await watched.close()

    with _server(asked) as (url, pid, process):
        told, failed = judge(asyncio.run(run(url, pid)), asked.growth, asked.slower)
        if process is not None and (code := end(process)) != 0:
            failed.append(f"the server ended with {code}")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    facts = {
        "steps": asked.steps,
        "concurrency": asked.concurrency,
        "disconnects": asked.disconnects,
        "seed": asked.seed,
    }
    print(json.dumps({"soak": "server", **facts, **told, "failed": failed, "machine": machine()}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
