"""Does the exported file give the landmarks that PyTorch gives? Stated in pixels, on crops of a real face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelm_sdk import markup as markups
from facelm_sdk import metrics
from facelm_sdk.boxes import iou
from facelm_sdk.contract import DetectorSpec, LandmarkSpec
from facelm_sdk.errors import ParityError
from facelm_sdk.runtimes.base import Session

from .samples import Samples

TOLERANCES = {
    "fp32": {"max_px": 0.02, "p99_px": 0.01},
    "fp16": {"max_px": 0.2, "p99_px": 0.05},
    "int8": {"mean_percent": 0.5, "p99_percent": 2.0, "delta_nme_percent": 1.0},
}
"""Largest differences allowed: in pixels of the crop (landmarks) or of the picture (boxes and five points), in percent
of the face's size, and of the NME where labels are known.

Errors of int8 are as good as independent of the network's own, so they add to an NME in quadrature: 0.5% of the face
adds less than 1% to an NME of 4%.
"""

CHUNK = 16
"""Crops that PyTorch sees at a time."""

SAME_FACE = 0.9
"""IoU from which two detections are the same; suppression at 0.4 leaves one face of each side at most."""
SAME_SCORE = 0.05


def compare(fused: nn.Module, session: Session, samples: Samples) -> dict[str, Any]:
    """Differences between the file's outputs and those of ``fused``, the fp32 module with the same contract."""
    spec = session.spec
    if isinstance(spec, LandmarkSpec):
        return landmark_parity(fused, session, samples, spec.markup)
    assert isinstance(spec, DetectorSpec)  # a pipeline has no module in PyTorch
    return detection_parity(fused, session, samples, spec.det_thresh)


def _figures(differences: NDArray[Any]) -> dict[str, float]:
    return {
        "max_px": round(float(differences.max()), 6),
        "p99_px": round(float(np.percentile(differences, 99)), 6),
        "mean_px": round(float(differences.mean()), 6),
    }


def _percent(shares: NDArray[Any]) -> dict[str, float]:
    """Of differences as fractions of a face's size."""
    return {
        "mean_percent": round(100 * float(shares.mean()), 4),
        "p99_percent": round(100 * float(np.percentile(shares, 99)), 4),
    }


@torch.no_grad()
def landmark_parity(
    fused: nn.Module,  # the fp32 module, uint8 crops in, pixels out
    session: Session,
    samples: Samples,
    name: str,  # the points' markup
) -> dict[str, Any]:
    """Distances between the file's landmarks and those of ``fused``: in pixels, and in percent of the distance of the
    outer eye corners. Where labels are known, the NME of both, in percent, and by how much of itself it grew.
    """
    crops = np.concatenate(samples.inputs)
    expected = np.concatenate([_landmarks(fused, crops[i : i + CHUNK]) for i in range(0, len(crops), CHUNK)])
    actual = np.concatenate([session.run({"crops": crops[i : i + CHUNK]})[0] for i in range(0, len(crops), CHUNK)])
    if not np.isfinite(actual).all():
        raise ParityError(f"the exported {session.spec.name} gives NaN or infinite landmarks")
    distances = np.linalg.norm(actual - expected, axis=-1)
    markup = markups.get(name)
    sizes = np.maximum(metrics.inter_ocular(expected, markup), 1.0)  # untrained networks put both eyes in one place
    figures = {"crops": len(crops), **_figures(distances), **_percent(distances / sizes[:, None])}
    if samples.labels is not None:
        norm = metrics.inter_ocular(samples.labels, markup)
        ours, theirs = (100 * float(metrics.nme(points, samples.labels, norm).mean()) for points in (actual, expected))
        figures |= {
            "nme_percent": round(ours, 4),
            "nme_fp32_percent": round(theirs, 4),
            "delta_nme_percent": round(100 * (ours / theirs - 1), 4),
        }
    return figures


def _landmarks(fused: nn.Module, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    output = fused(torch.from_numpy(crops))
    return np.asarray(output[0] if isinstance(output, tuple) else output)


@torch.no_grad()
def detection_parity(fused: nn.Module, session: Session, samples: Samples, threshold: float) -> dict[str, Any]:
    """Differences in pixels between the file's boxes and five points and those of ``fused``.

    Each face above ``threshold``, of either side, is compared with the one of the other side that overlaps
    it by an IoU of at least SAME_FACE and scores the same to SAME_SCORE; ``unmatched`` counts those that have none.
    Percent are those of the longer side of its box.
    """
    differences: list[NDArray[Any]] = []
    shares: list[NDArray[Any]] = []
    found = unmatched = 0
    for picture in samples.inputs:
        expected = [part.numpy() for part in fused(torch.from_numpy(picture))]
        actual = session.run({"image": picture})
        for one, other in ((actual, expected), (expected, actual)):
            boxes, scores, kps = (part[one[1] > threshold] for part in one)
            overlaps = iou(boxes[:, None], other[0])
            same = (overlaps >= SAME_FACE) & (np.abs(scores[:, None] - other[1]) <= SAME_SCORE)
            a, b = np.nonzero(same)
            found += len(a)
            unmatched += int((~same.any(1)).sum())
            moved = np.concatenate([boxes[a] - other[0][b], (kps[a] - other[2][b]).reshape(-1, 10)], 1)
            differences.append(np.abs(moved))
            shares.append(np.abs(moved) / (boxes[a, 2:] - boxes[a, :2]).max(1, initial=1.0, keepdims=True))
    together, relative = (np.concatenate(parts).ravel() if found else np.zeros(1) for parts in (differences, shares))
    return {"faces": found // 2, "unmatched": unmatched, **_figures(together), **_percent(relative)}


def check(figures: dict[str, Any], precision: str, name: str, tolerance: Mapping[str, float] | None = None) -> None:
    """Raise ParityError, with the figures, unless they are within ``tolerance``, by default that of ``precision``."""
    tolerance = TOLERANCES[precision] if tolerance is None else tolerance
    if figures.get("unmatched"):
        raise ParityError(
            f"{name} in {precision} does not find the faces that PyTorch fp32 finds: {figures['unmatched']} of theirs "
            f"have no counterpart; no file was written"
        )
    missed = {key: figures[key] for key, limit in tolerance.items() if key in figures and not figures[key] <= limit}
    if missed:
        limits = ", ".join(f"{key} {figures[key]:.4f} (allowed {tolerance[key]})" for key in missed)
        jumps = "; a few points jump between peaks of nearly equal height, which atol allows"
        why = limits + (jumps if [*missed] == ["max_px"] else "")
        raise ParityError(f"{name} in {precision} differs too much from PyTorch fp32: {why}; no file was written")
