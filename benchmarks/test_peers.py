"""Finders of faces and their points side by side: time, faces found, false ones, and error against labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from facelm_sdk import Aligner, Detector
from facelm_sdk.bench import PICTURE

from .measure.competitor_process import started
from .measure.interleaved import Variant
from .measure.machine import THREADS
from .measure.peer_scores import scores

DATA = Path(os.environ.get("FACELM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
RETINAFACE = os.environ.get("FACELM_BENCH_RETINAFACE", "")
"""A detector as facelm-export writes it, such as the published RetinaFace."""

WHAT = {
    "facelm": "Aligner()",
    "mediapipe": "FaceMesh, 68 of its vertices",
    "pfld": "PFLD by its own light detector",
    "insightface": "a pack of insightface",
    "face_alignment": "FAN-4 by S3FD",
    "retinaface_published": "RetinaFace MobileNet-0.25 as published, boxes alone, 640 px",
    "retinaface_lite": "our detector alone",
    "yunet": "YuNet, boxes alone",
}
_scored: dict[str, dict[str, Any]] = {}


@pytest.mark.parametrize("faces", ["one", "none"])
@pytest.mark.parametrize("who", WHAT)
def test_peers(interleaved, picture, tmp_path, faces, who):
    """A 640x480 picture with one face, or with none; what each finds on labelled pictures stands beside."""
    file = PICTURE
    image = picture
    if faces == "none":
        file, image = tmp_path / "none.png", noise()
        cv2.imwrite(str(file), image)

    def make(who):
        if who in ("facelm", "retinaface_lite", "retinaface_published"):
            run = ours(who)
            runs, find = None, lambda path: run(cv2.imread(str(path)))
        else:
            ask, _ = started(who, file)
            run, runs, find = None, ask, lambda path: ask(str(path))
        if faces == "one":
            _scored[who] = _scored.get(who) or scores(find, DATA)
        own = {"what": WHAT[who], **_scored.get(who, {})}
        return Variant(run=None if run is None else lambda: run(image), runs=runs, info=own)

    interleaved(("who",), make, rounds=10)


def ours(who):
    """Finds faces in an array by this package."""
    if who == "facelm":
        aligner = Aligner(threads=THREADS)
        return lambda image: [(face.bbox, face.landmarks) for face in aligner(image)]
    if who == "retinaface_published":
        if not Path(RETINAFACE).is_file():
            pytest.skip("no published RetinaFace: FACELM_BENCH_RETINAFACE is its .onnx (facelm-export --from)")
        detector = Detector(RETINAFACE, det_size=640, threads=THREADS)
    else:
        detector = Detector(threads=THREADS)
    return lambda image: [(box, []) for box in detector(image).boxes]


def noise() -> np.ndarray:
    """Rectangles and circles of all colours on grey, 640x480."""
    image = np.full((480, 640, 3), 120, np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(200):
        colour, (x, y), size = rng.integers(0, 256, 3).tolist(), rng.integers(0, 640, 2), rng.integers(4, 60, 2)
        cv2.rectangle(image, (int(x), int(y)), (int(x + size[0]), int(y + size[1])), colour, -1)
    return image
