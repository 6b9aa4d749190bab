"""Options that several commands share."""

import importlib.util
import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

import redraft
from redraft.cli.streams import loading
from redraft.generation.modes import ANSWERING_MODES, UNUSED_SETTINGS
from redraft.model.precision import check_precision, precision_choices

if TYPE_CHECKING:
    from redraft.client.stream import Endpoint

ENDPOINT_TIMEOUT = 600.0
Number = TypeVar("Number", int, float)

MODEL_VARIABLE = "REDRAFT_MODEL"
"""The environment variable that names the model where the command line names none."""

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar=MODEL_VARIABLE,
        help='A checkpoint: "bundled", a folder, or a name on the Hugging Face hub.',
    ),
]
AdapterOption = Annotated[
    str | None, typer.Option("--adapter", help="An adapter's folder: the model answers with it. See docs/adapters.md.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing on standard error but errors: no notes, no progress.")
]
DEVICES = ("auto", "cpu", "cuda")
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda (cuda is untested).")]
PrecisionOption = Annotated[str, typer.Option(help=f"{precision_choices('auto')}.")]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", help="A server's URL, like http://localhost:8000/v1.")
]
KeyOption = Annotated[
    str | None, typer.Option("--api-key-env", help="The environment variable that holds the server's key.")
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        "--mode",
        help="diffusion; autoregressive: the same weights token by token; verified: the same answers as that, drafted "
        "on canvases; auto: the same again, drafted while that is faster. By default as the model's card says.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@dataclass(frozen=True)
class ModelOptions:
    """The options of a command that generates: which model, how it runs, and the sampler settings that were given.

    adapter: the folder of the adapter that the model answers with. from_file: the names of those that come from the
    configuration file. It is about models on this machine: where an option asks for something that they do not fit,
    they have no effect. Raises ValueError for an unknown precision, before anything is loaded.
    """

    model: str
    device: str
    precision: str
    settings: dict[str, Any]
    from_file: frozenset[str] = frozenset()
    adapter: str | None = None

    def __post_init__(self) -> None:
        check_precision(self.precision)

    @property
    def given_settings(self) -> dict[str, Any]:
        """The sampler settings that the command line itself names."""
        return {name: value for name, value in self.settings.items() if name not in self.from_file}

    def settings_in(self, mode: str | None) -> dict[str, Any]:
        """Returns the settings, without those from the file that a mode of answering has no use for.

        mode: None is what the model's card and the settings choose. Raises ValueError for one that is unknown, and for
        options that it has no use for.
        """
        if mode is None:
            return self.settings
        if mode not in ANSWERING_MODES:
            raise ValueError(f"--mode is {mode!r}, must be one of {', '.join(ANSWERING_MODES)}")
        unused = UNUSED_SETTINGS[mode]
        if given := [f"--{name.replace('_', '-')}" for name in self.given_settings if name in unused]:
            raise ValueError(f"--mode {mode} has no use for {', '.join(given)}: leave it out")
        return {name: value for name, value in self.settings.items() if name not in unused}

    def load(self, *, quiet: bool = False) -> "redraft.Model":
        """Loads the model; on a terminal a line says so meanwhile, unless `quiet`."""
        with loading(self.model, quiet=quiet):
            model = redraft.load(self.model, device=self.device, precision=self.precision)
            return model if self.adapter is None else model.load_adapter(self.adapter)

    def endpoint(self, url: str, key_variable: str | None, timeout: float = ENDPOINT_TIMEOUT) -> "Endpoint":
        """Returns the endpoint at `url`, with the server's first model unless --model names one.

        Raises ValueError for options that a request has no field for, and where the server does not answer.
        """
        require_package("httpx2", "load")
        from redraft.client.stream import Endpoint, check_url, list_models, request_fields

        if self.adapter is not None:
            raise ValueError("--adapter is loaded here; with --endpoint name the server's by --model")
        local = {"device": self.device, "precision": self.precision}
        if any(value != "auto" for name, value in local.items() if name not in self.from_file):
            raise ValueError("--device and --precision are the server's choice; leave them out with --endpoint")
        if "index" in self.settings:
            raise ValueError("--index has no field in a request to a server; leave it out with --endpoint")
        key = None
        if key_variable is not None and not (key := os.environ.get(key_variable)):
            raise ValueError(f"--api-key-env names {key_variable}, but no such variable is set")
        check_url(url)
        # "bundled" is what --model says when nobody gave it.
        is_named = self.model != "bundled" and "model" not in self.from_file
        model = self.model if is_named else list_models(url, key=key, timeout=timeout)[0]
        return Endpoint(url=url, model=model, key=key, fields=request_fields(self.given_settings), timeout=timeout)


def parse_adapters(option: str, given: Sequence[str] | None) -> dict[str, str]:
    """Returns adapters' folders by their names. ValueError for one that is not NAME=FOLDER, and for a name twice."""
    found: dict[str, str] = {}
    for text in given or ():
        name, _, folder = text.partition("=")
        if not name.strip() or not folder.strip():
            raise ValueError(f"{option} {text}: must be NAME=FOLDER, as mails=runs/mails")
        if name in found:
            raise ValueError(f"{option}: a name is given twice; give each adapter a name of its own")
        found[name] = folder
    return found


def receives(make: Callable[..., Any], *more: inspect.Parameter) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a decorator for commands whose first argument is what `make` returns.

    The keyword parameters of `make`, and `more`, become options beside the command's own. Both may take the
    `typer.Context`, under the same name. Of several such decorators the innermost gives the first argument.
    """
    parameters = inspect.signature(make, eval_str=True).parameters.values()
    shared = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY] + list(more)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        names = {parameter.name for parameter in own}
        added = [parameter for parameter in shared if parameter.name not in names]

        def with_options(*outer: Any, **given: Any) -> Any:
            made = make(**{parameter.name: given[parameter.name] for parameter in shared})
            return command(made, *outer, **{name: value for name, value in given.items() if name in names})

        # The signature that typer reads.
        with_options.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
        with_options.__doc__ = command.__doc__
        return with_options

    return decorate


def optional_parameter(name: str, kind: Any, help: str) -> inspect.Parameter:
    """Makes the parameter of an option that is None unless it is given."""
    option = Annotated[kind | None, typer.Option(help=help)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)


def _setting_parameter(setting: redraft.Setting) -> inspect.Parameter:
    names = f" {' or '.join(setting.choices)}." if setting.choices else ""
    return optional_parameter(setting.name, setting.type, setting.help + names)


def _make_model_options(
    *,
    invocation: typer.Context,
    model: ModelOption = "bundled",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    adapter: AdapterOption = None,
    **settings: Any,
) -> ModelOptions:
    chosen = without_none(**settings)
    named = ("model", "device", "precision", *chosen)
    from_file = frozenset(name for name in named if is_from_file(invocation, name))
    try:
        check_settings(chosen)
    except ValueError as error:
        if others := [name for name in chosen if name in from_file]:
            raise ValueError(f"{error} ({', '.join(others)}: from the configuration file)") from None
        raise
    return ModelOptions(model, device, precision, chosen, from_file, adapter)


def is_from_file(invocation: typer.Context, name: str) -> bool:
    """Whether an option's value comes from the configuration file, which is the command's map of defaults."""
    source = invocation.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


with_model_options = receives(_make_model_options, *map(_setting_parameter, redraft.SETTINGS))
"""Gives a command the options of model and sampler; it gets them, checked, as a ModelOptions."""


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
        raise ValueError(f"this needs {package}: pip install -e '.[{extra}]' in the checkout")


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


def check_positive(**values: float | None) -> None:
    """Raises ValueError for an option that is given and not a finite number above 0."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name} is {value}, must be a finite number above 0")


def check_folder(name: str, file: Path | None) -> None:
    """Raises ValueError where a file is to be written into a folder that does not exist."""
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"--{name}: there is no folder {str(file.parent)!r}")
