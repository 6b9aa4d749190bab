"""Commands that are killed at random moments, and begun again each time, until they end by themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, random, signal, sys, time
import redraft.batch.job, redraft.cli.batch.run, redraft.server.batches.executor
from redraft.cli import main

def start(out):
    if pid := os.fork():
        return pid
    sys.argv = ["redraft", *asked, out]
    try:
        main()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(ended.code or 0)
    except BaseException:
        pass
    os._exit(99)

asked, undisturbed, folder, kills, seed = json.loads(sys.argv[1])
began = time.monotonic()
assert not os.waitpid(start(undisturbed), 0)[1], "the undisturbed command failed"
seconds = time.monotonic() - began
chance, killed, jobs = random.Random(seed), 0, []
while killed < kills:
    jobs.append(os.path.join(folder, str(len(jobs))))
    while True:
        pid = start(jobs[-1])
        if killed < kills:
            time.sleep(chance.random() * seconds)
            if not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != -signal.SIGKILL:
            assert code == 0, f"exit code {code} in {jobs[-1]}"
            break
        killed += 1
print(json.dumps({"killed": killed, "jobs": jobs}))
"""
"""Each command is a process of its own, forked where nothing but imports has happened: these it does not repeat."""


def kill_at_random(asked, undisturbed, folder, *, kills, seed):
    """Runs `redraft` with `asked` and a folder: once undisturbed, then in others, killed so often in all of them.

    Each kill comes at a random moment of the time that the undisturbed command took. Returns the folders of the others,
    whose jobs have come to their ends.
    """
    given = json.dumps([list(map(str, asked)), str(undisturbed), str(folder), kills, seed])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", PROGRAM, given], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == kills
    return [Path(job) for job in told["jobs"]]
