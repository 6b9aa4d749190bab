"""`redraft generate`: one prompt, one answer; or a file of prompts, and their answers as JSON lines."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli import options
from redraft.cli.rows import Row, read_prompts


@options.answering
def generate(
    asked: options.Request,
    prompt: Annotated[str | None, typer.Argument(help="What to answer; - reads it from standard input.")] = None,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="Only the text, without the live canvas.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, without the live canvas.")] = False,
    step_delay: Annotated[float, typer.Option(help="Seconds to rest at each step of the live canvas.")] = 0.0,
    rows: Annotated[
        Path | None, typer.Option(help="Answer every row of a file: lines of text, JSON lines or CSV.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help='What to ask of each row, with its {columns}; else the column "prompt".')
    ] = None,
    rows_format: Annotated[
        str | None, typer.Option(help="text, jsonl or csv; else by the file's ending, and text for any other.")
    ] = None,
) -> None:
    """Answer one prompt, the canvas resolving live where the output is a terminal; or many, as JSON lines in order."""
    if not 0 <= step_delay <= 60:
        raise ValueError(f"--step-delay is {step_delay}, must lie between 0 and 60 seconds")
    if rows is not None:
        for name, value in (("a prompt", prompt), ("--plain", plain), ("--step-delay", step_delay)):
            if value:
                raise ValueError(f"--rows and {name} do not go together: rows are answered as JSON lines")
        answer_rows(asked, read_prompts(rows, format=rows_format, template=template))
        return
    if template is not None or rows_format is not None:
        raise ValueError("--template and --rows-format say how rows are read: give --rows FILE with them")
    if prompt is None:
        raise ValueError("there is no prompt: give one, - for standard input, or --rows FILE")
    answer_one(asked, read_prompt(prompt), plain=plain, as_json=as_json, step_delay=step_delay)


def answer_one(asked: options.Request, text: str, *, plain: bool, as_json: bool, step_delay: float) -> None:
    """One answer, shown as the options say."""
    from redraft.cli.live import show

    loaded = asked.load()
    events = loaded.stream(text, **asked.settings)
    if as_json:
        print(json.dumps(last_result(events).to_json(), ensure_ascii=False))
    elif plain or not sys.stdout.isatty():
        print(last_result(events).text)
    else:
        show(events, loaded.tokenizer, step_delay=step_delay)


def answer_rows(asked: options.Request, rows: list[Row]) -> None:
    """A JSON line for each row, in order and as soon as it is known; one with "error" for a row that failed.

    Exit code 1 where any did.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    import redraft

    failed = 0
    # Lines that appear on the terminal show by themselves how far it is.
    bar = Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True,
        disable=sys.stdout.isatty(), redirect_stdout=False,
    )  # fmt: skip
    model = asked.load()
    with redraft.Engine(model, **options.limits(model, asked.settings)) as engine, bar:
        task = bar.add_task("rows", total=len(rows))
        answers = engine.generate_many((row.prompt for row in rows), **asked.settings)
        for row, answer in zip(rows, answers, strict=True):
            told: dict[str, Any] = {"line": row.line}
            if isinstance(answer, redraft.Failure):
                failed += 1
                told["error"] = str(answer.error)
            else:
                told |= answer.to_json()
            print(json.dumps(told, ensure_ascii=False), flush=True)
            bar.advance(task)
    if failed:
        print(f'redraft: {failed} of {len(rows)} rows failed: see their "error"', file=sys.stderr)
        raise typer.Exit(1)


def last_result(events: "Iterator[object]") -> "redraft.Result":  # type: ignore[name-defined]  # noqa: F821
    """Runs a stream to its end."""
    import redraft

    *_, result = events
    assert isinstance(result, redraft.Result)
    return result


def read_prompt(prompt: str) -> str:
    """The prompt itself, or standard input for "-". ValueError where that is not UTF-8."""
    if prompt != "-":
        return prompt
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8: byte {data[error.start]:#04x} at {error.start}") from None
