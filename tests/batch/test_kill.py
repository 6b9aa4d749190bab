"""Jobs in processes of their own that are killed: what the system has of a file is all that is left."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

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
