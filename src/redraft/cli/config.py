"""The configuration file, and `redraft config`, which shows it.

A key has the name of an option and is its default wherever a model is run. An option wins over the environment, that
over the file, and the file over what the program has as its default. A file in the working directory is not read: who
enters a folder that came from elsewhere has not asked for its settings.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.utils.threads import MAX_THREADS, available_cpus, use_threads

if TYPE_CHECKING:
    from redraft.diffusion.settings import Setting

PATH_VARIABLE = "REDRAFT_CONFIG"
VARIABLES = {"model": "REDRAFT_MODEL", "threads": "REDRAFT_THREADS"}
"""Keys for which an environment variable may stand."""

RUN_KEYS = ("model", "device", "precision")
SERVER_KEYS = ("host", "port", "max_concurrent", "max_queue", "max_context")
TASK_COMMANDS = ("extract", "normalize", "repair", "fill", "wide", "rows", "sudoku", "needle")


def config_path() -> Path:
    """Returns the file that REDRAFT_CONFIG names, or redraft/config.toml in the user's folder of configurations."""
    if named := os.environ.get(PATH_VARIABLE):
        return Path(named).expanduser()
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # A relative one is to be ignored, says its specification.
    if not folder.is_absolute():
        try:
            folder = Path.home() / ".config"
        except RuntimeError:  # a user without a home
            return Path(os.devnull)
    return folder / "redraft" / "config.toml"


def config_keys() -> "dict[str, Setting]":
    """Returns every key by its name, with the type and range of its values."""
    from redraft.cli.options import DEVICES
    from redraft.diffusion.settings import SETTINGS, Setting
    from redraft.model.precision import PRECISIONS

    keys = [
        Setting(name="model", type=str, help="As --model."),
        Setting(name="device", type=str, choices=DEVICES, help="As --device."),
        Setting(
            name="precision", type=str, choices=("auto", *(one.name for one in PRECISIONS)), help="As --precision."
        ),
        Setting(name="threads", type=int, minimum=1, maximum=MAX_THREADS, help="As --threads."),
        # A seed makes one answer unlike another: it is no habit.
        *(setting for setting in SETTINGS if not setting.belongs_to_request),
        *(Setting(name=name, type=str if name == "host" else int, help="Of the server.") for name in SERVER_KEYS),
    ]
    return {key.name: key for key in keys}


def read_config() -> dict[str, Any]:
    """Returns the file's values, all checked; none where there is no file.

    Raises ValueError, naming the file and the key, for what is no key and for a value that it cannot have, and for a
    file that REDRAFT_CONFIG names and that is not there.
    """
    path = config_path()
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get(PATH_VARIABLE):
            raise ValueError(f"{PATH_VARIABLE} names {str(path)!r}, but there is no such file") from None
        return {}
    import tomllib

    try:
        values = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: byte {data[error.start]:#04x} at {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    try:
        return _checked(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    if not values:
        return {}
    from redraft.cli.options import check_settings
    from redraft.diffusion.settings import SETTINGS
    from redraft.server.settings import ServerSettings

    keys = config_keys()
    for name, value in values.items():
        if name not in keys:
            raise ValueError(f"there is no key {name!r}; there are {', '.join(keys)}")
        values[name] = keys[name].convert(value)
    ServerSettings(**{name: value for name, value in values.items() if name in SERVER_KEYS})
    check_settings({setting.name: values[setting.name] for setting in SETTINGS if setting.name in values})
    return values


def file_defaults() -> dict[str, Any]:
    """Returns the file's values as each command takes them: a map by command, and by option in that.

    The number of threads is every command's, and is used at once.
    """
    values = read_config()
    if "threads" in values and not os.environ.get(VARIABLES["threads"]):
        use_threads(values["threads"])
    if not values:
        return {}
    answer_keys = {*RUN_KEYS, *config_keys()} - {"threads", *SERVER_KEYS}
    answering = {name: value for name, value in values.items() if name in answer_keys}
    model = {name: value for name, value in values.items() if name == "model"}
    return {
        **dict.fromkeys(("generate", "chat", "fill", "edit", "decide"), answering),
        **dict.fromkeys(("examples", "fields", "constraint", "info"), model),
        "serve": {name: value for name, value in values.items() if name in (*RUN_KEYS, *SERVER_KEYS)},
        "batch": {"run": answering},
        "bench": {**dict.fromkeys(("load", "batch"), answering), "cost": model},
        "eval": {
            "frontier": {name: value for name, value in values.items() if name in ("model", "device")},
            "trust": model,
            **dict.fromkeys(TASK_COMMANDS, answering),
        },
    }


@dataclasses.dataclass(frozen=True)
class ConfigValue:
    """The value of a key, and where it comes from: the file, a variable's name, the default or the checkpoint."""

    value: Any
    source: str


def config_values() -> Iterator[tuple[str, ConfigValue]]:
    """Yields every key with its value, None where that is left to the checkpoint."""
    from redraft.server.settings import ServerSettings

    values, server = read_config(), ServerSettings()
    defaults = {"model": "bundled", "device": "auto", "precision": "auto", "threads": available_cpus()}
    defaults |= {name: getattr(server, name) for name in SERVER_KEYS}
    for name in config_keys():
        variable = VARIABLES.get(name, "")
        if given := os.environ.get(variable):
            yield name, ConfigValue(int(given) if name == "threads" else given, variable)
        elif name in values:
            yield name, ConfigValue(values[name], "file")
        else:
            default = defaults.get(name)
            yield name, ConfigValue(default, "checkpoint" if default is None else "default")


def config(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Show what the configuration file and the environment set.

    An option wins over the environment, that over the file, and the file over the defaults. The file is
    ~/.config/redraft/config.toml, or what REDRAFT_CONFIG names; its keys are those of the table.
    """
    from redraft.cli.output import show_table

    path, found = config_path(), dict(config_values())
    if as_json:
        values = {name: {"value": one.value, "from": one.source} for name, one in found.items()}
        print(json.dumps({"file": str(path), "exists": path.exists(), "values": values}))
        return
    print(f"{path}{'' if path.exists() else ' (there is no such file)'}")
    rows = [(name, "" if one.value is None else str(one.value), one.source) for name, one in found.items()]
    show_table(rows, ("key", "value", "from"))
