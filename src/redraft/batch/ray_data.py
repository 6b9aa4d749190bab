"""Rows that Ray Data reads, and results that it writes: at s3://, gs://, hdfs://, file:// and wherever else it can."""

import codecs
import importlib
import io
import itertools
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redraft.batch.rows import FORMATS, OPENAI, PARQUET, is_url
from redraft.utils.rows.formats import PARSERS, SUFFIXES

ROWS_AT_ONCE = 1024
PART_ROWS = 10_000
"""Rows of one file of results."""
PART_PREFIX, DONE_FILE = "part-", "_SUCCESS"
LINE, CONTENT = "line", "content"
HEADED = ("csv", "tsv")
"""Formats whose files begin with a header: two of them, one after the other, are not one."""


def fetch_rows(url: str, folder: Path, *, format: str | None = None) -> Path:
    """Copies rows into one file of a local folder, and returns its path, whose ending is of their format.

    url: of a file, or of a folder whose files are read in the order of their names, by the tasks of a connected
    cluster; one that ends in .gz is unpacked. format: one of FORMATS; None goes by the URL's ending. Raises ValueError
    where it cannot be read, or the format is not known, or the URL has a secret in it.
    """
    _check_no_password(url)
    ending = Path(urlsplit(url).path.removesuffix(".gz")).suffix.lower()
    given = format or (PARQUET if ending == f".{PARQUET}" else SUFFIXES.get(ending))
    if given is None:
        raise ValueError(f"{url} does not say what rows it has: name their format, one of {', '.join(FORMATS)}")
    if given in HEADED and not ending:
        raise ValueError(f"{url} is a folder, and files of {given} have a header each: name one file")
    data = _ray_data()
    with told_with(url):
        place, more = _for_ray(url)
        if given == PARQUET:
            path = folder / "rows.parquet"
            tables = _tables(data.read_parquet(place, **more))
            first = next(tables, None)
            if first is None:
                raise ValueError(f"{url} has no rows")
            with _module("pyarrow.parquet").ParquetWriter(path, first.schema) as writer:
                for table in itertools.chain([first], tables):
                    writer.write_table(table)
            return path
        path = folder / f"rows.{'jsonl' if given == OPENAI else given if given in PARSERS else 'txt'}"
        with path.open("wb") as file:
            for table in _tables(data.read_binary_files(place, **more).flat_map(split_lines)):
                file.writelines(value.as_py() for value in table[LINE])
    return path


def split_lines(file: dict[str, bytes]) -> list[dict[str, bytes]]:
    """Returns the lines of a file with their line breaks, the last one too, without a byte order mark."""
    lines = io.BytesIO(file["bytes"].removeprefix(codecs.BOM_UTF8)).readlines()
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    return [{LINE: line} for line in lines]


@contextmanager
def told_with(url: str) -> Iterator[None]:
    """Raises ValueError in one line for what Ray or Arrow raise about a place."""
    try:
        yield
    except Exception as error:
        # Of a task that failed elsewhere the last line says what it was.
        told = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ValueError(told if url in told else f"{url}: {told}") from error


def _for_ray(url: str) -> tuple[str, dict[str, Any]]:
    """Returns a place as Ray is told of it: to Ray what a URL asks, as ?endpoint_override=, is a part of its path."""
    arrow = _module("pyarrow")
    try:
        filesystem, path = _opened(url)
    except arrow.ArrowInvalid:
        return url, {}  # Ray has other means, as for https://
    # Ray tries for minutes to reach what is not there.
    if filesystem.get_file_info(path).type is _module("pyarrow.fs").FileType.NotFound:
        raise ValueError(f"{url}: there is no such file or folder")
    return path, {"filesystem": filesystem}


def _opened(url: str) -> tuple[Any, str]:
    """Returns Arrow's filesystem of a URL, and the path in it."""
    found: tuple[Any, str] = _module("pyarrow.fs").FileSystem.from_uri(url)
    return found


def _check_no_password(url: str) -> None:
    if urlsplit(url).password:
        raise ValueError(
            f"a URL at {urlsplit(url).hostname!r} has a secret in it, which the job's folder would keep: leave it out, "
            "and put it into the environment, as AWS_SECRET_ACCESS_KEY"
        )


def _ray_data() -> Any:
    data = _module("ray.data")
    # It tells every step of its own.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    return data


def _tables(dataset: Any) -> Iterator[Any]:
    # A row is known by its number.
    dataset.context.execution_options.preserve_order = True
    yield from dataset.iter_batches(batch_size=ROWS_AT_ONCE, batch_format="pyarrow")


@dataclass(frozen=True)
class ResultsFolder:
    """Where Ray writes a job's results in parts, and then a file _SUCCESS that says how many.

    Raises ValueError for a URL that leads nowhere, and where there are files of something else.
    """

    url: str

    def __post_init__(self) -> None:
        if not is_url(self.url):
            raise ValueError(f"the place of the results is {self.url!r}, must be like s3://bucket/answers")
        _check_no_password(self.url)
        if others := [name for name in self._files() if not name.startswith((PART_PREFIX, DONE_FILE))]:
            raise ValueError(f"{self.url} has other files, as {others[0]!r}: name a new or empty folder")

    def write(self, results: Path) -> int:
        """Writes what a job's file of results has, in place of what an earlier run wrote; returns the parts.

        Raises ValueError where it cannot be written: then there is no _SUCCESS.
        """
        filesystem, path = _opened(self.url)
        with told_with(self.url):
            # First what says that all is there.
            for name in sorted(self._files(), key=lambda name: name != DONE_FILE):
                filesystem.delete_file(f"{path}/{name}")
            count = 0
            for part in _parts(results):
                self._write(f"{PART_PREFIX}{count:05}{results.suffix}", part)
                count += 1
            self._write(DONE_FILE, json.dumps({"parts": count}).encode("ascii"))
        return count

    def _write(self, name: str, content: bytes) -> None:
        arrow, sinks = _module("pyarrow"), _module("ray.data.datasource")
        kind = type("PartSink", (sinks.BlockBasedFileDatasink,), {"write_block_to_file": _write_block})
        table = arrow.table({CONTENT: arrow.array([content], type=arrow.large_binary())})
        filesystem, path = _opened(self.url)
        # In a bucket a folder is nothing, and making one may be forbidden to who may write there.
        sink = kind(
            path, filesystem=filesystem, try_create_dir=filesystem.type_name != "s3", filename_provider=PartName(name)
        )
        _ray_data().from_arrow(table).write_datasink(sink)

    def _files(self) -> list[str]:
        with told_with(self.url):
            filesystem, path = _opened(self.url)
            fs, bucket = _module("pyarrow.fs"), path.partition("/")[0]
            if bucket and filesystem.get_file_info(bucket).type is fs.FileType.NotFound:
                raise ValueError(f"{self.url}: there is no bucket {bucket!r}")
            selector = fs.FileSelector(path, allow_not_found=True)
            return [info.base_name for info in filesystem.get_file_info(selector)]


@dataclass(frozen=True)
class PartName:
    """The name of the one file that a write makes, as Ray asks for it."""

    name: str

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        """Returns the name, whatever the task."""
        return self.name


def _write_block(_: Any, block: Any, file: Any) -> None:
    for value in block.to_arrow()[CONTENT]:
        file.write(value.as_py())


def _parts(results: Path) -> Iterator[bytes]:
    """Yields the contents of files of PART_ROWS rows each."""
    if results.suffix == f".{PARQUET}":
        parquet = _module("pyarrow.parquet")
        with parquet.ParquetFile(results) as file:
            for batch in file.iter_batches(PART_ROWS):
                part = io.BytesIO()
                with parquet.ParquetWriter(part, file.schema_arrow) as writer:
                    writer.write_batch(batch)
                yield part.getvalue()
        return
    with results.open("rb") as lines:
        while some := b"".join(itertools.islice(lines, PART_ROWS)):
            yield some


def _module(name: str) -> Any:
    return importlib.import_module(name)
