"""A Ray cluster of two machines, each in processes of its own, as a job's place: an actor and a machine are lost."""

import os
import signal
import threading
import time
from functools import partial

import pytest

from redraft.batch.executors.cluster import RaySettings, ray_executor
from tests.batch.test_job import make, run, write_rows
from tests.fakes.executors import FakeExecutor

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class SlowExecutor(FakeExecutor):
    """Answers as the fake does, in a moment, and leaves its process's number."""

    def __init__(self, folder):
        super().__init__()
        (folder / str(os.getpid())).touch()

    async def answer(self, row):
        time.sleep(0.02)
        return await super().answer(row)


def slow(folder):
    return SlowExecutor(folder).open()


def test_an_actor_and_a_machine_are_lost(tmp_path):
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    rows, out, pids = write_rows(tmp_path / "in.jsonl", 1000), tmp_path / "out", tmp_path / "pids"
    pids.mkdir()
    run(tmp_path / "undisturbed", rows)
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        job = make(out, rows)

        def wait_for(done):
            until = time.monotonic() + 120
            while job.progress.done < done:
                assert time.monotonic() < until
                time.sleep(0.01)

        place = partial(ray_executor, partial(slow, pids), RaySettings(actors=2, rows_per_actor=8))
        # Beside this thread, which alone may begin a machine.
        running = threading.Thread(target=job.run, args=(place,), daemon=True)
        running.start()
        wait_for(100)
        os.kill(int(next(pids.iterdir()).name), signal.SIGKILL)
        wait_for(400)
        cluster.remove_node(second, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        running.join(120)
        assert not running.is_alive()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert len(list(pids.iterdir())) >= 3
    assert (job.progress.done, job.progress.failed) == (1000, 0)
    assert (out / "results.jsonl").read_bytes() == (tmp_path / "undisturbed" / "results.jsonl").read_bytes()
