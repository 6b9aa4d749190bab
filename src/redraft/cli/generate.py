"""`redraft generate`: one prompt, one answer."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from redraft.cli import options


@options.answering
def generate(
    asked: options.Request,
    prompt: Annotated[str, typer.Argument(help="What to answer; - reads it from standard input.")],
    *,
    plain: Annotated[bool, typer.Option("--plain", help="Only the text, without the live canvas.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, without the live canvas.")] = False,
    step_delay: Annotated[float, typer.Option(help="Seconds to rest at each step of the live canvas.")] = 0.0,
) -> None:
    """Answer one prompt, the canvas resolving live where the output is a terminal."""
    from redraft.cli.live import show

    if not 0 <= step_delay <= 60:
        raise ValueError(f"--step-delay is {step_delay}, must lie between 0 and 60 seconds")
    text = read_prompt(prompt)
    loaded = asked.load()
    events = loaded.stream(text, **asked.settings)
    if as_json:
        print(json.dumps(last_result(events).to_json(), ensure_ascii=False))
    elif plain or not sys.stdout.isatty():
        print(last_result(events).text)
    else:
        show(events, loaded.tokenizer, step_delay=step_delay)


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
