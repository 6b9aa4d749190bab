"""The journal of a run over rows: what has been finished, on disk as soon as it is, so that a run can be resumed."""

import hashlib
import itertools
import json
import os
import sys
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redraft.utils.files import sync_folder
from redraft.utils.signals import delay_interrupt

if sys.platform != "win32":
    import fcntl

KIND = "journal of redraft generate --rows"
REMOVE_IT = "remove it"
DIGESTED_BYTES = 2**20
ABSENT = -1
SYNC_ROWS, SYNC_SECONDS = 256, 0.5


@dataclass(frozen=True)
class RunIdentity:
    """What a run's answers follow from: options by their names, and digests of what is too large to be kept."""

    options: Mapping[str, Any]
    digests: Mapping[str, str]

    def changes_since(self, before: "RunIdentity") -> list[str]:
        """Returns a phrase for each thing that is not as it was before."""

        def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
            return [name for name in {**old, **new} if old.get(name) != new.get(name)]

        def told(value: Any) -> str:
            return "not given" if value is None else json.dumps(value, ensure_ascii=False)

        return [
            f"{name} was {told(before.options.get(name))} and is {told(self.options.get(name))}"
            for name in differing(before.options, self.options)
        ] + [f"{name} changed" for name in differing(before.digests, self.digests)]


def digest_folder(folder: Path, patterns: Sequence[str]) -> str:
    """Returns a digest of a folder's files: of their names, sizes, and first and last MB, which takes no time."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(json.dumps([path.name, size]).encode())
        with path.open("rb") as file:
            digest.update(file.read(DIGESTED_BYTES))
            file.seek(max(file.tell(), size - DIGESTED_BYTES))
            digest.update(file.read(DIGESTED_BYTES))
    return digest.hexdigest()


class Journal:
    """An append-only file: a line with the run's identity, then a line for each row, in the order they were finished.

    What a process that was killed left of a line is cut off; a whole line that cannot be read, as a damaged disk leaves
    it, is passed over, and its row counts as not answered. Of two lines of one row the later one counts. One process at
    a time may hold it, but on Windows. Leaving the `with` block closes it, and removes one that has no rows.

    kind: what the first line says that it is. facts: what else that line keeps, from when it was begun. restart: what
    to do to begin again. damaged: how many lines were passed over. unsynced: lines that a loss of power may take.

    It holds 8 bytes for each line of the file of rows. Raises ValueError where `path` is no journal, is another run's
    (with what changed) or is held, and unless `resume` where it exists.
    """

    def __init__(
        self,
        path: Path,
        identity: RunIdentity,
        *,
        resume: bool,
        kind: str = KIND,
        facts: Mapping[str, Any] | None = None,
        restart: str = REMOVE_IT,
    ) -> None:
        self.path = path
        if path.exists() and not resume:
            raise ValueError(f"{path} has the rows of a run that did not end: go on with --resume, or {restart}")
        self._kind, self._restart = kind, restart
        self.facts = dict(facts or {})
        # Where the line of each row begins; by the row's own line.
        self._starts = array("q")
        self._count = 0
        self.damaged = self.unsynced = 0
        self._synced_at = time.monotonic()
        is_new = not path.exists()
        # Unbuffered: what could not be written is not tried again later.
        self._file = path.open("x+b" if is_new else "r+b", buffering=0)
        self._reader = path.open("rb")
        try:
            self._lock()
            header = _encode({"kind": kind, **asdict(identity), **({"facts": self.facts} if facts else {})})
            self._end = self._read_all(header, identity)
            self._file.truncate(self._end)
            if is_new:
                self.sync()
                sync_folder(path.parent)
        except BaseException:
            self._close()
            raise

    def __contains__(self, line: int) -> bool:
        return line < len(self._starts) and self._starts[line] != ABSENT

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, line: int) -> dict[str, Any]:
        """Returns what was appended for a row. Raises KeyError where nothing was."""
        outcome: dict[str, Any] = self.record(line)["outcome"]
        return outcome

    def record(self, line: int) -> dict[str, Any]:
        """Returns the whole line of a row, its key included. Raises KeyError where there is none."""
        if line not in self:
            raise KeyError(line)
        self._reader.seek(self._starts[line])
        record: dict[str, Any] = json.loads(self._reader.readline())
        return record

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields the line that counts of each row, in the order they were appended."""
        yield from _records(self.path, self._starts)

    def append(self, line: int, outcome: Mapping[str, Any], **key: Any) -> None:
        """Writes the outcome of the row at `line`, with what else names it; it outlives the process from here on.

        Raises OSError where it cannot, without half a line left over.
        """
        start, data = self._end, _encode({"line": line, **key, "outcome": outcome})
        # A row that is written is counted: an interrupt between the two would be told one row too few.
        with delay_interrupt():
            self._write(data)
            self._place(line, start)
            self.unsynced += 1

    def sync(self) -> None:
        """Makes what was appended outlive a loss of power too. May be called from another thread."""
        self.unsynced, self._synced_at = 0, time.monotonic()
        os.fsync(self._file.fileno())

    def is_due(self) -> bool:
        """Tells whether `sync` should be called: 256 rows, or half a second, after the last."""
        waited = time.monotonic() - self._synced_at
        return self.unsynced >= SYNC_ROWS or (self.unsynced > 0 and waited >= SYNC_SECONDS)

    def forget(self, line: int) -> None:
        """Counts a row as not answered, until it is appended again."""
        self._count -= line in self
        self._starts[line] = ABSENT

    def remove(self) -> None:
        """Removes the file, whose rows are elsewhere now."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._count:
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        self._reader.close()
        self._file.close()

    def _place(self, line: int, start: int) -> None:
        self._count += line not in self
        _put(self._starts, line, start)

    def _lock(self) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.path} is in use: another process answers these rows") from None

    def _read_all(self, header: bytes, identity: RunIdentity) -> int:
        """Finds the rows, writes the header where there is none, and returns where the last whole line ends."""
        with self.path.open("rb") as lines:
            first = lines.readline()
            # Of a header, too, a part may have been written.
            beginning = _encode({"kind": self._kind}).removesuffix(b"}\n")
            if not first.endswith(b"\n") and (first.startswith(beginning) or beginning.startswith(first)):
                self._end = 0
                self._write(header)
                return self._end
            self._check_header(first, identity)
            end = len(first)
            for data in lines:
                if not data.endswith(b"\n"):
                    break
                if (line := _line_of(data)) is None:
                    self.damaged += 1
                else:
                    self._place(line, end)
                end += len(data)
            return end

    def _check_header(self, data: bytes, identity: RunIdentity) -> None:
        try:
            before = read_header(data, self._kind)
        except ValueError:
            raise ValueError(
                f"{self.path} is not a journal of this command: rename it, or name another output"
            ) from None
        if changes := identity.changes_since(before.identity):
            raise ValueError(
                f"{self.path} cannot be resumed, its rows would not fit the others: {'; '.join(changes)}. Go on with "
                f"what it was, or {self._restart} to begin again"
            )
        self.facts = dict(before.facts)

    def _write(self, data: bytes) -> None:
        self._file.seek(self._end)
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError as error:
            self._file.truncate(self._end)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._end += len(data)


@dataclass(frozen=True)
class JournalHeader:
    """What a journal's first line says: whose rows they are, and facts from when it was begun."""

    identity: RunIdentity
    facts: Mapping[str, Any]


def read_header(data: bytes, kind: str) -> JournalHeader:
    """Parses a journal's first line. Raises ValueError where it is not one of this kind."""
    try:
        found = json.loads(data)
        if found["kind"] == kind:
            return JournalHeader(RunIdentity(found["options"], found["digests"]), found.get("facts", {}))
    except (ValueError, TypeError, KeyError):
        pass
    raise ValueError(f"this is not a {kind}")


def read_outcomes(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the outcome of each row of a journal that nobody holds, without a change to it."""
    starts = array("q")
    for line, start, _ in _whole_lines(path):
        _put(starts, line, start)
    for record in _records(path, starts):
        yield record["outcome"]


def _records(path: Path, starts: "array[int]") -> Iterator[dict[str, Any]]:
    for line, start, data in _whole_lines(path):
        if line < len(starts) and starts[line] == start:
            yield json.loads(data)


def _whole_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yields row, start and bytes of each line that is whole."""
    start = 0
    with path.open("rb") as lines:
        for data in lines:
            if data.endswith(b"\n") and (line := _line_of(data)) is not None:
                yield line, start, data
            start += len(data)


def _put(starts: "array[int]", line: int, start: int) -> None:
    if line >= len(starts):
        starts.extend(itertools.repeat(ABSENT, line + 1 - len(starts)))
    starts[line] = start


def _encode(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record) + "\n").encode("ascii")


def _line_of(data: bytes) -> int | None:
    """Returns the row's line that a whole line of the journal is of, or None if it is not one."""
    try:
        record = json.loads(data)
        line, outcome = record["line"], record["outcome"]
    except (ValueError, TypeError, KeyError):
        return None
    return line if type(line) is int and line >= 0 and isinstance(outcome, dict) else None
