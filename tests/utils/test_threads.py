"""How many threads compute, and how they wait: told to OpenMP before it starts."""

import json
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


def run(program: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "REDRAFT_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)


def says(program: str = SAYS, **environment: str) -> str:
    return run(program, **environment).stdout.strip()


AFTER_TORCH = """
import json, os, sys, torch
for environment in json.loads(sys.argv[1]):
    inside, outside = os.pipe()
    if os.fork() == 0:
        os.environ.update(environment)
        os.dup2(outside, 2)
        import redraft
        os.write(2, f"|{os.environ.get('OMP_NUM_THREADS')}|{torch.get_num_threads()}".encode())
        os._exit(0)
    os.close(outside)
    print(open(inside).read())
"""


def after_torch(*environments: dict[str, str]) -> list[list[str]]:
    """What is said, the variable and the number of threads, where torch was imported first: that only once for all."""
    return [line.split("|") for line in run(AFTER_TORCH, json.dumps(environments)).stdout.splitlines()]


def told(program: str, **environment: str) -> str:
    return run(program, **environment).stderr


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


# GNU OpenMP itself tells what it has understood.
SHOWN = {"OMP_DISPLAY_ENV": "verbose"}
gnu_only = pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP is what torch uses on Linux")


@gnu_only
def test_openmp_hears_it_where_redraft_is_imported_first_also_for_more_threads_than_cores_and_under_nice():
    shown = told("import os; os.nice(5); import redraft, torch", **SHOWN, REDRAFT_THREADS="8")
    assert f"GOMP_SPINCOUNT = '{threads.SPIN_COUNT}'" in shown
    assert "OMP_NUM_THREADS = '8'" in shown
    assert "torch was imported" not in shown


@gnu_only
def test_where_torch_was_imported_first_the_log_says_that_it_is_too_late():
    shown = told("import torch, redraft", **SHOWN, REDRAFT_THREADS="2")
    assert f"GOMP_SPINCOUNT = '{threads.SPIN_COUNT}'" not in shown
    assert shown.count("torch was imported before redraft") == 1
    assert f"start the program with GOMP_SPINCOUNT={threads.SPIN_COUNT}" in shown


@gnu_only
def test_nothing_is_said_of_one_thread_nor_where_the_environment_has_decided():
    one, *decided = after_torch(
        {"REDRAFT_THREADS": "1"},
        {"REDRAFT_THREADS": "3", "GOMP_SPINCOUNT": "9"},
        {"REDRAFT_THREADS": "3", "OMP_WAIT_POLICY": "passive"},
    )
    assert one == ["", "1", "1"]
    # Their number is chosen even so.
    assert decided == [["", "3", "3"]] * 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
@pytest.mark.parametrize("imports", ["redraft, torch", "torch, redraft"])
def test_threads_follow_the_affinity_in_either_order_of_imports(imports):
    alone = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})"
    assert says(f"{alone}; import {imports}; print(torch.get_num_threads())") == "1"


def test_what_the_environment_says_of_waiting_is_left_alone_and_the_number_of_threads_is_chosen_by_it():
    assert says(OMP_WAIT_POLICY="active", REDRAFT_THREADS="1").split()[1:] == ["None", "1", "1"]
    assert says(GOMP_SPINCOUNT="7", OMP_NUM_THREADS="2", REDRAFT_THREADS="1").split()[1:] == ["7", "1", "1"]
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
