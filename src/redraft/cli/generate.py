"""`redraft generate`: one prompt, one answer."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from redraft.cli import options


def generate(
    prompt: Annotated[str, typer.Argument(help="What to answer; - reads it from standard input.")],
    *,
    model: options.ModelOption = "bundled",
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = "auto",
    max_new_tokens: options.MaxNewTokens = None,
    canvas_length: options.CanvasLength = None,
    steps: options.Steps = None,
    entropy_bound: options.EntropyBound = None,
    t_min: options.TMin = None,
    t_max: options.TMax = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    plain: Annotated[bool, typer.Option("--plain", help="Only the text, without the live canvas.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, without the live canvas.")] = False,
    step_delay: Annotated[float, typer.Option(help="Seconds to rest at each step of the live canvas.")] = 0.0,
) -> None:
    """Answer one prompt, the canvas resolving live where the output is a terminal."""
    import redraft
    from redraft.cli.live import show

    if not 0 <= step_delay <= 60:
        raise ValueError(f"--step-delay is {step_delay}, must lie between 0 and 60 seconds")
    text = read_prompt(prompt)
    settings = options.given(
        max_new_tokens=max_new_tokens, canvas_length=canvas_length, steps=steps, entropy_bound=entropy_bound,
        t_min=t_min, t_max=t_max, temperature=temperature, seed=seed,
    )  # fmt: skip
    # Settings are checked before the weights are read: a typing error should not wait for them.
    options.check_settings(settings)
    loaded = redraft.load(model, device=device, dtype=dtype)
    events = loaded.stream(text, **settings)
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
