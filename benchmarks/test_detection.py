"""One pass of the detector, its suppression included."""

from __future__ import annotations

import cv2
import pytest


@pytest.mark.parametrize("size", [320, 640])
def test_detection(measure, models, picture, runtime, size):
    session = models["retinaface_mnet025"].session(runtime)
    image = cv2.resize(picture, (size, size))[None]
    boxes, scores, _ = measure(f"detection, {size}x{size}", runtime, session.run, {"image": image})
    assert len(boxes) == len(scores)
