"""The ``facelm`` command: align, list the models, serve, look over the installation, measure, and plug-ins."""

from __future__ import annotations

from typing import Annotated

import typer

from . import align, bench, doctor, inspect, models, process, serve, track
from .plugins import add_plugins

app = typer.Typer(
    name="facelm",
    help="Facial landmarks that run fast.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(cls=align.AlignCommand)(align.align)
app.command()(track.track)
app.command()(models.models)
app.command("inspect")(inspect.inspect_command)
app.command()(serve.serve)
app.command()(bench.bench)
app.command()(doctor.doctor)


def main() -> None:
    """The entry point."""
    add_plugins(app)
    process.run(app)


def _version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"facelm-sdk {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
