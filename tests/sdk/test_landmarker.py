"""Landmarker: batches and flip averaging."""

from __future__ import annotations

import numpy as np
import pytest

from facelm_sdk import Landmarker
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError


@pytest.fixture(scope="module")
def model(landmark_model):
    return landmark_model(has_scores=True, has_presence=True)


@pytest.fixture
def crops():
    return np.random.default_rng(0).integers(0, 255, (7, 32, 32, 3), np.uint8)


def test_values(model, crops, template):
    landmarks, scores, presence = Landmarker(model).run(crops)
    left = crops[:, :, :16].astype(float).mean(axis=(1, 2, 3)) / 255
    expected = template(68, 32) + left[:, None, None] * np.array([8.0, 4.0])
    np.testing.assert_allclose(landmarks, expected, atol=1e-4)
    np.testing.assert_allclose(scores, np.repeat(left[:, None], 68, axis=1), atol=1e-6)
    np.testing.assert_allclose(presence, left, atol=1e-6)
    assert landmarks.dtype == scores.dtype == presence.dtype == np.float32
    np.testing.assert_array_equal(Landmarker(model)(crops), landmarks)


@pytest.mark.parametrize("flip", [None, True])
@pytest.mark.parametrize("max_batch", [1, 2, 3, 64])
def test_batches_change_nothing(model, crops, max_batch, flip):
    whole, parts = Landmarker(model, flip=flip), Landmarker(model, flip=flip, max_batch=max_batch)
    np.testing.assert_allclose(parts(crops), whole(crops), atol=1e-5)


def test_flip_averaging(model, crops, template):
    landmarks, scores, presence = Landmarker(model, flip=True).run(crops)
    plain = Landmarker(model)
    one, one_scores, one_presence = plain.run(crops)
    other, other_scores, other_presence = plain.run(np.ascontiguousarray(crops[:, :, ::-1]))
    flip = list(markups.get("ibug68").flip)
    back = other[:, flip]
    back[..., 0] = 31 - back[..., 0]
    np.testing.assert_allclose(landmarks, (one + back) / 2, atol=1e-5)
    np.testing.assert_allclose(scores, (one_scores + other_scores[:, flip]) / 2, atol=1e-6)
    np.testing.assert_allclose(presence, (one_presence + other_presence) / 2, atol=1e-6)
    assert np.abs(presence - one_presence).max() > 1e-3


def test_what_a_model_does_not_give_is_none(landmark_model, crops):
    found = Landmarker(landmark_model()).run(crops)
    assert found.scores is None and found.presence is None
    found = Landmarker(landmark_model(has_presence=True), max_batch=2).run(crops)
    assert found.scores is None and found.presence.shape == (7,)


def test_flip_averaging_is_mirror_symmetric(model, crops):
    landmarker = Landmarker(model, flip=True)
    mirrored = landmarker(np.ascontiguousarray(crops[:, :, ::-1]))
    np.testing.assert_allclose(markups.flip_points(mirrored, 32, "ibug68"), landmarker(crops), atol=1e-4)


def test_flip_inside_the_graph(landmark_model, crops):
    model = landmark_model(flip=True)
    np.testing.assert_array_equal(Landmarker(model, flip=True)(crops), Landmarker(model)(crops))
    with pytest.raises(InputError, match="inside its graph"):
        Landmarker(model, flip=False)


def test_no_crops(model, landmark_model):
    landmarks, scores, presence = Landmarker(model).run(np.empty((0, 32, 32, 3), np.uint8))
    assert landmarks.shape == (0, 68, 2) and scores.shape == (0, 68) and presence.shape == (0,)
    assert Landmarker(landmark_model()).run(np.empty((0, 32, 32, 3), np.uint8))[1] is None


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((1, 3, 32, 32), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
        [[1]],
    ],
    ids=repr,
)
def test_wrong_crops(model, crops):
    with pytest.raises(InputError, match=r"uint8 \(n, 32, 32, 3\); got"):
        Landmarker(model).run(crops)


def test_attributes(model, landmark_spec):
    landmarker = Landmarker(model)
    assert landmarker.spec == landmark_spec(has_scores=True, has_presence=True)
    assert landmarker.size == 32 and landmarker.recipe == landmarker.spec.crop
    with pytest.raises(InputError, match="max_batch"):
        Landmarker(model, max_batch=0)
