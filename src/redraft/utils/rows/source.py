"""The lines of a file, or of a stream that is kept, as text: again and again, with what is wrong with a line."""

import codecs
import gzip
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, BinaryIO

GZIP_SUFFIX = ".gz"
STANDARD_INPUT = "standard input"
MAX_KEPT_IN_MEMORY = 64 * 2**20

OTHER_KINDS = {
    codecs.BOM_UTF16_LE: "UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    codecs.BOM_UTF16_BE: "UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\x1f\x8b": f"compressed with gzip: give its name the ending {GZIP_SUFFIX}, or unpack it (gunzip -c)",
    b"PK\x03\x04": "a ZIP archive, as spreadsheets (.xlsx) are: save it as CSV",
    b"PAR1": "Parquet: save it as CSV or JSON lines",
    b"\x28\xb5\x2f\xfd": f"compressed with zstd: unpack it, or compress it with gzip ({GZIP_SUFFIX})",
    b"\xfd7zXZ\x00": f"compressed with xz: unpack it, or compress it with gzip ({GZIP_SUFFIX})",
    b"BZh": f"compressed with bzip2: unpack it, or compress it with gzip ({GZIP_SUFFIX})",
}
"""What files begin with that are not lines of text, and what they are."""
EXAMINED_BYTES = 256
UTF16_ZEROS_SHARE = 0.25
"""Of Latin letters in UTF-16 every second byte is zero."""


class LineSource:
    """A file, unpacked where its name ends in .gz, or a stream, as lines that can be read several times.

    stream: takes the place of the file `path`, and is read to its end. It, and a pipe, is copied to a temporary file.
    """

    def __init__(self, path: Path, stream: BinaryIO | None = None) -> None:
        self.name = str(path) if stream is None else STANDARD_INPUT
        self._path = path
        self._is_packed = stream is None and path.suffix.lower() == GZIP_SUFFIX
        self._copy: IO[bytes] | None = None
        if stream is not None:
            self._copy = self._keep(stream)
        elif path.exists() and not path.is_file() and not path.is_dir():
            with path.open("rb") as pipe:
                self._copy = self._keep(pipe)

    @property
    def suffix(self) -> str:
        """The ending of the file's name, without .gz, in small letters; "" for a stream."""
        if self.name == STANDARD_INPUT:
            return ""
        return (self._path.with_suffix("") if self._is_packed else self._path).suffix.lower()

    def lines(self, update: Callable[[bytes], object] = bytes) -> Iterator[tuple[str, str | None]]:
        """Yields each line with its line break, and what is wrong with it or None; `update` takes the bytes read.

        Raises ValueError where the file as a whole is something else, and OSError where it cannot be read.
        """
        for number, line in enumerate(self._read(), 1):
            update(line)
            if number == 1:
                self._check_kind(line)
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                yield line.decode("utf-8"), None
            except UnicodeDecodeError as error:
                column = len(line[: error.start].decode("utf-8")) + 1
                way_out = "save the file as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8)"
                fault = f"byte {line[error.start]:#04x} at column {column} is not UTF-8: {way_out}"
                yield line.decode("utf-8", "replace"), fault

    def _read(self) -> Iterator[bytes]:
        with self._open() as plain:
            if not self._is_packed:
                yield from plain
                return
            try:
                with gzip.open(plain) as unpacked:
                    yield from unpacked
            except EOFError:
                raise ValueError(f"{self.name} is cut off: its gzip data have no end") from None
            except (gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"{self.name} cannot be unpacked as gzip: {error}") from None

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        if self._copy is None:
            return self._path.open("rb")
        self._copy.seek(0)
        return nullcontext(self._copy)

    def _check_kind(self, line: bytes) -> None:
        start = line[:EXAMINED_BYTES]
        for mark, kind in OTHER_KINDS.items():
            if start.startswith(mark):
                raise ValueError(f"{self.name} is {kind}")
        if start.count(0) > UTF16_ZEROS_SHARE * len(start):
            raise ValueError(f"{self.name} has zero bytes like {OTHER_KINDS[codecs.BOM_UTF16_LE]}")

    def _keep(self, stream: BinaryIO | IO[bytes]) -> IO[bytes]:
        copy = tempfile.SpooledTemporaryFile(max_size=MAX_KEPT_IN_MEMORY)  # noqa: SIM115 - for as long as this object
        weakref.finalize(self, copy.close)
        try:
            shutil.copyfileobj(stream, copy)
        except OSError as error:
            where = f"{tempfile.gettempdir()} ({error.strerror})"
            raise ValueError(
                f"{self.name} cannot be kept in {where}: free space there, set TMPDIR, or give a file"
            ) from None
        return copy
