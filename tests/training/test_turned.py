"""Turned photographs: the fitted head has the pose that the points were made with, and turning is a rotation."""

from __future__ import annotations

import numpy as np
import pytest

from facelm_sdk.errors import InputError
from facelm_training import datasets
from facelm_training.turned import FLIP_Y, Head, fit, make, turn


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The front of an ellipsoid with the landmarks of a face on it, in the file format of the morphable head."""
    rng = np.random.default_rng(0)
    xs, ys = np.meshgrid(np.linspace(-7, 7, 57), np.linspace(-9, 9, 73))
    inside = np.maximum(1 - (xs / 7.5) ** 2 - (ys / 10) ** 2, 0.0)
    neutral = np.stack([xs, ys, 9 * np.sqrt(inside)], -1).reshape(-1, 3)
    corner = np.arange(56)[None, :] + 57 * np.arange(72)[:, None]
    quads = np.stack([corner, corner + 1, corner + 58, corner + 57], -1).reshape(-1, 4)
    angles = np.linspace(np.pi, 2 * np.pi, 17)
    jaw = np.stack([6.5 * np.cos(angles), 7.5 * np.sin(angles)], 1)
    ring = np.linspace(0, 2 * np.pi, 7)[:-1]
    eyes = [np.stack([x - 1.3 * np.cos(ring), 3 + 0.7 * np.sin(ring)], 1) for x in (-3, 3)]
    mouth = np.linspace(0, 2 * np.pi, 21)[:-1]
    wanted = np.concatenate(
        [
            jaw,
            np.stack([np.linspace(-5, 5, 10), np.full(10, 5.0)], 1),
            np.stack([np.zeros(9), np.linspace(3, -1, 9)], 1),
            *eyes,
            np.stack([-2.5 * np.cos(mouth), -4 + np.sin(mouth)], 1),
        ]
    )
    landmarks = [int(np.linalg.norm(neutral[:, :2] - point, axis=1).argmin()) for point in wanted]
    smooth = rng.normal(0, 1, (6, 3))
    shapes = np.stack([0.2 * np.sin(neutral * frequency / 4) for frequency in smooth]).astype(np.float16)
    path = tmp_path_factory.mktemp("head") / "ict_face_model.npz"
    np.savez(
        path,
        neutral=neutral.astype(np.float32),
        identity=shapes[:4],
        expression=shapes[4:],
        quads=quads.astype(np.int32),
        landmarks68=np.array(landmarks, np.int32),
    )
    return Head(path)


def rotation(yaw):
    a = np.radians(yaw)
    return np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])


def points_at(head, yaw):
    return 9 * (head.neutral[head.landmarks] @ rotation(yaw).T)[:, :2] + (150, 160)


@pytest.mark.parametrize("yaw", [-30, 0, 20])
def test_the_pose_is_found(head, yaw):
    found = fit(head, points_at(head, yaw))
    assert found.yaw == pytest.approx(yaw, abs=3)
    assert found.scale == pytest.approx(9, rel=0.03)
    assert found.error < 0.02
    depth = 9 * (head.neutral @ rotation(yaw).T)[head.landmarks[17:], 2]
    assert np.corrcoef(found.vertices[head.landmarks[17:], 2], depth)[0, 1] > 0.98


def test_turning_is_a_rotation_of_pixels_and_points_alike(head):
    """A spot on each landmark of the eyes and the mouth moves with it; nothing moves without a turn."""
    points = points_at(head, 0)
    image = np.full((320, 300, 3), 128, np.uint8)
    spots = (36, 45, 57)
    for spot, colour in zip(spots, np.eye(3), strict=True):
        x, y = points[spot].round().astype(int)
        image[y - 2 : y + 3, x - 2 : x + 3] = 255 * colour
    found = fit(head, points)
    still = turn(image, points, found, head, 0)
    np.testing.assert_allclose(still.points, points, atol=1e-3)
    assert np.abs(still.image.astype(int) - image).mean() < 1
    turned = turn(image, points, found, head, 25)
    assert turned.yaw == pytest.approx(25, abs=3)
    expected = 9 * (head.neutral[head.landmarks] @ rotation(25).T)[:, :2]
    inner = turned.points[17:] - turned.points[27]
    np.testing.assert_allclose(inner, (expected - expected[27])[17:], atol=3)
    for channel, spot in enumerate(spots):
        others = turned.image.astype(int).sum(2) - turned.image[..., channel]
        rows, columns = np.nonzero((turned.image[..., channel] > 200) & (others < 100))
        np.testing.assert_allclose([columns.mean(), rows.mean()], turned.points[spot], atol=2)


def test_the_contour_of_the_far_side_is_not_known(head):
    points = points_at(head, 0)
    image = np.zeros((320, 300, 3), np.uint8)
    found = fit(head, points)
    for yaw, far, near in ((30, slice(9, 17), slice(0, 6)), (-30, slice(0, 8), slice(11, 17))):
        known = turn(image, points, found, head, yaw).known
        assert not known[far].any() and known[near].all()
    assert turn(image, points, found, head, 0).known.all()


def test_the_data_set_of_turned_faces(head, tmp_path):
    sample = datasets.base.build(
        "ibug68", ["a/b.png"], [lambda: np.full((320, 300, 3), 90, np.uint8)], points_at(head, 0)[None]
    )
    assert make(head, sample, tmp_path, views=2) == 2
    faces = datasets.open(f"turned68:{tmp_path}")
    assert [face.name for face in faces] == ["a_b_0.jpg", "a_b_1.jpg"]
    for face in faces:
        assert face.image().shape == (320, 300, 3) and face.known.shape == (68,) and not face.known.all()
    (tmp_path / "a_b_1.jpg").unlink()
    with pytest.raises(InputError, match="lacks 1 pictures"):
        datasets.open(f"turned68:{tmp_path}")


def test_a_file_that_is_no_head_is_told(tmp_path):
    np.savez(tmp_path / "x.npz", neutral=np.zeros((3, 3)))
    for name in ("x.npz", "none.npz"):
        with pytest.raises(InputError, match="is not ict_face_model"):
            Head(tmp_path / name)


def test_the_head_is_flipped_to_image_axes(head):
    """y points down: the mouth lies below the eyes."""
    assert head.neutral[head.landmarks[57], 1] > head.neutral[head.landmarks[40], 1]
    assert FLIP_Y.tolist() == [1, -1, 1]
