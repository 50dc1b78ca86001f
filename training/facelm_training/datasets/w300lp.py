"""300W-LP (Zhu et al., CVPR 2016): faces of 300-W turned to large poses by a morphable model; 68 points, 61,225 faces.

``AFW/``, ``HELEN/``, ``IBUG/`` and ``LFPW/`` hold the pictures (.jpg, 450 x 450), ``landmarks/AFW/<name>_pts.mat`` and
so on (MATLAB 5) ``pts_2d`` and ``pts_3d`` (68, 2): where an annotator would put the points, and with the label ``3d``
where the head has them, the hidden jaw included. Coordinates are taken as they stand, as public readers do. The folders
with ``_Flip`` hold mirrored copies, which training makes itself; they are left out.

Its pictures are of 300-W's training and test faces (iBUG's and, of LFPW and HELEN, their test parts): a network that
was trained on all of it must not be scored on 300-W's common and challenging faces.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facelm_sdk.errors import InputError

from .base import Info, Metric, Sample, Split, build, first_of, wrong_folder
from .matlab import read_mat

FACES = {"AFW": 5207, "HELEN": 37676, "IBUG": 1786, "LFPW": 16556}


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces; ``name`` is the picture's path in the folder. Only folders of ``subset`` need be there."""
    paths, points, subsets = [], [], []
    for part in FACES:
        if subset not in ("full", part.lower()):
            continue
        place = first_of(INFO, folder, part, f"300W_LP/{part}", f"300W-LP/{part}")
        found = sorted(place.glob("*.jpg"))
        if not found:
            wrong_folder(INFO, folder, f"the pictures in {place.relative_to(folder)}")
        for path in found:
            (values,) = read_mat(place.parent / "landmarks" / part / f"{path.stem}_pts.mat", f"pts_{label or '2d'}")
            if values.shape != (68, 2):
                raise InputError(f"the points of {path.relative_to(folder)} are {values.shape}, not (68, 2)")
            paths.append(path)
            points.append(values)
            subsets.append([part.lower()])
    names = [path.relative_to(folder).as_posix() for path in paths]
    return build("ibug68", names, paths, np.stack(points), subsets=subsets)


INFO = Info(
    name="300wlp",
    markup="ibug68",
    layout="AFW/, HELEN/, IBUG/ and LFPW/ with the pictures, and landmarks/{AFW,HELEN,IBUG,LFPW}/ with <name>_pts.mat",
    splits={
        "train": Split(
            {**{name.lower(): faces for name, faces in FACES.items()}, "full": sum(FACES.values())},
            (Metric("box", 0.07), Metric("inter_ocular", 0.1)),
        )
    },
    read=read,
    labels=("", "3d"),
    default="train",
    home="http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm: 300W-LP.zip",
    terms="research only",
)
