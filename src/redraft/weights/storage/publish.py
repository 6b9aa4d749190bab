"""Replacing a checkpoint in its folder so that a kill at any moment leaves the old one or the new one, never a mix.

1. All new files are written to `.saving/` in the folder and synced. A kill here leaves the old checkpoint untouched.
2. `.saving` is renamed to `.saved`: the commit. From here on the new checkpoint is the folder's.
3. The old config.json is removed, so that programs that know nothing of `.saved` find no checkpoint instead of a mix;
   the new files are moved into the folder, weights that no longer belong to it are removed, config.json comes last.
A kill during 3 leaves `.saved`, and `finish_interrupted`, called by the next open or save, does 3 again: each move is
one rename, config.json lying in `.saved` says that 3 is not done, and the names of all new files were saved with them.
One lock on the folder keeps those who save and those who finish apart. A save needs room for both checkpoints at once;
files that are not a checkpoint's are left alone.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redraft.weights.config.file import CONFIG_FILE

SAVING = ".saving"
SAVED = ".saved"
_FILES = ".files"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to write a checkpoint's files to, config.json among them; leaving it publishes them.

    Files must be synced by whoever writes them. If the body raises, `folder` keeps what it had. Raises ValueError if
    another save into `folder` is running.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, wait=False):
        _finish(folder)
        staging = folder / SAVING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        except (Exception, KeyboardInterrupt):
            shutil.rmtree(staging)
            if created:
                folder.rmdir()
            raise
        write_synced(staging / _FILES, "\n".join(sorted(path.name for path in staging.iterdir())).encode())
        sync_folder(staging)
        staging.rename(folder / SAVED)
        sync_folder(folder)
        _finish(folder)


def finish_interrupted(folder: Path) -> None:
    """Finishes a save that was killed after its commit; does nothing where there is none."""
    if (folder / SAVED).is_dir():
        # A save that is alive has only some renames left to do here.
        with _locked(folder, wait=True):
            _finish(folder)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file that survives a power cut once its folder is synced."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes the folder's entries survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finish(folder: Path) -> None:
    saved = folder / SAVED
    if not saved.is_dir():
        return
    if (saved / CONFIG_FILE).exists():
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        sync_folder(folder)
        names = set((saved / _FILES).read_text().split("\n"))
        for name in sorted(names - {CONFIG_FILE}):
            # Moved already where this is the second attempt.
            if (saved / name).exists():
                (saved / name).replace(folder / name)
        for path in list(folder.iterdir()):
            if _WEIGHTS.fullmatch(path.name) and path.name not in names:
                path.unlink()
        sync_folder(folder)
        (saved / CONFIG_FILE).replace(folder / CONFIG_FILE)
        sync_folder(folder)
    shutil.rmtree(saved)


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ValueError(f"another save into {folder} is running; wait for it or save elsewhere") from error
        yield
    finally:
        os.close(descriptor)
