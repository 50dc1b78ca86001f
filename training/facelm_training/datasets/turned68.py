"""turned68: photographs of 300-W turned to large poses by :mod:`facelm_training.turned`.

``train`` is made of training faces, ``test`` of the common test faces, one view each, but for 24 that no head fits.
"""

from __future__ import annotations

from pathlib import Path

from .base import Info, Metric, Sample, Split, build, check_pictures, first_of, read_arrays

METRICS = (Metric("inter_ocular", 0.1),)
LABELS = "turned68.npz"
"""Arrays ``name`` (n,), ``points`` (n, 68, 2), ``known`` (n, 68) and ``yaw`` (n,) in degrees."""


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces; points that the turned face hides, or whose place on the contour is not known, are not ``known``."""
    names, points, known = read_arrays(
        INFO,
        first_of(INFO, folder, LABELS),
        name=("U", (None,)),
        points=("f", (None, 68, 2)),
        known=("b", (None, 68)),
    )
    paths = [folder / name for name in names.tolist()]
    check_pictures(INFO, folder, paths)
    return build("ibug68", names.tolist(), paths, points, known=known)


INFO = Info(
    name="turned68",
    markup="ibug68",
    layout=f"{LABELS} beside its pictures, as python -m facelm_training.turned writes them",
    splits={name: Split({"full": faces}, METRICS) for name, faces in {"train": 1535, "test": 530}.items()},
    read=read,
    default="train",
    home=(
        "made of 300w and of https://github.com/ICT-VGL/ICT-FaceKit's head by python -m facelm_training.turned, which "
        "says what it needs"
    ),
    terms="those of 300w",
)
