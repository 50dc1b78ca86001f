"""Picture in, faces out: backends, the one-file pipeline, flip averaging, many faces, stages, threads."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facelm_sdk import Aligner, zoo
from facelm_sdk.images.read import read_image
from facelm_sdk.runtimes.base import RuntimeOptions
from facelm_sdk.runtimes.onnxruntime import OrtSession

from .measure.interleaved import Variant
from .measure.machine import THREADS

FACES = ("1face", "16faces", "0faces")


def aligner(models, backend, det_size="auto"):
    """The packaged models in fp32 on a backend."""
    landmarks, detector = (models.session(name, backend) for name in (zoo.LANDMARKS, zoo.DETECTOR))
    return Aligner(landmarks, detector, det_size=det_size)


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "one_size", "pipeline", "default"])
@pytest.mark.parametrize("faces", FACES)
def test_aligner(interleaved, models, pictures, faces, backend):
    """``default`` is ``Aligner(threads=...)`` as a user gets it; ``pipeline`` the whole in one ONNX file.

    ``one_size`` composes in onnxruntime what the pipeline does, at its one size of the detector's picture.
    """
    image, count = pictures[faces], {"1face": 1, "16faces": 16, "0faces": 0}[faces]
    det_size = 640 if faces == "16faces" else 320  # the least that finds them

    def make(backend):
        if backend == "pipeline":
            session = OrtSession(models.pipeline(det_size), RuntimeOptions(threads=THREADS))
            assert len(session.run({"image": image})[0]) == count
            return Variant(lambda: session.run({"image": image}))
        if backend == "one_size":
            whole = aligner(models, "onnxruntime", det_size)
        else:
            whole = Aligner(threads=THREADS) if backend == "default" else aligner(models, backend)
        assert len(whole(image)) == count
        return Variant(lambda: whole(image))

    interleaved(("backend",), make)


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_aligner_flip(interleaved, picture, flip):
    def make(flip):
        whole = Aligner(threads=THREADS, flip=flip or None)
        return Variant(lambda: whole(picture))

    interleaved(("flip",), make)


@pytest.mark.parametrize("way", ["one_picture", "single_calls", "batch"])
def test_sixteen_faces(interleaved, pictures, way):
    """16 faces: in one picture, by one call for each of its 16 tiles, and the tiles as one batch."""
    image = pictures["16faces"]
    tiles = [np.ascontiguousarray(part) for row in np.split(image, 4) for part in np.split(row, 4, axis=1)]

    def make(way):
        whole = Aligner(threads=THREADS)
        runs = {
            "one_picture": lambda: whole(image),
            "single_calls": lambda: [whole(tile) for tile in tiles],
            "batch": lambda: whole.batch(tiles),
        }
        return Variant(runs[way])

    interleaved(("way",), make)


@pytest.mark.parametrize("stage", ["whole", "decode", "detect", "warp", "network", "map_back"])
def test_stages(interleaved, picture, stage):
    """Where the time goes from a 640x480 JPEG to a face: each stage by itself, beside the whole."""
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()

    def make(stage):
        whole = Aligner(threads=THREADS)
        landmarker = whole.landmarker
        image = read_image(data)
        found = whole.detector(image)
        transform = landmarker.recipe.transform(found.boxes[0], found.kps[0])
        crops = transform.warp(image)[None]
        landmarks = landmarker(crops)
        runs = {
            "whole": lambda: whole(data),
            "decode": lambda: read_image(data),
            "detect": lambda: whole.detector(image),
            "warp": lambda: landmarker.recipe.transform(found.boxes[0], found.kps[0]).warp(image, out=crops[0]),
            "network": lambda: landmarker.run(crops),
            "map_back": lambda: transform.invert(landmarks[0]),
        }
        return Variant(runs[stage])

    interleaved(("stage",), make)


@pytest.mark.parametrize("threads", [1, 2], ids="threads{}".format)
def test_aligner_threads(interleaved, picture, threads):
    def make(threads):
        whole = Aligner(threads=threads)
        return Variant(lambda: whole(picture))

    interleaved(("threads",), make)


@pytest.mark.parametrize("batch", [1, 8, 16], ids="batch{}".format)
def test_kps_given(interleaved, picture, batch):
    """Landmarks alone, through the Aligner: the five points are given for pictures of one face each."""
    whole = Aligner(threads=THREADS)
    kps = whole(picture)[0].kps

    def make(batch):
        return Variant(lambda: whole.batch([picture] * batch, kps=[kps] * batch))

    interleaved(("batch",), make)
