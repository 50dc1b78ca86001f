"""The scores of a released detector, through the runtime as users run it.

:mod:`facelm_training.evaluation` has those of landmark models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from facelm_sdk import Aligner, Detector, Landmarker
from facelm_sdk import markup as markups
from facelm_sdk.aligner import MIN_PRESENCE
from facelm_sdk.boxes import iou
from facelm_sdk.detector import Detections
from facelm_sdk.metrics import inter_ocular
from facelm_sdk.pose import head_pose
from facelm_sdk.transform import CropTransform
from facelm_sdk.types import ImageArray

from .data import Frame, detection_frames, same_face
from .datasets import Dataset
from .evaluation import YAWS
from .negatives import read_negatives

Table = dict[str, dict[str, Any]]
SURE = 0.8
"""Teacher's score from which its box is a face; a detection on a less certain box is not counted."""
ROLLS = (0, 45, 90, 135, 180, 225, 270, 315)
SIZES = (8, 12, 16, 24, 32, 64, 128)
"""Bounds of a face's longer side in pixels."""
CANVAS = (640, 480)
PER_SIZE = 150
THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)


def frame_scores(find: Callable[[ImageArray], Detections], frames: Sequence[Frame]) -> Table:
    """Recall and precision at IoU 0.5 on frames by where they are from, and scenes in which no face is found."""
    kinds: dict[str, list[int]] = {}
    clean = empty = 0
    for frame in track(frames, "frames"):
        found = find(frame.image())
        row = kinds.setdefault(frame.name.split("_")[0], [0, 0, 0])
        for i, count in enumerate(_counted(found, frame)):
            row[i] += count
        if frame.name.startswith("bsds") and not len(frame.boxes):
            empty, clean = empty + 1, clean + int(len(found) == 0)
    rows = {**kinds, "all": np.sum(list(kinds.values()), axis=0).tolist()}
    return {
        **{
            kind: {
                "faces": faces,
                "recall": _percent(found, faces, 2),
                "precision": _percent(found, found + false, 2),
                "false boxes": false,
            }
            for kind, (faces, found, false) in rows.items()
        },
        "scenes without a face": {
            "pictures": empty,
            "none found": clean,
            "percent": _percent(clean, empty),
        },
    }


def _counted(found: Detections, frame: Frame) -> tuple[int, int, int]:
    """Faces of the frame, how many of them are found, and false boxes."""
    sure = frame.scores >= SURE
    overlap = iou(found.boxes[:, None], frame.boxes)
    hits = overlap >= 0.5
    false = ~hits.any(1) & ~(overlap[:, ~sure] > 0.2).any(1)
    return int(sure.sum()), int(hits[:, sure].any(0).sum()), int(false.sum())


def by_threshold(detector: Detector, frames: Sequence[Frame], empty: Sequence[ImageArray]) -> Table:
    """Recall of the frames' faces, their precision, and the pictures without a face in which one is seen."""
    low = Detector(detector.session, det_size=detector.det_size, det_thresh=float(THRESHOLDS[0]))
    found = [low(frame.image()) for frame in track(frames, "frames by threshold")]
    best = np.array([low(image).scores.max(initial=0) for image in track(empty, "pictures by threshold")])
    rows = {}
    for threshold in THRESHOLDS:
        above = [one.select(one.scores >= threshold) for one in found]
        counts = np.sum([_counted(one, frame) for one, frame in zip(above, frames, strict=True)], axis=0)
        faces, hits, false = counts.tolist()
        rows[f"{threshold:.2f}"] = {
            "recall": _percent(hits, faces, 2),
            "precision": _percent(hits, hits + false, 2),
            "pictures without a face, a face seen": _percent(int((best >= threshold).sum()), len(best)),
        }
    return rows


def without_faces(detector: Detector, landmarker: Landmarker, folders: Iterable[Path]) -> Table:
    """Pictures kept aside by kind, in how many the detector sees a face, and how many the landmarker lets pass."""
    kinds: dict[str, list[int]] = {}
    everything = Aligner(landmarker, detector, min_presence=0)
    for folder in folders:
        for name, picture in track(read_negatives(folder, "test").items(), f"pictures of {folder.name}"):
            kind = name.split("_")[0] if name.split("_")[0] in ("cat", "coco", "dog", "hand", "scene") else "object"
            faces = everything(picture)
            row = kinds.setdefault(kind, [0, 0, 0])
            row[0] += 1
            row[1] += bool(faces)
            row[2] += any(face.presence is None or face.presence >= MIN_PRESENCE for face in faces)
    kinds["all"] = np.sum(list(kinds.values()), axis=0).tolist()
    return {
        kind: {"pictures": row[0], "detector sees a face": row[1], "and presence lets it pass": row[2]}
        for kind, row in sorted(kinds.items())
    }


def _upright(image: ImageArray) -> tuple[ImageArray, NDArray[np.float64]]:
    return image, np.eye(2, 3)


def found_faces(
    detector: Detector,
    dataset: Dataset,
    label: str,
    turn: Callable[[ImageArray], tuple[ImageArray, NDArray[np.float64]]] = _upright,
) -> list[tuple[bool, bool, float]]:
    """Of each face of a landmark data set: is it found, is it the best box, and the error of the five points.

    The error is in percent of the distance between the outer eye corners, NaN where the face is not found. ``turn``
    gives the picture that the detector is shown, and the matrix (2, 3) from the data set's.
    """
    results = []
    for sample in track(dataset.samples, label):
        image, matrix = turn(sample.image())
        points = CropTransform(matrix, 1).apply(sample.points)
        found = detector(image)
        own = same_face(found.kps, np.float32(points)[None], sample.markup)
        kps = markups.convert(points, sample.markup, "kps5")
        error = float("nan")
        if own.any():
            eyes = float(inter_ocular(points[None], markups.get(sample.markup))[0])
            error = 100 * float(np.linalg.norm(found.kps[own.argmax()] - kps, axis=-1).mean()) / eyes
        results.append((bool(own.any()), bool(own[:1].any()), error))
    return results


def _row(results: Sequence[tuple[bool, bool, float]]) -> dict[str, Any]:
    found, best, errors = (np.array(part) for part in zip(*results, strict=True))
    return {
        "faces": len(found),
        "found": int(found.sum()),
        "found best": int(best.sum()),
        "five points off by, %": round(float(np.nanmean(errors)), 2) if found.any() else None,
    }


def by_roll(detector: Detector, dataset: Dataset) -> Table:
    """The faces of a landmark data set, their pictures turned about the centre."""

    def turned(degrees: float) -> Callable[[ImageArray], tuple[ImageArray, NDArray[np.float64]]]:
        def turn(image: ImageArray) -> tuple[ImageArray, NDArray[np.float64]]:
            side = int(np.ceil(np.hypot(*image.shape[:2])))
            centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
            matrix = np.asarray(cv2.getRotationMatrix2D(centre, degrees, 1.0), np.float64)
            matrix[:, 2] += (side - np.array(image.shape[1::-1])) / 2
            return CropTransform(matrix, side).warp(image), matrix

        return turn

    return {
        f"{degrees} degrees": _row(found_faces(detector, dataset, f"roll {degrees}", turned(degrees)))
        for degrees in ROLLS
    }


def by_yaw(detector: Detector, datasets: Iterable[Dataset]) -> Table:
    """The faces of landmark data sets by the absolute yaw of their points."""
    rows: dict[str, list[tuple[bool, bool, float]]] = {}
    for dataset in datasets:
        for sample, result in zip(dataset.samples, found_faces(detector, dataset, dataset.title), strict=True):
            yaw = abs(head_pose(sample.points, sample.markup).yaw)
            bounds = next((f"{low}-{high}" for low, high in pairwise(YAWS) if yaw < high), f"{YAWS[-2]}-{YAWS[-1]}")
            rows.setdefault(f"{bounds} degrees", []).append(result)
    return {bounds: _row(rows[bounds]) for bounds in sorted(rows)}


def by_size(detector: Detector, frames: Sequence[Frame]) -> Table:
    """Frames of one face shrunk to a face of each size and laid on grey of 640 by 480 pixels."""
    single = [frame for frame in frames if len(frame.scores) == 1 and frame.scores[0] >= SURE and _has_room(frame)]
    rows = {}
    for low, high in pairwise(SIZES):
        hits = false = 0
        for number in track(range(PER_SIZE), f"faces of {low} to {high} pixels"):
            rng = np.random.default_rng([low, number])
            frame = single[int(rng.integers(len(single)))]
            image, box = frame.image(), frame.boxes[0]
            scale = float(np.exp(rng.uniform(np.log(low), np.log(high)))) / float((box[2:] - box[:2]).max())
            size = np.maximum(np.round(np.array(image.shape[1::-1]) * scale), 1).astype(int)
            small = cv2.resize(image, size.tolist(), interpolation=cv2.INTER_AREA)
            x, y = (int(rng.integers(0, room + 1)) for room in np.array(CANVAS) - size)
            canvas = np.full((CANVAS[1], CANVAS[0], 3), 120, np.uint8)
            canvas[y : y + size[1], x : x + size[0]] = small
            found = detector(canvas)
            own = iou(box * scale + (x, y, x, y), found.boxes) >= 0.4
            hits, false = hits + bool(own.any()), false + int((~own).sum())
        rows[f"{low}-{high} px"] = {"faces": PER_SIZE, "recall": _percent(hits, PER_SIZE), "false boxes": false}
    return rows


def _has_room(frame: Frame) -> bool:
    """Whether the frame fits the canvas when its face is as large as the largest of SIZES."""
    scale = SIZES[-1] / float((frame.boxes[0, 2:] - frame.boxes[0, :2]).max())
    return bool((np.array(frame.image().shape[1::-1]) * scale + 1 <= CANVAS).all())


def _percent(part: int, whole: int, digits: int = 1) -> float:
    return round(100 * part / max(whole, 1), digits)


def detector_tables(
    detector: Detector,
    landmarker: Landmarker,
    data: Path,
    negatives: Sequence[Path],
    tests: Mapping[str, Dataset],
) -> dict[str, Table]:
    """All tables of a detector's card; ``tests``: landmark data sets, ``common`` and, if there is, ``turned``."""
    frames, common, aligner = detection_frames(data, "val"), tests["common"], Aligner(landmarker, detector)
    empty = [picture for folder in negatives for picture in read_negatives(folder, "test").values()]
    return {
        "frames/val": frame_scores(detector, frames),
        "frames/val, by Aligner": frame_scores(lambda image: Detections.of_faces(aligner(image)), frames),
        "pictures without a face": without_faces(detector, landmarker, negatives),
        common.title: {"as they are": _row(found_faces(detector, common, common.title))},
        f"{common.title} by roll": by_roll(detector, common),
        "by yaw": by_yaw(detector, tests.values()),
        "by size": by_size(detector, frames),
        "by threshold": by_threshold(detector, frames, empty),
    }
