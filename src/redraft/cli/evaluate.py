"""`redraft eval`: how good a checkpoint is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redraft.cli import frontier, options

if TYPE_CHECKING:
    import redraft
    from redraft.measure.cases import Case
    from redraft.measure.tasks import Score

app = typer.Typer(help="Measure how good a checkpoint is.")

Examples = Annotated[int, typer.Option(help="Examples with seen wording, and as many with unseen wording.")]
Autoregressive = Annotated[
    bool, typer.Option("--autoregressive", help="Decode the same weights token by token instead, without a canvas.")
]
Failures = Annotated[Path | None, typer.Option(help="Write the examples it got wrong to this file, a JSON line each.")]


@app.callback()
def group() -> None:
    """Measure how good a checkpoint is."""


app.command("frontier")(frontier.frontier)


def _command(name: str) -> Callable[..., None]:
    """The command that measures a shipped task."""

    @options.answering
    def command(
        asked: options.Request,
        *,
        examples: Examples = 250,
        autoregressive: Autoregressive = False,
        as_json: options.AsJson = False,
        failures: Failures = None,
    ) -> None:
        from redraft.measure.tasks import TASKS

        options.check_at_least(1, examples=examples)
        if name != "extract":
            options.needs("rapidfuzz", "eval")
        task = TASKS[name]
        _measure(name, task.cases(examples), task.score, asked, as_json, failures, autoregressive)

    return command


for _name, _help in (
    ("extract", "Extraction of named fields as JSON: 500 examples, half phrased as training never saw."),
    ("normalize", "Dates, times, amounts, phone numbers and quantities in a form that is named."),
    ("repair", "Sentences with typing errors; copying them is scored beside it."),
):
    app.command(_name, help=_help)(_command(_name))


@app.command("rows")
@options.answering
def rows(
    asked: options.Request,
    file: Annotated[Path, typer.Argument(help='JSON lines, each with "prompt" and "answer".')],
    *,
    score: Annotated[str, typer.Option(help="text: exact and character error rate; fields: of JSON objects.")] = "text",
    autoregressive: Autoregressive = False,
    as_json: options.AsJson = False,
    failures: Failures = None,
) -> None:
    """Any prompts with their right answers."""
    from redraft.measure.cases import read_rows
    from redraft.measure.tasks import SCORES

    if score not in SCORES:
        raise ValueError(f"--score is {score!r}, must be one of {', '.join(SCORES)}")
    if score == "text":
        options.needs("rapidfuzz", "eval")
    cases = read_rows(file)
    for case in cases:
        # Also what the score itself refuses is refused before any answer.
        SCORES[score](case, "")
    _measure(str(file), cases, SCORES[score], asked, as_json, failures, autoregressive)


@app.command("sudoku")
@options.answering
def sudoku(
    asked: options.Request,
    *,
    examples: Annotated[int, typer.Option(help="Puzzles of each grade.")] = 20,
    as_json: options.AsJson = False,
    failures: Failures = None,
) -> None:
    """Puzzles with one solution in three grades; not what the bundled model is for."""
    from redraft.measure.sudoku import score_sudoku, sudoku_cases

    options.check_at_least(1, examples=examples)
    _measure("sudoku", sudoku_cases(examples), score_sudoku, asked, as_json, failures)


@app.command("needle")
@options.answering
def needle(
    asked: options.Request,
    *,
    lengths: Annotated[str, typer.Option(help="Tokens of the prompt, with commas between them.")] = "100,400,1600",
    depths: Annotated[str, typer.Option(help="Where the fact stands, 0 (first) to 1 (last).")] = "0,0.25,0.5,0.75,1",
    form: Annotated[
        str, typer.Option(help="How it is asked for: extract (as the bundled model is) or question.")
    ] = "extract",
    as_json: options.AsJson = False,
    failures: Failures = None,
) -> None:
    """One fact among filling sentences, at every depth of every length."""
    from redraft.measure.needle import check_needle, needle_cases, score_needle

    places = options.numbers("lengths", lengths, int), options.numbers("depths", depths, float)
    check_needle(*places, form)

    def cases(loaded: "redraft.Model") -> "list[Case]":
        return needle_cases(*places, form, lambda text: len(loaded.tokenizer.encode(text)))

    _measure("needle", cases, score_needle, asked, as_json, failures)


def _measure(
    name: str,
    cases: "list[Case] | Callable[[redraft.Model], list[Case]]",
    score: "Score",
    asked: options.Request,
    as_json: bool,
    failures: Path | None,
    autoregressive: bool = False,
) -> None:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from redraft.measure.tasks import Made, run_cases, summarise

    if failures is not None and not failures.parent.is_dir():
        raise ValueError(f"--failures: there is no folder {str(failures.parent)!r}")
    # The same for every example, and if nobody says otherwise the same every time.
    settings = {"seed": 0} | asked.settings
    if autoregressive:
        if others := sorted(asked.settings.keys() - {"max_new_tokens"}):
            raise ValueError(f"--autoregressive goes with --max-new-tokens only, not with {', '.join(others)}")
        settings = asked.settings
    loaded = asked.load()
    if callable(cases):
        cases = cases(loaded)
    for case in cases:
        # What cannot be answered is refused before any answer is waited for.
        loaded.stream(case.prompt, **settings)
    generate = loaded.generate_autoregressive if autoregressive else loaded.generate

    def answer(prompt: str) -> Made:
        result = generate(prompt, **settings)
        return Made.here(result.text, result.generation)

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=len(cases))
        outcomes = run_cases(cases, score, answer, loaded.tokenizer.encode, lambda _: progress.advance(task))
    shown = {"autoregressive": True} | settings if autoregressive else settings
    summary = {"task": name, **summarise(outcomes), "model": loaded.name, "settings": shown}
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
