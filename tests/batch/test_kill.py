"""Jobs in processes of their own: killed ones, of which only the system's files are left, and a very long one."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.batch.test_job import records, run, write_rows

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from redraft.batch.job import Job, JobSettings
from redraft.batch.rows import JobFile
from redraft.utils.rows.journal import RunIdentity
from tests.fakes.executors import FakeExecutor
file = JobFile(Path(sys.argv[1]))
job = Job(Path(sys.argv[2]), file, file.check(), identity=RunIdentity({"the model": "tiny"}, {}),
          settings=JobSettings(seed=1))
job.run(FakeExecutor(seed=int(sys.argv[3]), in_flight=16).open)
"""


def test_a_job_that_is_killed_loses_nothing(tmp_path):
    rows, out, number = write_rows(tmp_path / "in.jsonl", 3000, bad={7, 2000}), tmp_path / "out", 3000
    run(tmp_path / "undisturbed", rows)
    chance, journal, killed = random.Random(1), out / "journal.jsonl", 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    for at in range(4):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, rows, out, str(at)], env=environment)
        size = journal.stat().st_size if journal.exists() else 0
        while process.poll() is None and not (journal.exists() and journal.stat().st_size > size):
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        process.kill()
        killed += process.wait() != 0
    assert killed >= 2
    assert run(out, rows).done == number
    ids = [json.loads(line)["id"] for line in journal.read_bytes().splitlines()[1:]]
    assert len(ids) == len(set(ids)) == number
    assert (out / "results.jsonl").read_bytes() == (tmp_path / "undisturbed" / "results.jsonl").read_bytes()
    assert len(records(out / "results.jsonl")) == number


MILLION = """
import json, os, sys
from contextlib import asynccontextmanager
from pathlib import Path
from redraft.batch.executors.protocol import answered
from redraft.batch.job import Job, JobSettings
from redraft.batch.rows import JobFile
from redraft.utils.rows.journal import RunIdentity

class AtOnce:
    in_flight = 64

    async def answer(self, row):
        choice = {"index": 0, "message": {"role": "assistant", "content": "an answer"}, "finish_reason": "stop"}
        return answered({"id": "x", "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})

    @asynccontextmanager
    async def open(self):
        yield self

sizes = []
def tick(_):
    sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)

file = JobFile(Path(sys.argv[1]))
job = Job(Path(sys.argv[2]), file, file.check(), identity=RunIdentity({}, {}), settings=JobSettings(seed=1))
job.run(AtOnce().open, tick)
tick(None)
print(json.dumps([sizes[0], max(sizes), sizes[-1], job.progress.done]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_million_rows_take_no_more_memory_than_a_few(tmp_path):
    rows, number = tmp_path / "in.jsonl", 10**6
    with rows.open("w") as file:
        file.writelines(f'{{"id": "row {n}", "prompt": "what is {n}"}}\n' for n in range(number))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-c", MILLION, rows, tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, most, last, answered = json.loads(done.stdout)
    assert answered == number
    # 8 bytes for each row's place in the journal, and what its array grows by.
    assert max(most, last) - first < 32
    with (tmp_path / "out" / "results.jsonl").open() as lines:
        assert sum(1 for _ in lines) == number
