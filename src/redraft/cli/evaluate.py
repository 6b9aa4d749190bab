"""`redraft eval`: how good a checkpoint is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli import frontier, options

if TYPE_CHECKING:
    import redraft
    from redraft.measure.cases import Case
    from redraft.measure.tasks import Score

app = typer.Typer(help="Measure how good a checkpoint is.")

Examples = Annotated[int, typer.Option(help="Examples with seen wording, and as many with unseen wording.")]
EvalSeed = Annotated[int, typer.Option(help="Every example is answered with this seed.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]
Failures = Annotated[Path | None, typer.Option(help="Write the examples it got wrong to this file, a JSON line each.")]


@app.callback()
def group() -> None:
    """Measure how good a checkpoint is."""


def _command(name: str) -> Callable[..., None]:
    """The command that measures a shipped task."""

    def command(
        *,
        model: options.ModelOption = "bundled",
        device: options.DeviceOption = "auto",
        dtype: options.DtypeOption = "auto",
        examples: Examples = 250,
        steps: options.Steps = None,
        canvas_length: options.CanvasLength = None,
        entropy_bound: options.EntropyBound = None,
        t_min: options.TMin = None,
        t_max: options.TMax = None,
        temperature: options.Temperature = None,
        seed: EvalSeed = 0,
        as_json: AsJson = False,
        failures: Failures = None,
    ) -> None:
        from redraft.measure.tasks import TASKS

        settings = options.given(
            steps=steps, canvas_length=canvas_length, entropy_bound=entropy_bound, t_min=t_min, t_max=t_max,
            temperature=temperature, seed=seed,
        )  # fmt: skip
        options.check_settings(settings)
        options.check_at_least(1, examples=examples)
        if name != "extract":
            options.needs("rapidfuzz", "eval")
        task = TASKS[name]
        _measure(name, task.cases(examples), task.score, settings, model, device, dtype, as_json, failures)

    return command


app.command("extract", help="Extraction of named fields as JSON: 500 examples, half phrased as training never saw.")(
    _command("extract")
)
app.command("normalize", help="Dates, times, amounts, phone numbers and quantities in a form that is named.")(
    _command("normalize")
)
app.command("frontier")(frontier.frontier)
app.command("repair", help="Sentences with typing errors; copying them is scored beside it.")(_command("repair"))


@app.command("rows")
def rows(
    file: Annotated[Path, typer.Argument(help='JSON lines, each with "prompt" and "answer".')],
    *,
    score: Annotated[str, typer.Option(help="text: exact and character error rate; fields: of JSON objects.")] = "text",
    model: options.ModelOption = "bundled",
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = "auto",
    steps: options.Steps = None,
    canvas_length: options.CanvasLength = None,
    entropy_bound: options.EntropyBound = None,
    t_min: options.TMin = None,
    t_max: options.TMax = None,
    temperature: options.Temperature = None,
    seed: EvalSeed = 0,
    as_json: AsJson = False,
    failures: Failures = None,
) -> None:
    """Any prompts with their right answers."""
    from redraft.measure.cases import read_rows
    from redraft.measure.tasks import SCORES

    settings = options.given(
        steps=steps, canvas_length=canvas_length, entropy_bound=entropy_bound, t_min=t_min, t_max=t_max,
        temperature=temperature, seed=seed,
    )  # fmt: skip
    options.check_settings(settings)
    if score not in SCORES:
        raise ValueError(f"--score is {score!r}, must be one of {', '.join(SCORES)}")
    if score == "text":
        options.needs("rapidfuzz", "eval")
    cases = read_rows(file)
    for case in cases:
        # Also what the score itself refuses is refused before any answer.
        SCORES[score](case, "")
    _measure(str(file), cases, SCORES[score], settings, model, device, dtype, as_json, failures)


@app.command("sudoku")
def sudoku(
    *,
    model: options.ModelOption = "bundled",
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = "auto",
    examples: Annotated[int, typer.Option(help="Puzzles of each grade.")] = 20,
    steps: options.Steps = None,
    canvas_length: options.CanvasLength = None,
    entropy_bound: options.EntropyBound = None,
    t_min: options.TMin = None,
    t_max: options.TMax = None,
    temperature: options.Temperature = None,
    seed: EvalSeed = 0,
    as_json: AsJson = False,
    failures: Failures = None,
) -> None:
    """Puzzles with one solution in three grades; not what the bundled model is for."""
    from redraft.measure.sudoku import score_sudoku, sudoku_cases

    settings = options.given(
        steps=steps, canvas_length=canvas_length, entropy_bound=entropy_bound, t_min=t_min, t_max=t_max,
        temperature=temperature, seed=seed,
    )  # fmt: skip
    options.check_settings(settings)
    options.check_at_least(1, examples=examples)
    _measure("sudoku", sudoku_cases(examples), score_sudoku, settings, model, device, dtype, as_json, failures)


@app.command("needle")
def needle(
    *,
    model: options.ModelOption = "bundled",
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = "auto",
    lengths: Annotated[str, typer.Option(help="Tokens of the prompt, with commas between them.")] = "100,400,1600",
    depths: Annotated[str, typer.Option(help="Where the fact stands, 0 (first) to 1 (last).")] = "0,0.25,0.5,0.75,1",
    form: Annotated[
        str, typer.Option(help="How it is asked for: extract (as the bundled model is) or question.")
    ] = "extract",
    steps: options.Steps = None,
    canvas_length: options.CanvasLength = None,
    entropy_bound: options.EntropyBound = None,
    t_min: options.TMin = None,
    t_max: options.TMax = None,
    temperature: options.Temperature = None,
    seed: EvalSeed = 0,
    as_json: AsJson = False,
    failures: Failures = None,
) -> None:
    """One fact among filling sentences, at every depth of every length."""
    import redraft
    from redraft.measure.needle import check_needle, needle_cases, score_needle

    settings = options.given(
        steps=steps, canvas_length=canvas_length, entropy_bound=entropy_bound, t_min=t_min, t_max=t_max,
        temperature=temperature, seed=seed,
    )  # fmt: skip
    options.check_settings(settings)
    places = options.numbers("lengths", lengths, int), options.numbers("depths", depths, float)
    check_needle(*places, form)

    def cases(loaded: redraft.Model) -> "list[Case]":
        return needle_cases(*places, form, lambda text: len(loaded.tokenizer.encode(text)))

    _measure("needle", cases, score_needle, settings, model, device, dtype, as_json, failures)


def _measure(
    name: str, cases: "list[Case] | Callable[[redraft.Model], list[Case]]", score: "Score", settings: dict[str, Any],
    model: str, device: str, dtype: str, as_json: bool, failures: Path | None,
) -> None:  # fmt: skip
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    import redraft
    from redraft.measure.tasks import run_cases, summarise

    if failures is not None and not failures.parent.is_dir():
        raise ValueError(f"--failures: there is no folder {str(failures.parent)!r}")
    loaded = redraft.load(model, device=device, dtype=dtype)
    if callable(cases):
        cases = cases(loaded)
    for case in cases:
        # What cannot be answered is refused before any answer is waited for.
        loaded.stream(case.prompt, **settings)

    def answer(prompt: str) -> tuple[str, redraft.Generation]:
        result = loaded.generate(prompt, **settings)
        return result.text, result.generation

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=len(cases))
        outcomes = run_cases(cases, score, answer, loaded.tokenizer.encode, lambda _: progress.advance(task))
    summary = {"task": name, **summarise(outcomes), "model": loaded.name, "settings": settings}
    if failures is not None:
        wrong = [
            {"prompt": one.case.prompt, "wanted": one.case.answer, "got": one.text, "seen": one.case.seen}
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
