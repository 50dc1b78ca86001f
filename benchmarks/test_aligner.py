"""The whole way: picture in, faces out."""

from __future__ import annotations

import pytest

from facelm_sdk import Aligner


@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_aligner(measure, models, picture, runtime, flip):
    landmarks, detector = (models[name].session(runtime) for name in ("lotr_m", "retinaface_mnet025"))
    aligner = Aligner(landmarks, detector, flip=flip or None, max_faces=1)
    faces = measure(f"aligner, one face{', flip averaging' if flip else ''}", runtime, aligner, picture)
    assert len(faces) == 1
