"""Standard input, output and error: where they are closed, cannot hold a character, or have something to say."""

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

ESCAPE_ERRORS = "redraft.escape"
"""The name under which codecs knows `_escape`."""


class ClosedOutput(io.TextIOBase):
    """Stands for a standard output that is closed: what is written to it is an error, not lost."""

    def write(self, text: str) -> int:
        """Raises OSError."""
        raise OSError(errno.EBADF, "standard output is closed; send it to a file, a pipe or /dev/null")


class ErrorStream(io.TextIOWrapper):
    """Standard error, on which nothing depends: what cannot be written, on a full disk or to nobody, is thrown away."""

    def write(self, text: str) -> int:
        """Writes a text; returns its length, also where nothing could be written."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be written."""
        with suppress(OSError):
            super().flush()


def prepare_streams() -> None:
    """Makes standard output hold every character, as JSON's escapes where its encoding has none, or say it is closed.

    What cannot be written on standard error, also where it is closed, is thrown away.
    """
    _occupy_descriptors()
    if sys.stdout is None:
        sys.stdout = ClosedOutput()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the process's life
    elif type(sys.stderr) is io.TextIOWrapper:
        own = sys.stderr
        sys.stderr = ErrorStream(own.buffer, own.encoding, own.errors, line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error(ESCAPE_ERRORS, _Escape(sys.stdout.encoding))
        sys.stdout.reconfigure(errors=ESCAPE_ERRORS)


def read_standard_input() -> str:
    """Returns the whole of standard input. Raises ValueError where it is closed or not UTF-8."""
    data: bytes = standard_input().buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8: byte {data[error.start]:#04x} at {error.start}") from None


def standard_input() -> TextIO:
    """Returns standard input. Raises ValueError where it is closed."""
    if sys.stdin is None:
        raise ValueError("standard input is closed; give it a file, a pipe or /dev/null")
    return sys.stdin


def say(note: str, *, quiet: bool = False) -> None:
    """Prints a note on standard error, unless `quiet`."""
    if not quiet:
        print(f"redraft: {note}", file=sys.stderr, flush=True)


def print_answer(text: object) -> None:
    """Prints on standard output at once. Raises OSError that names it where the disk behind it is full."""
    try:
        print(text, flush=True)
    except OSError as error:
        # A write that fails has no name of a file. The others are of a pipe, or say what they are.
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(error.errno, f"standard output: {explain_os_error(error)}") from error


@contextmanager
def loading(name: str, *, quiet: bool = False) -> Iterator[None]:
    """Says on a terminal, for as long as the block takes, that a model is being loaded."""
    is_shown = sys.stderr.isatty() and not quiet
    if is_shown:
        print(f"loading {name} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def explain_os_error(error: OSError) -> str:
    """Returns the sentence for what the system refused, with the file's name where it is known."""
    name = next((str(name) for name in (error.filename, error.filename2) if name is not None), None)
    if name is None or error.strerror is None:
        return error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return f"there is no file or folder {name!r}"
    if isinstance(error, FileExistsError) and Path(name).is_file():
        return f"{name!r} is a file, not a folder"
    if isinstance(error, IsADirectoryError):
        return f"{name!r} is a folder, not a file"
    if isinstance(error, NotADirectoryError):
        return f"{name!r} leads through a file that is not a folder"
    if isinstance(error, PermissionError):
        return f"{name!r} may not be read or written: {error.strerror.lower()}"
    return f"{name!r}: {error.strerror.lower()}"


class _Escape:
    """An error handler of `codecs`: JSON's escapes, which also text can be read back from; says so once."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._is_told = False

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        if not self._is_told:
            self._is_told = True
            lacking = "characters that it lacks are escaped as in JSON"
            # Where both are set, it is PYTHONIOENCODING that counts.
            way = "without PYTHONIOENCODING, " if "PYTHONIOENCODING" in os.environ else ""
            say(f"standard output is {self._encoding}: {lacking}; {way}PYTHONUTF8=1 writes them as they are")
        units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
        escapes = (f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
        return "".join(escapes), error.end


def _occupy_descriptors() -> None:
    """Opens /dev/null for each closed standard stream: the next file opened would take its place and be written to."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
