"""Drawing."""

from __future__ import annotations

import numpy as np
import pytest

from facelm_sdk import Aligner
from facelm_sdk.images.draw import draw


@pytest.mark.parametrize("side", [30, 200, 1000])
@pytest.mark.parametrize("markup", ["kps5", "aflw19", "cofw29", "ibug68", "wflw98", "jd106"])
def test_draws_on_a_copy(landmark_model, detector_model, scene, side, markup):
    picture = scene(1200, 1100, (50, 40, 50 + side, 40 + side))
    faces = Aligner(landmark_model(markup=markup), detector_model())(picture)
    before = picture.copy()
    drawn = draw(picture, faces, kps=True)
    np.testing.assert_array_equal(picture, before)
    changed = (drawn != picture).any(axis=2)
    assert changed.any()
    assert changed.mean() < 0.2
    assert drawn.shape == picture.shape and drawn.dtype == np.uint8


def test_no_faces(scene):
    picture = scene(60, 60, (10, 10, 30, 30))
    np.testing.assert_array_equal(draw(picture, []), picture)
