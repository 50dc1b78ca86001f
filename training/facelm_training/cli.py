"""``facelm train NAME``: make the weights of an embedded model from the training data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from facelm_export.cli import require_torch


def train_command(
    name: Annotated[str, typer.Argument(help="a recipe: lotr_m or retinaface_mnet025")],
    data: Annotated[Path, typer.Option(help="the training data folder")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="where checkpoints and logs go; an earlier run there resumes")
    ],
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all")] = None,
) -> None:
    """Train an embedded model from random weights into OUT/NAME.safetensors; `facelm release` scores and embeds it."""
    require_torch("training", "train,export,cpu")
    import cv2
    import torch

    from facelm_models.weights import to_bytes
    from facelm_sdk.errors import UnknownModelError
    from facelm_sdk.files import write_bytes

    from .detection import DetectionRecipe, train_detector
    from .landmarks import train_landmarks
    from .recipes import RECIPES

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cv2.setNumThreads(1)  # batches are made beside the network, which has the cores
    if threads:
        torch.set_num_threads(threads)
    if name not in RECIPES:
        raise UnknownModelError(f"no recipe is named {name!r}; there are {', '.join(sorted(RECIPES))}")
    recipe = RECIPES[name]
    if isinstance(recipe, DetectionRecipe):
        model = train_detector(recipe, data, out)
    else:
        model = train_landmarks(recipe, data, out)
    card = {"data": recipe.data, "recipe": recipe.summary, "floor": recipe.floor}
    write_bytes(out / f"{name}.safetensors", to_bytes(model, card))
    typer.echo(out / f"{name}.safetensors")


def main() -> None:
    """``python -m facelm_training``."""
    typer.run(train_command)
