"""landmarks68, the data of this project's weights: 68 points of faces of YouTube Faces frames, split by person.

The label ``clean`` is made from the annotator's and a mesh network's points, ``original`` is the annotator's own. The
five points are those of a RetinaFace on the whole frame. :mod:`facelm_training.data` reads the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from facelm_sdk.types import ImageArray

from ..data import FILES, landmark_faces
from ..data import Split as DataSplit
from .base import Info, Metric, Sample, Split, build

METRICS = (Metric("inter_ocular", 0.1),)


def _picture(images: Sequence[ImageArray], index: int) -> ImageArray:
    return images[index]


def read(folder: Path, split: str, label: str) -> list[Sample]:
    """The faces of a split that have both labels; ``name`` is the picture's. The pictures are held in memory."""
    faces = landmark_faces(folder, cast(DataSplit, split), frames=False)
    return build(
        "ibug68",
        faces.names,
        [partial(_picture, faces.images, index) for index in range(len(faces))],
        faces.original if label == "original" else faces.points,
        kps5=faces.kps,
    )


INFO = Info(
    name="landmarks68",
    markup="ibug68",
    layout=", ".join(FILES),
    splits={"train": Split({"full": 3670}, METRICS), "val": Split({"full": 559}, METRICS)},
    read=read,
    labels=("clean", "original"),
    default="val",
)
