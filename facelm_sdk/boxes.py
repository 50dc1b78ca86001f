"""Boxes: (k, 4) xyxy arithmetic that detection and alignment share, and the landmarks' box from five points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import markup as markups

FloatArray = NDArray[np.floating[Any]]

OUTLINE_WEIGHTS = {
    17: (1.172, 0.122, -0.236, 0.427, -0.485),
    19: (1.003, 0.273, 0.091, 0.073, -0.440),
    24: (0.273, 1.003, 0.091, -0.440, 0.073),
    26: (0.122, 1.172, -0.236, -0.485, 0.427),
    36: (0.921, 0.089, -0.095, 0.377, -0.292),
    45: (0.089, 0.921, -0.095, -0.292, 0.377),
    8: (-0.410, -0.410, 0.152, 0.834, 0.834),
    0: (1.480, 0.041, -1.279, 0.904, -0.146),
    2: (0.993, -0.099, -1.138, 1.305, -0.061),
    4: (0.478, -0.239, -0.862, 1.504, 0.119),
    6: (-0.023, -0.424, -0.260, 1.256, 0.451),
    10: (-0.424, -0.023, -0.260, 0.451, 1.256),
    12: (-0.239, 0.478, -0.862, 0.119, 1.504),
    14: (-0.099, 0.993, -1.138, -0.061, 1.305),
    16: (0.041, 1.480, -1.279, -0.146, 0.904),
}
"""Points of a face's outline, by their number among the 68: the weight of each of the five points in them.

From 5,316 training faces of 300-W and landmarks68 by ``python -m facelm_training.landmarks_box``. A row adds up to one,
so the points follow any shift, roll and scale, and, as a solid head's do, yaw and pitch.
"""

NO_JAW = 7
"""How many of them a markup has that marks no jaw but the chin."""

DETECTED_KPS = ((0.2819, 0.3873), (0.7181, 0.3873), (0.5, 0.5888), (0.3138, 0.7602), (0.6862, 0.7602))
"""Where the five points lie in the detector's box on average, fractions of its width and height; of the same faces."""


def outline_weights(markup: str) -> FloatArray:
    """The weights (m, 5) of the five points in each outline point of a markup; the box around these is the landmarks'.

    ``kps5`` is its own outline; markups that mark no jaw but the chin are without the jaw's points.
    """
    described = markups.get(markup)
    if markup == "kps5":
        return np.eye(5)
    weights = np.array(list(OUTLINE_WEIGHTS.values()))
    return weights if len(described.groups["jaw"]) > 1 else weights[:NO_JAW]


def mean_kps(boxes: FloatArray) -> FloatArray:
    """The mean place (..., 5, 2) of the five points in a detector's boxes (..., 4)."""
    return np.asarray(boxes[..., None, :2] + np.array(DETECTED_KPS) * (boxes[..., None, 2:] - boxes[..., None, :2]))


def landmarks_box(kps: FloatArray, markup: str = "ibug68") -> FloatArray:
    """The upright boxes (..., 4) xyxy that the landmarks of ``markup`` fill, from five points (..., 5, 2).

    Against the annotated points' box of landmarks68/val, with the embedded detector's five points: 1.5% larger in the
    mean (spread 7.1%), and 0.8% to the left and 2.0% higher (spread 3.1 and 3.4%) of its longer side; the detector's
    own box is 25% larger and 19% higher. Raises MarkupError.
    """
    outline = outline_weights(markup) @ kps
    return np.concatenate([outline.min(axis=-2), outline.max(axis=-2)], axis=-1)


def area(boxes: FloatArray) -> FloatArray:
    """The areas of boxes (..., 4), zero where a side is negative. Returns (...)."""
    return np.asarray(np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1))


def intersection(box: FloatArray, others: FloatArray) -> FloatArray:
    """The areas that ``box`` (4,) shares with each of ``others`` (k, 4). Returns (k,); leading axes broadcast."""
    corners = (np.maximum(box[..., :2], others[..., :2]), np.minimum(box[..., 2:], others[..., 2:]))
    return area(np.concatenate(corners, axis=-1))


def iou(box: FloatArray, others: FloatArray) -> FloatArray:
    """Intersection over union of ``box`` (4,) with each of ``others`` (k, 4). Returns (k,); leading axes broadcast."""
    shared = intersection(box, others)
    return np.asarray(shared / np.maximum(area(box) + area(others) - shared, 1e-9))


def most_overlapping(box: FloatArray, others: FloatArray, least: float) -> int | None:
    """The index of the box of ``others`` (k, 4) of highest IoU with ``box`` (4,); None if that is below ``least``."""
    overlaps = iou(box, others)
    return int(overlaps.argmax()) if len(others) and overlaps.max() >= least else None


def merge(boxes: FloatArray, scores: FloatArray, *, max_iou: float, max_contained: float) -> list[int]:
    """Greedy non-maximum suppression: the indices kept, best score first.

    A box goes when its IoU with a better one is above ``max_iou``, or more than ``max_contained`` of its own area lies
    inside a better one.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        others = boxes[order]
        contained = intersection(boxes[best], others) / np.maximum(area(others), 1e-9)
        order = order[(iou(boxes[best], others) <= max_iou) & (contained <= max_contained)]
    return kept
