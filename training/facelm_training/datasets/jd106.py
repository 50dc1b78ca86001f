"""JD-landmark (Liu et al., 2019), of the Grand Challenge of 106-point facial landmark localization: 15,393 faces.

Folders ``picture``, ``landmark`` and, in some parts, ``rect``, at any depth: ``picture/NAME.jpg``,
``landmark/NAME.jpg.txt`` (106 in the first line, then x y a line) and ``rect/NAME.jpg.rect`` (x1 y1 x2 y2); rectangles
may lie in a folder of their own elsewhere. The split is told by a folder's name that begins with train, val or test
(``Training_data/AFW/picture``, ``Test_data1/picture``); folders of no such name belong to whichever split is asked for.
Coordinates begin at 0, as the challenge's page says. There are 11,393, 2,000 and 2,000 faces.

Errors are divided by the square root of the area of the landmarks' box, and the threshold is 8%.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelm_sdk.errors import InputError
from facelm_sdk.images.header import SUFFIXES

from .base import Info, Metric, Sample, Split, build, numbers, read_text, wrong_folder

METRICS = (Metric("box", 0.08),)
SPLITS = ("train", "val", "test")


def read_points(path: Path) -> NDArray[np.float64]:
    """The points (106, 2) of a landmark file. Raises InputError."""
    words = read_text(path).split()
    if not words or words[0] != "106" or len(words) != 1 + 2 * 106:
        raise InputError(f"{path} is not 106 in the first line and x y in 106 lines; it is damaged")
    return numbers(words[1:], str(path)).reshape(-1, 2)


def _split_of(place: Path, folder: Path) -> str | None:
    """The split that the folders from ``folder`` down to ``place`` tell, the deepest first."""
    for name in reversed((folder.resolve().name, *place.relative_to(folder).parts)):
        for split in SPLITS:
            if name.lower().startswith(split):
                return split
    return None


def _box(path: Path) -> NDArray[np.float64]:
    values = numbers(read_text(path).replace(",", " ").split(), str(path))
    if values.size != 4:
        raise InputError(f"{path} holds {values.size} numbers, not x1 y1 x2 y2")
    return values


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The faces of a split, with boxes where all have a .rect file; ``name`` is the picture's path in the folder."""
    places = [place.parent for place in sorted(folder.rglob("picture")) if place.is_dir()]
    places = [place for place in places if _split_of(place, folder) in (split, None)]
    paths = [
        path for place in places for path in sorted((place / "picture").iterdir()) if path.suffix.lower() in SUFFIXES
    ]
    if not paths:
        wrong_folder(INFO, folder, f"a folder picture/ with pictures of the {split} split")
    annotations = [path.parents[1] / "landmark" / f"{path.name}.txt" for path in paths]
    missing = [path for path in annotations if not path.is_file()]
    if missing:
        wrong_folder(INFO, folder, f"{len(missing)} landmark files, the first of them {missing[0].relative_to(folder)}")
    rects = {path.name: path for path in folder.rglob("*.rect")}
    own = [rects.get(f"{path.name}.rect") for path in paths]
    boxes = [_box(path) for path in own if path is not None]
    return build(
        "jd106",
        [path.relative_to(folder).as_posix() for path in paths],
        paths,
        np.stack([read_points(path) for path in annotations]),
        boxes=np.stack(boxes) if len(boxes) == len(paths) else None,
    )


INFO = Info(
    name="jd106",
    markup="jd106",
    layout=(
        "folders picture/ (NAME.jpg), landmark/ (NAME.jpg.txt) and perhaps rect/ (NAME.jpg.rect) in folders whose "
        "names begin with Train, Val or Test"
    ),
    splits={
        "train": Split({"full": 11_393}, METRICS),
        "val": Split({"full": 2000}, METRICS),
        "test": Split({"full": 2000}, METRICS),
    },
    read=read,
    home="https://facial-landmarks-localization-challenge.github.io/, on request",
    terms="research only",
)
