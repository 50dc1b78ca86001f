"""Commands of ``facelm`` that other packages add."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

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
                help=f"From the package {entry.module.partition('.')[0]}; --help tells more.",
                add_help_option=False,
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            )(_runner(entry))


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
