"""The constants of :func:`facelm_sdk.boxes.landmarks_box`, from training faces and the detector that users run.

``python -m facelm_training.landmarks_box --data DIR`` prints them, and how well they do on landmarks68's val faces.

A point of a head that keeps its shape is, seen from afar, a fixed weighted sum of four others in whatever direction the
head turns, with weights that add up to one. So the outline of a face is made of the five points by weights that hold in
every pose and at any roll: ridge regression over faces and their mirror images, in units of each face's five points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from facelm_sdk import Detector
from facelm_sdk import markup as markups
from facelm_sdk.aligner import MATCHING_IOU
from facelm_sdk.boxes import OUTLINE_WEIGHTS, landmarks_box, mean_kps, most_overlapping
from facelm_sdk.metrics import bounding_box

from . import datasets
from .data import same_face

Floats = NDArray[np.float64]

SOURCES = ("300w/train/helen:300w", "300w/train/lfpw:300w", "landmarks68/train:.")
VAL = "landmarks68/val:."
RIDGE = 1e-4
OUTLINE = tuple(OUTLINE_WEIGHTS)
MARKUP = markups.get("ibug68")
KPS_FLIP = markups.get("kps5").flip


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """Faces as a detector found them: ``kps`` (n, 5, 2), ``boxes`` (n, 4), and the annotated ``points`` (n, L, 2)."""

    kps: Floats
    boxes: Floats
    points: Floats


def detected(samples: Iterable[datasets.Sample], detector: Detector) -> Detected:
    """The samples whose face the detector finds."""
    rows = []
    for sample in samples:
        found = detector(sample.image())
        best = most_overlapping(sample.landmark_box, found.boxes, MATCHING_IOU)
        if best is not None and same_face(found.kps[best], sample.points, sample.markup):
            rows.append((found.kps[best], found.boxes[best], sample.points))
    return Detected(*(np.stack(part).astype(np.float64) for part in zip(*rows, strict=True)))


def fit_outline(kps: Floats, points: Floats) -> Floats:
    """The weights (m, 5) of the five points (n, 5, 2) in each outline point of 68 (n, 68, 2), to three digits.

    A row adds up to one, so that a face's place in the picture does not matter. The points are stretched by a percent
    or so, so that the box around the outline is on average as large as the landmarks'.
    """
    centre = kps.mean(1, keepdims=True)
    unit = np.linalg.norm(kps - centre, axis=(1, 2))[:, None, None]
    five, target = (kps - centre) / unit, (points - centre) / unit
    mirror = np.array([-1.0, 1.0])
    both = np.concatenate([five, five[:, KPS_FLIP] * mirror])
    wanted = np.concatenate([target, target[:, MARKUP.flip] * mirror])[:, OUTLINE]
    # Ridge regression, as five points about their centre are dependent, and those of a detector noisy.
    rows, columns = (part.transpose(0, 2, 1).reshape(-1, part.shape[1]) for part in (both, wanted))
    offsets = np.linalg.solve(rows.T @ rows / len(rows) + RIDGE * np.eye(5), rows.T @ columns / len(rows)).T
    boxes = bounding_box(centre + offsets @ (kps - centre))
    weights = np.round(0.2 + offsets / np.mean(_side(boxes) / _side(bounding_box(points))), 3)
    weights[:, 2] += 1 - weights.sum(1)
    return np.asarray(weights)


def mean_place(kps: Floats, boxes: Floats) -> Floats:
    """Where five points (n, 5, 2) lie in the detector's boxes (n, 4) on average, as fractions of width and height."""
    place = ((kps - boxes[:, None, :2]) / (boxes[:, 2:] - boxes[:, :2])[:, None]).mean(0)
    return np.asarray((place + place[list(KPS_FLIP)] * (-1, 1) + (1, 0)) / 2)


def difference(found: NDArray[np.floating[Any]], wanted: Floats) -> dict[str, float]:
    """Mean and spread of size and of the centre's offset, percent of the longer side of the ``wanted`` boxes (n, 4)."""
    side = _side(wanted)
    size = _side(found) / side - 1
    offset = ((found[:, :2] + found[:, 2:]) - (wanted[:, :2] + wanted[:, 2:])) / 2 / side[:, None]
    columns = {"size": size, "right": offset[:, 0], "down": offset[:, 1]}
    return {
        f"{name}{kind}": round(100 * float(value), 2)
        for name, values in columns.items()
        for kind, value in (("", values.mean()), (" spread", values.std()))
    }


def _side(boxes: NDArray[np.floating[Any]]) -> Floats:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).max(1))


def main(data: Annotated[Path, typer.Option(help="the folder with 300w/ and landmarks68's files")]) -> None:
    """Print the constants of facelm_sdk.boxes, and the landmarks' box against the annotated one on val."""
    detector = Detector()
    faces = detected((sample for spec in SOURCES for sample in datasets.open_below(spec, data)), detector)
    typer.echo(f"{len(faces.kps)} training faces")
    for index, row in zip(OUTLINE, fit_outline(faces.kps, faces.points), strict=True):
        typer.echo(f"    {index}: ({', '.join(f'{value:.3f}' for value in row)}),")
    typer.echo(f"DETECTED_KPS = {tuple(map(tuple, mean_place(faces.kps, faces.boxes).round(4).tolist()))}")
    val = detected(datasets.open_below(VAL, data), detector)
    wanted = bounding_box(val.points)
    typer.echo(f"{VAL}: {len(val.kps)} faces, percent of the annotated box's longer side")
    typer.echo(f"the detector's box: {difference(val.boxes, wanted)}")
    typer.echo(f"from five points: {difference(landmarks_box(val.kps), wanted)}")
    typer.echo(f"from the detector's box alone: {difference(landmarks_box(mean_kps(val.boxes)), wanted)}")


if __name__ == "__main__":
    typer.run(main)
