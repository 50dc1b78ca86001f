"""Pictures without a face from a public sample of ImageNet, one a class: those that show no person.

``python -m facelm_training.imagenet_sample --checkout DIR --out DATA/imagenet_sample``, DIR a checkout of
https://github.com/EliSchwartz/imagenet-sample-images (research only, as ImageNet is).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facelm_sdk.errors import InputError
from facelm_sdk.files import write_bytes

PEOPLE = Path(__file__).with_suffix(".txt")
"""The pictures left out: those in which a sensitive detector found something that is, to the eye, part of a person."""


def main(
    checkout: Annotated[Path, typer.Option(help="the checkout")],
    out: Annotated[Path, typer.Option(help="the folder to write the pictures to")],
) -> None:
    """Copy the pictures without a person."""
    people = set(PEOPLE.read_text().split())
    pictures = [path for path in sorted(checkout.glob("*.JPEG")) if path.stem not in people]
    if not pictures:
        raise InputError(f"{checkout} has no pictures *.JPEG")
    out.mkdir(parents=True, exist_ok=True)
    for path in pictures:
        write_bytes(out / path.name, path.read_bytes())
    typer.echo(f"{len(pictures)} pictures in {out}")


if __name__ == "__main__":
    typer.run(main)
