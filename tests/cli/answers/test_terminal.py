"""The live canvas on a real pseudo-terminal, as a person sees it."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

import pyte
import pytest


class Terminal:
    """A command on a pseudo-terminal, and a screen that shows what it wrote."""

    def __init__(self, arguments: list[str], columns: int = 60, lines: int = 12) -> None:
        self.screen = pyte.HistoryScreen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.written = b""
        self.styles: set[tuple[str, bool]] = set()
        pid, self.descriptor = pty.fork()
        if pid == 0:
            os.environ |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
            os.execv(sys.executable, [sys.executable, "-c", "from redraft.cli import main; main()", *arguments])
        self.pid = pid
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def read_until(self, wanted: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < end, self.written.decode(errors="replace")
            if not self.read():
                assert wanted(), self.written.decode(errors="replace")

    def read(self) -> bool:
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:
            return False
        self.written += data
        self.stream.feed(data)
        for row in self.screen.buffer.values():
            self.styles |= {(cell.fg, cell.bold) for cell in row.values() if cell.data.strip()}
        return bool(data)

    def finish(self) -> int:
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).strip()


@pytest.fixture
def plain(checkpoint):
    command = [sys.executable, "-c", "from redraft.cli import main; main()"]
    return subprocess.run(
        [*command, "generate", "hello", "-m", str(checkpoint), "--seed", "3"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def arguments(checkpoint, *more: str) -> list[str]:
    return ["generate", "hello", "-m", str(checkpoint), "--seed", "3", *more]


def test_noise_and_accepted_tokens_look_different_and_the_text_stays(checkpoint, plain):
    terminal = Terminal(arguments(checkpoint, "--step-delay", "0.05"), columns=200, lines=30)
    assert terminal.finish() == 0
    colours = {colour for colour, _ in terminal.styles}
    assert {"brightblack", "green", "default"} <= colours
    assert "tokens per forward" in terminal.text
    assert plain.strip().splitlines()[-1].strip() in terminal.text
    # The line about the step was part of the live view and is gone.
    assert b"mean entropy" in terminal.written
    assert "mean entropy" not in terminal.text


def test_a_resize_in_the_middle_does_no_harm(checkpoint):
    terminal = Terminal(arguments(checkpoint, "--step-delay", "0.2"), columns=100, lines=20)
    terminal.read_until(lambda: b"mean entropy" in terminal.written)
    terminal.resize(30, 8)
    os.kill(terminal.pid, signal.SIGWINCH)
    assert terminal.finish() == 0
    assert "tokensperforward" in "".join(terminal.text.split())


def test_ctrl_c_leaves_the_text_so_far(checkpoint):
    terminal = Terminal(arguments(checkpoint, "--step-delay", "0.5"), columns=100, lines=20)
    terminal.read_until(lambda: b"mean entropy" in terminal.written)
    os.write(terminal.descriptor, b"\x03")
    assert terminal.finish() == 130
    lines = terminal.text.splitlines()
    assert lines[-1] == "redraft: interrupted"
    assert len(lines) > 1
    assert b"\x1b[?25h" in terminal.written, "the cursor is shown again"
