"""Options that several commands share."""

import importlib.util
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

Number = TypeVar("Number", int, float)

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help='A checkpoint: "bundled", a folder, or a name on the Hugging Face hub.')
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda (cuda is untested).")]
DtypeOption = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Cut the answer after so many tokens.")]
CanvasLength = Annotated[int | None, typer.Option(help="Tokens written at a time.")]
Steps = Annotated[int | None, typer.Option(help="At most so many denoising steps for a canvas.")]
EntropyBound = Annotated[float | None, typer.Option(help="Accept more positions a step (higher) or fewer (lower).")]
TMin = Annotated[float | None, typer.Option(help="Temperature that the schedule falls to.")]
TMax = Annotated[float | None, typer.Option(help="Temperature that the schedule starts from.")]
Temperature = Annotated[
    float | None, typer.Option(help="Scales the schedule; 0 takes the likeliest token as the sample.")
]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer; without one, one is drawn.")]


def given(**settings: Any) -> dict[str, Any]:
    """The settings the user gave, without those left to the checkpoint."""
    return {name: value for name, value in settings.items() if value is not None}


def check_settings(settings: dict[str, Any]) -> None:
    """ValueError for sampler settings that are wrong with any checkpoint: before its weights are fetched or read."""
    import redraft

    if ("t_min" in settings) != ("t_max" in settings):
        # The other end of the schedule is the checkpoint's, and not known yet.
        only = settings.get("t_min", settings.get("t_max"))
        settings = settings | {"t_min": only, "t_max": only}
    redraft.SamplerSettings().replace(**settings)


def needs(package: str, extra: str) -> None:
    """ValueError, with the way out, where an optional package is missing: before any work."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"this needs {package}: pip install 'redraft[{extra}]'")


def check_dtype(dtype: str) -> None:
    """ValueError for a precision that `load` does not know."""
    from redraft.facade import DTYPES

    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, must be auto, {' or '.join(DTYPES)}")


def numbers(name: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    """The numbers of a list with commas. ValueError for what is none."""
    found = []
    for part in text.split(","):
        try:
            found.append(kind(part))
        except ValueError:
            raise ValueError(f"--{name}: {part!r} is no number") from None
    return found


def check_at_least(low: int, **values: int | None) -> None:
    """ValueError for a value that is given and below `low`."""
    for name, value in values.items():
        if value is not None and value < low:
            raise ValueError(f"--{name} is {value}, must be at least {low}")
