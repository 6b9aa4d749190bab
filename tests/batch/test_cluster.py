"""A Ray cluster of two machines, each in processes of its own, as a job's place: actors, machines, drivers are lost."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.fs
import pyarrow.parquet
import pytest

from redraft.batch.executors.cluster import RaySettings, ray_executor
from redraft.batch.rows import JobFile
from tests.batch.test_job import make, run, write_rows
from tests.fakes.executors import FakeExecutor
from tests.fakes.ray_clusters import be_patient

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray", reason="this needs Ray: pip install -e '.[ray]'")
ROOT = Path(__file__).parents[2]
SECONDS = 600
"""The machine may be busy with something else; nothing here waits for so long."""

DRIVER = """
import sys
from functools import partial
from pathlib import Path
from redraft.batch.executors.cluster import RaySettings, ray_executor
from tests.batch.test_cluster import slow
from tests.batch.test_job import make
rows, out, pids, address = sys.argv[1:]
settings = RaySettings(address=address, actors=2, rows_per_actor=8)
make(Path(out), Path(rows)).run(partial(ray_executor, partial(slow, Path(pids)), settings))
"""


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


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one CPU each, in processes of their own; this process is connected with them."""
    be_patient()
    # Any will do for an S3 server of the tests; also for Ray's processes, which are begun here.
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def until(true):
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def write_two_files(folder, number):
    """Rows as files of a folder, the first without a last line break, both with byte order marks; and as one file."""
    one = write_rows(folder / "one.jsonl", number)
    lines = one.read_bytes().splitlines(keepends=True)
    (folder / "rows").mkdir()
    for name, some in (("a", lines[: number // 2]), ("b", lines[number // 2 :])):
        (folder / "rows" / f"{name}.jsonl").write_bytes(b"\xef\xbb\xbf" + b"".join(some).rstrip(b"\n"))
    return one, f"file://{folder}/rows"


def test_an_actor_and_a_machine_are_lost_while_rows_that_ray_reads_are_answered(cluster, tmp_path):
    from redraft.batch.ray_data import ResultsFolder, fetch_rows

    one, url = write_two_files(tmp_path, 1000)
    out, pids = tmp_path / "out", tmp_path / "pids"
    pids.mkdir()
    run(tmp_path / "undisturbed", one)
    wanted = (tmp_path / "undisturbed" / "results.jsonl").read_bytes()
    job = make(out, None, file=JobFile(fetch_rows(url, tmp_path, format="jsonl"), name=url))
    place = partial(ray_executor, partial(slow, pids), RaySettings(actors=2, rows_per_actor=8))
    # Beside this thread, which alone may begin a machine.
    running = threading.Thread(target=job.run, args=(place,), daemon=True)
    running.start()
    until(lambda: job.progress.done >= 100)
    assert kill(int(next(pids.iterdir()).name))
    until(lambda: job.progress.done >= 400)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    cluster.add_node(num_cpus=1)
    running.join(SECONDS)
    assert not running.is_alive()
    assert len(list(pids.iterdir())) >= 3
    assert (job.progress.done, job.progress.failed) == (1000, 0)
    assert (out / "results.jsonl").read_bytes() == wanted
    answers = ResultsFolder(f"file://{tmp_path}/answers")
    # What an earlier run left is replaced.
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "part-00007.jsonl").write_text("old")
    assert answers.write(out / "results.jsonl") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "answers").iterdir()} == {
        "part-00000.jsonl": wanted, "_SUCCESS": b'{"parts": 1}',
    }  # fmt: skip


@pytest.mark.usefixtures("cluster")
def test_parquet_by_ray_and_what_it_cannot_read(tmp_path, monkeypatch):
    from redraft.batch import ray_data
    from redraft.batch.ray_data import ResultsFolder, fetch_rows

    monkeypatch.setattr(ray_data, "PART_ROWS", 2)
    (tmp_path / "rows").mkdir()
    tables = [pyarrow.table({"id": some, "prompt": some}) for some in (["a", "b"], ["c"])]
    for name, table in zip("ab", tables, strict=True):
        pyarrow.parquet.write_table(table, tmp_path / "rows" / f"{name}.parquet")
    url = f"file://{tmp_path}/rows"
    file = JobFile(fetch_rows(url, tmp_path, format="parquet"), name=url)
    make(tmp_path / "out", None, file=file, result_format="parquet").run(FakeExecutor().open)
    results = tmp_path / "out" / "results.parquet"
    assert pyarrow.parquet.read_table(results)["id"].to_pylist() == ["a", "b", "c"]
    assert ResultsFolder(f"file://{tmp_path}/answers").write(results) == 2
    parts = [pyarrow.parquet.read_table(tmp_path / "answers" / f"part-0000{n}.parquet") for n in (0, 1)]
    assert pyarrow.concat_tables(parts).equals(pyarrow.parquet.read_table(results))
    with pytest.raises(ValueError, match="/nowhere"):
        fetch_rows(f"file://{tmp_path}/nowhere", tmp_path, format="jsonl")
    with pytest.raises(ValueError, match="'bucket' has a secret in it") as told:
        fetch_rows("s3://key:hidden@bucket/rows", tmp_path, format="jsonl")
    assert "hidden" not in str(told.value)
    with pytest.raises(ValueError, match=r"has other files, as '[ab]\.parquet': name a new or empty folder"):
        ResultsFolder(url)


@pytest.mark.usefixtures("cluster")
def test_rows_and_results_in_a_bucket_of_s3(tmp_path):
    from redraft.batch.ray_data import ResultsFolder, fetch_rows

    moto = pytest.importorskip("moto.server", reason="this needs an S3 server: pip install 'moto[s3,server]'")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        asked = f"?scheme=http&endpoint_override={host}:{port}"
        s3, _ = pyarrow.fs.FileSystem.from_uri(f"s3://mails{asked}&allow_bucket_creation=true")
        s3.create_dir("mails")
        one, local = write_two_files(tmp_path, 1000)
        pyarrow.fs.copy_files(local, "mails/in", destination_filesystem=s3)
        rows, answers = f"s3://mails/in{asked}", f"s3://mails/out{asked}"
        target = ResultsFolder(answers)
        job = make(tmp_path / "out", None, file=JobFile(fetch_rows(rows, tmp_path, format="jsonl"), name=rows))
        job.run(FakeExecutor().open)
        run(tmp_path / "undisturbed", one)
        wanted = (tmp_path / "undisturbed" / "results.jsonl").read_bytes()
        assert job.results_path.read_bytes() == wanted
        assert target.write(job.results_path) == ResultsFolder(answers).write(job.results_path) == 1
        with s3.open_input_stream("mails/out/part-00000.jsonl") as part:
            assert part.read() == wanted
        assert fetch_rows(f"s3://mails/out/part-00000.jsonl{asked}", tmp_path).read_bytes() == wanted
        table = pyarrow.table({"prompt": ["a", "b"]})
        pyarrow.parquet.write_table(table, "mails/tables/a.parquet", filesystem=s3)
        found = fetch_rows(f"s3://mails/tables{asked}", tmp_path, format="parquet")
        assert pyarrow.parquet.read_table(found).equals(table)
        with pytest.raises(ValueError, match=r"s3://mails/none\S*: there is no such file or folder"):
            fetch_rows(f"s3://mails/none{asked}", tmp_path, format="jsonl")
        with pytest.raises(ValueError, match="there is no bucket 'letters'"):
            ResultsFolder(f"s3://letters/out{asked}")
        with pytest.raises(ValueError, match=r"s3://mails/in\S* has other files, as '[ab]\.jsonl'"):
            ResultsFolder(rows)
    finally:
        server.stop()


def test_a_driver_or_an_actor_is_killed_ten_times(cluster, tmp_path):
    rows, out, pids = write_rows(tmp_path / "in.jsonl", 2000), tmp_path / "out", tmp_path / "pids"
    pids.mkdir()
    run(tmp_path / "undisturbed", rows)
    chance, journal, kills = random.Random(4), out / "journal.jsonl", 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}

    def journaled():
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    for _ in range(5):
        arguments = [rows, out, pids, cluster.address]
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, *map(str, arguments)], env=environment)
        before, known = journaled(), set(pids.iterdir())
        # Beyond its first line.
        until(lambda driver=driver, before=before: driver.poll() is not None or journaled() > max(1, before))
        time.sleep(chance.random())
        # Whichever of its actors; it is begun again, and the driver goes on with it.
        begun = sorted(set(pids.iterdir()) - known)
        kills += kill(int(chance.choice(begun).name))
        time.sleep(chance.random())
        kills += driver.poll() is None
        driver.kill()
        driver.wait()
    assert kills == 10
    assert 0 < journaled() < 2000
    driver = subprocess.run([sys.executable, "-c", DRIVER, *map(str, arguments)], env=environment)
    assert driver.returncode == 0
    ids = [json.loads(line)["id"] for line in journal.read_bytes().splitlines()[1:]]
    assert sorted(ids) == sorted(f"r{n}" for n in range(1, 2001))
    assert (out / "results.jsonl").read_bytes() == (tmp_path / "undisturbed" / "results.jsonl").read_bytes()
