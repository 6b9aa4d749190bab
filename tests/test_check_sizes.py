"""The check that keeps weights and large files out of the repository."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from redraft.bundled import CHECKPOINT

ROOT = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("check_sizes", ROOT / "tools" / "check_sizes.py")
assert _spec is not None and _spec.loader is not None
check_sizes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_sizes)
WEIGHTS = Path(check_sizes.BUNDLED_WEIGHTS)


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, path: Path, content: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    git(folder, "add", ".")
    git(folder, "commit", "-m", "change")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    commit(tmp_path, WEIGHTS, b"1" * 1_500_000)
    return tmp_path


def test_the_bundled_weights_are_where_it_looks() -> None:
    assert Path(CHECKPOINT).parents[3] / WEIGHTS == CHECKPOINT / "model.safetensors"
    assert (check_sizes.MAX_FILE_BYTES, check_sizes.MAX_WEIGHT_BYTES) == (10**6, 120 * 10**6)


def test_large_files_are_found_before_they_are_added(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_sizes.main(repository) == 0
    (repository / "large.bin").write_bytes(b"2" * 1_000_001)
    assert check_sizes.main(repository) == 1
    assert "large.bin has 1,000,001 bytes; the limit is 1,000,000" in capsys.readouterr().out


def test_all_weights_of_the_history_count(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(repository, Path("moved.safetensors"), b"1" * 1_500_000)  # the same blob
    commit(repository, WEIGHTS, b"3" * 500)
    git(repository, "rm", "moved.safetensors")
    git(repository, "commit", "-m", "gone")
    assert check_sizes.weights_in_history(repository) == (2, 1_500_500)
    monkeypatch.setattr(check_sizes, "MAX_WEIGHT_BYTES", 1_500_499)
    assert check_sizes.main(repository) == 1
    assert "2 weight files in the history, 1,500,500 bytes of at most 1,500,499" in capsys.readouterr().out
