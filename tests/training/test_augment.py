"""Augmentation: repeatable, and points stay on what they mark."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facelm_models import create
from facelm_sdk import markup as markups
from facelm_training import augment, landmarks
from facelm_training.data import drawn, shuffled
from facelm_training.landmarks import LandmarkTask
from facelm_training.loop import Schedule
from facelm_training.objectives import HeatmapWeights
from facelm_training.recipe import Augmentation, LandmarkRecipe, Stage

from .conftest import LEFT, RIGHT, centroid


@pytest.fixture
def picture():
    return np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        augment.photometric,
        augment.degrade,
        lambda image, rng: augment.channel_gains(image, rng, 0.4),
        lambda image, rng: augment.occlude(image, rng, image[::-1]),
        lambda image, rng: augment.jitter_matrix(np.eye(2, 3), 64, rng),
    ],
    ids=["photometric", "degrade", "gains", "occlude", "jitter"],
)
def test_a_generator_decides_everything(picture, change):
    before = picture.copy()
    outputs = [change(picture, np.random.default_rng(seed)) for seed in range(12)]
    again = [change(picture, np.random.default_rng(seed)) for seed in range(12)]
    for one, other in zip(outputs, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == outputs[0].dtype and one.shape == outputs[0].shape
    assert len({output.tobytes() for output in outputs}) > 6
    np.testing.assert_array_equal(picture, before)


def test_occlusion_is_a_rectangle_of_at_most_a_third(picture):
    for seed in range(20):
        covered = (augment.occlude(picture, np.random.default_rng(seed), 255 - picture) != picture).any(-1)
        rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
        assert 0 < np.ptp(rows) < 0.39 * 64 and 0 < np.ptp(columns) < 0.39 * 64


def test_text_is_written_beside_the_faces():
    changed = []
    boxes = np.float32([[20, 30, 70, 90], [90, 80, 120, 115]])
    for seed in range(150):
        picture = np.zeros((128, 128, 3), np.uint8)
        augment.write_text(picture, np.random.default_rng(seed), boxes)
        for x1, y1, x2, y2 in boxes.astype(int):
            assert not picture[y1 : y2 + 1, x1 : x2 + 1].any(), seed
        changed.append(picture.any())
    assert np.mean(changed) > 0.5
    picture = np.zeros((128, 128, 3), np.uint8)
    augment.write_text(picture, np.random.default_rng(0), np.zeros((0, 4), np.float32))
    assert picture.any()


def test_jitter_is_about_the_crops_centre():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        matrix = augment.jitter_matrix(np.eye(2, 3), 101, rng, degrees=40, scale=0.3, shift=0.0)
        np.testing.assert_allclose(matrix @ (50, 50, 1), (50, 50), atol=1e-9)
        linear = matrix[:, :2]
        np.testing.assert_allclose(linear @ linear.T, np.linalg.det(linear) * np.eye(2), atol=1e-9)


def task(faces, size=96, **options):
    stage = Stage("test", Schedule(steps=4, batch=4), "full", size)
    recipe = LandmarkRecipe("lotr_m", (stage,), **options)
    return LandmarkTask(create("lotr_m", size=64), recipe, stage, faces, faces)


def sample(made, index, seed):
    """A crop (S, S, 3) and its points (68, 2) in pixels."""
    rng = np.random.default_rng(seed)
    return made.view(index, made.cut(index, rng), rng)[:2]


def test_channels_have_their_own_gains():
    grey = np.full((4, 4, 3), 100, np.uint8)
    factors = np.stack([augment.channel_gains(grey, np.random.default_rng(s), 0.4)[0, 0] for s in range(200)]) / 100
    assert factors.min() >= 0.6 and factors.min() < 0.62 and factors.max() <= 1.4 and factors.max() > 1.38
    assert (np.ptp(factors, axis=1) > 0.01).mean() > 0.9
    bright = np.full((4, 4, 3), 250, np.uint8)
    assert max(augment.channel_gains(bright, np.random.default_rng(s), 0.4).max() for s in range(20)) == 255


def test_colours_of_strength_0_stay(picture):
    np.testing.assert_array_equal(augment.photometric(picture, np.random.default_rng(0), 0.0, 0.0), picture)


@pytest.fixture
def plain(monkeypatch):
    """Leaves colours and sharpness alone, so that spots can be found again."""
    monkeypatch.setattr(landmarks, "photometric", lambda image, rng, colour, grey: image)
    monkeypatch.setattr(landmarks, "degrade", lambda image, rng: image)


def test_points_stay_on_the_face(faces, plain):
    made = task(faces, augmentation=Augmentation(occlusion=0.0))
    flips = []
    for seed in range(24):
        crop, points = sample(made, seed % len(faces), seed)
        blue, red = centroid(crop[..., 0]), centroid(crop[..., 2])
        flipped = blue[0] > red[0]
        left, right = (red, blue) if flipped else (blue, red)
        assert np.linalg.norm(points[LEFT] - left) < 0.5
        assert np.linalg.norm(points[RIGHT] - right) < 0.5
        flips.append(flipped)
    assert {True, False} == set(flips)


def test_crops_differ_in_place_and_size(faces, plain):
    made = task(faces, augmentation=Augmentation(occlusion=0.0))
    points = np.stack([sample(made, 0, seed)[1] for seed in range(16)])
    assert points[:, LEFT].std(0).min() > 1
    eyes = np.linalg.norm(points[:, LEFT] - points[:, RIGHT], axis=-1)
    assert eyes.max() / eyes.min() > 1.1


def test_a_batch_is_a_function_of_seed_and_step(faces):
    first = task(faces).batch(5)
    np.random.seed(0)  # noqa: NPY002 (the global state has no say)
    torch.manual_seed(99)
    other = task(faces)
    other.batch(0)
    for key, value in other.batch(5).items():
        assert torch.equal(value, first[key])
    assert not torch.equal(other.batch(6)["crops"], first["crops"])
    assert not torch.equal(task(faces, seed=1).batch(5)["crops"], first["crops"])
    assert first["crops"].shape == (4, 3, 96, 96) and first["points"].shape == (4, 68, 2)


def test_two_views_of_a_face_are_one_face(faces):
    made = task(faces, objective="heatmap", weights=HeatmapWeights(siamese=1.0))
    batch = made.batch(3)
    assert batch["crops"].shape == (8, 3, 96, 96) and batch["base_points"].shape == (4, 68, 2)
    assert not torch.equal(batch["crops"][:4], batch["crops"][4:])
    base = np.tile(batch["base_points"].numpy() * 96 - 0.5, (2, 1, 1))
    for matrix, mirrored, points, view in zip(
        batch["matrices"].numpy(), batch["mirrored"], base, batch["points"].numpy() * 96 - 0.5, strict=True
    ):
        moved = points @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(moved[list(markups.get("ibug68").flip)] if mirrored else moved, view, atol=1e-3)
    assert len(set(batch["mirrored"].tolist())) == 2


def test_bounds_hold_where_jitter_is_uniform():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        matrix = augment.jitter_matrix(np.eye(2, 3), 100, rng, degrees=30, scale=0.1, shift=0.05, uniform=True)
        angle, zoom = np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])), np.linalg.norm(matrix[:, 0])
        assert abs(angle) <= 30 and abs(np.log(zoom)) <= 0.1
        assert np.abs(matrix @ (49.5, 49.5, 1) - 49.5).max() <= 5


def test_a_box_cuts_where_the_recipe_says_so(faces):
    made = task(faces, crop={"kind": "box", "side": "max", "scale": 1.5}, augmentation=Augmentation(cut_noise=0.0))
    matrix = made.cut(1, np.random.default_rng(0))
    box = np.stack([faces.points[1].min(0), faces.points[1].max(0)])
    corners = box @ matrix[:, :2].T + matrix[:, 2]
    assert np.ptp(corners, axis=0).max() == pytest.approx(96 / 1.5, rel=1e-5)
    np.testing.assert_allclose(corners.mean(0), 47.5, atol=1e-4)


def test_five_points_of_another_face_are_left_out(faces):
    faces.kps[4] += 60.0
    assert task(faces).usable.tolist() == [0, 1, 2, 3, 5]


def test_points_outside_the_picture_are_not_known(faces):
    """The chin of the first face is cut off; it stays the chin when the crop is mirrored."""
    faces.images[0] = faces.images[0][: int(faces.points[0, 8, 1])]
    below = faces.points[0, :, 1] > len(faces.images[0]) - 0.5
    assert below[8] and not below[27:48].any()
    made = task(faces)
    rng = np.random.default_rng(0)
    views = [made.view(0, made.cut(0, rng), rng) for _ in range(12)]
    assert {mirrored for *_, mirrored in views} == {False, True}
    for _, _, known, _, mirrored in views:
        np.testing.assert_array_equal(known, ~below[list(made.markup.flip)] if mirrored else ~below)


def test_faces_are_drawn_by_their_weight():
    weights = np.array([1.0, 0.0, 3.0])
    shown = np.concatenate([drawn(weights, 7, step, 50) for step in range(40)])
    counts = np.bincount(shown, minlength=3) / len(shown)
    np.testing.assert_allclose(counts, [0.25, 0, 0.75], atol=0.03)
    np.testing.assert_array_equal(drawn(weights, 7, 3, 50), shown[150:200])
    assert drawn(weights, 8, 0, 50).tolist() != shown[:50].tolist()


def test_an_epoch_shows_every_item_once():
    items = np.array([3, 5, 8, 13, 21])
    shown = np.concatenate([shuffled(items, 7, step, 4) for step in range(5)])
    assert all(sorted(shown[i : i + 5]) == items.tolist() for i in range(0, 20, 5))
    assert shown[:5].tolist() != shown[5:10].tolist()
    np.testing.assert_array_equal(shuffled(items, 7, 3, 4), shown[12:16])
    assert shuffled(items, 8, 0, 4).tolist() != shown[:4].tolist()
