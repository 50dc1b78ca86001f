"""The project's own training data: faces of YouTube Faces frames (landmarks68) and web portraits (portraits68).

The label ``300w`` is two teacher networks' in the convention of 300-W, ``clean`` an older one made from the annotator's
and a mesh network's points, ``original`` the annotator's own. The five points are those of a RetinaFace on the whole
frame. Both sets are split by person; their pictures are held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm_sdk.types import ImageArray

from ..archives import check_folder, read_zipped
from .base import Info, Metric, Sample, Split, build

METRICS = (Metric("inter_ocular", 0.1),)
FILES = ("landmarks68.npz", "landmarks68.zip", "landmarks68_clean.npz", "landmarks68_300w.npz")
PORTRAIT_FILES = ("mesh478.npz", "landmarks68_300w.npz", "frames.zip")
WORST_DISAGREEMENT = {"300w": 4.0, "clean": 25.0, "original": 25.0}
"""Training faces whose two labels differ by more percent of the eye distance are left out: one of them is wrong."""
PORTRAITS = "web_"  # the other frames are landmarks68's, or have an annotator's dots drawn into them


def _picture(images: Sequence[ImageArray], index: int) -> ImageArray:
    return images[index]


def _samples(
    archive: Path, names: NDArray[Any], points: NDArray[Any], kps5: NDArray[Any], keep: NDArray[np.bool_]
) -> list[Sample]:
    chosen = [str(name) for name in names[keep]]
    images = read_zipped(archive, chosen)
    sources = [partial(_picture, images, index) for index in range(len(images))]
    return build("ibug68", chosen, sources, points[keep], kps5=kps5[keep])


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split; ``name`` is the picture's."""
    path = check_folder(folder, FILES)
    crops = np.load(path / "landmarks68.npz")
    teacher, clean = (np.load(path / f"landmarks68_{name}.npz") for name in ("300w", "clean"))
    disagreement = (teacher if label == "300w" else clean)["crop_disagreement"]
    points = {"300w": teacher["crop_points"], "clean": clean["crop_points"], "original": crops["points"]}[label]
    keep = (crops["split"] == split) & np.isfinite(points).all((1, 2))
    if split == "train":
        keep &= ~(disagreement > WORST_DISAGREEMENT[label])
    return _samples(path / "landmarks68.zip", crops["name"], points, crops["kps5"], keep)


def read_portraits(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split; ``name`` is the picture's. Many pictures end above the chin."""
    path = check_folder(folder, PORTRAIT_FILES)
    teacher, five = (np.load(path / name) for name in ("landmarks68_300w.npz", "mesh478.npz"))
    keep = (five["frame_split"] == split) & np.char.startswith(teacher["frame_name"], PORTRAITS)
    keep &= ~(teacher["frame_disagreement"] > WORST_DISAGREEMENT["300w"])
    return _samples(path / "frames.zip", teacher["frame_name"], teacher["frame_points"], five["frame_kps5"], keep)


INFO = Info(
    name="landmarks68",
    markup="ibug68",
    layout=", ".join(FILES),
    splits={"train": Split({"full": 3673}, METRICS), "val": Split({"full": 559}, METRICS)},
    read=read,
    labels=("300w", "clean", "original"),
    default="val",
)
PORTRAITS_INFO = Info(
    name="portraits68",
    markup="ibug68",
    layout=", ".join(PORTRAIT_FILES),
    splits={"train": Split({"full": 1601}, METRICS), "val": Split({"full": 176}, METRICS)},
    read=read_portraits,
    default="val",
)
