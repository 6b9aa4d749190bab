"""Replacing a checkpoint in its folder, so that a kill at any moment leaves the old one or the new one, never a mix.

1. All new files are written to `.saving/` in the folder and synced. A kill here leaves the old checkpoint untouched.
2. `.saving` is renamed to `.saved`. This is the commit: from here on, the folder holds the new checkpoint.
3. The old config.json is removed, so that programs that do not know `.saved` find no checkpoint rather than a mix. The
   new files are moved into the folder, weight files that no longer belong to it are removed, and so is the calibration
   that was fitted on the old weights; config.json comes last.

A kill during step 3 leaves `.saved`. The next open or save calls `finish_interrupted`, which repeats step 3: each move
is one rename, a config.json in `.saved` means that step 3 is not done, and the names of all new files were saved too.
A lock on the folder keeps two saves apart, and a save apart from an open that finishes one. Windows has no such lock:
there, only one process may save into a folder at a time. A save needs room for both checkpoints. Files that do not
belong to a checkpoint are left alone.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redraft.text.trust.calibration import TRUST_FILE
from redraft.utils.files import sync_folder
from redraft.utils.locks import lock_folder
from redraft.weights.config.keys import CONFIG_FILE

SAVING = ".saving"
SAVED = ".saved"
_FILE_LIST = ".files"
_OF_WEIGHTS = re.compile(
    rf"model(-\d{{5}}-of-\d{{5}})?\.safetensors|model\.safetensors\.index\.json|{re.escape(TRUST_FILE)}"
)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yields an empty staging folder for a checkpoint's files, config.json included, and publishes them on exit.

    The caller must sync the files it writes. If the body raises, `folder` keeps what it had. Raises ValueError if
    another save into `folder` is running.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, busy=f"another save into {folder} is running; wait for it, or save to another folder"):
        _move_into_place(folder)
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
        write_synced(staging / _FILE_LIST, "\n".join(sorted(path.name for path in staging.iterdir())).encode())
        sync_folder(staging)
        staging.rename(folder / SAVED)
        sync_folder(folder)
        _move_into_place(folder)


def check_new_folder(target: Path) -> None:
    """Raises ValueError unless `target` can be a new checkpoint's folder: it does not exist, or is empty."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; name a new folder")
    # Leftovers of a killed run may be overwritten.
    if target.is_dir() and (there := sorted({path.name for path in target.iterdir()} - {SAVING})):
        raise ValueError(f"{target} is not empty, it holds {there[0]}: name a new folder, or empty it first")


def check_disk(target: Path, needed: int) -> None:
    """Raises ValueError, with the numbers, where the disk of a new folder has less than `needed` bytes left."""
    there = next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.exists())
    # Leftovers of a killed run are deleted before anything is written.
    left = sum(path.stat().st_blocks * 512 for path in (target / SAVING).glob("*"))
    free = shutil.disk_usage(there).free + left
    if needed > free:
        raise ValueError(
            f"{target} needs {needed / 1e9:.2f} GB, but the disk has only {free / 1e9:.2f} GB free: make room, or "
            "name a folder on another disk"
        )


def finish_interrupted(folder: Path) -> None:
    """Finishes a save that was killed after its commit; does nothing if there is none."""
    if (folder / SAVED).is_dir():
        # A save that is still running has only a few renames left, so this does not wait long.
        with lock_folder(folder, busy="", wait=True):
            _move_into_place(folder)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a file that survives a power cut once its folder is synced."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(folder: Path) -> None:
    """Does step 3 if a committed checkpoint is waiting."""
    saved = folder / SAVED
    if not saved.is_dir():
        return
    if (saved / CONFIG_FILE).exists():
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        sync_folder(folder)
        names = set((saved / _FILE_LIST).read_text().split("\n"))
        for name in sorted(names - {CONFIG_FILE}):
            # On a second attempt some have been moved already.
            if (saved / name).exists():
                (saved / name).replace(folder / name)
        for path in list(folder.iterdir()):
            if _OF_WEIGHTS.fullmatch(path.name) and path.name not in names:
                path.unlink()
        sync_folder(folder)
        (saved / CONFIG_FILE).replace(folder / CONFIG_FILE)
        sync_folder(folder)
    shutil.rmtree(saved)
