"""WFLW (Wu et al., CVPR 2018): 98 points, 7,500 faces to train on and 2,500 to test on, six test subsets.

One line a face of ``list_98pt_rect_attr_{train,test}.txt``, 207 columns: 196 coordinates x0 y0 .. x97 y97; the
detection rectangle x_min y_min x_max y_max; the attributes pose, expression, illumination, make-up, occlusion and blur,
0 or 1; the picture's path in ``WFLW_images``. Coordinates begin at 0 and are taken as they stand, as public readers do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facelm_sdk.errors import InputError

from .base import Info, Metric, Sample, Split, build, check_pictures, first_of, numbers, read_text

ATTRIBUTES = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")
COLUMNS = 2 * 98 + 4 + len(ATTRIBUTES)
METRICS = (Metric("inter_ocular", 0.1),)


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split; ``name`` is the picture's path and the line."""
    file = f"list_98pt_rect_attr_{split}.txt"
    inner = f"list_98pt_rect_attr_train_test/{file}"
    listing = first_of(INFO, folder, f"WFLW_annotations/{inner}", inner, file)
    pictures = first_of(INFO, folder, "WFLW_images")
    lines = [line for line in read_text(listing).splitlines() if line.strip()]
    rows, names = [], []
    for number, line in enumerate(lines, start=1):
        words = line.split(maxsplit=COLUMNS)
        if len(words) != COLUMNS + 1:
            raise InputError(
                f"{listing}, line {number}: {len(words)} columns, not {COLUMNS + 1} (196 coordinates, a rectangle, "
                "6 attributes and the picture's path); the file is damaged"
            )
        rows.append(numbers(words[:COLUMNS], f"{listing}, line {number}"))
        names.append(words[COLUMNS].strip())
    if not rows:
        raise InputError(f"{listing} is empty")
    values = np.stack(rows)
    paths = [pictures / name for name in names]
    check_pictures(INFO, folder, paths)
    return build(
        "wflw98",
        [f"{name}#{number}" for number, name in enumerate(names, start=1)],
        paths,
        values[:, :196],
        boxes=values[:, 196:200],
        subsets=[[name for name, flag in zip(ATTRIBUTES, row[200:], strict=True) if flag] for row in values],
    )


COUNTS = (326, 314, 698, 206, 736, 773)
TEST = {"full": 2500, **dict(zip(ATTRIBUTES, COUNTS, strict=True))}

INFO = Info(
    name="wflw",
    markup="wflw98",
    layout=(
        "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{train,test}.txt and WFLW_images/ with "
        "the folders of WIDER FACE in it"
    ),
    splits={"train": Split({"full": 7500}, METRICS), "test": Split(TEST, METRICS)},
    read=read,
    home="https://wywu.github.io/projects/LAB/WFLW.html: WFLW_images.tar.gz, WFLW_annotations.tar.gz",
    terms="research only",
    tops=("WFLW_images", "WFLW_annotations"),
)
