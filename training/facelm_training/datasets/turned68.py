"""turned68: photographs of 300-W turned to large poses by :mod:`facelm_training.turned`.

``train`` is made of training faces, ``test`` of the common test faces, one view each, but for 24 that no head fits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .base import Info, Metric, Sample, Split, build, check_pictures, first_of, wrong_folder

METRICS = (Metric("inter_ocular", 0.1),)
LABELS = "turned68.npz"
"""Arrays ``name`` (n,), ``points`` (n, 68, 2), ``known`` (n, 68) and ``yaw`` (n,) in degrees."""


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces; points that the turned face hides, or whose place on the contour is not known, are not ``known``."""
    try:
        with np.load(first_of(INFO, folder, LABELS)) as file:
            names, points, known = file["name"].tolist(), file["points"], file["known"]
    except (ValueError, KeyError, OSError):
        wrong_folder(INFO, folder, f"a readable {LABELS}")
    paths = [folder / name for name in names]
    check_pictures(INFO, folder, paths)
    return build("ibug68", names, paths, points, known=known)


INFO = Info(
    name="turned68",
    markup="ibug68",
    layout=f"{LABELS} beside its pictures, as python -m facelm_training.turned writes them",
    splits={name: Split({"full": faces}, METRICS) for name, faces in {"train": 1535, "test": 530}.items()},
    read=read,
    default="train",
)
