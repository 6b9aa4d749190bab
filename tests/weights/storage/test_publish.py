"""Publishing where there is no `fcntl`: what Windows lacks is pretended to be missing in a process of its own."""

import subprocess
import sys
from pathlib import Path

PRETEND_WINDOWS = """
import os, shutil, sys
from pathlib import Path
import safetensors, torch  # which must see the system that they were built for

open_file = os.open

def open_no_folder(path, *arguments, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))
    return open_file(path, *arguments, **options)

sys.modules["fcntl"] = None
sys.platform, os.open, shutil._use_fd_functions = "win32", open_no_folder, False
folder = Path(sys.argv[1])
"""


def run(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", PRETEND_WINDOWS + code, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_room_is_imported_without_fcntl(tmp_path: Path) -> None:
    assert run("import redraft.weights.storage.publish, redraft.weights; print('fine')", tmp_path) == "fine\n"


def test_a_checkpoint_is_saved_and_finished_without_fcntl(tmp_path: Path) -> None:
    code = """
from redraft.weights.storage.publish import SAVED, finish_interrupted, staged, write_synced

with staged(folder) as staging:
    write_synced(staging / "config.json", b"new")
print(*sorted(path.name for path in folder.iterdir()))
(folder / SAVED).mkdir()
finish_interrupted(folder)
print(*sorted(path.name for path in folder.iterdir()))
"""
    assert run(code, tmp_path) == "config.json\nconfig.json\n"


def test_without_fcntl_a_second_save_is_not_refused(tmp_path: Path) -> None:
    code = """
from redraft.weights.storage.publish import staged, write_synced

with staged(folder) as first:
    write_synced(first / "config.json", b"first")
    with staged(folder) as second:
        print(first == second, *second.iterdir())
        write_synced(second / "config.json", b"second")
    first.mkdir()
"""
    assert run(code, tmp_path) == "True\n"
