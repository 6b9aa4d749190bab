"""`redraft eval`: how good a checkpoint is."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli import endpoints, frontier, options

if TYPE_CHECKING:
    from redraft.evaluation.cases import Case
    from redraft.evaluation.tasks import Made, Score

CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly: for prompts of so many tokens where only a server knows their number."""

app = typer.Typer(help="Measure how good a checkpoint is.")

Examples = Annotated[int, typer.Option(help="Examples with seen wording, and as many with unseen wording.")]
Autoregressive = Annotated[
    bool, typer.Option("--autoregressive", help="Decode the same weights token by token instead, without a canvas.")
]


def _in_a_folder(file: Path | None) -> Path | None:
    """Before a model is loaded for what could not be written."""
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"--failures: there is no folder {str(file.parent)!r}")
    return file


Failures = Annotated[
    Path | None,
    typer.Option(help="Write the examples it got wrong to this file, a JSON line each.", callback=_in_a_folder),
]


@app.callback()
def group() -> None:
    """Measure how good a checkpoint is."""


app.command("frontier")(frontier.frontier)


def _command(name: str) -> Callable[..., None]:
    """The command that measures a shipped task."""

    @options.with_model_options
    def command(
        asked: options.ModelOptions,
        *,
        examples: Examples = 250,
        autoregressive: Autoregressive = False,
        endpoint: endpoints.EndpointOption = None,
        api_key_env: endpoints.KeyOption = None,
        as_json: options.JsonOption = False,
        failures: Failures = None,
    ) -> None:
        from redraft.evaluation.tasks import TASKS

        options.check_at_least(1, examples=examples)
        if name != "extract":
            options.require_package("rapidfuzz", "eval")
        task = TASKS[name]
        answering = _answering(asked, endpoint, api_key_env, autoregressive)
        _measure(name, task.cases(examples), task.score, answering, as_json, failures)

    return command


for _name, _help in (
    ("extract", "Extraction of named fields as JSON: 500 examples, half phrased as training never saw."),
    ("normalize", "Dates, times, amounts, phone numbers and quantities in a form that is named."),
    ("repair", "Sentences with typing errors; copying them is scored beside it."),
):
    app.command(_name, help=_help)(_command(_name))


@app.command("rows")
@options.with_model_options
def rows(
    asked: options.ModelOptions,
    file: Annotated[Path, typer.Argument(help='JSON lines, each with "prompt" and "answer".')],
    *,
    score: Annotated[str, typer.Option(help="text: exact and character error rate; fields: of JSON objects.")] = "text",
    autoregressive: Autoregressive = False,
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    as_json: options.JsonOption = False,
    failures: Failures = None,
) -> None:
    """Any prompts with their right answers."""
    from redraft.evaluation.cases import read_rows
    from redraft.evaluation.tasks import SCORES

    if score not in SCORES:
        raise ValueError(f"--score is {score!r}, must be one of {', '.join(SCORES)}")
    if score == "text":
        options.require_package("rapidfuzz", "eval")
    cases = read_rows(file)
    for case in cases:
        # Also what the score itself refuses is refused before any answer.
        SCORES[score](case, "")
    answering = _answering(asked, endpoint, api_key_env, autoregressive)
    _measure(str(file), cases, SCORES[score], answering, as_json, failures)


@app.command("sudoku")
@options.with_model_options
def sudoku(
    asked: options.ModelOptions,
    *,
    examples: Annotated[int, typer.Option(help="Puzzles of each grade.")] = 20,
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    as_json: options.JsonOption = False,
    failures: Failures = None,
) -> None:
    """Puzzles with one solution in three grades; not what the bundled model is for."""
    from redraft.evaluation.sudoku import score_sudoku, sudoku_cases

    options.check_at_least(1, examples=examples)
    answering = _answering(asked, endpoint, api_key_env)
    _measure("sudoku", sudoku_cases(examples), score_sudoku, answering, as_json, failures)


@app.command("needle")
@options.with_model_options
def needle(
    asked: options.ModelOptions,
    *,
    lengths: Annotated[str, typer.Option(help="Tokens of the prompt, with commas between them.")] = "100,400,1600",
    depths: Annotated[str, typer.Option(help="Where the fact stands, 0 (first) to 1 (last).")] = "0,0.25,0.5,0.75,1",
    form: Annotated[
        str, typer.Option(help="How it is asked for: extract (as the bundled model is) or question.")
    ] = "extract",
    endpoint: endpoints.EndpointOption = None,
    api_key_env: endpoints.KeyOption = None,
    as_json: options.JsonOption = False,
    failures: Failures = None,
) -> None:
    """One fact among filling sentences, at every depth of every length."""
    from redraft.evaluation.needle import check_needle, needle_cases, score_needle

    places = options.parse_numbers("lengths", lengths, int), options.parse_numbers("depths", depths, float)
    check_needle(*places, form)

    answering = _answering(asked, endpoint, api_key_env)
    cases = needle_cases(*places, form, answering.count)
    _measure("needle", cases, score_needle, answering, as_json, failures)


@dataclass(frozen=True)
class _Answering:
    """Who answers: a model that is loaded here, or a server.

    check: ValueError for a prompt that cannot be answered. encode: a text's tokens, None where only a server knows.
    count: how many they are, by a rule of thumb there. facts: what the result says of it.
    """

    answer: "Callable[[str], Made]"
    check: Callable[[str], object]
    encode: "Callable[[str], Sequence[int] | None]"
    count: Callable[[str], int]
    facts: dict[str, Any]


def _answering(
    asked: options.ModelOptions, endpoint: str | None, api_key_env: str | None, autoregressive: bool = False
) -> _Answering:
    """ValueError for options that do not go together, before a model is loaded."""
    if endpoint is None and api_key_env is not None:
        raise ValueError("--api-key-env would do nothing here: that goes with --endpoint")
    if autoregressive and (others := sorted(asked.settings.keys() - {"max_new_tokens"})):
        raise ValueError(f"--autoregressive goes with --max-new-tokens only, not with {', '.join(others)}")
    if endpoint is None:
        return _here(asked, autoregressive)
    if autoregressive:
        raise ValueError("--autoregressive is a way to run a model here, not an --endpoint's; leave one of them out")
    return _there(asked, endpoint, api_key_env)


def _here(asked: options.ModelOptions, autoregressive: bool) -> _Answering:
    from redraft.evaluation.tasks import Made

    # The same for every example, and if nobody says otherwise the same every time.
    settings = asked.settings if autoregressive else {"seed": 0} | asked.settings
    loaded = asked.load()
    generate = loaded.generate_autoregressive if autoregressive else loaded.generate

    def answer(prompt: str) -> Made:
        result = generate(prompt, **settings)
        return Made.here(result.text, result.generation)

    return _Answering(
        answer=answer,
        check=lambda prompt: loaded.stream(prompt, **settings),
        encode=loaded.tokenizer.encode,
        count=lambda text: len(loaded.tokenizer.encode(text)),
        facts={"model": loaded.name, "settings": {"autoregressive": True} | settings if autoregressive else settings},
    )


def _there(asked: options.ModelOptions, endpoint: str, api_key_env: str | None) -> _Answering:
    from redraft.evaluation.tasks import Made

    seeded = dataclasses.replace(asked, settings={"seed": 0} | asked.settings)
    server = endpoints.server_of(seeded, endpoint, api_key_env)

    async def ask(prompt: str) -> Made:
        async with server.open() as client:
            begun = time.perf_counter()
            whole = await client.whole(prompt)
            seconds = time.perf_counter() - begun
        return Made(
            text=whole.text,
            seconds=seconds,
            tokens=whole.tokens,
            steps_per_canvas=whole.steps_per_canvas,
            tokens_per_forward=whole.tokens_per_forward,
        )

    def answer(prompt: str) -> Made:
        from redraft.benchmark.load.driver import NotAnswered

        try:
            return asyncio.run(ask(prompt))
        except NotAnswered as error:
            # A score over the answers that came would not be the model's.
            raise ValueError(f"{endpoint} did not answer ({error.kind}): {error}") from error

    return _Answering(
        answer=answer,
        check=lambda _: None,
        encode=lambda _: None,
        count=lambda text: -(-len(text) // CHARACTERS_PER_TOKEN),
        facts={"endpoint": endpoint, "model": server.model, "settings": server.settings},
    )


def _measure(
    name: str, cases: "list[Case]", score: "Score", answering: _Answering, as_json: bool, failures: Path | None
) -> None:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from redraft.evaluation.tasks import run_cases, summarise

    for case in cases:
        # What cannot be answered is refused before any answer is waited for.
        answering.check(case.prompt)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=len(cases))
        outcomes = run_cases(cases, score, answering.answer, answering.encode, lambda _: progress.advance(task))
    summary = {"task": name, **summarise(outcomes), **answering.facts}
    if failures is not None:
        wrong = [
            {"prompt": one.case.prompt, "wanted": one.case.answer, "got": one.made.text, "seen": one.case.seen}
            for one in outcomes
            if not one.scores["exact"]
        ]
        failures.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in wrong), encoding="utf-8")
    if as_json:
        print(json.dumps(summary))
        return
    table = Table(show_header=False)
    for key, value in summary.items():
        table.add_row(key, str(value))
    Console().print(table)
