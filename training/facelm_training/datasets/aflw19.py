"""AFLW-19 (Zhu et al., CVPR 2016, on AFLW): 19 points, 20,000 training and 4,386 test faces.

``AFLWinfo_release.mat`` (MATLAB 5): ``data`` (n, 38), x1..x19 y1..y19; ``bbox`` (n, 4), left, right, top, bottom;
``mask_new`` (n, 19), 1 where a point is visible; ``nameList`` (n, 1), such as ``0/image00002.jpg``, of AFLW's own
pictures in ``data/flickr``; ``ra`` (1, n), a permutation from 1 whose first 20,000 entries train and whose others test.
A face is frontal (1,314 test faces) where every point is visible. Coordinates begin at 0 and are taken as they stand,
as public readers do.

Errors are divided by the diagonal of ``bbox`` or by the square root of its area.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facelm_sdk.errors import InputError

from .base import Info, Metric, Sample, Split, build, check_pictures, first_of
from .matlab import read_mat

METRICS = (Metric("diag", 0.07), Metric("box", 0.07))
TRAIN = 20_000


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split; ``name`` is the picture's path and the face's row, from 1."""
    path = first_of(INFO, folder, "AFLWinfo_release.mat", "aflw-19/AFLWinfo_release.mat")
    place = first_of(INFO, folder, "data/flickr", "aflw-21/data/flickr", "images", "flickr", "0")
    pictures = folder if place.name == "0" else place
    data, bbox, visible, listed, order = read_mat(path, "data", "bbox", "mask_new", "nameList", "ra")
    count = len(data)
    shapes = (data.shape, bbox.shape, visible.shape, listed.size, order.size)
    if shapes != ((count, 38), (count, 4), (count, 19), count, count) or count <= TRAIN:
        raise InputError(
            f"{path} holds data, bbox, mask_new, nameList and ra of sizes {shapes}, not (n, 38), (n, 4), (n, 19), n "
            f"and n, of more than {TRAIN} faces"
        )
    names = listed.reshape(-1)
    if listed.dtype != object or not np.array_equal(np.sort(order, axis=None), np.arange(1, count + 1)):
        raise InputError(f"{path} is damaged: nameList is no cell of names, or ra no permutation of 1 to {count}")
    permutation = order.reshape(-1).astype(int) - 1
    chosen = permutation[:TRAIN] if split == "train" else permutation[TRAIN:]
    paths = [pictures / name for name in names[chosen]]
    check_pictures(INFO, folder, paths)
    seen = visible[chosen] > 0
    return build(
        "aflw19",
        [f"{names[index]}#{index + 1}" for index in chosen],
        paths,
        data[chosen].reshape(-1, 2, 19).swapaxes(1, 2),
        boxes=bbox[chosen][:, [0, 2, 1, 3]],
        normalise_by_boxes=True,
        occluded=~seen,
        subsets=[["frontal"] if row.all() else [] for row in seen],
    )


INFO = Info(
    name="aflw19",
    markup="aflw19",
    layout="AFLWinfo_release.mat, and AFLW's pictures in data/flickr/{0,2,3}/ (or images/{0,2,3}/, or {0,2,3}/)",
    splits={
        "train": Split({"full": 20_000}, METRICS),
        "test": Split({"full": 4386, "frontal": 1314}, METRICS),
    },
    read=read,
    home=(
        "pictures on request from https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw/: "
        "aflw-images-{0,2,3}.tar.gz; points: http://mmlab.ie.cuhk.edu.hk/projects/compositional.html, "
        "AFLWinfo_release.mat"
    ),
    terms="research only",
    tops=("data", "images", "0", "2", "3"),
)
