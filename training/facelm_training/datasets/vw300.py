"""300-VW (Shen et al., ICCVW 2015): 114 videos with 68 points in every frame; 50 train, 64 test in three scenarios.

``<number>/vid.avi`` and ``<number>/annot/<frame>.pts``, frames from 000001. Scenario A has videos of well-lit faces, B
of varied light and expressions, C of anything. A video whose frames lie beside it as pictures,
``<number>/frames/000001.jpg``, is read from there: a video gives frames in order fast, and any other after a search.

Coordinates begin at 1 (as menpo reads them), so 1 is taken off; with the label ``raw`` they stay as written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facelm_sdk.errors import ImageError
from facelm_sdk.images.header import SUFFIXES
from facelm_sdk.types import ImageArray

from .base import Info, Metric, Sample, Split, build, first_of, wrong_folder
from .w300 import read_pts

SCENARIOS = {
    "a": (
        *(114, 124, 125, 126, 150, 158, 401, 402, *range(505, 512), 514, 515, *range(518, 523), 524, 525),
        *(537, 538, 540, 541, 546, 547, 548),
    ),
    "b": (203, 208, 211, 212, 213, 214, 218, 224, *range(403, 410), 412, 550, 551, 553),
    "c": (410, 411, 516, 517, 526, 528, 529, 530, 531, 533, 557, 558, 559, 562),
}
TRAIN = (
    *(1, 2, 3, 4, 7, 9, 10, 11, 13, 15, 16, 17, 18, 19, 20, 22, 25, 27, 28, 29, 31, 33, 34, 35, 37, 39, 41, 43, 44, 46),
    *(47, 48, 49, 53, 57, 59, 112, 113, 115, 119, 120, 123, 138, 143, 144, 160, 204, 205, 223, 225),
)
METRICS = (Metric("inter_ocular", 0.08),)


class Video:
    """The frames of a video file by number, from 0."""

    def __init__(self, path: Path) -> None:
        self.path, self._next = path, 0
        self._capture: Any = None
        self._lock = threading.Lock()

    def frame(self, index: int) -> ImageArray:
        """Frame (H, W, 3) uint8 BGR. Raises ImageError."""
        with self._lock:
            if self._capture is None:
                self._capture = cv2.VideoCapture(str(self.path))
            if index != self._next:
                self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            read, image = self._capture.read()
            self._next = index + 1
        if not read:
            raise ImageError(f"{self.path}: frame {index + 1} cannot be read")
        return np.asarray(image, np.uint8)


def read(folder: Path, split: str, label: str, subset: str) -> list[Sample]:
    """The frames of a split; ``name`` is the video's number and the frame's. Videos of ``subset`` need be there."""
    sources: list[Path | Callable[[], ImageArray]] = []
    names, points, subsets = [], [], []
    for part, numbers in {"": TRAIN}.items() if split == "train" else SCENARIOS.items():
        if subset not in ("full", part):
            continue
        for number in numbers:
            place = first_of(INFO, folder, f"{number:03d}", f"300VW_Dataset_2015_12_14/{number:03d}")
            annotations = sorted((place / "annot").glob("*.pts"))
            if not annotations:
                wrong_folder(INFO, folder, f"the .pts files in {number:03d}/annot")
            video = Video(place / "vid.avi")
            pictures = {path.stem: path for path in (place / "frames").glob("*") if path.suffix.lower() in SUFFIXES}
            if not pictures and not video.path.is_file():
                wrong_folder(INFO, folder, f"{number:03d}/vid.avi")
            for annotation in annotations:
                if not annotation.stem.isdecimal():
                    wrong_folder(INFO, folder, f"a frame's number in {number:03d}/annot/{annotation.name}")
                if pictures and annotation.stem not in pictures:
                    wrong_folder(INFO, folder, f"the picture of {number:03d}/annot/{annotation.name}")
                frame = int(annotation.stem) - 1
                sources.append(pictures[annotation.stem] if pictures else partial(video.frame, frame))
                names.append(f"{number:03d}#{annotation.stem}")
                points.append(read_pts(annotation))
                subsets.append([part] if part else [])
    return build("ibug68", names, sources, np.stack(points) - (label != "raw"), subsets=subsets)


INFO = Info(
    name="300vw",
    markup="ibug68",
    layout="<number>/vid.avi (or <number>/frames/000001.jpg ...) and <number>/annot/000001.pts ... of the 114 videos",
    splits={
        "train": Split({"full": 95_192}, METRICS),
        "test": Split({"a": 62_135, "b": 32_805, "c": 26_338, "full": 121_278}, METRICS),
    },
    read=read,
    labels=("", "raw"),
    home="https://ibug.doc.ic.ac.uk/resources/300-VW/: 300VW_Dataset_2015_12_14.zip",
    terms="research only",
)
