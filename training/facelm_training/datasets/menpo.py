"""Menpo (Zafeiriou et al., CVPRW 2017), its semi-frontal faces: 68 points, 6,679 training and 5,335 test faces.

Pictures (.jpg or .png) with a .pts file of the same stem beside each, below ``train/`` and ``test/``, however deep.
Faces in profile (2,300 and 1,946) have 39 points of another convention and are left out. What papers call the frontal
subset of Menpo, after FAN's, are the 6,679 training faces.

Coordinates begin at 1 (as menpo reads them), so 1 is taken off; with the label ``raw`` they stay as written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facelm_sdk.images.header import SUFFIXES

from .base import Info, Metric, Sample, Split, build, first_of, wrong_folder
from .w300 import read_pts

PLACES = {"train": ("train", "trainset", "menpo_train_release"), "test": ("test", "testset", "menpo_test_release")}
METRICS = (Metric("box", 0.07), Metric("inter_ocular", 0.1))


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split; ``name`` is the picture's path in the folder."""
    place = first_of(INFO, folder, *PLACES[split])
    paths, points = [], []
    for annotation in sorted(place.rglob("*.pts")):
        values = read_pts(annotation, None)
        if len(values) != 68:
            continue
        picture = next((p for p in map(annotation.with_suffix, SUFFIXES) if p.is_file()), None)
        if picture is None:
            wrong_folder(INFO, folder, f"the picture of {annotation.relative_to(folder)}")
        paths.append(picture)
        points.append(values)
    if not paths:
        wrong_folder(INFO, folder, f"the .pts files of 68 points below {place.relative_to(folder)}")
    names = [path.relative_to(folder).as_posix() for path in paths]
    return build("ibug68", names, paths, np.stack(points) - (label != "raw"))


INFO = Info(
    name="menpo",
    markup="ibug68",
    layout="train/ and test/ with .pts files beside the pictures",
    splits={"train": Split({"full": 6679}, METRICS), "test": Split({"full": 5335}, METRICS)},
    read=read,
    labels=("", "raw"),
    home="https://ibug.doc.ic.ac.uk/resources/, on request: the Menpo challenge",
    terms="research only",
)
