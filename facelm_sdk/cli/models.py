"""``facelm models``: what is embedded."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import zoo
from ..runtimes.onnxruntime import OrtSession
from .inspect import cut_by, in_words


def models(
    as_json: Annotated[bool, typer.Option("--json", help="All of each model's contract as JSON.")] = False,
) -> None:
    """List the models inside the package."""
    rows = []
    for entry in zoo.list_models():
        file = zoo.resolve(entry.name, variant=entry.precision)
        spec = OrtSession(file.path).spec.to_dict()
        rows.append({**spec, "sha256": entry.sha256, "file": entry.file, "bytes": file.path.stat().st_size})
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    console = Console(highlight=False)
    for row in rows:
        title = f"{row['name']}, {row['precision']}"
        table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
        crop = f", crops of {row['crop']['size']} px by {cut_by(row['crop'])}" if row["crop"] else ""
        table.add_row("task", f"{row['task']}{crop}")
        table.add_row("markup", f"{row['markup']} ({row['num_landmarks']} points)")
        table.add_row("precision", f"{row['precision']}{', flip averaging inside' if row['flip'] else ''}")
        table.add_row("size", f"{row['bytes'] / 1e6:.2f} MB")
        table.add_row("accuracy", escape(in_words(row["accuracy"])))
        table.add_row("parity", escape(in_words(row["parity"])))
        for name in ("data", "licence", "sha256"):
            table.add_row(name, escape(row[name]))
        console.print(table)
    if not rows:
        console.print("there are no models in this package")
