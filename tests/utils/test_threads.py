"""How many threads compute, and how they wait: told to OpenMP before it starts."""

import os
import subprocess
import sys

import pytest

from redraft.utils import threads

SAYS = """
import os, redraft
before = "torch" in __import__("sys").modules
import torch
print(before, os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads())
"""


def says(program: str = SAYS, **environment: str) -> str:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "REDRAFT_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A fake control group file system; call it with the lines of /proc/self/cgroup and the files."""

    def make(lines, files):
        (tmp_path / "cgroup").write_text("\n".join(lines))
        for name, text in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(threads, "CGROUP_OF_PROCESS", tmp_path / "cgroup")
        monkeypatch.setattr(threads, "CGROUP_ROOT", tmp_path / "fs")
        monkeypatch.setattr(threads, "visible_cpus", lambda: 64)
        return threads.available_cpus()

    return make


def test_openmp_is_told_to_spin_shortly_before_torch_is_imported():
    before, spin, number, _ = says().split()
    assert (before, spin) == ("False", str(threads.SPIN_COUNT))
    assert number == "None" or threads.available_cpus() < threads.visible_cpus()


def test_what_the_environment_says_of_waiting_is_left_alone():
    assert says(OMP_WAIT_POLICY="active").split()[1] == "None"
    assert says(GOMP_SPINCOUNT="7").split()[1] == "7"


def test_the_number_of_threads_is_chosen_by_the_environment_also_after_torch_was_imported():
    assert says(REDRAFT_THREADS="1").split()[2:] == ["1", "1"]
    assert says("import torch\n" + SAYS, REDRAFT_THREADS="3").split()[2:] == ["3", "3"]
    assert says(OMP_NUM_THREADS="2", REDRAFT_THREADS="1").split()[2:] == ["1", "1"]
    assert says(OMP_NUM_THREADS="1").split()[2:] == ["1", "1"]


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5", "²", "1025", " 2"])
def test_a_bad_number_of_threads_is_refused_before_anything_is_loaded(number, monkeypatch):
    monkeypatch.setenv("REDRAFT_THREADS", number)
    import redraft

    with pytest.raises(ValueError, match=r"REDRAFT_THREADS is .*, must be a whole number from 1 to 1024"):
        redraft.load("no such folder")


def test_a_quota_of_the_second_version_limits_the_cpus(groups):
    assert groups(["0::/a/b"], {"cpu.max": "max 100000", "a/cpu.max": "250000 100000"}) == 3


def test_in_a_container_the_root_has_the_quota(groups):
    assert groups(["0::/docker/0123"], {"cpu.max": "200000 100000"}) == 2


def test_a_quota_of_the_first_version_limits_the_cpus(groups):
    files = {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}
    assert groups(["4:memory:/x", "2:cpu,cpuacct:/a", "0::/"], files) == 1


@pytest.mark.parametrize("files", [{}, {"cpu.max": "max 100000"}, {"cpu.max": "nonsense"}])
def test_without_a_quota_the_affinity_counts(groups, files):
    assert groups(["0::/"], files) == 64
    assert groups(["1:cpu:/"], {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}) == 64
