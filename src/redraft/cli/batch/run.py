"""`redraft batch run`: a file of rows into a folder of answers."""

import dataclasses
import functools
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar

from redraft.batch.executors.protocol import ExecutorFailed
from redraft.batch.job import Job, JobSettings, OpenExecutor
from redraft.batch.progress import Prices, Progress
from redraft.batch.requests import CHAT_URL
from redraft.batch.results import JSONL, OPENAI, RESULT_FORMATS
from redraft.batch.rows import FORMATS, CheckBody, CheckedJob, JobFile, is_url
from redraft.cli import options
from redraft.cli.answers.constraint import check_holding, with_constraint_options, with_grounding_options
from redraft.cli.answers.row_options import check_stream
from redraft.cli.streams import explain_os_error, say, standard_input
from redraft.utils.json_files import parse_json_object
from redraft.utils.rows.journal import RunIdentity, digest_folder
from redraft.utils.signals import treat_sigterm_as_interrupt
from redraft.utils.words import counted, counted_of

if TYPE_CHECKING:
    import redraft
    from redraft.batch.ray_data import ResultsFolder
    from redraft.client.stream import Endpoint

STREAM = "-"
CHECKPOINT_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")
ON_ERROR = ("stop", "skip")


@dataclass(frozen=True)
class Place:
    """Where a job's rows are answered. identity: what the answers follow from there; check_body as JobFile has it."""

    open: OpenExecutor
    identity: RunIdentity
    check_body: CheckBody | None = None


@options.with_model_options
@with_constraint_options
@with_grounding_options
def run(
    grounding: dict[str, Any],
    constraint: dict[str, Any],
    model_options: options.ModelOptions,
    rows: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="OpenAI's batch lines, or rows: JSON lines, CSV, TSV, Parquet or lines of text; - for standard input; "
            "with --ray also a URL that Ray opens, as s3://bucket/rows.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="The job's folder.")],
    template: Annotated[
        str | None, typer.Option(help='The prompt of each row, with its {columns}; by default the column "prompt".')
    ] = None,
    rows_format: Annotated[
        str | None, typer.Option(help=f"{', '.join(FORMATS)}; by default the file's ending and first line decide.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help='The column of each row\'s id; by default "id".')
    ] = None,
    body: Annotated[
        str | None, typer.Option(metavar="JSON", help="Fields of every request, as the API has them.")
    ] = None,
    body_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A column with fields of the row's own request.")
    ] = None,
    row_adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER", help="An adapter for rows whose request has NAME as its model; repeatable."
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help=f"Of the results: {', '.join(RESULT_FORMATS)}; by default as the rows are.")
    ] = None,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Results in the order in which rows were finished.")
    ] = False,
    on_error: Annotated[
        str, typer.Option(help="stop: start nothing if a row is faulty; skip: it has an error in the results.")
    ] = ON_ERROR[0],
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Answer rows that failed again.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what the folder has, and begin again.")
    ] = False,
    endpoint: options.EndpointOption = None,
    api_key_env: options.KeyOption = None,
    concurrency: Annotated[int, typer.Option(help="Requests to --endpoint at a time, at most.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds that a request to --endpoint may take.")] = 600.0,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Answer on a Ray cluster: auto, local, or its address; see --actors."),
    ] = None,
    actors: Annotated[int, typer.Option(help="Engines on the cluster.")] = 1,
    cpus_per_actor: Annotated[float, typer.Option(help="CPUs of each.")] = 1.0,
    gpus_per_actor: Annotated[float, typer.Option(help="GPUs of each.")] = 0.0,
    results_to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --ray: write the results there too, in parts, as s3://bucket/answers."),
    ] = None,
    price_prompt: Annotated[float, typer.Option(help="What a million tokens of prompts cost, for the estimate.")] = 0.0,
    price_answer: Annotated[float, typer.Option(help="What a million tokens of answers cost.")] = 0.0,
    quiet: options.QuietOption = False,
) -> None:
    """Begin a job, or go on with it.

    What it has is kept in the folder of --out. It can be killed at any moment: the same command goes on, and every row
    is answered exactly once.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"--on-error is {on_error!r}, must be {' or '.join(ON_ERROR)}")
    check_holding(constraint, grounding)
    if "index" in model_options.given_settings:
        raise ValueError("--index has no use in a job, whose rows each have a seed of their own: leave it out")
    model_options.settings.pop("index", None)
    seed = model_options.settings.pop("seed", None)
    of_request = model_options.settings if endpoint is None else model_options.given_settings
    fields = _fields(of_request, constraint, grounding, body)
    adapters = options.parse_adapters("--row-adapter", row_adapter)
    if endpoint is None:
        place = _local(model_options, adapters)
        if ray is not None:
            place = _on_ray(place, address=ray, actors=actors, cpus=cpus_per_actor, gpus=gpus_per_actor)
    elif ray is not None:
        raise ValueError("--ray and --endpoint are two places: leave one of them out")
    else:
        given = model_options.endpoint(endpoint, api_key_env, timeout)
        fields = {"model": given.model, **fields}
        if adapters:
            raise ValueError("--row-adapter is loaded here; with --endpoint name the server's as the row's model")
        place = _remote(given, concurrency, timeout)
    if rows == STREAM:
        check_stream(template, rows_format, id_column)
    is_remote = is_url(rows)
    with ExitStack() as stack:
        if is_remote or results_to is not None:
            _connect(stack, ray, *(("IN", rows) if is_remote else ("--results-to", results_to)))
        target = None if results_to is None else _results_folder(results_to)
        file = JobFile(
            _fetched(stack, rows, rows_format) if is_remote else Path(rows), format=rows_format, template=template,
            id_column=id_column, body_column=body_column, url=CHAT_URL, fields=fields, check_body=place.check_body,
            stream=standard_input().buffer if rows == STREAM else None, name=rows if is_remote else None,
        )  # fmt: skip
        settings = JobSettings(
            result_format=format or (OPENAI if file.format == OPENAI else JSONL),
            unordered=unordered, restart=restart, retry_errors=retry_errors, seed=seed,
            prices=Prices(price_prompt, price_answer),
        )  # fmt: skip
        checked = file.check()
        _tell_faults(file, checked, stops=on_error == "stop")
        job = Job(out, file, checked, identity=place.identity, settings=settings)
        progress = _run(job, place.open, quiet=quiet)
        say(_summary(job, progress), quiet=quiet)
        if target is not None:
            say(f"{results_to}: {counted(target.write(job.results_path), 'part')}", quiet=quiet)
    if progress.failed:
        raise typer.Exit(1)


def _connect(stack: ExitStack, address: str | None, name: str, value: str | None) -> None:
    """Connects with a cluster until the stack is closed. Raises ValueError; name, value: what needs it."""
    if address is None:
        raise ValueError(f"{name} is {value!r}, which only Ray opens: give --ray")
    options.require_package("ray", "ray")
    from redraft.batch.executors.cluster import connected

    try:
        stack.enter_context(connected(address))
    except ExecutorFailed as error:
        raise ValueError(str(error)) from error


def _fetched(stack: ExitStack, url: str, format: str | None) -> Path:
    """Returns a copy of what Ray reads at a URL, which is gone when the stack is closed."""
    from redraft.batch.ray_data import fetch_rows

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="redraft-rows-"))
    return fetch_rows(url, Path(folder), format=format)


def _results_folder(url: str) -> "ResultsFolder":
    from redraft.batch.ray_data import ResultsFolder

    return ResultsFolder(url)


def _fields(
    settings: dict[str, Any], constraint: dict[str, Any], grounding: dict[str, Any], body: str | None
) -> dict[str, Any]:
    """Returns the fields of every request: what the command line's options are in the API, and those of --body."""
    options.require_package("httpx2", "batch")
    from redraft.client.stream import request_fields

    fields = {**request_fields(settings), **grounding}
    for name, value in constraint.items():
        if name == "schema":
            named = {"name": "answer", "strict": True, "schema": value}
            fields["response_format"] = {"type": "json_schema", "json_schema": named}
        else:
            fields["structured_outputs"] = {name: value}
    given = {} if body is None else parse_json_object(body.encode("utf-8", "surrogateescape"), "--body")
    if twice := sorted(fields.keys() & given.keys()):
        raise ValueError(f"{twice[0]!r} is in --body, and an option gives it too: leave one of them out")
    return fields | given


def _local(model_options: options.ModelOptions, adapters: dict[str, str]) -> Place:
    """Returns this machine's engine as the place. adapters: folders by the names that rows call them by."""
    options.require_package("fastapi", "batch")
    from redraft.server.batches.executor import check_body, local_executor
    from redraft.server.service import served_name
    from redraft.weights.fetch import resolve

    name = served_name(model_options.model)
    digests = {"the model's checkpoint": digest_folder(resolve(model_options.model), CHECKPOINT_FILES)}
    if model_options.adapter is not None:
        digests["the adapter"] = digest_folder(resolve(model_options.adapter, is_adapter=True), CHECKPOINT_FILES)
    for called, folder in adapters.items():
        digests[f"the adapter {called!r}"] = digest_folder(resolve(folder, is_adapter=True), CHECKPOINT_FILES)
    identity = RunIdentity(
        {"--device": model_options.device, "--precision": model_options.precision, "the model": name}, digests
    )
    load = functools.partial(_load, model_options, adapters)
    return Place(
        functools.partial(local_executor, load, model_options.settings, name),
        identity,
        functools.partial(check_body, models=[name, *adapters]),
    )


def _load(model_options: options.ModelOptions, adapters: dict[str, str]) -> "redraft.Model":
    model = model_options.load(quiet=True)
    for name, folder in adapters.items():
        model.load_adapter(folder, name)
    return model


def _remote(endpoint: "Endpoint", concurrency: int, timeout: float) -> Place:
    """Returns an endpoint as the place. Its address is not what answers follow from: the same model may move."""
    from redraft.batch.executors.endpoint import EndpointSettings, endpoint_executor

    settings = EndpointSettings(url=endpoint.url, key=endpoint.key, concurrency=concurrency, timeout=timeout)
    identity = RunIdentity({"the model": endpoint.model, "the place": "an endpoint"}, {})
    return Place(functools.partial(endpoint_executor, settings), identity)


def _on_ray(place: Place, **settings: Any) -> Place:
    """Returns a cluster whose actors do what the place does."""
    from redraft.batch.executors.cluster import RaySettings, ray_executor

    return dataclasses.replace(place, open=functools.partial(ray_executor, place.open, RaySettings(**settings)))


def _tell_faults(file: JobFile, checked: CheckedJob, *, stops: bool) -> None:
    """Says which rows are faulty. Raises ValueError if that stops the job."""
    for row in checked.faults:
        say(f"{file.name}, {row.fault}{'' if row.id is None else f' (id {row.id})'}")
    if (more := checked.bad - len(checked.faults)) > 0:
        say(f"{file.name}: {counted(more, 'more faulty row')}")
    if checked.bad and (stops or checked.bad == checked.rows):
        way_out = "fix them" if checked.bad == checked.rows else "fix them, or give --on-error skip"
        raise ValueError(
            f"{counted_of(checked.bad, checked.rows, 'row', 'is', 'are')} faulty, nothing was started: {way_out}"
        )


def _run(job: Job, executor: OpenExecutor, *, quiet: bool) -> Progress:
    """Runs a job to its end. Whatever interrupts it, what is kept and how to go on is said."""
    with treat_sigterm_as_interrupt(), _shown(job, quiet=quiet) as tick:
        try:
            return job.run(executor, tick)
        except KeyboardInterrupt:
            say(_how_to_go_on(job))
            raise
        except ExecutorFailed as error:
            raise ValueError(f"{error}; {_how_to_go_on(job)}") from error
        except OSError as error:
            raise ValueError(f"{explain_os_error(error)}; {_how_to_go_on(job)}") from error


def _how_to_go_on(job: Job) -> str:
    once = [argument for argument in sys.argv[1:] if argument not in ("--restart", "--retry-errors")]
    kept = counted_of(job.progress.done, job.progress.total, "row", "is", "are")
    same = "the same standard input and " if job.file.name == "standard input" else ""
    return f"{kept} kept in {job.folder}; go on with {same}: {shlex.join(['redraft', *once])}".replace(" :", ":")


def _summary(job: Job, progress: Progress) -> str:
    told = f"{job.results_path}: {counted(progress.total, 'row')}"
    if progress.done > progress.before:
        rates = progress.to_json()
        told += f", {rates['rows_per_second']:g} rows/s, {rates['tokens_per_second']:g} tokens/s"
    if progress.failed:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in progress.errors.most_common())
        told += f"; {counted_of(progress.failed, progress.total, 'row', 'has', 'have')} an error ({kinds})"
    if progress.warned:
        warned = counted_of(progress.warned, progress.total, "answer", "has a warning", "have warnings")
        told += f'; {warned}: see "warnings" there'
    return told


@contextmanager
def _shown(job: Job, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Shows on a terminal how many rows are done, how fast, how long it takes and how many failed, and why."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows  {task.fields[told]}"))
    with ProgressBar(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal, redirect_stdout=False
    ) as bar:
        task = bar.add_task("rows", total=job.progress.total, told="")

        def tick(progress: Progress) -> None:
            bar.update(task, completed=progress.done, told=describe(progress.to_json()))

        yield tick


def describe(told: dict[str, Any]) -> str:
    """Returns rates, time left, cost and errors of a job's counts on one line."""
    parts = []
    if told["rows_per_second"]:
        parts += [f"{told['rows_per_second']:g} rows/s", f"{told['tokens_per_second']:g} tokens/s"]
    if told["seconds_left"]:
        left = int(told["seconds_left"])
        parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left")
    if "cost" in told:
        parts.append(f"cost {told['cost']:g}, of all {told['cost_of_all'] or 0:g}")
    parts += [f"{count:,} {kind}" for kind, count in told["errors"].items()]
    return ", ".join(parts)
