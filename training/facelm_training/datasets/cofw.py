"""COFW (Burgos-Artizzu et al., ICCV 2013): 29 points with occlusion, 1,345 and 507 faces, and COFW-68.

``COFW_{train,test}_color.mat`` are MATLAB 7.3 files, which is HDF5 with the axes reversed: pictures ``IsTr`` / ``IsT``
(references to uint8 (3, W, H) RGB, or (W, H) where grey), ``phisTr`` / ``phisT`` (87, n): 29 x, 29 y and 29 flags of
occlusion, ``bboxesTr`` / ``bboxesT`` (4, n): x, y, width, height.

COFW-68 (Ghiasi and Fowlkes, 2015) annotates the test pictures anew with 68 points: ``test_annotations/<i>_points.mat``
(MATLAB 5; i from 1) with ``Points`` (68, 2) and ``Occ`` (1, 68), and ``cofw68_test_bboxes.mat`` with ``bboxes``
(507, 4), x, y, width, height. The pictures are those of ``COFW_test_color.mat``.

Coordinates begin at 1, as MATLAB's, so 1 is taken off; with the label ``raw`` they stay as written, as several public
readers leave them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm_sdk.errors import ImageError, InputError
from facelm_sdk.types import ImageArray

from .._optional import load
from .base import Info, Metric, Sample, Split, build, first_of, wrong_folder
from .matlab import read_mat

METRICS = (Metric("inter_ocular", 0.1), Metric("inter_pupil", 0.1))
SUFFIX = {"train": "Tr", "test": "T"}


def _corners(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """(n, 4) x, y, width, height as xyxy."""
    values = np.asarray(boxes, np.float64)
    return np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)


def _picture(path: Path, key: str, index: int) -> ImageArray:
    h5py = load("h5py", f"reading {path.name}")
    try:
        with h5py.File(path, "r") as file:
            image = np.asarray(file[file[key][0, index]]).T
    except Exception as error:  # h5py raises as it pleases: OSError, KeyError, TypeError, RuntimeError
        raise ImageError(f"{path}: picture {index + 1} of {key} cannot be read ({error})") from error
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"{path}: picture {index + 1} of {key} has shape {image.shape}")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def _arrays(path: Path, suffix: str) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """How many pictures there are, phis (n, 87) and boxes (n, 4) as written."""
    h5py = load("h5py", f"reading {path.name}")
    names = [f"Is{suffix}", f"phis{suffix}", f"bboxes{suffix}"]
    try:
        with h5py.File(path, "r") as file:
            count = int(file[names[0]].shape[1])
            phis, boxes = (np.asarray(file[name], np.float64).T for name in names[1:])
    except Exception as error:  # as above
        raise InputError(
            f"{path} cannot be read; it is truncated or not a MATLAB 7.3 file with {', '.join(names)} ({error})"
        ) from error
    if phis.shape != (count, 87) or boxes.shape != (count, 4):
        raise InputError(
            f"{path} holds {count} pictures, phis {phis.shape} and boxes {boxes.shape}, not (n, 87) and (n, 4)"
        )
    return count, phis, boxes


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split; ``name`` is the file and the index in it, from 1."""
    file = f"COFW_{split}_color.mat"
    path = first_of(INFO, folder, file, f"COFW_color/{file}")
    count, phis, boxes = _arrays(path, SUFFIX[split])
    origin = float(label != "raw")
    return build(
        "cofw29",
        [f"{path.stem}#{index + 1}" for index in range(count)],
        [partial(_picture, path, f"Is{SUFFIX[split]}", index) for index in range(count)],
        np.stack([phis[:, :29], phis[:, 29:58]], axis=-1) - origin,
        boxes=_corners(boxes) - origin,
        occluded=phis[:, 58:] > 0.5,
    )


def read68(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The test faces with 68 points; ``name`` is the annotation file's."""
    path = first_of(INFO68, folder, "COFW_test_color.mat", "COFW_color/COFW_test_color.mat")
    base = first_of(INFO68, folder, "COFW68_Data", "test_annotations", "cofw68-benchmark/COFW68_Data")
    base = base.parent if base.name == "test_annotations" else base
    count = _arrays(path, SUFFIX["test"])[0]
    files = [base / "test_annotations" / f"{index + 1}_points.mat" for index in range(count)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        wrong_folder(INFO68, folder, f"{len(missing)} files of test_annotations, the first of them {missing[0]}")
    points, occluded = zip(*(_annotation(file) for file in files), strict=True)
    (boxes,) = read_mat(first_of(INFO68, base, "cofw68_test_bboxes.mat"), "bboxes")
    if boxes.shape != (count, 4):
        raise InputError(f"{base / 'cofw68_test_bboxes.mat'} holds boxes {boxes.shape}, not ({count}, 4)")
    origin = float(label != "raw")
    return build(
        "ibug68",
        [file.stem for file in files],
        [partial(_picture, path, "IsT", index) for index in range(count)],
        np.stack(points) - origin,
        boxes=_corners(boxes) - origin,
        occluded=np.stack(occluded),
    )


def _annotation(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    points, occluded = read_mat(path, "Points", "Occ")
    if points.shape != (68, 2) or occluded.size != 68:
        raise InputError(f"{path} holds Points {points.shape} and Occ {occluded.shape}, not (68, 2) and (1, 68)")
    return points, occluded.reshape(-1) > 0


INFO = Info(
    name="cofw",
    markup="cofw29",
    layout="COFW_train_color.mat and COFW_test_color.mat",
    splits={"train": Split({"full": 1345}, METRICS), "test": Split({"full": 507}, METRICS)},
    read=read,
    labels=("", "raw"),
    home="https://data.caltech.edu/records/bc0bf-nc666: COFW_color.zip",
    terms="see there",
)

INFO68 = Info(
    name="cofw68",
    markup="ibug68",
    layout=(
        "COFW_test_color.mat, and COFW68_Data/ of the cofw68-benchmark with test_annotations/<i>_points.mat and "
        "cofw68_test_bboxes.mat"
    ),
    splits={"test": Split({"full": 507}, (*METRICS, Metric("box", 0.07)))},
    read=read68,
    labels=("", "raw"),
    home=(
        "the COFW_color.zip of cofw, and https://github.com/golnazghiasi/cofw68-benchmark: its zip (Code, Download ZIP)"
    ),
    terms="see there",
    tops=("COFW68_Data",),
)
