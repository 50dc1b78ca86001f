"""``facelm models``: what is embedded."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import zoo
from ..runtimes.onnxruntime import OrtSession
from .inspect import cut_by, in_words, scores_in_words


def models(
    long: Annotated[bool, typer.Option("--long", help="Data, terms, accuracy, parity and sha256 of each.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of each model's contract as JSON.")] = False,
) -> None:
    """List the models inside the package, a line each."""
    rows = []
    for entry in zoo.list_models():
        file = zoo.resolve(entry.name, variant=entry.precision)
        spec = OrtSession(file.path).spec.to_dict()
        rows.append({**spec, "sha256": entry.sha256, "file": entry.file, "bytes": file.path.stat().st_size})
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    console = Console(highlight=False)
    if long:
        for row in rows:
            _print_all(console, row)
    elif rows:
        for line in _lines(rows):
            typer.echo(line)
    if not rows:
        console.print("there are no models in this package")


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    """A table of the models, its head first."""
    cells = [("model", "file", "task", "points", "crop", "MB", "accuracy")]
    for row in rows:
        crop = f"{row['crop']['size']} px" if row["crop"] else "-"
        score = next(iter(scores_in_words(row["accuracy"])), "not stated")
        points, size = str(row["num_landmarks"]), f"{row['bytes'] / 1e6:.1f}"
        cells.append((row["name"], row["precision"], row["task"], points, crop, size, score))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _print_all(console: Console, row: dict[str, Any]) -> None:
    title = f"{row['name']}, {row['precision']}"
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    crop = f", crops of {row['crop']['size']} px by {cut_by(row['crop'])}" if row["crop"] else ""
    table.add_row("task", f"{row['task']}{crop}")
    table.add_row("markup", f"{row['markup']} ({row['num_landmarks']} points)")
    table.add_row("precision", f"{row['precision']}{', flip averaging inside' if row['flip'] else ''}")
    table.add_row("size", f"{row['bytes'] / 1e6:.2f} MB")
    table.add_row("accuracy", escape(in_words(row["accuracy"])))
    table.add_row("parity", escape(in_words(row["parity"])))
    for label, name in (("data", "data"), ("licence", "licence"), ("made by", "created_by"), ("sha256", "sha256")):
        table.add_row(label, escape(row[name]))
    console.print(table)
