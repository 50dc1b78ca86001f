"""Scores that a release carries: exported models on the val people and frames, through the runtime as users run it.

:mod:`facelm_training.evaluation` scores a model on a public data set.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from facelm_sdk import Aligner, Detector, Landmarker
from facelm_sdk import markup as markups
from facelm_sdk.boxes import iou
from facelm_sdk.metrics import bounding_box, inter_ocular, nme, summary

from .data import LandmarkFaces, detection_frames, landmark_faces

MARKUP = markups.get("ibug68")
SURE = 0.8
Item = TypeVar("Item")


def _progress(items: Iterable[Item], what: str, total: int) -> Iterable[Item]:
    return track(items, description=what, total=total)


def predict(aligner: Aligner, faces: LandmarkFaces, *, detect: bool) -> NDArray[np.float64]:
    """Landmarks (n, 68, 2), NaN where no face was found. Without ``detect`` the data's own five points cut the crop."""
    result = np.full((len(faces), MARKUP.num_points, 2), np.nan)
    for i in _progress(range(len(faces)), "detecting and aligning" if detect else "aligning", len(faces)):
        found = aligner(faces.images[i], kps=None if detect else faces.kps[i])
        if found:  # of several the one whose box covers most of the labelled face
            target = bounding_box(faces.points[i])
            best = int(np.argmax([iou(target, face.bbox[None])[0] for face in found])) if detect else 0
            result[i] = found[best].landmarks
    return result


def landmark_scores(landmarker: Landmarker, detector: Detector, data: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores on the val people of landmarks68, and the errors behind them for a CED plot.

    Keys say the label (``clean`` or ``original``), the points (68 or the inner 51) and who found the five points (the
    data's detector or ours).
    """
    faces = landmark_faces(data, "val", frames=False)
    scores: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for source, detect in (("data's points", False), ("own detector", True)):
        points = predict(Aligner(landmarker, detector), faces, detect=detect)
        missed = int(np.isnan(points).any((1, 2)).sum())
        for label, target in (("clean", faces.points), ("original", faces.original)):
            for name, indices in (("68", range(68)), ("inner 51", MARKUP.inner)):
                values = nme(points, target, inter_ocular(target, MARKUP), list(indices))
                key = f"{label}, {name}, {source}"
                errors[key] = values
                scores[key] = summary(values) | ({"not found": missed} if detect else {})
    floor = nme(faces.original, faces.points, inter_ocular(faces.points, MARKUP))
    scores["the two labels against each other"] = summary(floor)
    return scores, errors


def detection_scores(detector: Detector, data: Path) -> dict[str, Any]:
    """Recall and precision at IoU 0.5 on the val frames, and scenes without a face where none is found.

    A face is a box of the teacher with a score of at least 0.8; a detection on a less certain box is not counted.
    """
    frames = detection_frames(data, "val")
    kinds: dict[str, list[int]] = {}
    clean = empty = 0
    for frame in _progress(frames, "detecting", len(frames)):
        found = detector(frame.image())
        sure = frame.scores >= SURE
        overlap = iou(found.boxes[:, None], frame.boxes)
        hits = overlap >= 0.5
        recalled = int(hits[:, sure].any(0).sum())
        false = int((~hits.any(1) & ~(overlap[:, ~sure] > 0.2).any(1)).sum())
        row = kinds.setdefault(frame.name.split("_")[0], [0, 0, 0])
        row[0], row[1], row[2] = row[0] + int(sure.sum()), row[1] + recalled, row[2] + false
        if frame.name.startswith("bsds") and not len(frame.boxes):
            empty, clean = empty + 1, clean + int(len(found) == 0)
    total = np.sum(list(kinds.values()), axis=0).tolist()
    rows = {**kinds, "all": total}
    return {
        **{
            kind: {
                "faces": faces,
                "recall": round(100 * found / max(faces, 1), 2),
                "precision": round(100 * found / max(found + false, 1), 2),
                "false boxes": false,
            }
            for kind, (faces, found, false) in rows.items()
        },
        "scenes without a face": {
            "pictures": empty,
            "none found": clean,
            "percent": round(100 * clean / max(empty, 1), 1),
        },
    }
