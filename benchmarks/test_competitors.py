"""Aligner and Tracker beside other people's, picture to landmarks, detection included, each in its own process."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facelm_sdk import Aligner, Detector
from facelm_sdk.bench import PICTURE
from facelm_sdk.video.tracker import Tracker

from .measure.competitor_process import competitor
from .measure.competitors import frames
from .measure.interleaved import Variant
from .measure.machine import THREADS


@pytest.mark.parametrize("who", ["facelm", "mediapipe_static", "insightface", "face_alignment"])
def test_static(interleaved, picture, who):
    """One 640x480 picture with one face, looked at as if for the first time."""

    def make(who):
        if who != "facelm":
            return competitor(who, PICTURE)
        aligner = Aligner(threads=THREADS)
        assert len(aligner(picture)) == 1
        return Variant(lambda: aligner(picture), info={"precision": aligner.landmarker.spec.precision})

    interleaved(("who",), make, rounds=5)


@pytest.mark.parametrize("who", ["facelm", "mediapipe_tracking"])
def test_tracking(interleaved, picture, who):
    """A 640x480 video of one face that moves two pixels a frame."""

    def make(who):
        if who != "facelm":
            return competitor(who, PICTURE)
        tracker = Tracker(Aligner(threads=THREADS), max_faces=1)
        video = frames(np.asarray(picture))
        assert len(tracker(next(video))) == 1
        return Variant(lambda: tracker(next(video)))

    interleaved(("who",), make, rounds=5)


FACES = (
    "empty",
    "five",
    *(f"{ground}{side}" for side in (60, 80, 120, 160, 240, 320) for ground in ("plain", "clutter")),
)


@pytest.fixture(scope="module")
def drawn(picture):
    """Draws a 640x480 picture: a face of so many pixels on a plain or a cluttered ground, five faces, or none."""
    (box,) = Detector()(picture).boxes
    middle, long = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())

    def ground(cluttered):
        image = np.full((480, 640, 3), 120, np.uint8)
        rng = np.random.default_rng(0)
        for _ in range(400 * cluttered):
            colour, (x, y), size = rng.integers(0, 256, 3).tolist(), rng.integers(0, 640, 2), rng.integers(4, 60, 2)
            if rng.random() < 0.5:
                cv2.rectangle(image, (int(x), int(y)), (int(x + size[0]), int(y + size[1])), colour, -1)
            else:
                cv2.circle(image, (int(x), int(y)), int(size[0]) // 2, colour, int(rng.choice([-1, 2])))
        return image

    def paste(image, side, where):
        scale = side / long
        matrix = np.concatenate([scale * np.eye(2), (np.array(where) - scale * middle)[:, None]], 1)
        border = cv2.BORDER_TRANSPARENT
        return cv2.warpAffine(picture, matrix, (640, 480), image, flags=cv2.INTER_AREA, borderMode=border)

    def draw(name):
        if name == "empty":
            return ground(True)
        if name == "five":
            image = ground(False)
            for x, y in ((100, 120), (320, 110), (540, 120), (200, 350), (440, 350)):
                image = paste(image, 80, (x, y))
            return image
        return paste(ground(name.startswith("clutter")), int(name.lstrip("plaincuter")), (320, 240))

    return draw


@pytest.mark.parametrize("who", ["facelm", "mediapipe_static"])
@pytest.mark.parametrize("faces", FACES)
def test_pictures(interleaved, drawn, tmp_path, faces, who):
    """Pictures of 640x480, one after the other looked at as if for the first time; ``found`` says how many faces."""
    image = drawn(faces)
    file = tmp_path / "picture.png"
    cv2.imwrite(str(file), image)

    def make(who):
        if who != "facelm":
            return competitor(who, file, must_find=False)
        aligner = Aligner(threads=THREADS)
        return Variant(lambda: aligner(image), info={"found": len(aligner(image))})

    interleaved(("who",), make)


@pytest.mark.parametrize("who", ["facelm", "mediapipe_tracking"])
@pytest.mark.parametrize("faces", [name for name in FACES if name[-1:].isdigit()])
def test_videos(interleaved, drawn, tmp_path, faces, who):
    """The same pictures with one face as videos in which it moves two pixels a frame."""
    image = drawn(faces)
    file = tmp_path / "picture.png"
    cv2.imwrite(str(file), image)

    def make(who):
        if who != "facelm":
            return competitor(who, file, must_find=False)
        tracker = Tracker(Aligner(threads=THREADS), max_faces=1)
        video = frames(image)
        return Variant(lambda: tracker(next(video)), info={"found": len(tracker(next(video)))})

    interleaved(("who",), make)
