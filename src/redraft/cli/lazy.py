"""A command group that imports a command when it is run, not to list it in the help or to complete its name."""

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from redraft.utils.signals import delay_interrupt
from redraft.utils.threads import use_threads


class LazyCommand(TyperCommand):
    """The name and one-line help of a command that has not been imported.

    target: "module:attribute", the command's function or, of a group, its Typer.
    """

    def __init__(self, name: str, target: str, help: str) -> None:
        super().__init__(name, help=help, short_help=help, rich_markup_mode=None)
        self._name, self._target = name, target

    def load(self) -> Any:
        module, _, attribute = self._target.partition(":")
        # Some of what torch imports takes any exception for a missing package, KeyboardInterrupt too.
        with delay_interrupt():
            found = getattr(importlib.import_module(module), attribute)
        app = typer.Typer(rich_markup_mode=None)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=self._name)
        else:
            app.command(self._name)(found)
        command = get_group(app).commands[self._name]
        _complete(command)
        return command


def _use_threads(number: int | None) -> None:
    if number is not None:
        use_threads(number)


def _common_options(
    threads: Annotated[
        int | None,
        typer.Option(
            expose_value=False,
            callback=_use_threads,
            help="Threads that compute; by default as many as this process may use CPUs.",
        ),
    ] = None,
) -> None:
    """Has the options of every command as its parameters."""


def _complete(command: Any) -> None:
    """Adds the common options; the list of a group's commands has the whole first sentence of each one's help."""
    if isinstance(command, TyperGroup):
        for inner in command.commands.values():
            inner.short_help = inner.short_help or first_sentence(inner.help or "")
            _complete(inner)
    else:
        app = typer.Typer(add_completion=False)
        app.command()(_common_options)
        command.params += get_command(app).params


def first_sentence(text: str) -> str:
    """Returns the text to the first full stop that a space or a line break follows."""
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


class LazyGroup(TyperGroup):
    """A group that imports the command which it resolves."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest


def _no_options() -> None:
    """Is the callback of a group that has no options of its own."""


def lazy_app(
    help: str, commands: Mapping[str, tuple[str, str]], *, callback: Callable[..., None] = _no_options, **settings: Any
) -> typer.Typer:
    """Makes a group of commands: name → (target, first sentence of its help), as a LazyCommand takes them.

    callback: its parameters are the group's own options.
    """

    class Commands(LazyGroup):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            for name, (target, help) in commands.items():
                self.add_command(LazyCommand(name, target, help))

    return typer.Typer(cls=Commands, help=help, callback=callback, rich_markup_mode=None, **settings)
