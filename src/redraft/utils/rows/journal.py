"""The journal of a run over rows: what has been finished, on disk as soon as it is, so that a run can be resumed."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

if sys.platform != "win32":
    import fcntl

KIND = "journal of redraft generate --rows"
DIGESTED_BYTES = 2**20


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
    it, is passed over, and its row counts as not answered. One process at a time may hold it, but on Windows. Leaving
    the `with` block closes it, and removes one that has no rows. damaged: how many lines were passed over.

    Raises ValueError where `path` is no journal, is another run's (with what changed) or is held, and unless `resume`
    where it exists.
    """

    def __init__(self, path: Path, identity: RunIdentity, *, resume: bool) -> None:
        self.path = path
        if path.exists() and not resume:
            raise ValueError(f"{path} has the rows of a run that did not end: go on with --resume, or remove it")
        # Where each row's line begins, and its length.
        self._places: dict[int, tuple[int, int]] = {}
        self.damaged = 0
        # Unbuffered: what could not be written is not tried again later.
        self._file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        try:
            self._lock()
            self._end = self._read_all(_encode({"kind": KIND, **asdict(identity)}), identity)
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise

    def __contains__(self, line: int) -> bool:
        return line in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, line: int) -> dict[str, Any]:
        """Returns what was appended for a row. Raises KeyError where nothing was."""
        start, length = self._places[line]
        self._file.seek(start)
        outcome: dict[str, Any] = json.loads(self._file.read(length))["outcome"]
        return outcome

    def append(self, line: int, outcome: Mapping[str, Any]) -> None:
        """Writes the outcome of the row at `line`. Raises OSError where it cannot, without half a line left over."""
        data = _encode({"line": line, "outcome": outcome})
        self._write(data)
        self._places[line] = (self._end - len(data), len(data))

    def remove(self) -> None:
        """Removes the file, whose rows are elsewhere now."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._places:
            self.path.unlink(missing_ok=True)
        self._file.close()

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
            if not first.endswith(b"\n") and header.startswith(first):
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
                    self._places.setdefault(line, (end, len(data)))
                end += len(data)
            return end

    def _check_header(self, data: bytes, identity: RunIdentity) -> None:
        try:
            found = json.loads(data)
            if found["kind"] != KIND:
                raise ValueError
            before = RunIdentity(found["options"], found["digests"])
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{self.path} is not a journal of this command: rename it, or name another output"
            ) from None
        if changes := identity.changes_since(before):
            raise ValueError(
                f"{self.path} cannot be resumed, its rows would not fit the others: {'; '.join(changes)}. Go on with "
                "what it was, or remove the file to begin again"
            )

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


def _encode(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record) + "\n").encode("ascii")


def _line_of(data: bytes) -> int | None:
    """Returns the row's line that a whole line of the journal is of, or None if it is not one."""
    try:
        record = json.loads(data)
        line, outcome = record["line"], record["outcome"]
    except (ValueError, TypeError, KeyError):
        return None
    return line if type(line) is int and isinstance(outcome, dict) else None
