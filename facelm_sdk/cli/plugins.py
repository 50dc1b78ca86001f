"""Commands of ``facelm`` that other packages add."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand

from ..errors import MissingDependencyError

PLUGIN_GROUP = "facelm.commands"


def add_plugins(target: typer.Typer) -> None:
    """Add the commands other packages offer; each is imported only when it is asked for."""
    own = {command.name or getattr(command.callback, "__name__", "") for command in target.registered_commands}
    for entry in entry_points(group=PLUGIN_GROUP):
        if entry.name not in own:
            own.add(entry.name)
            target.command(
                entry.name,
                cls=_described(entry),
                add_help_option=False,
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            )(_runner(entry))


def _described(entry: EntryPoint) -> type[TyperCommand]:
    """A kind of command whose help is that of what the entry point names, imported where the help is shown."""

    class Described(TyperCommand):
        @property
        def help(self) -> str:
            try:
                text = _command(entry.load(), entry.name).help or ""
            except Exception as error:  # the list of commands is there whatever one of them raises
                text = f"(cannot be loaded: {error})"
            return str(text)

        @help.setter
        def help(self, text: str | None) -> None:
            pass

    return Described


def _runner(entry: EntryPoint) -> Any:
    def run(context: typer.Context) -> None:
        try:
            loaded = entry.load()
        except ImportError as error:
            raise MissingDependencyError(
                f'facelm {entry.name} cannot be loaded ({error}); type: pip install "facelm-sdk[{entry.name}]"'
            ) from error
        command = _command(loaded, entry.name)
        code = command.main(args=context.args, prog_name=f"facelm {entry.name}", standalone_mode=False)
        raise typer.Exit(code if isinstance(code, int) else 0)

    return run


def _command(loaded: Any, name: str) -> Any:
    """A runnable command from a Typer app, a click command, or a function with typer's annotations."""
    if hasattr(loaded, "main"):
        return loaded
    if not isinstance(loaded, typer.Typer):
        function, loaded = loaded, typer.Typer(add_completion=False)
        loaded.command(name)(function)
    return typer.main.get_command(loaded)
