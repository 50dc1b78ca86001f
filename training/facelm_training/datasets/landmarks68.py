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

from facelm_sdk.errors import InputError
from facelm_sdk.types import ImageArray

from ..archives import check_folder, read_zipped
from .base import Info, Metric, Sample, Split, build, read_arrays

METRICS = (Metric("inter_ocular", 0.1),)
FILES = ("landmarks68.npz", "landmarks68.zip", "landmarks68_clean.npz", "landmarks68_300w.npz")
PORTRAIT_FILES = ("mesh478.npz", "landmarks68_300w.npz", "frames.zip")
WORST_DISAGREEMENT = {"300w": 4.0, "clean": 25.0, "original": 25.0}
"""Training faces whose two labels differ by more percent of the eye distance are left out: one of them is wrong."""
HOME = "not to be had: {}, labelled by two networks; train on 300w in its place"
NAMES, NUMBERS = ("U", (None,)), ("f", (None,))
POINTS, FIVE = ("f", (None, 68, 2)), ("f", (None, 5, 2))
"""Kinds and shapes of the arrays."""
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
    names, splits, points, kps5 = read_arrays(
        INFO, path / "landmarks68.npz", name=NAMES, split=NAMES, points=POINTS, kps5=FIVE
    )
    labelled = path / f"landmarks68_{'300w' if label == '300w' else 'clean'}.npz"
    others, disagreement = read_arrays(INFO, labelled, crop_points=POINTS, crop_disagreement=NUMBERS)
    _check_counts(labelled, others, names)
    points = points if label == "original" else others
    keep = (splits == split) & np.isfinite(points).all((1, 2))
    if split == "train":
        keep &= ~(disagreement > WORST_DISAGREEMENT[label])
    return _samples(path / "landmarks68.zip", names, points, kps5, keep)


def read_portraits(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split; ``name`` is the picture's. Many pictures end above the chin."""
    path = check_folder(folder, PORTRAIT_FILES)
    labelled, mesh = path / "landmarks68_300w.npz", path / "mesh478.npz"
    names, points, disagreement = read_arrays(
        PORTRAITS_INFO, labelled, frame_name=NAMES, frame_points=POINTS, frame_disagreement=NUMBERS
    )
    splits, kps5 = read_arrays(PORTRAITS_INFO, mesh, frame_split=NAMES, frame_kps5=FIVE)
    _check_counts(mesh, splits, names)
    keep = (splits == split) & np.char.startswith(names, PORTRAITS)
    keep &= ~(disagreement > WORST_DISAGREEMENT["300w"])
    return _samples(path / "frames.zip", names, points, kps5, keep)


def _check_counts(path: Path, found: NDArray[Any], names: NDArray[Any]) -> None:
    if len(found) != len(names):
        raise InputError(
            f"{path} is of {len(found)} faces, and the names beside it of {len(names)}: another data set's"
        )


INFO = Info(
    name="landmarks68",
    markup="ibug68",
    layout=", ".join(FILES),
    splits={"train": Split({"full": 3673}, METRICS), "val": Split({"full": 559}, METRICS)},
    read=read,
    labels=("300w", "clean", "original"),
    default="val",
    home=HOME.format("its pictures are of https://github.com/udacity/P1_Facial_Keypoints (YouTube Faces)"),
    terms="research data",
)
PORTRAITS_INFO = Info(
    name="portraits68",
    markup="ibug68",
    layout=", ".join(PORTRAIT_FILES),
    splits={"train": Split({"full": 1601}, METRICS), "val": Split({"full": 176}, METRICS)},
    read=read_portraits,
    default="val",
    home=HOME.format("its pictures are portraits from the web"),
    terms="research data",
)
