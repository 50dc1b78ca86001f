"""Landmark accuracy: NME, failure rate, AUC and the cumulative error distribution (CED)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .markup import Markup


def inter_ocular(target: ArrayLike, markup: Markup) -> NDArray[np.float64]:
    """Distance between the outer eye corners of (n, L, 2) points, the usual normaliser. Returns (n,)."""
    points = np.asarray(target, np.float64)
    left, right = markup.outer_eye_corners
    return np.asarray(np.linalg.norm(points[:, left] - points[:, right], axis=-1))


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
    a, b = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if a.shape != b.shape or a.ndim != 3 or a.shape[-1] != 2:
        raise InputError(f"prediction and target must both be (n, L, 2); got {a.shape} and {b.shape}")
    scale = np.asarray(norm, np.float64)
    if scale.shape != a.shape[:1]:
        raise InputError(f"norm must have shape {a.shape[:1]}, not {scale.shape}")
    return np.asarray(np.linalg.norm(a - b, axis=-1)[:, indices].mean(axis=1) / scale)


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
    """NME, median, FR and AUC in percent, and how many faces they are of."""
    values = np.asarray(errors, np.float64)
    return {
        "faces": int(values.size),
        "nme": round(100 * float(np.nanmean(values)), 3),
        "median": round(100 * float(np.nanmedian(values)), 3),
        f"fr@{threshold:g}": round(100 * failure_rate(values, threshold), 3),
        f"auc@{threshold:g}": round(100 * auc(values, threshold), 3),
    }
