"""Runs of a study, each in a folder of its own, resumed where they were cut off."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facelm_sdk.files import write_bytes

from ..data import LandmarkFaces
from ..landmarks import Validation, stage_errors, train_landmarks
from ..recipe import LandmarkRecipe
from ..run_folder import claim
from .definition import Run, Study

log = logging.getLogger(__name__)

DIGITS = 4  # of percents: what a table's JSON holds is what was there before, so the table comes out the same from it


@dataclass(frozen=True)
class Outcome:
    """What came of a run with one seed.

    ``errors``: mean NME of the reported faces, percent, by score: ``nme``, and ``nme_1`` ... after the stages of a
    network of several. ``curve``: steps and the error on the held-out faces, all stages of training one after the
    other. ``diverged``: what the loop says where the loss was not finite; there are no errors then.
    """

    errors: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)
    diverged: str = ""


@dataclass(frozen=True)
class Faces:
    """Training faces, those that the best weights are chosen on, and those that the scores are of."""

    train: LandmarkFaces
    chosen_on: LandmarkFaces
    reported: LandmarkFaces


def run_all(
    study: Study,
    faces: Faces,
    folder: Path,
    data: str,
    known: Mapping[str, Mapping[int, Outcome]],
    *,
    device: str = "cpu",
    limit: int | None = None,
) -> Iterator[tuple[Run, int, Outcome]]:
    """Train what is not trained yet, seed by seed, so that after each seed every run has as many.

    Runs that differ in their decoding alone are one training. ``known``: outcomes by run and seed, of trainings that
    need not be in ``folder``. Raises InputError where a folder is of another study.
    """
    for seed in study.seeds:
        trainings: dict[str, tuple[LandmarkRecipe, Path]] = {}
        for run in study.runs:
            recipe, name = study.recipe_of(run, seed), _folder_name(run.name)
            key = json.dumps(asdict(replace(recipe, decoding=None)), sort_keys=True)
            trained_by, place = trainings.setdefault(key, (recipe, folder / f"seed{seed}" / name))
            log.info("%s, seed %d: %s", study.name, seed, run.name)
            file = place / f"scores_{name}.json"
            if not file.is_file() and seed in known[run.name]:
                yield run, seed, known[run.name][seed]
                continue
            claimed = claim(place, trained_by, data, limit)
            if not file.is_file():
                claimed.take()
                write_bytes(file, json.dumps(_scores(recipe, trained_by, faces, place, device)).encode())
            yield run, seed, _outcome(file, recipe)


def _folder_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name).strip("_")


def _outcome(file: Path, recipe: LandmarkRecipe) -> Outcome:
    record: dict[str, Any] = json.loads(file.read_text())
    errors = {score: round(float(np.mean(values)), DIGITS) for score, values in record["errors"].items()}
    return Outcome(errors, _curve(recipe, file.parent), record["diverged"])


def _scores(
    recipe: LandmarkRecipe, trained_by: LandmarkRecipe, faces: Faces, folder: Path, device: str
) -> dict[str, Any]:
    """Train, and score the weights that were best on the held-out faces."""
    try:
        model = train_landmarks(trained_by, faces.train, faces.chosen_on, folder, device)
    except FloatingPointError as error:
        log.warning("%s", error)
        return {"errors": {}, "diverged": str(error)}
    last = recipe.stages[-1]
    model.load_state_dict(torch.load(folder / last.name / "best.pt", map_location="cpu", weights_only=True))
    found = stage_errors(model.to(device), Validation(recipe, last.size, faces.reported))
    names = ["nme"] if len(found) == 1 else [f"nme_{i}" for i in range(1, len(found) + 1)]
    errors = {name: (100 * one).round(4).tolist() for name, one in zip(names, found, strict=True)}
    return {"errors": {"nme": errors[names[-1]]} | errors, "diverged": ""}


def _curve(recipe: LandmarkRecipe, folder: Path) -> list[tuple[float, float]]:
    curve: list[tuple[float, float]] = []
    before = 0.0
    for stage in recipe.stages:
        log_file = folder / stage.name / "log.csv"
        rows = list(csv.DictReader(log_file.open())) if log_file.is_file() else []
        curve += [(before + float(row["step"]), round(float(row["val_nme"]), DIGITS)) for row in rows]
        before = curve[-1][0] if curve else before
    return curve
