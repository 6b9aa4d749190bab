"""`redraft generate`: one prompt, one answer; or a file of prompts, and their answers as JSON lines."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

import redraft
from redraft.cli import options
from redraft.cli.answers.live import answer
from redraft.cli.answers.warned import StrictOption, end_with_warnings
from redraft.cli.streams import read_standard_input
from redraft.utils.rows import Row, read_prompts

MAX_STEP_DELAY = 60


@options.with_model_options
def generate(
    model_options: options.ModelOptions,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - for standard input.")] = None,
    piped: Annotated[str | None, typer.Argument(metavar="[-]", help="- : standard input follows the prompt.")] = None,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="Print only the text, without the live canvas.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, without the live canvas.")] = False,
    step_delay: Annotated[float, typer.Option(help="Seconds to pause at each step of the live canvas.")] = 0.0,
    rows: Annotated[
        Path | None, typer.Option(help="Answer every row of a file: lines of text, JSON lines or CSV.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help='The prompt for each row, with its {columns}; by default the column "prompt".')
    ] = None,
    rows_format: Annotated[
        str | None, typer.Option(help="text, jsonl or csv; by default the file's suffix decides.")
    ] = None,
    strict: StrictOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Answer one prompt, or every row of a file.

    On a terminal the canvas resolves live. The answers to rows are printed as JSON lines, in order.
    """
    if not 0 <= step_delay <= MAX_STEP_DELAY:
        raise ValueError(f"--step-delay is {step_delay}, must be between 0 and {MAX_STEP_DELAY} seconds")
    if rows is not None:
        for name, value in (("a prompt", prompt), ("--plain", plain), ("--step-delay", step_delay)):
            if value:
                raise ValueError(f"--rows cannot be combined with {name}: rows are answered as JSON lines")
        answer_rows(
            model_options, read_prompts(rows, format=rows_format, template=template), strict=strict, quiet=quiet
        )
        return
    if template is not None or rows_format is not None:
        raise ValueError("--template and --rows-format require --rows FILE")
    if prompt is None:
        raise ValueError("there is no prompt: give one, - for standard input, or --rows FILE")
    text = read_prompt(prompt, piped)
    model = model_options.load(quiet=quiet)
    if as_json:
        *_, result = model.stream(text, **model_options.settings)
        assert isinstance(result, redraft.Result)
        print(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        is_live = sys.stdout.isatty() and not plain
        result = answer(model, text, model_options.settings, is_live=is_live, step_delay=step_delay, quiet=quiet)
    end_with_warnings(bool(result.warnings), strict=strict, quiet=quiet)


def answer_rows(model_options: options.ModelOptions, rows: list[Row], *, strict: bool, quiet: bool) -> None:
    """Prints a JSON line for each row, in order and as soon as it is known; one with "error" for a row that failed.

    Exits with code 1 where any did, and with that of `strict` where an answer has a warning.
    """
    failed = warned = 0
    # On a terminal the lines themselves show the progress.
    bar = Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True,
        disable=quiet or sys.stdout.isatty(), redirect_stdout=False,
    )  # fmt: skip
    model = model_options.load(quiet=quiet)
    with redraft.Engine(model, **redraft.Engine.context_limits(model, model_options.settings)) as engine, bar:
        task = bar.add_task("rows", total=len(rows))
        answers = engine.generate_many((row.prompt for row in rows), **model_options.settings)
        for row, answer in zip(rows, answers, strict=True):
            line: dict[str, Any] = {"line": row.line}
            if isinstance(answer, redraft.Failure):
                failed += 1
                line["error"] = str(answer.error)
            else:
                line |= answer.to_json()
                warned += bool(answer.warnings)
            print(json.dumps(line, ensure_ascii=False), flush=True)
            bar.advance(task)
    if failed:
        print(f'redraft: {failed} of {len(rows)} rows failed: see their "error"', file=sys.stderr)
        raise typer.Exit(1)
    end_with_warnings(warned, len(rows), strict=strict, quiet=quiet)


def read_prompt(prompt: str, piped: str | None = None) -> str:
    """Returns the prompt: standard input for "-", and followed by it, on the next line, where "-" comes after.

    Standard input is read only where that is said: a program that runs this one may keep its own open, or need it.
    Raises ValueError where it is not UTF-8.
    """
    if piped not in (None, "-") or piped == prompt:
        raise ValueError(f"{piped!r} follows the prompt, only - may: put quotation marks around a prompt with spaces")
    if prompt == "-":
        return read_standard_input()
    return prompt if piped is None else f"{prompt}\n{read_standard_input().removesuffix(chr(10))}"
