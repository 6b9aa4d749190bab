"""What the API keeps of files and batches: rows of SQLite beside the files themselves, in one folder."""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redraft.utils.locks import lock_folder

UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")
TABLES = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, told TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, status TEXT NOT NULL, told TEXT NOT NULL);
"""


class BatchStore:
    """The state of one server, which no other may use meanwhile. May be used from any thread.

    Files and batches are objects as the API tells them; each belongs to an owner, and nobody else finds it. Raises
    ValueError where another server holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._held = lock_folder(folder, busy=f"{folder} is in use: another server has its state there")
        self._held.__enter__()
        for name in ("files", "jobs"):
            (folder / name).mkdir(exist_ok=True)
        self._connection = sqlite3.connect(folder / "state.sqlite3", check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(TABLES)

    def close(self) -> None:
        self._connection.close()
        self._held.__exit__(None, None, None)

    def path(self, file: str) -> Path:
        """Returns where a file's content is."""
        return self.folder / "files" / file

    def job_folder(self, batch: str) -> Path:
        return self.folder / "jobs" / batch

    def add_file(self, owner: str, content: Path, *, name: str, purpose: str) -> dict[str, Any]:
        """Takes a file that was written into this folder; it is moved."""
        id = f"file-{secrets.token_hex(16)}"
        told = {
            "id": id, "object": "file", "bytes": content.stat().st_size, "created_at": int(time.time()),
            "filename": name, "purpose": purpose, "status": "processed",
        }  # fmt: skip
        content.replace(self.path(id))
        with self._changes() as connection:
            connection.execute("INSERT INTO files (id, owner, told) VALUES (?, ?, ?)", (id, owner, json.dumps(told)))
        return told

    def file(self, owner: str, id: str) -> dict[str, Any] | None:
        return self._one("files", owner, id)

    def files(self, owner: str, *, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Returns the newest files behind `after`, and whether there are more."""
        return self._page("files", owner, after, limit)

    def delete_file(self, owner: str, id: str) -> bool:
        with self._changes() as connection:
            if not connection.execute("DELETE FROM files WHERE owner = ? AND id = ?", (owner, id)).rowcount:
                return False
        self.path(id).unlink(missing_ok=True)
        return True

    def add_batch(self, owner: str, told: Mapping[str, Any]) -> None:
        with self._changes() as connection:
            connection.execute(
                "INSERT INTO batches (id, owner, status, told) VALUES (?, ?, ?, ?)",
                (told["id"], owner, told["status"], json.dumps(told)),
            )

    def batch(self, owner: str, id: str) -> dict[str, Any] | None:
        return self._one("batches", owner, id)

    def batches(self, owner: str, *, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        return self._page("batches", owner, after, limit)

    def change_batch(self, id: str, *, unless: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
        """Changes fields of a batch, but where its status is one of `unless`; returns it as it is then."""
        with self._changes() as connection:
            (text,) = connection.execute("SELECT told FROM batches WHERE id = ?", (id,)).fetchone()
            told: dict[str, Any] = json.loads(text)
            if told["status"] not in unless:
                told |= changes
                connection.execute(
                    "UPDATE batches SET status = ?, told = ? WHERE id = ?", (told["status"], json.dumps(told), id)
                )
        return told

    def unfinished(self) -> list[tuple[str, dict[str, Any]]]:
        """Returns owners and batches that are still to be worked on, the oldest first."""
        marks = ", ".join("?" * len(UNFINISHED))
        with self._changes() as connection:
            found = connection.execute(
                f"SELECT owner, told FROM batches WHERE status IN ({marks}) ORDER BY number", UNFINISHED
            ).fetchall()
        return [(owner, json.loads(told)) for owner, told in found]

    @contextmanager
    def _changes(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection

    def _one(self, table: str, owner: str, id: str) -> dict[str, Any] | None:
        with self._changes() as connection:
            found = connection.execute(f"SELECT told FROM {table} WHERE owner = ? AND id = ?", (owner, id)).fetchone()
        return None if found is None else json.loads(found[0])

    def _page(self, table: str, owner: str, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        with self._changes() as connection:
            found = connection.execute(
                f"SELECT told FROM {table} WHERE owner = ? AND number < coalesce((SELECT number FROM {table} WHERE "
                "owner = ? AND id = ?), 9223372036854775807) ORDER BY number DESC LIMIT ?",
                (owner, owner, after, limit + 1),
            ).fetchall()
        return [json.loads(told) for (told,) in found[:limit]], len(found) > limit
