"""For all tests: one thread, since a tiny model's products are over before a second one has woken up."""

import gc
import os

# Also for the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The file of whoever runs the tests is not theirs.
os.environ["REDRAFT_CONFIG"] = os.devnull

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from redraft.utils.threads import available_cpus
from tests.fakes.checkpoints import tiny_checkpoint

# A machine that trains meanwhile is slow now and then; that is no failure.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")


def pytest_xdist_auto_num_workers() -> int:
    """As many tests at once as there are CPUs, and one more, as many wait for a server or a moment; four at most."""
    return min(4, available_cpus() + 1)


def pytest_collection_finish() -> None:
    """Thousands of tests and all that they import stay for good: the garbage collector need not walk through them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def file(tmp_path):
    """Writes a file, by name and content, and returns its path."""

    def write(name: str, content: str | bytes) -> Path:
        path: Path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports of training runs have no curves: drawing them takes longer than a run of a few steps."""
    monkeypatch.setattr("redraft.training.run.report._draw", lambda *_, **__: "<svg></svg>")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """It also makes sums come out in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
