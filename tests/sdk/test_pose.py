"""Head pose from points: projected heads at known poses, and the signs that are promised."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError, MarkupError
from facelm_sdk.pose import HEAD_68, HeadPose, head_pose


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The 68 points of the head (68, 3) so turned, in the camera's axes."""
    a, b, c = np.radians([-yaw, -pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return HEAD_68 @ (about_z @ about_x @ about_y).T


def seen(head: np.ndarray, focal: float, centre: tuple[float, float], at: tuple[float, float, float]) -> np.ndarray:
    """A pinhole camera's picture (68, 2) of points (68, 3) moved to ``at``, centimetres."""
    moved = head + np.array(at)
    return focal * moved[:, :2] / moved[:, 2:] + centre


POSES = list(itertools.product((-75, -30, 0, 20, 60), (-25, 0, 20), (-170, -90, 0, 35)))


@pytest.mark.parametrize("distance", [80, 100, 130])
def test_poses_are_found_again_as_seen(distance):
    for pose in POSES:
        found = head_pose(seen(turned(*pose), 900, (700, 300), (0, 0, distance)))
        np.testing.assert_allclose(found, pose, atol=2.0)


def test_a_known_camera_gives_the_pose_to_its_axis():
    """A face at the picture's edge is seen from the side; the camera's size says by how much."""
    size = (1280, 720)
    for pose in POSES:
        points = seen(turned(*pose), 1280, (639.5, 359.5), (30, 10, 90))
        np.testing.assert_allclose(head_pose(points, size=size), pose, atol=0.01)
    points = seen(turned(0, 0, 0), 1280, (639.5, 359.5), (30, 0, 90))
    assert head_pose(points).yaw == pytest.approx(np.degrees(np.arctan(30 / 90)), abs=4)


@pytest.mark.parametrize("distance", [1000, 5000, 50000])
def test_small_faces_of_a_known_camera(distance):
    """Down to a face of a third of a pixel, whose points are exact here."""
    points = seen(turned(30, -10, 5), 1280, (639.5, 359.5), (0, 0, distance))
    np.testing.assert_allclose(head_pose(points, size=(1280, 720)), (30, -10, 5), atol=0.05)


def test_the_rotation_of_a_pose_turns_the_head():
    for pose in POSES:
        np.testing.assert_allclose(HEAD_68 @ HeadPose(*pose).rotation.T, turned(*pose), atol=1e-12)


def test_signs():
    points = seen(turned(30, 0, 0), 1000, (0, 0), (0, 0, 200))
    assert points[30, 0] > points[[36, 45], 0].mean(), "the nose leads to the right"
    points = seen(turned(0, 30, 0), 1000, (0, 0), (0, 0, 200))
    assert points[30, 1] < seen(turned(0, 0, 0), 1000, (0, 0), (0, 0, 200))[30, 1], "the nose leads up"
    points = seen(turned(0, 0, 30), 1000, (0, 0), (0, 0, 200))
    assert points[45, 1] > points[36, 1], "clockwise: the eye to the right is lower"


def test_a_mirror_image_looks_the_other_way():
    points = seen(turned(25, -10, 15), 900, (0, 0), (0, 0, 100))
    mirrored = points[list(markups.get("ibug68").flip)] * (-1, 1)
    np.testing.assert_allclose(head_pose(mirrored), np.array(head_pose(points)) * (-1, 1, -1), atol=1e-3)


def test_noise_moves_it_little():
    rng = np.random.default_rng(0)
    clean = seen(turned(35, 10, 0), 1000, (0, 0), (0, 0, 100))
    eyes = np.linalg.norm(clean[36] - clean[45])
    found = [head_pose(clean + rng.normal(0, 0.03 * eyes, clean.shape)) for _ in range(20)]
    assert np.abs(np.array(found)[:, 0] - 35).mean() < 3


def test_denser_markups_and_what_is_refused():
    dense = np.zeros((98, 2))
    points = seen(turned(20, 0, 0), 900, (50, 50), (0, 0, 100))
    marks = np.arange(98, dtype=float).repeat(2).reshape(98, 2)
    for index, place in enumerate(markups.convert(marks, "wflw98", "ibug68")[:, 0].astype(int)):
        dense[place] = points[index]
    assert head_pose(dense, "wflw98") == head_pose(points)
    with pytest.raises(MarkupError):
        head_pose(np.zeros((29, 2)), "cofw29")
    for bad in (np.full((68, 2), np.nan), np.zeros((2, 68, 2)), np.zeros((68, 2)), points * 1e200):
        with pytest.raises(InputError):
            head_pose(bad)
    with pytest.raises(InputError, match="width, height"):
        head_pose(points, size=(0, 480))


def test_points_of_no_face_have_a_finite_pose_or_an_error():
    """On a line, on two places, upside down, of any size: never an error of OpenCV's."""
    rng = np.random.default_rng(0)
    line = np.stack([np.arange(68.0), np.zeros(68)], 1)
    odd = [line, line[:, ::-1], np.repeat([[0.0, 0], [9, 9]], 34, axis=0), HEAD_68[:, :2] * (1, -1), np.eye(68, 2)]
    odd += [HEAD_68[:, :2] * size + at for size in (1e-12, 1e-5, 1e6, 1e30) for at in (0, 300, 1e9)]
    odd += [rng.normal(0, 1, (68, 2)) * rng.choice([0, 1e-4, 1, 100], 2) for _ in range(100)]
    for points, size in itertools.product(odd, (None, (640, 480))):
        try:
            assert np.isfinite(head_pose(points, size=size)).all()
        except InputError:
            assert np.ptp(points) < 1e-3 or np.ptp(points) > 1e20
