"""Landmark accuracy: NME and its normalisers, failure rate, AUC, error distribution (CED), errors by point and part.

Errors are fractions of the normaliser, not percent. A face that was not found has NaN points and NaN errors: it is a
failure in the failure rate, the CED and the AUC, and no part of a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .markup import Markup, convert


def inter_ocular(target: ArrayLike, markup: Markup) -> NDArray[np.float64]:
    """Distance between the outer eye corners of (n, L, 2) points, the usual normaliser. Returns (n,)."""
    points = np.asarray(target, np.float64)
    left, right = markup.outer_eye_corners
    return np.asarray(np.linalg.norm(points[:, left] - points[:, right], axis=-1))


def inter_pupil(target: ArrayLike, markup: Markup) -> NDArray[np.float64]:
    """Distance between the eye centres of (n, L, 2) points. Returns (n,).

    The centres are the pupils where a markup has them (cofw29: 16, 17; wflw98: 96, 97; jd106: 104, 105), the eye
    centres of kps5 (0, 1) and aflw19 (7, 10), and the mean of an eye's contour in ibug68 (36-41, 42-47).
    """
    centres = convert(np.asarray(target, np.float64), markup.name, "kps5")[..., :2, :]
    return np.asarray(np.linalg.norm(centres[..., 0, :] - centres[..., 1, :], axis=-1))


def bounding_box(points: ArrayLike) -> NDArray[np.float64]:
    """The upright boxes (..., 4) xyxy around points (..., L, 2)."""
    values = np.asarray(points, np.float64)
    return np.concatenate([values.min(axis=-2), values.max(axis=-2)], axis=-1)


def box_size(boxes: ArrayLike) -> NDArray[np.float64]:
    """The square root of the area of boxes (n, 4) xyxy, the normaliser of NME_box. Returns (n,)."""
    return np.asarray(np.sqrt(np.prod(_sides(boxes), axis=-1)))


def box_diagonal(boxes: ArrayLike) -> NDArray[np.float64]:
    """The diagonal of boxes (n, 4) xyxy, the normaliser of NME_diag. Returns (n,)."""
    return np.asarray(np.linalg.norm(_sides(boxes), axis=-1))


def _sides(boxes: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(boxes, np.float64)
    sides = values[..., 2:] - values[..., :2]
    if values.shape[-1] != 4 or not (sides >= 0).all():
        raise InputError("boxes are (n, 4) xyxy with x2 >= x1 and y2 >= y1")
    return np.asarray(sides)


def point_errors(prediction: ArrayLike, target: ArrayLike, norm: ArrayLike) -> NDArray[np.float64]:
    """The error of each point of each face, as a fraction of the face's ``norm``.

    ``prediction`` and ``target`` (n, L, 2) in the same pixels, ``norm`` (n,). Returns (n, L).
    """
    a, b = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if a.shape != b.shape or a.ndim != 3 or a.shape[-1] != 2:
        raise InputError(f"prediction and target must both be (n, L, 2); got {a.shape} and {b.shape}")
    scale = np.asarray(norm, np.float64)
    if scale.shape != a.shape[:1]:
        raise InputError(f"norm must have shape {a.shape[:1]}, not {scale.shape}")
    return np.asarray(np.linalg.norm(a - b, axis=-1) / scale[:, None])


def nme(
    prediction: ArrayLike,
    target: ArrayLike,
    norm: ArrayLike,
    indices: Sequence[int] | slice = slice(None),
) -> NDArray[np.float64]:
    """Normalised mean error of each face, as a fraction (LOTR paper, eq. 25).

    ``prediction`` and ``target`` (n, L, 2) in the same pixels, ``norm`` (n,), ``indices`` the points
    counted. Returns (n,).
    """
    return np.asarray(point_errors(prediction, target, norm)[:, indices].mean(axis=1))


def landmark_errors(errors: ArrayLike) -> NDArray[np.float64]:
    """The mean of :func:`point_errors` (n, L) over the faces found. Returns (L,), NaN without a face.

    A point that is NaN in a face whose others are not, as its place is not known, is no part of that point's mean.
    """
    values = np.asarray(errors, np.float64)
    counts = (~np.isnan(values)).sum(axis=0)
    return np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)


def region_errors(errors: ArrayLike, parts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """The mean of :func:`point_errors` (n, L) over the faces found and the points of each part of the face."""
    points = landmark_errors(errors)
    return {name: float(points[list(indices)].mean()) for name, indices in parts.items()}


def failure_rate(errors: ArrayLike, threshold: float = 0.1) -> float:
    """Fraction of faces whose error is above ``threshold``; a NaN (no face found) counts as a failure."""
    return float(np.mean(~(np.asarray(errors) <= threshold)))


def ced(errors: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Cumulative error distribution: the fraction of faces with an error of at most each threshold."""
    finite = np.sort(np.nan_to_num(np.asarray(errors, np.float64), nan=np.inf))
    return np.asarray(np.searchsorted(finite, np.asarray(thresholds), side="right") / max(len(finite), 1))


def auc(errors: ArrayLike, threshold: float = 0.1) -> float:
    """Area under the CED up to ``threshold``, divided by it: exactly the mean of max(0, 1 - error / threshold)."""
    values = np.nan_to_num(np.asarray(errors, np.float64), nan=np.inf)
    return float(np.clip(1 - values / threshold, 0, 1).mean())


def summary(errors: ArrayLike, threshold: float = 0.1) -> dict[str, Any]:
    """NME, median, FR and AUC in percent, and how many faces they are of.

    NME and median are those of the faces found, None where there is none.
    """
    values = np.asarray(errors, np.float64)
    found = values[~np.isnan(values)]
    return {
        "faces": int(values.size),
        "nme": round(100 * float(found.mean()), 3) if found.size else None,
        "median": round(100 * float(np.median(found)), 3) if found.size else None,
        f"fr@{threshold:g}": round(100 * failure_rate(values, threshold), 3),
        f"auc@{threshold:g}": round(100 * auc(values, threshold), 3),
    }
