import signal
import subprocess
import sys
import time

import pytest

from redraft.benchmark.load.serving import serving
from tests.fakes.checkpoints import tiny_checkpoint

CODE = """
import sys, time
from redraft.benchmark.load.serving import serving
with serving(sys.argv[1]) as running:
    print(running.process.pid, flush=True)
    time.sleep(60)
"""


def test_a_server_that_does_not_start_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"the server did not start: .*nowhere"), serving(str(tmp_path / "nowhere")):
        pass


def test_who_is_ended_takes_its_server_along(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny")
    with subprocess.Popen(
        [sys.executable, "-c", CODE, folder], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
    end = time.monotonic() + 20
    while subprocess.run(["ps", "-p", str(pid)], stdout=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < end
        time.sleep(0.05)
