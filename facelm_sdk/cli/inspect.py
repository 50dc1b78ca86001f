"""``facelm inspect``: the facts of :mod:`facelm_sdk.inspect` in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import markup as markups
from ..errors import FacelmError, MarkupError
from ..inspect import inspect_model
from .options import stderr

_MEANING = {
    "crops": "BGR pixels, raw",
    "image": "BGR pixels, raw",
    "landmarks": "(x, y) in pixels of the crop",
    "scores": "0 to 1",
    "presence": "0 to 1, that there is a face",
    "landmark_scores": "0 to 1",
    "boxes": "x1, y1, x2, y2 in pixels",
    "kps": "five points (x, y) in pixels",
}
_IN_ROWS = (
    "task", "name", "markup", "num_landmarks", "crop", "has_scores", "has_presence", "flip", "precision",
    "format_version",
)  # fmt: skip


def inspect_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Exported files (.onnx, .engine, .xml), Triton repositories, weights (.safetensors), embedded names.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list, one entry a file.")] = False,
) -> None:
    """Print what model files say of themselves: inputs, outputs, crop, markup, precision, origin, parity."""
    console = Console(highlight=False)
    found: list[dict[str, Any]] = []
    failed = 0
    for file in files:
        try:
            found.append(inspect_model(file))
        except (FacelmError, OSError) as error:
            failed += 1
            found.append({"file": file, "error": str(error)})
            stderr.print(f"error: {error}", style="red", markup=False)
            continue
        if not as_json:
            for facts in (found[-1], *found[-1].get("models", ())):
                _print_facts(console, facts)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=1))
    if failed:
        raise typer.Exit(2 if len(files) == 1 else 1)


def _print_facts(console: Console, facts: dict[str, Any]) -> None:
    title = escape(str(facts["file"]))
    table = Table("", title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(overflow="fold")  # whole checksums
    for label, text in rows(facts):
        table.add_row(label, escape(text))
    console.print(table)


def rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What to print of one file: labels and texts, in order."""
    yield "kind", str(facts["kind"])
    if "bytes" in facts:
        yield "size", f"{facts['bytes'] / 1e6:.2f} MB"
    contract = facts.get("contract")
    if contract:
        yield from _model(contract)
    for key in ("inputs", "outputs"):
        for value in facts.get(key, ()):
            yield key[:-1], _value(value, contract)
    if contract:
        yield from _recipe(contract)
        for key, value in contract.items():
            if key not in _IN_ROWS and value not in (None, "", {}):
                yield key.replace("_", " "), in_words(value)
    for key, value in facts.get("details", {}).items():
        if value is not None:
            yield key.replace("_", " "), in_words(value)
    if facts.get("sha256"):
        yield "sha256", facts["sha256"]
    if "note" in facts:
        yield "note", facts["note"]


def in_words(value: Any) -> str:
    """A value of a contract or a card as text."""
    if isinstance(value, Mapping):
        parts = (f"{k} ({in_words(v)})" if isinstance(v, Mapping) else f"{k} {in_words(v)}" for k, v in value.items())
        return ", ".join(parts) or "not stated"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value))
    return str(value)


def scores_in_words(accuracy: Mapping[str, Any]) -> list[str]:
    """The first NME or recall of each entry of a contract's ``accuracy``, with what it was measured on."""
    names = {"nme": "NME", "recall": "recall"}
    found = []
    for title, table in accuracy.items():
        while isinstance(table, Mapping) and table and not names.keys() & table.keys():
            table = next(iter(table.values()))
        if isinstance(table, Mapping):
            where = title.partition(",")[0]
            found += [f"{names[key]} {table[key]:.2f}% ({where})" for key in names if key in table]
    return found


def _model(contract: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", f"{contract['name']}, {contract['task']}, {contract['precision']}"
    text = f"{contract['markup']}, {contract['num_landmarks']} points"
    try:
        groups = markups.get(contract["markup"]).groups
    except MarkupError:
        groups = {}
    parts = "; ".join(f"{name} {indices_in_words(points)}" for name, points in groups.items())
    yield "markup", f"{text}: {parts}" if parts else text


def _recipe(contract: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if contract["crop"]:
        yield "crop", crop_in_words(contract["crop"])
    if contract["task"] == "pipeline":
        yield "crops", "cut inside the graph"
    if contract["task"] != "detection":
        yield (
            "flip averaging",
            "inside the graph"
            if contract["flip"]
            else "not inside" + ("; the runtime can do it" if contract["task"] == "landmarks" else ""),
        )
    yield "inside", "normalisation, channel order and decoding: feed pixels as they are"


def _value(value: Mapping[str, Any], contract: Mapping[str, Any] | None) -> str:
    name, shape = value["name"], list(value["shape"])
    meaning = ""
    if contract:
        shape = [
            size if isinstance(size, int) else _axis(name, len(shape), i, contract) for i, size in enumerate(shape)
        ]
        meaning = f": {_MEANING[name]}" if name in _MEANING else ""
        if contract["task"] == "pipeline":
            meaning = meaning.replace("of the crop", "of the picture")
    text = ", ".join("?" if size is None else str(size) for size in shape)
    return f"{name} {value['dtype']} ({text}{',' if len(shape) == 1 else ''}){meaning}"


def _axis(name: str, rank: int, index: int, contract: Mapping[str, Any]) -> str:
    """What an open axis is called: n crops, k faces, H and W of a picture."""
    if name == "image":
        return {0: "H", 1: "W"}.get(index - (rank - 3), "?")
    if index > 0:
        return "?"
    return "n" if contract["task"] == "landmarks" else "k"


def cut_by(crop: Mapping[str, Any]) -> str:
    """What a crop is cut by, from the contract's ``crop``."""
    if crop["kind"] == "kps5":
        return "five points"
    own = crop.get("box") == "landmarks"
    return "the landmarks' box (made of the five points)" if own else "the detector's box"


def crop_in_words(crop: Mapping[str, Any]) -> str:
    """How a crop is cut, as a sentence, from the contract's ``crop``."""
    size = f"{crop['size']} px"
    if crop["kind"] == "kps5":
        points = ", ".join(f"({x:.1f}, {y:.1f})" for x, y in crop["template"])
        return (
            f"square of {size} by five points: the least-squares similarity (rotation, scale, shift) that takes eyes, "
            f"nose tip and mouth corners to {points}"
        )
    side = {"max": "longer side", "min": "shorter side", "mean": "mean side"}[crop["side"]]
    x, y = crop["shift"]
    moved = f", moved by {x:g} of its width and {y:g} of its height" if x or y else ""
    return f"square of {crop['scale']:g} x the {side} of {cut_by(crop)}, centred on it{moved}, resized to {size}"


def indices_in_words(indices: tuple[int, ...]) -> str:
    """Point numbers as runs: 0-16, 20."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
