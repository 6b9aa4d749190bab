"""The lock on a folder: one holder at a time, in this process and in others, and none on Windows."""

import subprocess
import sys
import threading

import pytest

from redraft.utils.locks import lock_folder

IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from redraft.utils.locks import lock_folder
with lock_folder(Path(sys.argv[1]), busy="taken"):
    pass
"""


def test_a_taken_lock_is_refused_here_and_in_another_process(tmp_path):
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path)]
    with lock_folder(tmp_path, busy="taken"):
        with pytest.raises(ValueError, match=r"^taken$"), lock_folder(tmp_path, busy="taken"):
            pass
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.stderr.endswith("ValueError: taken\n")
    subprocess.run(command, check=True)
    assert not list(tmp_path.iterdir())


def test_an_error_inside_releases_it(tmp_path):
    with pytest.raises(BlockingIOError), lock_folder(tmp_path, busy="taken"):
        raise BlockingIOError
    with lock_folder(tmp_path, busy="taken"):
        pass


def test_waiting_ends_when_the_holder_is_done(tmp_path):
    entered = threading.Event()

    def wait() -> None:
        with lock_folder(tmp_path, busy="taken", wait=True):
            entered.set()

    waiter = threading.Thread(target=wait)
    with lock_folder(tmp_path, busy="taken"):
        waiter.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    waiter.join()


def test_a_system_without_fcntl_locks_nothing(tmp_path):
    pretend = "import sys, os, pathlib; sys.modules['fcntl'] = None; sys.platform = 'win32'"
    nested = "with lock_folder(Path(sys.argv[1]), busy='taken'): print('held')"
    code = pretend + IN_ANOTHER_PROCESS + f"    {nested}\n"
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert ended.stdout == "held\n"
