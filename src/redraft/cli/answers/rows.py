"""`redraft generate --rows`: the answers to a file's rows, on standard output or into a file that can be resumed."""

import asyncio
import errno
import itertools
import json
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import redraft
from redraft.cli import options
from redraft.cli.answers.answer_warnings import end_with_warnings, is_below
from redraft.cli.answers.row_options import RowOptions, tell_unasked
from redraft.cli.streams import explain_os_error, say, standard_input
from redraft.utils.rows.formats import BadRow
from redraft.utils.rows.job import Outcome, RowCounts, answer_missing, bad_outcome, write_output
from redraft.utils.rows.journal import Journal, RunIdentity, digest_folder
from redraft.utils.rows.reading import CheckedRows, Row, RowFile
from redraft.utils.rows.source import GZIP_SUFFIX
from redraft.utils.rows.tables import LOW_TRUST, RowWriter, probability_of
from redraft.utils.signals import treat_sigterm_as_interrupt
from redraft.utils.words import counted, counted_of

MANY_ROWS = 100_000
PREFETCH_FACTOR = 2
"""As many times the requests that the engine works on are given to it, so that it never runs dry."""
CONSTRAINTS = ("schema", "regex", "choice", "grammar")
GROUNDING = {"schema_from_prompt", "grounded", "at_words"}
OPTIONS = {"schema": "json_schema"}
"""The options that are called otherwise in Python."""
CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")


def answer_rows(
    model_options: options.ModelOptions,
    chosen: RowOptions,
    mode: str | None,
    constraint: Mapping[str, Any],
    *,
    strict: bool,
    quiet: bool,
    min_trust: float | None = None,
) -> None:
    """Answers every row of a file. Exits with code 1 where some were bad or failed, else as `strict` has it.

    constraint: what every answer is held to, as arguments of `Model.generate`; empty for nothing. The whole file is
    checked before the model is loaded. A bad row is an error there, unless it is to be skipped.
    """
    assert chosen.file is not None
    kind = chosen.kind
    settings = {**model_options.settings_in(mode), **({} if mode is None else {"mode": mode}), **constraint}
    file = RowFile(
        chosen.file,
        format=chosen.file_format,
        template=chosen.template,
        id_column=chosen.id_column,
        stream=standard_input().buffer if chosen.is_stream else None,
    )
    if chosen.output is not None:
        _check_output(chosen.output, chosen)
        if min_trust is not None:
            _check_output(low_trust_path(chosen.output), chosen)
    checked = file.check(skip_bad=chosen.skip_bad, unique_ids=bool(chosen.output or chosen.id_column))
    writer = RowWriter(kind, columns=checked.columns, fields=chosen.fields, token_ids=chosen.token_ids)
    _tell(file, checked, writer, quiet=quiet)
    if chosen.fields and model_options.adapter is None and not constraint.keys() & set(CONSTRAINTS):
        tell_unasked(model_options.model, file.template, chosen.fields, quiet=quiet)
    if chosen.output is None:
        counts = _print_answers(model_options, settings, file, checked, writer, quiet=quiet)
    else:
        counts = _write_answers(
            model_options, settings, chosen, file, checked, writer, min_trust=min_trust, quiet=quiet
        )
    where = "" if chosen.output is None else f"{chosen.output}: "
    if counts.bad:
        say(f"{where}{counted_of(counts.bad, counts.rows, 'row', 'was', 'were')} bad and skipped")
    if counts.failed:
        say(f'{where}{counted_of(counts.failed, counts.rows, "row", "failed", "failed")}: see "error" there')
    _tell_warned(where, counts, quiet=quiet)
    if counts.low and min_trust is None:
        low = counted_of(counts.low, counts.rows, "answer", "is", "are")
        say(f'{where}{low} trusted less than {LOW_TRUST}: see "trust" there', quiet=quiet)
    if counts.bad or counts.failed:
        raise typer.Exit(1)
    end_with_warnings(counts.warned + counts.warned_below, strict=strict)
    end_with_warnings(counts.below, strict=True)


def low_trust_path(output: Path) -> Path:
    """Returns the file, beside an output, of those answers that are trusted less than is asked for."""
    suffix = "".join(output.suffixes[-2:]) if output.suffix.lower() == GZIP_SUFFIX else output.suffix
    return output.with_name(f"{output.name.removesuffix(suffix)}.low-trust{suffix}")


def _check_output(output: Path, chosen: RowOptions) -> None:
    if output.is_dir():
        raise ValueError(f"--output: {str(output)!r} is a folder, not a file")
    if output.exists():
        done = ", and nothing is left to resume" if chosen.resume and not _exists(chosen.journal) else ""
        raise ValueError(f"--output: {str(output)!r} is there already{done}: remove it, or name another file")


def _exists(path: Path | None) -> bool:
    return path is not None and path.exists()


def _tell(file: RowFile, checked: CheckedRows, writer: RowWriter, *, quiet: bool) -> None:
    """Says on standard error what somebody should know about a file before its rows are answered."""
    for row in checked.first_bad:
        id = "" if row.id is None else f" (id {row.id})"
        say(f"skipped: {file.name}, {row.fault}{id}")
    if checked.bad > len(checked.first_bad):
        say(f"skipped: {counted(checked.bad - len(checked.first_bad), 'more bad row')} of {file.name}")
    for name, column in writer.renamed_fields.items():
        say(f"{file.name} has a column {name!r}: the answer's is called {column!r}", quiet=quiet)
    if checked.good > MANY_ROWS:
        say(
            f"{file.name} has {checked.good:,} rows: this command is for smaller files. `redraft batch run` keeps a "
            "job's folder, which survives whatever interrupts it",
            quiet=quiet,
        )


def _tell_warned(where: str, counts: RowCounts, *, quiet: bool) -> None:
    if counts.warned:
        warned = counted_of(counts.warned, counts.rows, "answer", "has a warning", "have warnings")
        say(f'{where}{warned}: see "warnings" there', quiet=quiet)


def _print_answers(
    model_options: options.ModelOptions,
    settings: Mapping[str, Any],
    file: RowFile,
    checked: CheckedRows,
    writer: RowWriter,
    *,
    quiet: bool,
) -> RowCounts:
    """Prints the line of each row, in order and as soon as it is known."""
    counts = RowCounts()
    model = model_options.load(quiet=quiet)
    # On a terminal the lines themselves show the progress.
    is_shown = not quiet and not sys.stdout.isatty()
    with _engine(model, model_options) as engine, _progress(checked.good, is_shown=is_shown) as advance:
        _print(writer.header())
        for row, outcome in _in_order(engine, file, _with_built(model, settings)):
            counts.add(row, outcome, writer.warnings(outcome))
            _print(writer.line(row, outcome))
            if isinstance(row, Row):
                advance(outcome)
    return counts


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        lost = f"standard output: {explain_os_error(error)}; the answers from here on are lost"
        raise ValueError(f"{lost}: --output keeps what is answered, and can be resumed") from error


def _write_answers(
    model_options: options.ModelOptions,
    settings: Mapping[str, Any],
    chosen: RowOptions,
    file: RowFile,
    checked: CheckedRows,
    writer: RowWriter,
    *,
    min_trust: float | None,
    quiet: bool,
) -> RowCounts:
    """Writes the line of each row into the output, by way of a journal that outlives whatever happens."""
    assert chosen.output is not None
    assert chosen.journal is not None
    identity = _identify(model_options, settings, file, checked, chosen)
    with treat_sigterm_as_interrupt(), Journal(chosen.journal, identity, resume=chosen.resume) as journal:
        try:
            if journal.damaged:
                say(f"{counted(journal.damaged, 'line')} of {journal.path} cannot be read: answered again")
            if journal:
                say(f"{counted_of(len(journal), checked.good, 'row', 'is', 'are')} answered already", quiet=quiet)
            if len(journal) < checked.good:
                model = model_options.load(quiet=quiet)
                progress = _progress(checked.good, done=len(journal), is_shown=not quiet)
                with _engine(model, model_options) as engine, progress as advance:
                    answered = _as_completed(engine, _with_built(model, settings))
                    for outcome in answer_missing(file, journal, answered):
                        advance(outcome)
            counts = _write_outputs(chosen.output, file, journal, writer, min_trust, quiet=quiet)
        except KeyboardInterrupt:
            say(_how_to_resume(journal, checked, is_stream=chosen.is_stream))
            raise
        except OSError as error:
            way_out = _how_to_resume(journal, checked, is_stream=chosen.is_stream)
            raise ValueError(f"{explain_os_error(error)}; {way_out}") from error
        journal.remove()
    return counts


def _write_outputs(
    output: Path, file: RowFile, journal: Journal, writer: RowWriter, min_trust: float | None, *, quiet: bool
) -> RowCounts:
    """Writes the rows, those trusted less than is asked for into a file of their own, which comes first."""

    def is_low(outcome: Outcome) -> bool:
        return "error" not in outcome and is_below(probability_of(outcome), min_trust)

    if min_trust is None:
        return write_output(output, file, journal, writer)
    path = low_trust_path(output)
    low = write_output(path, file, journal, writer, is_low)
    counts = write_output(output, file, journal, writer, lambda outcome: not is_low(outcome))
    less = counted_of(low.rows - low.unknown, low.rows + counts.rows, "answer", "is", "are")
    unknown = f", and {low.unknown:,} more {'has' if low.unknown == 1 else 'have'} no number" if low.unknown else ""
    say(f"{path}: {less} trusted less than {min_trust}{unknown}")
    _tell_warned(f"{path}: ", low, quiet=quiet)
    counts.below, counts.warned_below = low.rows, low.warned
    return counts


def _with_built(model: "redraft.Model", settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with their constraint built, once for all rows. ValueError if no answer can meet it.

    One that depends on the prompt is built for each row.
    """
    given = {name: value for name, value in settings.items() if name in CONSTRAINTS}
    others = {name: value for name, value in settings.items() if name not in CONSTRAINTS}
    from redraft.held import has_span

    if GROUNDING & settings.keys() or has_span(json.dumps(given.get("schema"))):
        return dict(settings)
    if not given:
        return others
    built = model.constraint(**given)
    limit = settings.get("max_new_tokens", model.defaults.max_new_tokens)
    if built.min_tokens > limit:
        raise ValueError(
            f"the shortest answer of this constraint has {built.min_tokens} tokens, --max-new-tokens is {limit}"
        )
    return {**others, "constraint": built}


def _identify(
    model_options: options.ModelOptions,
    settings: Mapping[str, Any],
    file: RowFile,
    checked: CheckedRows,
    chosen: RowOptions,
) -> RunIdentity:
    from redraft.weights.fetch import resolve

    return RunIdentity(
        options={
            "--template": file.template,
            "--rows-format": file.format,
            "--id": chosen.id_column,
            "--model": model_options.model,
            "--device": model_options.device,
            "--precision": model_options.precision,
            "--adapter": model_options.adapter,
            **{f"--{OPTIONS.get(name, name).replace('_', '-')}": value for name, value in settings.items()},
        },
        digests={
            "the content of the file of rows": checked.digest,
            "the model's checkpoint": digest_folder(resolve(model_options.model), CHECKPOINT_FILES),
            **(
                {}
                if model_options.adapter is None
                else {"the adapter": digest_folder(resolve(model_options.adapter, is_adapter=True), CHECKPOINT_FILES)}
            ),
        },
    )


def _how_to_resume(journal: Journal, checked: CheckedRows, *, is_stream: bool) -> str:
    arguments = sys.argv[1:] if "--resume" in sys.argv else [*sys.argv[1:], "--resume"]
    command = shlex.join(["redraft", *arguments])
    if not len(journal):
        return "no row was answered yet"
    how = "go on with the same standard input and" if is_stream else "go on with"
    return f"{counted_of(len(journal), checked.good, 'row', 'is', 'are')} kept in {journal.path}; {how}: {command}"


def _engine(model: "redraft.Model", model_options: options.ModelOptions) -> "redraft.Engine":
    return redraft.Engine(model, **redraft.Engine.context_limits(model, model_options.settings))


def _outcome(answer: "redraft.Result | redraft.Failure") -> Outcome:
    return {"error": str(answer.error)} if isinstance(answer, redraft.Failure) else answer.to_json()


def _in_order(
    engine: "redraft.Engine", rows: Iterable[Row | BadRow], settings: Mapping[str, Any]
) -> Iterator[tuple[Row | BadRow, Outcome]]:
    """Yields the rows, in order, with their outcomes."""
    waiting: deque[Row | BadRow] = deque()

    def prompts() -> Iterator[str]:
        for row in rows:
            waiting.append(row)
            if isinstance(row, Row):
                yield row.prompt

    def bad() -> Iterator[tuple[BadRow, Outcome]]:
        while waiting and isinstance(row := waiting[0], BadRow):
            waiting.popleft()
            yield row, bad_outcome(row)

    for answer in engine.generate_many(prompts(), **settings):
        yield from bad()
        yield waiting.popleft(), _outcome(answer)
    yield from bad()


def _as_completed(
    engine: "redraft.Engine", settings: Mapping[str, Any]
) -> Callable[[Iterator[Row]], Iterator[tuple[Row, Outcome]]]:
    """Returns what answers rows and yields each, with its outcome, as soon as it is answered."""
    ahead = min(PREFETCH_FACTOR * engine.limits.admitted_requests, engine.limits.queued_requests)

    async def answer(row: Row) -> tuple[Row, Outcome]:
        try:
            return row, (await (await engine.submit(row.prompt, **settings))).to_json()
        except Exception as error:
            if engine.broken is not None:
                # It is not the row that is at fault, and no other can be answered.
                raise
            return row, {"error": str(error)}

    async def first_of(running: set[asyncio.Task[tuple[Row, Outcome]]], rows: Iterator[Row]) -> set[Any]:
        running |= {asyncio.create_task(answer(row)) for row in itertools.islice(rows, ahead - len(running))}
        if not running:
            return set()
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        running -= done
        return done

    def answer_all(rows: Iterator[Row]) -> Iterator[tuple[Row, Outcome]]:
        running: set[asyncio.Task[tuple[Row, Outcome]]] = set()
        with asyncio.Runner() as runner:
            while done := runner.run(first_of(running, rows)):
                yield from (task.result() for task in done)

    return answer_all


@contextmanager
def _progress(total: int, *, done: int = 0, is_shown: bool) -> Iterator[Callable[[Outcome], None]]:
    """Shows on a terminal how many rows are done, how fast, how long it takes and how many failed."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows  {task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
    )
    failed = 0
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not (is_shown and console.is_terminal),
        redirect_stdout=False,
    ) as bar:
        task = bar.add_task("rows", total=total, completed=done, rate="", failed="")

        def advance(outcome: Outcome) -> None:
            nonlocal failed
            failed += "error" in outcome
            speed = bar.tasks[task].speed
            bar.update(
                task,
                advance=1,
                rate=f"{speed:.1f} rows/s" if speed else "",
                failed=f"{failed:,} failed" if failed else "",
            )

        yield advance
