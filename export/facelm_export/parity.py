"""Does the exported file give the landmarks that PyTorch gives? Stated in pixels, on crops of a real face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelm_sdk.boxes import iou
from facelm_sdk.errors import ParityError
from facelm_sdk.image import read_image
from facelm_sdk.session import OrtSession
from facelm_sdk.spec import ModelSpec

PICTURE = Path(__file__).with_name("assets") / "collins.jpg"
"""NASA's portrait of Eileen Collins (public domain)."""
PICTURE_KPS = np.array([[200.0, 101.0], [247.0, 103.0], [225.0, 124.0], [206.0, 144.0], [242.0, 143.0]])
PICTURE_BOX = np.array([171.0, 66.0, 274.0, 187.0])

TOLERANCES = {"fp32": {"max_px": 0.02, "p99_px": 0.01}, "fp16": {"max_px": 0.2, "p99_px": 0.05}}
"""Largest differences allowed, in pixels of the crop (landmarks) or of the picture (boxes and five points)."""

SAME_FACE = 0.9
"""IoU from which two detections are the same; suppression at 0.4 leaves one face of each side at most."""
SAME_SCORE = 0.05


def parity_crops(spec: ModelSpec, count: int = 24) -> NDArray[np.uint8]:
    """Crops (count, S, S, 3) uint8 BGR of the portrait, its five points or box moved as a detector's noise would."""
    assert spec.crop is not None
    rng = np.random.default_rng(0)
    image = read_image(PICTURE)
    crops = []
    for i in range(count):
        kps = PICTURE_KPS + rng.normal(0, 2.0, (5, 2))
        box = PICTURE_BOX + rng.normal(0, 4.0, 4)
        crop = spec.crop.transform(box=box, kps=kps).warp(image)
        crops.append(np.ascontiguousarray(crop[:, ::-1]) if i % 2 else crop)
    return np.stack(crops)


def _figures(differences: NDArray[Any]) -> dict[str, float]:
    return {
        "max_px": round(float(differences.max()), 6),
        "p99_px": round(float(np.percentile(differences, 99)), 6),
        "mean_px": round(float(differences.mean()), 6),
    }


@torch.no_grad()
def landmark_parity(
    fused: nn.Module,  # the fp32 module, uint8 crops in, pixels out
    session: OrtSession,
) -> dict[str, Any]:
    """Distances in pixels between the file's landmarks and those of ``fused``."""
    crops = parity_crops(session.spec)
    expected = fused(torch.from_numpy(crops))
    expected = (expected[0] if session.spec.has_scores else expected).numpy()
    actual = session.run({"crops": crops})[0]
    if not np.isfinite(actual).all():
        raise ParityError(f"the exported {session.spec.name} gives NaN or infinite landmarks")
    distances = np.linalg.norm(actual - expected, axis=-1)
    return {"crops": len(crops), **_figures(distances)}


@torch.no_grad()
def detection_parity(fused: nn.Module, session: OrtSession, threshold: float) -> dict[str, Any]:
    """Differences in pixels between the file's boxes and five points and those of ``fused``, at three picture sizes.

    Each face above ``threshold``, of either side, is compared with the one of the other side that overlaps it by an IoU
    of at least SAME_FACE and scores the same to SAME_SCORE; ``unmatched`` counts those that have none.
    """
    import cv2

    image = read_image(PICTURE)
    differences: list[NDArray[Any]] = []
    found = unmatched = 0
    for width, height in ((512, 512), (333, 251), (640, 480)):
        picture = cv2.resize(image, (width, height))[None]
        expected = [part.numpy() for part in fused(torch.from_numpy(picture))]
        actual = session.run({"image": picture})
        for one, other in ((actual, expected), (expected, actual)):
            boxes, scores, kps = (part[one[1] > threshold] for part in one)
            overlaps = iou(boxes[:, None], other[0])
            same = (overlaps >= SAME_FACE) & (np.abs(scores[:, None] - other[1]) <= SAME_SCORE)
            a, b = np.nonzero(same)
            found += len(a)
            unmatched += int((~same.any(1)).sum())
            differences += [np.abs(boxes[a] - other[0][b]).ravel(), np.abs(kps[a] - other[2][b]).ravel()]
    together = np.concatenate(differences)
    return {"faces": found // 2, "unmatched": unmatched, **_figures(together if together.size else np.zeros(1))}


def check(figures: dict[str, Any], precision: str, name: str) -> None:
    """Raise ParityError, with the figures, unless they are within the tolerance of ``precision``."""
    if figures.get("unmatched"):
        raise ParityError(
            f"{name} in {precision} does not find the faces that PyTorch fp32 finds: {figures['unmatched']} of theirs "
            f"have no counterpart; no file was written"
        )
    missed = {key: figures[key] for key, limit in TOLERANCES[precision].items() if not figures[key] <= limit}
    if missed:
        limits = ", ".join(f"{key} {figures[key]:.4f} (allowed {TOLERANCES[precision][key]})" for key in missed)
        raise ParityError(f"{name} in {precision} differs too much from PyTorch fp32: {limits}; no file was written")
