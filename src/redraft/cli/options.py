"""Options that several commands share."""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from redraft.model.precision import precision_choices
from redraft.utils.signals import ctrl_c_waits

if TYPE_CHECKING:
    import redraft

Number = TypeVar("Number", int, float)

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help='A checkpoint: "bundled", a folder, or a name on the Hugging Face hub.')
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda (cuda is untested).")]
PrecisionOption = Annotated[str, typer.Option(help=f"{precision_choices('auto')}.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]


@dataclass(frozen=True)
class Request:
    """What every command that answers is asked: which model, how it runs, and the settings that were given."""

    model: str
    device: str
    precision: str
    settings: dict[str, Any]

    def load(self) -> "redraft.Model":
        """The model."""
        import redraft

        return redraft.load(self.model, device=self.device, precision=self.precision)


def limits(model: "redraft.Model", settings: dict[str, Any]) -> dict[str, int]:
    """Limits of an engine that refuses nothing which the model's context has room for."""
    from redraft.engine import Limits

    config, usual = model.transformer.config, Limits()
    canvas = max(config.canvas_length, model.defaults.replace(**settings).canvas_length or 0)
    return {
        "forward_tokens": max(usual.forward_tokens, canvas),
        "admitted_tokens": max(usual.admitted_tokens, config.max_context),
    }


def answering(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that answers the options of model and sampler.

    It gets them, checked, as its first argument, a Request; its other arguments stay options of its own.
    """

    def with_options(
        *arguments: Any,
        model: ModelOption = "bundled",
        device: DeviceOption = "auto",
        precision: PrecisionOption = "auto",
        max_new_tokens: Annotated[int | None, typer.Option(help="Cut the answer after so many tokens.")] = None,
        canvas_length: Annotated[int | None, typer.Option(help="Tokens written at a time.")] = None,
        steps: Annotated[int | None, typer.Option(help="At most so many denoising steps for a canvas.")] = None,
        entropy_bound: Annotated[
            float | None, typer.Option(help="Accept more positions a step (higher) or fewer (lower).")
        ] = None,
        t_min: Annotated[float | None, typer.Option(help="Temperature that the schedule falls to.")] = None,
        t_max: Annotated[float | None, typer.Option(help="Temperature that the schedule starts from.")] = None,
        temperature: Annotated[
            float | None, typer.Option(help="Scales the schedule; 0 takes the likeliest token as the sample.")
        ] = None,
        seed: Annotated[
            int | None, typer.Option(help="The same seed gives the same answer; without one, one is drawn.")
        ] = None,
        **own: Any,
    ) -> None:
        settings = given(
            max_new_tokens=max_new_tokens, canvas_length=canvas_length, steps=steps, entropy_bound=entropy_bound,
            t_min=t_min, t_max=t_max, temperature=temperature, seed=seed,
        )  # fmt: skip
        check_settings(settings)
        check_precision(precision)
        command(Request(model, device, precision, settings), *arguments, **own)

    return sharing(command, with_options)


def sharing(command: Callable[..., None], with_options: Callable[..., None]) -> Callable[..., None]:
    """`with_options` as the command framework reads it: `command`'s own parameters, then its keyword-only ones."""
    shared = [p for p in inspect.signature(with_options, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    with_options.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    with_options.__doc__ = command.__doc__
    return with_options


def given(**settings: Any) -> dict[str, Any]:
    """The settings the user gave, without those left to the checkpoint."""
    return {name: value for name, value in settings.items() if value is not None}


def check_settings(settings: dict[str, Any]) -> None:
    """ValueError for sampler settings that are wrong with any checkpoint: before its weights are fetched or read."""
    import redraft

    # Some of what torch imports takes any exception for a missing package, KeyboardInterrupt too.
    with ctrl_c_waits():
        import redraft.api
    if ("t_min" in settings) != ("t_max" in settings):
        # The other end of the schedule is the checkpoint's, and not known yet.
        only = settings.get("t_min", settings.get("t_max"))
        settings = settings | {"t_min": only, "t_max": only}
    redraft.SamplerSettings().replace(**settings)


def needs(package: str, extra: str) -> None:
    """ValueError, with the way out, where an optional package is missing: before any work."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"this needs {package}: pip install 'redraft[{extra}]'")


def check_precision(precision: str) -> None:
    """ValueError for a precision that `load` does not know."""
    from redraft import api as facade

    facade.check_precision(precision)


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
