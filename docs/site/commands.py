"""The reference of the command line, as typer makes it of the commands."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.cli import get_docs_for_click

import facelm_sdk.cli as facelm
from facelm_sdk.cli.plugins import PLUGIN_GROUP, _command


def all_commands() -> dict[str, Any]:
    """Every command by its name; ``facelm export`` stands as ``facelm-export``, whose own commands are within it."""
    found = {f"facelm {name}": command for name, command in typer.main.get_command(facelm.app).commands.items()}
    for entry in entry_points(group=PLUGIN_GROUP):
        name = "facelm-export" if entry.name == "export" else f"facelm {entry.name}"
        found[name] = _command(entry.load(), entry.name)
    return found


def markdown() -> str:
    """A section a command: what it does, its arguments and its options."""
    texts = (
        get_docs_for_click(obj=command, ctx=typer.Context(command), indent=1, name=name)
        for name, command in all_commands().items()
    )
    return "".join(_escaped(text) for text in texts)


def _escaped(text: str) -> str:
    """The text with the <name> of its sentences, not of its code, kept from being HTML."""
    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.DOTALL)
    return "".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))
