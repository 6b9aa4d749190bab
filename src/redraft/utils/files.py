"""Writing files so that nobody ever finds half of one."""

import gzip
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file (text as UTF-8) under another name and renames it; leaves one with the same content alone."""
    new = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == new:
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(new)
    partial.replace(path)


def write_chunks(path: Path, chunks: Iterable[bytes], *, is_packed: bool = False) -> None:
    """Writes a file of any size part by part, with gzip if `is_packed`, under another name, and renames it.

    What was written is removed where a part cannot be made or written: OSError then has the name of `path`.
    """
    with replace_when_whole(path) as plain:
        if is_packed:
            # Without the time, so that the same parts are the same file.
            with gzip.GzipFile(fileobj=plain, mode="wb", filename="", mtime=0) as packed:
                packed.writelines(chunks)
        else:
            plain.writelines(chunks)


@contextmanager
def replace_when_whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a file under another name, and renames it at the end of the block; after an exception it is removed.

    An OSError has the name of `path`.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as plain:
            yield plain
            plain.flush()
            os.fsync(plain.fileno())
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Makes a folder's names, as of files that were made or renamed, outlive a loss of power. Windows has no such."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
