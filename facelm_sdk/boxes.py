"""Boxes: (k, 4) xyxy arithmetic that detection and alignment share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]


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
