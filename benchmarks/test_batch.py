"""Many pictures: a plain loop, and a batch that aligns as many side by side as there are threads."""

from __future__ import annotations

import cv2
import pytest

from facelm_sdk import Aligner

from .measure.interleaved import Variant
from .measure.machine import THREADS

PICTURES = 16


@pytest.mark.parametrize("way", ["loop", "batch"])
@pytest.mark.parametrize("source", ["array", "jpeg", "jpeg12mp"])
def test_batch(interleaved, picture, source, way):
    """16 pictures of one face: 640x480, decoded or a JPEG's bytes, and a JPEG of 12 megapixels."""
    large = cv2.resize(picture, (4000, 3000), interpolation=cv2.INTER_CUBIC) if source == "jpeg12mp" else picture
    one = picture if source == "array" else cv2.imencode(".jpg", large)[1].tobytes()
    images = [one] * PICTURES

    def make(way):
        whole = Aligner()
        assert len(whole(one)) == 1
        runs = {
            "loop": lambda: [whole(image) for image in images],
            "batch": lambda: whole.batch(images, workers=THREADS),
        }
        return Variant(runs[way], info={"pictures": PICTURES, "workers": THREADS if way == "batch" else 1})

    interleaved(("way",), make)
