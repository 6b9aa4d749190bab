"""A job's folder: its lock, its journal, how far it is and its results."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redraft.batch.executors.protocol import Executor, Outcome, failed
from redraft.batch.parquet import json_value, write_parquet
from redraft.batch.progress import Prices, Progress
from redraft.batch.requests import MAX_ROW_SEED, JobRow
from redraft.batch.results import (
    ANSWER_TYPES,
    FILE_NAMES,
    JSONL,
    OPENAI,
    PARQUET,
    RESULT_FORMATS,
    ResultRow,
    json_line,
    openai_record,
    own_columns,
    row_record,
    table_record,
)
from redraft.batch.rows import CheckedJob, JobFile, row_id
from redraft.batch.runner import answer_all
from redraft.utils.files import write_chunks
from redraft.utils.locks import lock_folder
from redraft.utils.rows.formats import BadRow
from redraft.utils.rows.journal import Journal, RunIdentity

KIND = "journal of redraft batch"
JOURNAL_FILE, PROGRESS_FILE = "journal.jsonl", "progress.json"
FAULTY_ROW = "faulty row"
OpenExecutor = Callable[[], AbstractAsyncContextManager[Executor]]


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """How a job's folder is treated, and what its results look like.

    result_format: one of RESULT_FORMATS. unordered: results in the order in which they were finished. restart: throw
    away what an earlier run has. retry_errors: answer rows again that have failed. seed: of the job; None draws one.
    """

    result_format: str = JSONL
    unordered: bool = False
    restart: bool = False
    retry_errors: bool = False
    seed: int | None = None
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        if self.result_format not in RESULT_FORMATS:
            raise ValueError(
                f"the format of the results is {self.result_format!r}, must be one of {', '.join(RESULT_FORMATS)}"
            )


class Job:
    """A file of rows, checked, and the folder that their answers go to. For one process at a time.

    identity: what the answers follow from beside the rows; a folder whose answers follow from other things is refused.
    """

    def __init__(
        self,
        folder: Path,
        file: JobFile,
        checked: CheckedJob,
        *,
        identity: RunIdentity,
        settings: JobSettings | None = None,
    ) -> None:
        self.folder, self.file, self.checked = folder, file, checked
        self.settings = settings or JobSettings()
        if self.settings.result_format == OPENAI and file.format != OPENAI:
            raise ValueError(f"OpenAI's output is for its batch lines; {file.name} has rows of its own: leave it out")
        own = {
            "the format of the rows": file.format, "the template": file.template, "the column of ids": file.id_column,
            "the column of requests' fields": file.body_column, "the URL of prompts": file.url,
            "the fields of requests": dict(file.fields.fields) or None,
            "the order of the results": "unordered" if self.settings.unordered else None,
        }  # fmt: skip
        self.identity = RunIdentity(
            {**own, **identity.options}, {"the content of the rows": checked.digest, **identity.digests}
        )
        self.progress = Progress(total=checked.rows, prices=self.settings.prices)
        self.damaged = 0

    @property
    def journal_path(self) -> Path:
        return self.folder / JOURNAL_FILE

    @property
    def results_path(self) -> Path:
        return self.folder / FILE_NAMES[self.settings.result_format]

    def run(self, executor: OpenExecutor, tick: Callable[[Progress], object] = lambda _: None) -> Progress:
        """Answers what is not answered yet and writes the results; returns the counts.

        executor: opened if there is anything to answer. tick: called twice a second. Raises ValueError where the folder
        is another job's, or in use; ExecutorFailed; and OSError. What was finished until then is kept, also after
        KeyboardInterrupt.
        """
        self._check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(self.folder, busy=f"{self.folder} is in use: another process runs this job"):
            if self.settings.restart:
                self.journal_path.unlink(missing_ok=True)
            with self._open_journal() as journal:
                self._count_finished(journal)
                if len(journal) < self.checked.rows:
                    with asyncio.Runner() as runner:
                        runner.run(self._answer(journal, executor, tick))
                self._tell(tick)
                self._write_results(journal)
        return self.progress

    def write_finished(self) -> None:
        """Writes the results of a job that is given up: they have the rows that are finished. For unordered ones."""
        assert self.settings.unordered
        with lock_folder(self.folder, busy=f"{self.folder} is in use"), self._open_journal() as journal:
            self._write_results(journal)

    def _check_folder(self) -> None:
        """Raises ValueError for a folder that has something else in it, and for what is no folder."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file, but a job is a folder: name a new or empty one")
        if not self.folder.is_dir() or self.journal_path.exists():
            return
        others = sorted(path.name for path in self.folder.iterdir())
        if [name for name in others if name not in (PROGRESS_FILE, *FILE_NAMES.values())]:
            raise ValueError(f"{self.folder} is not a job's folder: it has {others[0]!r}; name a new or empty one")

    def _open_journal(self) -> Journal:
        given = self.settings.seed
        facts = {
            "rows": self.checked.rows,
            "seed": secrets.randbelow(MAX_ROW_SEED + 1) if given is None else given,
            "input": self.file.name,
            "created": int(time.time()),
        }
        restart = "give --restart"
        identity = self.identity
        journal = Journal(self.journal_path, identity, resume=True, kind=KIND, facts=facts, restart=restart)
        if given is not None and journal.facts["seed"] != given:
            journal.__exit__(None, None, None)
            raise ValueError(
                f"{self.folder} cannot be resumed: the seed was {journal.facts['seed']} and is {given}. Go on with "
                f"what it was, or {restart} to begin again"
            )
        return journal

    def _count_finished(self, journal: Journal) -> None:
        """Counts what the journal has, and forgets rows that are to be answered again."""
        self.damaged = journal.damaged
        again = []
        for record in journal.records():
            outcome = record["outcome"]
            error = outcome.get("error")
            if self.settings.retry_errors and error and error["kind"] != FAULTY_ROW:
                again.append(record["line"])
            else:
                self.progress.add(outcome)
        for line in again:
            journal.forget(line)
        self.progress.begin()

    async def _answer(self, journal: Journal, open_executor: OpenExecutor, tick: Callable[[Progress], object]) -> None:
        def finish(row: JobRow | BadRow, outcome: Outcome) -> None:
            key: dict[str, Any] = {"id": row_id(row), "digest": _digest_of(row)}
            if self.settings.unordered:
                # What the file is not asked for again.
                key |= {"columns": json_value(row.columns), "seed": _seed_of(row)}
            journal.append(row.line, outcome, **key)
            self.progress.add(outcome)

        def missing() -> Iterator[JobRow]:
            for row in self.file.rows(journal.facts["seed"]):
                if row.line in journal:
                    continue
                if isinstance(row, BadRow):
                    finish(row, failed(FAULTY_ROW, row.fault))
                else:
                    yield row

        self._tell(tick)
        async with open_executor() as executor:
            # Without the time that it took to be opened.
            self.progress.begin()
            await answer_all(missing(), executor, journal, finish, lambda: self._tell(tick))

    def _tell(self, tick: Callable[[Progress], object]) -> None:
        self.progress.write(self.folder / PROGRESS_FILE)
        tick(self.progress)

    def _write_results(self, journal: Journal) -> None:
        rows = self._result_rows(journal)
        if self.settings.result_format != PARQUET:
            record = openai_record if self.settings.result_format == OPENAI else row_record
            write_chunks(self.results_path, (json_line(record(row)) for row in rows))
            return
        is_kept = self.file.format == PARQUET and not self.settings.unordered
        kinds: Mapping[str, Any] = self.file.column_types() if is_kept else self.checked.kinds
        names = own_columns(kinds)
        types = {**kinds, **{column: ANSWER_TYPES[name] for name, column in names.items()}}
        write_parquet(self.results_path, types, (table_record(row, names) for row in rows))

    def _result_rows(self, journal: Journal) -> Iterator[ResultRow]:
        """Yields what the results have, in their order."""
        if self.settings.unordered:
            for record in journal.records():
                yield ResultRow(**record)
            return
        for row in self.file.rows(journal.facts["seed"]):
            record, digest = journal.record(row.line), _digest_of(row)
            if record["digest"] != digest:
                raise ValueError(f"{self.journal_path} has an answer to another row {record['id']!r}: give --restart")
            yield ResultRow(row.line, row_id(row), digest, row.columns, record["outcome"], _seed_of(row))


def _digest_of(row: JobRow | BadRow) -> str:
    return row.digest() if isinstance(row, JobRow) else ""


def _seed_of(row: JobRow | BadRow) -> int | None:
    return row.body.get("seed") if isinstance(row, JobRow) else None
