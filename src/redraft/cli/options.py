"""Options that several commands share."""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

import redraft
from redraft.model.precision import precision_choices

Number = TypeVar("Number", int, float)

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help='A checkpoint: "bundled", a folder, or a name on the Hugging Face hub.')
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda (cuda is untested).")]
PrecisionOption = Annotated[str, typer.Option(help=f"{precision_choices('auto')}.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@dataclass(frozen=True)
class Invocation:
    """A run of the command line, as `typer.Context.obj`. started: the time.perf_counter() at which it began."""

    started: float


@dataclass(frozen=True)
class ModelOptions:
    """The options of a command that generates: which model, how it runs, and the sampler settings that were given."""

    model: str
    device: str
    precision: str
    settings: dict[str, Any]

    def load(self) -> "redraft.Model":
        """Loads the model."""
        return redraft.load(self.model, device=self.device, precision=self.precision)


def with_model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of model and sampler to a command.

    The command gets them, checked, as its first argument, a ModelOptions; its other arguments stay options of its own.
    """

    def with_options(
        *arguments: Any,
        model: ModelOption = "bundled",
        device: DeviceOption = "auto",
        precision: PrecisionOption = "auto",
        **own: Any,
    ) -> None:
        settings = without_none(**{setting.name: own.pop(setting.name) for setting in redraft.SETTINGS})
        check_settings(settings)
        command(ModelOptions(model, device, precision, settings), *arguments, **own)

    return merge_signatures(command, with_options, *map(setting_parameter, redraft.SETTINGS))


def setting_parameter(setting: redraft.Setting) -> inspect.Parameter:
    """Makes the option of a sampler setting; left out, it is the checkpoint's own."""
    names = f" {' or '.join(setting.choices)}." if setting.choices else ""
    option = Annotated[setting.type | None, typer.Option(help=setting.help + names)]  # type: ignore[name-defined]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)


def merge_signatures(
    command: Callable[..., None], with_options: Callable[..., None], *more: inspect.Parameter
) -> Callable[..., None]:
    """Gives `with_options` the signature that typer reads: `command`'s parameters but the first, its own, and more."""
    shared = [p for p in inspect.signature(with_options, eval_str=True).parameters.values() if p.kind is p.KEYWORD_ONLY]
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    with_options.__signature__ = inspect.Signature([*own, *shared, *more])  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared, *more)}
    with_options.__doc__ = command.__doc__
    return with_options


def without_none(**values: Any) -> dict[str, Any]:
    """Drops the options that the user did not give."""
    return {name: value for name, value in values.items() if value is not None}


def check_settings(settings: dict[str, Any]) -> None:
    """Raises ValueError for sampler settings that are wrong with any checkpoint, before its weights are read."""
    if ("t_min" in settings) != ("t_max" in settings):
        # The other end of the schedule is the checkpoint's, and not known yet.
        only = settings.get("t_min", settings.get("t_max"))
        settings = settings | {"t_min": only, "t_max": only}
    redraft.SamplerSettings().replace(**settings)


def require_package(package: str, extra: str) -> None:
    """Raises ValueError, with the way out, where an optional package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"this needs {package}: pip install 'redraft[{extra}]'")


def parse_numbers(name: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    """Parses an option's comma-separated numbers. Raises ValueError for what is not one."""
    found = []
    for part in text.split(","):
        try:
            found.append(kind(part))
        except ValueError:
            raise ValueError(f"--{name}: {part!r} is not a number") from None
    return found


def check_at_least(minimum: int, **values: int | None) -> None:
    """Raises ValueError for an option that is given and below `minimum`."""
    for name, value in values.items():
        if value is not None and value < minimum:
            raise ValueError(f"--{name} is {value}, must be at least {minimum}")
