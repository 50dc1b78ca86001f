"""What a finder of faces is worth beside its time: the faces it finds, those that are none, and its points' error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm_sdk.aligner import MATCHING_IOU
from facelm_sdk.boxes import most_overlapping
from facelm_training import datasets
from facelm_training.evaluation import score
from facelm_training.negatives import read_negatives

Find = Callable[[Path], Sequence[tuple[Sequence[float], Sequence[Sequence[float]]]]]
"""A picture's file -> the box and points of each face; a detector's faces have no points."""

FACEMESH_68 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)
"""The vertices of MediaPipe's mesh nearest to iBUG's points; its jaw is the mesh's outline."""

MESH = 468


def scores(find: Find, data: Path) -> dict[str, Any]:
    """Return what ``find`` does on a folder of data: ``300w``'s common test faces and the test part of ``negatives``.

    ``found`` of ``faces``: those that overlap one of its own by MATCHING_IOU. ``false`` of ``without``: pictures
    without a face in which it sees one. ``nme``, ``median`` and ``above 8%`` are of its 68 points, in percent of the
    eye distance, where it has those or a mesh. What the folder lacks is left out.
    """
    found: dict[str, Any] = {}
    if (data / "300w").is_dir():
        found |= _labelled(find, data / "300w")
    if (data / "negatives").is_dir():
        paths = [data / "negatives" / name for name in read_negatives(data / "negatives", "test")]
        found |= {"without": len(paths), "false": sum(bool(find(path)) for path in paths)}
    return found


def _labelled(find: Find, folder: Path) -> dict[str, Any]:
    dataset = datasets.open(f"300w/common:{folder}")
    results: list[NDArray[np.float64] | None] = []
    for sample in dataset:
        assert isinstance(sample.source, Path)
        faces = find(sample.source)
        boxes = np.array([box for box, _ in faces], np.float32).reshape(-1, 4)
        best = most_overlapping(sample.landmark_box, boxes, MATCHING_IOU)
        results.append(None if best is None else as_68(np.array(faces[best][1], np.float64).reshape(-1, 2)))
    found = [points for points in results if points is not None]
    known: dict[str, Any] = {"faces": len(dataset), "found": len(found)}
    if not found or any(len(points) != 68 for points in found):
        return known
    lost = np.full((68, 2), np.nan)
    measured = score(dataset, np.stack([lost if points is None else points for points in results]), "ibug68")
    row = next(iter(measured.rows(dataset.metrics[0]).values()))
    return known | {
        "nme": round(row["nme"], 3),
        "median": round(row["median"], 3),
        "above 8%": round(row["fr@0.08"], 3),
    }


def as_68(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vertices (68, 2) of a mesh that stand for iBUG's points; other points (L, 2) as they are."""
    return points[list(FACEMESH_68)] if len(points) == MESH else points
