"""300-W (Sagonas et al., 2013): 68 points; train 3,148 faces, test 689 (common 554, challenging 135), private 600.

Folders as iBUG hands them out, each picture (.jpg or .png) beside a .pts file of the same stem: ``afw``,
``helen/trainset`` and ``lfpw/trainset`` train; ``helen/testset`` and ``lfpw/testset`` are the common test faces,
``ibug`` the challenging ones; ``01_Indoor`` and ``02_Outdoor`` are the challenge's own test set, published later
(here ``private``). A .pts file holds ``version: 1``, ``n_points: 68`` and the points between braces.

Coordinates begin at 1 (as menpo reads them), so 1 is taken off; with the label ``raw`` they stay as written. There is
no face box: the box is the landmarks'. Mirrored copies (``*_mirror.pts``) that some archives add are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelm_sdk.errors import InputError
from facelm_sdk.images.header import SUFFIXES

from .base import Info, Metric, Sample, Split, build, first_of, numbers, read_text, wrong_folder

FOLDERS = {
    "train": {"afw": "afw", "helen/trainset": "helen", "lfpw/trainset": "lfpw"},
    "test": {"helen/testset": "common", "lfpw/testset": "common", "ibug": "challenging"},
    "private": {"01_Indoor": "indoor", "02_Outdoor": "outdoor"},
}
ROOTS = ("", "300W/", "Test/")


def read_pts(path: Path, count: int | None = 68) -> NDArray[np.float64]:
    """The ``count`` points (count, 2) of a .pts file, as written; None: as many as there are. Raises InputError."""
    _, opening, rest = read_text(path).partition("{")
    inside, closing, _ = rest.partition("}")
    values = numbers(inside.split(), str(path))
    if not opening or not closing or values.size % 2 or count not in (None, values.size // 2):
        wanted = "" if count is None else f", not {count}"
        raise InputError(f"{path} holds {values.size / 2:g} points between braces{wanted}; it is damaged")
    return values.reshape(-1, 2)


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split; ``name`` is the picture's path in the folder. Only folders of ``subset`` need be there."""
    paths, points, subsets = [], [], []
    for part, own in FOLDERS[split].items():
        if subset not in ("full", own):
            continue
        place = first_of(INFO, folder, *(root + part for root in ROOTS))
        pictures = {path.stem: path for path in place.iterdir() if path.suffix.lower() in SUFFIXES}
        for annotation in sorted(place.glob("*.pts")):
            if annotation.stem.endswith("_mirror"):
                continue
            if annotation.stem not in pictures:
                wrong_folder(INFO, folder, f"the picture of {annotation.relative_to(folder)}")
            paths.append(pictures[annotation.stem])
            points.append(read_pts(annotation))
            subsets.append([own])
        if not paths or paths[-1].parent != place:
            wrong_folder(INFO, folder, f"the .pts files in {place.relative_to(folder)}")
    names = [path.relative_to(folder).as_posix() for path in paths]
    return build("ibug68", names, paths, np.stack(points) - (label != "raw"), subsets=subsets)


INFO = Info(
    name="300w",
    markup="ibug68",
    layout=(
        "afw/, helen/{trainset,testset}/, lfpw/{trainset,testset}/ and ibug/ with .pts files beside the pictures; for "
        "300w/private 01_Indoor/ and 02_Outdoor/"
    ),
    splits={
        "train": Split({"afw": 337, "helen": 2000, "lfpw": 811, "full": 3148}, (Metric("inter_ocular", 0.1),)),
        "test": Split(
            {"common": 554, "challenging": 135, "full": 689}, (Metric("inter_ocular", 0.08), Metric("inter_pupil", 0.1))
        ),
        "private": Split(
            {"indoor": 300, "outdoor": 300, "full": 600}, (Metric("inter_ocular", 0.08), Metric("box", 0.07))
        ),
    },
    read=read,
    labels=("", "raw"),
    home=(
        "https://ibug.doc.ic.ac.uk/resources/facial-point-annotations/: afw.zip, helen.zip, ibug.zip, lfpw.zip; for "
        "300w/private https://ibug.doc.ic.ac.uk/resources/300-W/: the parts of 300w.zip, joined to one file"
    ),
    terms="research only",
    tops=("afw", "helen", "lfpw", "ibug", "01_Indoor", "02_Outdoor"),
)
