"""``facelm bench``: how fast it is here."""

from __future__ import annotations

import json
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import bench as benching
from ..errors import InputError
from ..fastest import Ways, fastest
from ..runtimes.base import PROVIDERS, InferencePrecision
from ..runtimes.open import Variant
from .options import VariantText


def bench(
    model: Annotated[
        str | None,
        typer.Argument(help="A name of `facelm models` or a model file. (default: the whole Aligner)"),
    ] = None,
    variant: VariantText = "auto",
    inference_precision: Annotated[str | None, typer.Option(help="Of an OpenVINO .xml: f32 or bf16.")] = None,
    batch: Annotated[int, typer.Option(help="Crops, or pictures of the Aligner, in one run.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a run. (default: 1 and all cores)")] = None,
    provider: Annotated[
        str | None, typer.Option(help=f"{', '.join(PROVIDERS)}, or onnxruntime's own name. (default: cpu)")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="As it always is: what cannot be used has no time to measure.")
    ] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:<index>.")] = "cpu",
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Average with the mirrored crop. (default: as the model does)"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure; with --all four times as long.")] = 3.0,
    picture: Annotated[
        str | None, typer.Option(metavar="FILE", help="What is looked at. (default: a 640x480 portrait)")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--all", help="Every runtime, precision and number of threads there is, and the fastest.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Measure how fast a model, or the whole Aligner, runs on this machine."""
    image = benching.PICTURE if picture is None else picture
    if compare:
        given = {"threads": threads, "provider": provider, "flip": flip, "inference-precision": inference_precision}
        named = [f"--{name}" for name, value in given.items() if value is not None]
        named += ["--variant"] * (variant != "auto") + ["--device"] * (device != "cpu")
        if named:
            raise InputError(f"--all tries what there is: leave out {', '.join(named)}")
        ways = fastest(model, batch=batch, picture=image, seconds=seconds * 4)
        typer.echo(json.dumps(ways.to_dict(), ensure_ascii=False, indent=1)) if as_json else show(ways)
        return
    found = benching.bench(
        model,
        variant=cast("Variant", variant),
        inference_precision=cast("InferencePrecision | None", inference_precision),
        batch=batch,
        threads=threads,
        provider=provider,
        device=device,
        flip=flip,
        seconds=seconds,
        picture=image,
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=1))
        return
    table = Table(show_header=False, box=None)
    for label, text in benching.lines(found):
        table.add_row(label, escape(text))
    Console(highlight=False).print(table)


def show(ways: Ways) -> None:
    """Print every way and the advice."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(escape(ways.what))
    table = Table(box=None)
    for heading in ("way", "median ms", "quartiles", "least", "times as fast"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in ways.ways:
        ms, faster = way.ms, way.times_as_fast
        cells = (way.name, f"{ms['median']:.3g}", f"{ms['q1']:.3g}-{ms['q3']:.3g}", f"{ms['min']:.3g}")
        table.add_row(*map(escape, cells), "busy" if faster is None else f"{faster:.2f}")
    console.print(table)
    for name, reason in ways.missing:
        console.print(escape(f"not {name}: {reason}"))
    console.print(escape(ways.advice))
