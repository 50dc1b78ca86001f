"""One pass of the detector over a picture of a size, suppression included; and the passes of ``det_size="auto"``."""

from __future__ import annotations

import cv2
import pytest

from facelm_sdk import Detector, zoo

from .measure.interleaved import Variant
from .measure.models import billions, chosen

SIDES = (("eager", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"))


@pytest.mark.parametrize(("backend", "precision"), SIDES)
@pytest.mark.parametrize("size", [320, 640, 1280], ids="size{}".format)
@pytest.mark.parametrize("model", chosen("detection"))
def test_detection(interleaved, models, picture, model, size, backend, precision):
    height = size * 3 // 4

    def make(backend, precision):
        session = models.session(model, backend, precision)
        image = cv2.resize(picture, (size, height))[None]
        boxes, scores, _ = session.run({"image": image})
        assert len(boxes) == len(scores)
        work = billions(model, size) * height / size
        return Variant(
            lambda: session.run({"image": image}), info={"weights": models.weights(model)}, multiply_adds=work
        )

    interleaved(("backend", "precision"), make)


@pytest.mark.parametrize("det_size", ["auto", 320, 640], ids=str)
@pytest.mark.parametrize("faces", ["1face", "16faces", "0faces"])
def test_det_size(interleaved, models, pictures, faces, det_size):
    """What "auto" costs against one pass of a size, all of picture to faces."""

    def make(det_size):
        detector = Detector(models.session(zoo.DETECTOR, "onnxruntime"), det_size=det_size)
        return Variant(lambda: detector(pictures[faces]), info={"found": len(detector(pictures[faces]))})

    interleaved(("det_size",), make)


@pytest.mark.parametrize("threads", [1, 2], ids="threads{}".format)
def test_detection_threads(interleaved, models, picture, threads):
    def make(threads):
        session = models.session(zoo.DETECTOR, "onnxruntime", threads=threads)
        return Variant(lambda: session.run({"image": picture[None]}))

    interleaved(("threads",), make)
