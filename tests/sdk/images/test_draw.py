"""Drawing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facelm_sdk import Aligner, Face
from facelm_sdk.images.draw import _AXES, draw
from facelm_sdk.markup import convert
from facelm_sdk.pose import HEAD_68, HeadPose
from facelm_sdk.transform import CropTransform


@pytest.mark.parametrize("side", [30, 200, 1000])
@pytest.mark.parametrize("markup", ["kps5", "aflw19", "cofw29", "ibug68", "wflw98", "jd106"])
def test_draws_on_a_copy(landmark_model, detector_model, scene, side, markup):
    picture = scene(1200, 1100, (50, 40, 50 + side, 40 + side))
    faces = Aligner(landmark_model(markup=markup), detector_model(), realign=False)(picture)
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


def test_unsure_points_are_fainter(landmark_model, detector_model, scene):
    picture = scene(400, 400, (50, 40, 350, 340)) // 2 + 60
    face = Aligner(landmark_model(), detector_model(), min_presence=0, realign=False)(
        scene(400, 400, (50, 40, 350, 340))
    )[0]
    sure = draw(picture, [replace(face, scores=np.full(68, 0.9, np.float32))], boxes=False)
    np.testing.assert_array_equal(sure, draw(picture, [face], boxes=False))
    none = draw(picture, [replace(face, scores=np.full(68, 0.1, np.float32))], boxes=False)
    contrast = [np.abs(drawn.astype(int) - picture).sum() for drawn in (sure, none)]
    assert 0.25 < contrast[1] / contrast[0] < 0.45
    jaw = np.where(np.arange(68) < 17, 0.1, 0.9).astype(np.float32)
    mixed = draw(picture, [replace(face, scores=jaw)], boxes=False)
    x, y = np.rint(face.landmarks[30]).astype(int)
    np.testing.assert_array_equal(mixed[y, x], sure[y, x])
    contrast.append(np.abs(mixed.astype(int) - picture).sum())
    assert contrast[1] < contrast[2] < contrast[0]


def test_axes_of_the_pose(scene):
    """Of a head that looks to the right and tilts: red goes right and down, blue to where it looks."""
    pose = HeadPose(30, 0, 20)
    seen = (HEAD_68 @ pose.rotation.T)[:, :2] * 20 + 200
    points = seen.astype(np.float32)
    face = Face(
        bbox=np.concatenate([points.min(0), points.max(0)]),
        score=None,
        kps=convert(points, "ibug68", "kps5"),
        landmarks=points,
        scores=None,
        markup="ibug68",
        transform=CropTransform(np.eye(2, 3), 32),
    )
    picture = np.zeros((400, 400, 3), np.uint8)
    more = (draw(picture, [face], pose=True) != draw(picture, [face])).any(axis=2)
    below = int(points[:, 1].max()) + 3
    assert more[:below].sum() > 300 and more[below:].sum() > 100  # the axes, and the numbers below the face
    nose = points[30]
    for colour, index in ((_AXES[0], 0), (_AXES[1], 1), (_AXES[2], 2)):
        drawn = (draw(picture, [face], pose=True) == colour).all(axis=2)
        y, x = np.nonzero(drawn)
        along = np.array([x.mean(), y.mean()]) - nose
        wanted = (pose.rotation * (1, 1, -1))[:2, index]
        assert along @ wanted / np.linalg.norm(along) / np.linalg.norm(wanted) > 0.98, index
    flat = replace(face, markup="kps5", landmarks=face.kps)
    np.testing.assert_array_equal(draw(picture, [flat], pose=True), draw(picture, [flat]))
