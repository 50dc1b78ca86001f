"""Crops to landmarks, in batches, with and without flip averaging."""

from __future__ import annotations

import pytest

from facelm_export.samples import portrait_crops
from facelm_sdk import Landmarker


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("batch", [1, 8])
def test_landmarks(measure, models, runtime, batch, flip):
    landmarker = Landmarker(models["lotr_m"].session(runtime), flip=flip or None)
    crops = portrait_crops(landmarker.spec, batch)
    group = f"landmarks, batch {batch}{', flip averaging' if flip else ''}"
    assert measure(group, runtime, landmarker, crops).shape == (batch, 68, 2)
