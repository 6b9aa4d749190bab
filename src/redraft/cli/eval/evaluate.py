"""`redraft eval`, its tasks: how good a checkpoint is."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from redraft.cli import options
from redraft.cli.eval import endpoints
from redraft.evaluation.cases import Case, read_rows
from redraft.evaluation.evaluate import evaluate, failed_rows, summarise
from redraft.evaluation.needle import check_needle, needle_cases, score_needle
from redraft.evaluation.scores import score_answer
from redraft.evaluation.subject import EndpointSubject, ModelSubject, Subject
from redraft.evaluation.sudoku import score_sudoku, sudoku_cases
from redraft.evaluation.tasks import SCORES, TASKS, WIDE_SETS, Score

ExamplesOption = Annotated[int, typer.Option(help="Examples with seen wording, and as many with unseen wording.")]
AutoregressiveOption = Annotated[
    bool, typer.Option("--autoregressive", help="Decode the same weights token by token instead, without a canvas.")
]


def _check_folder(file: Path | None) -> Path | None:
    """Before a model is loaded for what could not be written."""
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"--failures: there is no folder {str(file.parent)!r}")
    return file


FailuresOption = Annotated[
    Path | None,
    typer.Option(help="Write the examples it got wrong to this file, one JSON line each.", callback=_check_folder),
]


def task_command(name: str) -> Callable[..., None]:
    """Makes the command that measures a shipped task."""

    @options.with_model_options
    def command(
        model_options: options.ModelOptions,
        *,
        examples: ExamplesOption = 250,
        autoregressive: AutoregressiveOption = False,
        endpoint: endpoints.EndpointOption = None,
        api_key_env: endpoints.KeyOption = None,
        as_json: options.JsonOption = False,
        failures: FailuresOption = None,
    ) -> None:
        options.check_at_least(1, examples=examples)
        if name != "extract":
            options.require_package("rapidfuzz", "eval")
        task = TASKS[name]
        subject = _subject(model_options, endpoint, api_key_env, autoregressive)
        _run(name, task.cases(examples), task.score, subject, as_json, failures)

    return command


@options.with_model_options
def wide(
    model_options: options.ModelOptions,
    names: Annotated[
        list[str] | None, typer.Argument(help=f"The sets, all by default: {', '.join(WIDE_SETS)}.", metavar="SET...")
    ] = None,
    *,
    autoregressive: AutoregressiveOption = False,
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    failures: FailuresOption = None,
) -> None:
    """The test sets of the next bundled model, a line of JSON each; not what today's is for."""
    for name in names or ():
        if name not in WIDE_SETS:
            raise ValueError(f"there is no set {name!r}; there are {', '.join(WIDE_SETS)}")
    subject = _subject(model_options, endpoint, api_key_env, autoregressive)
    for name in names or WIDE_SETS:
        to = None if failures is None else failures.with_stem(f"{failures.stem}-{name}")
        _run(f"wide {name}", WIDE_SETS[name].cases(), score_answer, subject, True, to)


@options.with_model_options
def rows(
    model_options: options.ModelOptions,
    file: Annotated[Path, typer.Argument(help='JSON lines, each with "prompt" and "answer".')],
    *,
    score: Annotated[str, typer.Option(help="text: exact and character error rate; fields: of JSON objects.")] = "text",
    autoregressive: AutoregressiveOption = False,
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    as_json: options.JsonOption = False,
    failures: FailuresOption = None,
) -> None:
    """Any prompts with their right answers."""
    if score not in SCORES:
        raise ValueError(f"--score is {score!r}, must be one of {', '.join(SCORES)}")
    if score == "text":
        options.require_package("rapidfuzz", "eval")
    cases = read_rows(file)
    for case in cases:
        # A case that the score refuses is refused before any answer.
        SCORES[score](case, "")
    subject = _subject(model_options, endpoint, api_key_env, autoregressive)
    _run(str(file), cases, SCORES[score], subject, as_json, failures)


@options.with_model_options
def sudoku(
    model_options: options.ModelOptions,
    *,
    examples: Annotated[int, typer.Option(help="Puzzles of each grade.")] = 20,
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    as_json: options.JsonOption = False,
    failures: FailuresOption = None,
) -> None:
    """Puzzles with one solution in three grades; not what the bundled model is for."""
    options.check_at_least(1, examples=examples)
    subject = _subject(model_options, endpoint, api_key_env)
    _run("sudoku", sudoku_cases(examples), score_sudoku, subject, as_json, failures)


@options.with_model_options
def needle(
    model_options: options.ModelOptions,
    *,
    lengths: Annotated[str, typer.Option(help="Tokens of the prompt, separated by commas.")] = "100,400,1600",
    depths: Annotated[str, typer.Option(help="Positions of the fact, 0 (first) to 1 (last).")] = "0,0.25,0.5,0.75,1",
    form: Annotated[
        str, typer.Option(help="How the prompt asks: extract (the bundled model's form) or question.")
    ] = "extract",
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    as_json: options.JsonOption = False,
    failures: FailuresOption = None,
) -> None:
    """One fact among filler sentences, at every depth of every length."""
    grid = options.parse_numbers("lengths", lengths, int), options.parse_numbers("depths", depths, float)
    check_needle(*grid, form)
    subject = _subject(model_options, endpoint, api_key_env)
    cases = needle_cases(*grid, form, subject.count_tokens)
    _run("needle", cases, score_needle, subject, as_json, failures)


def _subject(
    model_options: options.ModelOptions, endpoint: str | None, api_key_env: str | None, autoregressive: bool = False
) -> Subject:
    """The subject that the options name; refuses, before a model is loaded, options that do not go together."""
    if endpoint is None and api_key_env is not None:
        raise ValueError("--api-key-env has no effect without --endpoint")
    if autoregressive and (others := sorted(model_options.settings.keys() - {"max_new_tokens"})):
        raise ValueError(f"--autoregressive goes with --max-new-tokens only, not with {', '.join(others)}")
    if autoregressive and endpoint is not None:
        raise ValueError(
            "--autoregressive is for a model in this process, not for an --endpoint; leave one of them out"
        )
    # One seed for all examples, and unless it is given the same every time.
    settings = model_options.settings if autoregressive else {"seed": 0} | model_options.settings
    if endpoint is not None:
        seeded = dataclasses.replace(model_options, settings=settings)
        return EndpointSubject(endpoints.make_endpoint(seeded, endpoint, api_key_env))
    return ModelSubject(model_options.load(), settings, is_autoregressive=autoregressive)


def _run(name: str, cases: list[Case], score: Score, subject: Subject, as_json: bool, failures: Path | None) -> None:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=len(cases))
        outcomes = evaluate(subject, cases, score, lambda _: progress.advance(task))
    summary = {"task": name, **summarise(outcomes), **subject.facts}
    if failures is not None:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in failed_rows(outcomes)]
        failures.write_text("".join(lines), encoding="utf-8")
    if as_json:
        print(json.dumps(summary))
        return
    table = Table(show_header=False)
    for key, value in summary.items():
        table.add_row(key, str(value))
    Console().print(table)
