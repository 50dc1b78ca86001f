"""``facelm train CONFIG``: make the weights of a model from training data."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facelm_export.cli import require_torch

if TYPE_CHECKING:
    from .data import LandmarkFaces
    from .recipe import LandmarkRecipe


HELD_OUT_PART = 0.05
"""The part of the training pictures that best weights are chosen on where a data set has no split for that."""


def train_command(
    config: Annotated[str, typer.Argument(help="a recipe: the name of a packaged one, or a .toml file")],
    data: Annotated[
        list[str],
        typer.Option(
            help="the folder of the recipe's data sets, or NAME:DIR of one data set in their place; that may be "
            "repeated, for the faces of all of them"
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="where checkpoints and logs go; an earlier run there resumes")
    ],
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:<index>")] = "cpu",
    backbone: Annotated[
        str | None, typer.Option(help="an ImageNet checkpoint or a network trained here, in place of the recipe's")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="trained weights in the place of the recipe's start: a name or .safetensors")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="compile the network first: a quarter faster, needs a C++ compiler")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="the first faces only, for a trial")] = None,
    changed: Annotated[
        bool,
        typer.Option(
            "--changed",
            help="resume a run whose recipe has another schedule for the stage in progress or other stages to come",
        ),
    ] = False,
) -> None:
    """Train a model into OUT/CONFIG.safetensors; `facelm release` scores and embeds it.

    OUT gets recipe.json, which alone it resumes by, and a folder for each stage with log.csv, last.pt (resumes),
    best.pt and done.pt (averaged weights).
    """
    require_torch("training", "train,export,cpu")
    import cv2
    import torch

    from facelm_models.weights import to_bytes
    from facelm_sdk.errors import InputError
    from facelm_sdk.files import check_outputs, write_bytes
    from facelm_sdk.runtimes.base import MAX_THREADS

    from .confidence import train_confidence, with_confidence
    from .detection import train_detector
    from .landmarks import train_landmarks
    from .recipe import DetectionRecipe, LandmarkRecipe, described, find, read
    from .run_folder import claim

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if limit is not None and limit < 1:
        raise InputError(f"--limit is at least 1, not {limit}")
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise InputError(f"--threads is from 1 to {MAX_THREADS}, not {threads}")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device, re.ASCII):
        raise InputError(f"--device is cpu, cuda or cuda:<index>, not {device!r}")
    cv2.setNumThreads(1)  # batches are made beside the network, which has the cores
    if threads is not None:
        torch.set_num_threads(threads)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"{device} was asked for, but this PyTorch ({torch.__version__}) sees no CUDA device")
    torch.set_flush_denormal(True)  # a convolution of numbers next to zero takes many times as long
    recipe = read(config)
    if backbone is not None:
        if not isinstance(recipe, LandmarkRecipe):
            raise InputError("--backbone goes with the recipe of a landmark network")
        recipe = replace(recipe, backbone=backbone)
    if start is not None:
        if not isinstance(recipe, LandmarkRecipe):
            raise InputError("--start goes with the recipe of a landmark network")
        recipe = replace(recipe, start=start)
    if isinstance(recipe, DetectionRecipe) and len(data) > 1:
        raise InputError("the recipe of a detector takes one --data, its folder")
    target = out / f"{find(config).stem}.safetensors"
    begun_with = (recipe.start, recipe.backbone) if isinstance(recipe, LandmarkRecipe) else ()
    check_outputs({"the weights": target}, [Path(file) for file in begun_with if file])
    claimed = claim(out, recipe, data, limit, changed=changed)
    if isinstance(recipe, DetectionRecipe):
        claimed.take()
        model = train_detector(recipe, Path(data[0]), out, device)
    else:
        faces = read_faces(recipe, data, limit)
        claimed.take()
        model = train_landmarks(recipe, *faces, out, device, compiled=compiled)
        if (last := recipe.stages[-1]).network == "confidence":
            model = train_confidence(model, recipe, *faces, Path(data[0]), out / last.name, device)
    card: dict[str, Any] = {"model": recipe.model, "data": recipe.data, "recipe": recipe.summary, "floor": recipe.floor}
    stages = recipe.stages if isinstance(recipe, LandmarkRecipe) else (recipe,)
    card["training"] = [
        {"stage": getattr(one, "name", "train"), **one.schedule.told(torch.device(device))} for one in stages
    ]
    if isinstance(recipe, DetectionRecipe):
        card["det_thresh"] = recipe.det_thresh
    else:
        card |= {"markup": recipe.markup, "crop": dict(described(recipe).crop), "decoding": described(recipe).decoding}
        if recipe.only_confidence:
            card = with_confidence(card, recipe.start)
    write_bytes(target, to_bytes(model, card))
    typer.echo(target)


def read_faces(recipe: LandmarkRecipe, data: list[str], limit: int | None) -> tuple[LandmarkFaces, LandmarkFaces]:
    """Training and held-out faces: of the data sets that ``--data`` names, or of the recipe's below that folder.

    Of several, a recipe with ``held_out_part`` holds faces of each out, and one without takes the first one's ``val``.
    """
    from facelm_sdk.errors import InputError

    from . import datasets
    from .data import faces_of, hold_out, joined, mixed

    named = [one.partition(":")[0].partition("/")[0] in datasets.names() for one in data]
    if len(data) > 1 and not all(named):
        raise InputError(f"several --data are NAME:DIR each, which {data[named.index(False)]!r} is not")
    if named[0]:
        name = data[0].partition(":")[0].partition("/")[0]
        share = recipe.held_out_part or (0.0 if recipe.val in datasets.READERS[name].splits else HELD_OUT_PART)
        opened = [datasets.open_training(one, recipe.train) for one in data]
        if share:
            pairs = [hold_out(one, share) for one in opened]
            opened, held_out = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        else:
            held_out = [datasets.open(data[0], recipe.val)]
    elif recipe.sources:
        opened = [datasets.open_below(source.data, data[0]) for source in recipe.sources]
        held_out = [datasets.open_below(recipe.held_out, data[0])]
    else:
        raise InputError("this recipe names no data sets: give one as NAME:DIR")
    for part in (*opened, *held_out):
        if part.info.markup != recipe.markup:
            raise InputError(f"this recipe trains {recipe.markup}, but {part.info.name} has {part.info.markup}")
    train, rest = ([faces_of(part, limit) for part in parts] for parts in (opened, held_out))
    if named[0]:
        return joined(train), joined(rest)
    return mixed([(faces, source.weight) for faces, source in zip(train, recipe.sources, strict=True)]), rest[0]


def main() -> None:
    """``python -m facelm_training``."""
    typer.run(train_command)
