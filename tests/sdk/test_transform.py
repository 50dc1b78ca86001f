"""Crop geometry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facelm_sdk.boxes import landmarks_box, outline_weights
from facelm_sdk.errors import ContractError, InputError, MarkupError
from facelm_sdk.transform import ARCFACE_112, CropRecipe, CropTransform, kps5_recipe, similarity

angles = st.floats(-np.pi, np.pi)
scales = st.floats(0.05, 20)
shifts = st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000))


def rotation(angle: float, scale: float) -> np.ndarray:
    return scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@settings(max_examples=50, deadline=None)
@given(angles, scales, shifts)
def test_similarity_recovers_a_known_one(angle, scale, shift):
    source = np.asarray(ARCFACE_112)
    target = source @ rotation(angle, scale).T + shift
    found = similarity(source, target)
    np.testing.assert_allclose(found[:, :2], rotation(angle, scale), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found[:, 2], shift, rtol=1e-6, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(angles, scales, shifts)
def test_inverse_undoes_the_transform(angle, scale, shift):
    kps = np.asarray(ARCFACE_112) @ rotation(angle, scale).T + shift
    transform = kps5_recipe(192, zoom=0.8).transform(kps=kps)
    points = np.random.default_rng(0).uniform(0, 192, (68, 2))
    np.testing.assert_allclose(transform.apply(transform.invert(points)), points, atol=1e-6)
    assert transform.scale == pytest.approx(192 * 0.8 / 112 / scale, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    st.floats(2, 900),
    st.floats(2, 900),
    st.sampled_from(["max", "min", "mean"]),
    st.floats(0.5, 3),
)
def test_box_recipe_is_centred_and_as_wide_as_it_says(corner, width, height, side, scale):
    box = np.array([*corner, corner[0] + width, corner[1] + height])
    transform = CropTransform.from_box(box, 128, side=side, scale=scale)
    np.testing.assert_allclose(transform.apply((box[:2] + box[2:]) / 2), [63.5, 63.5], atol=1e-6)
    length = {"max": max(width, height), "min": min(width, height), "mean": (width + height) / 2}[side] * scale
    assert transform.scale == pytest.approx(128 / length)


def test_points_keep_float32_and_integers_become_it():
    transform = CropTransform.from_box([0, 0, 10, 10], 10)
    assert transform.apply(np.zeros((2, 2), np.float32)).dtype == np.float32
    assert transform.apply(np.zeros((2, 2), np.int64)).dtype == np.float32
    assert transform.apply(np.zeros((2, 2))).dtype == np.float64


@pytest.mark.parametrize("zoom", [1.0, 0.5, 0.24, 0.11])
def test_pixels_and_points_agree(zoom):
    """A blob's centre in the warped crop is where apply() puts it, shrunk or not."""
    y, x = np.mgrid[0:1400, 0:1500]
    centre, sigma = np.array([731.3, 622.8]), 6 / zoom
    blob = 255 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    picture = np.repeat(np.rint(blob).astype(np.uint8)[..., None], 3, axis=2)
    size = 128
    corner = centre - size / zoom / 2 + (20.0, -10.0)
    transform = CropTransform.from_box([*corner, *(corner + size / zoom)], size)
    crop = transform.warp(picture)[..., 0].astype(float)
    ys, xs = np.mgrid[0:size, 0:size]
    found = np.array([(xs * crop).sum(), (ys * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(found, transform.apply(centre), atol=0.05)


def test_warp_fills_out_in_place():
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    transform = CropTransform.from_box([10, 10, 80, 80], 32)
    batch = np.zeros((2, 32, 32, 3), np.uint8)
    transform.warp(picture, out=batch[1])
    np.testing.assert_array_equal(batch[1], transform.warp(picture))
    assert not batch[0].any()


def test_identity_recipe_is_the_arcface_crop():
    recipe = kps5_recipe(112)
    np.testing.assert_allclose(recipe.template, ARCFACE_112, atol=1e-4)


def test_recipe_survives_its_dict():
    for recipe in (
        kps5_recipe(192, zoom=0.7, shift=(0, 4)),
        CropRecipe(256, "box", side="min", scale=1.2, shift=(0, 0.1)),
        CropRecipe(256, "box", scale=1.2, box="landmarks"),
    ):
        assert CropRecipe.from_dict(recipe.to_dict()) == recipe
    assert CropRecipe(256, "box", box="landmarks").to_dict()["box"] == "landmarks"


def test_a_contract_that_does_not_say_means_the_detectors_box():
    """As contracts from before it could be said; versions from then read those of the detector's box as they are."""
    old = {"size": 64, "kind": "box", "side": "max", "scale": 1.2, "shift": [0.0, 0.0]}
    recipe = CropRecipe.from_dict(old)
    assert recipe.box == "detector" and recipe.to_dict() == old
    found = recipe.of_detection("ibug68", [10, 20, 50, 70], np.asarray(ARCFACE_112))
    np.testing.assert_array_equal(found.matrix, recipe.transform([10, 20, 50, 70]).matrix)


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0, "kind": "box"},
        {"size": 64, "kind": "kps5"},
        {"size": 64, "kind": "kps5", "template": [[0, 0]] * 4},
        {"size": 64, "kind": "round"},
        {"size": 64, "kind": "box", "side": "long"},
        {"size": 64, "kind": "box", "scale": 0},
        {"size": 64, "kind": "box", "box": "dataset"},
        {"size": 64, "kind": "box", "margin": 1},
        {"kind": "box"},
    ],
)
def test_bad_recipes(values):
    with pytest.raises(ContractError):
        CropRecipe.from_dict(values)


@pytest.mark.parametrize(
    "kps", [np.full((5, 2), np.nan), np.zeros((5, 2)), np.zeros((4, 2)), np.eye(5, 2) * 1j, "x", [1, [2]]]
)
def test_bad_points(kps):
    with pytest.raises(InputError):
        kps5_recipe(112).transform(kps=kps)


@pytest.mark.parametrize(
    "box", [[0, 0, 0, 5], [5, 5, 0, 9], [np.nan, 0, 1, 1], [0, 0, 1], [10**400] * 4, ["a"] * 4, None]
)
def test_bad_boxes(box):
    with pytest.raises(InputError):
        CropTransform.from_box(box, 64)


def test_a_recipe_says_what_it_needs():
    with pytest.raises(InputError, match="five points"):
        kps5_recipe(112).transform(box=[0, 0, 9, 9])
    with pytest.raises(InputError, match="box"):
        CropRecipe(64, "box").transform(kps=ARCFACE_112)


@settings(max_examples=50, deadline=None)
@given(angles, scales, shifts, st.sampled_from(["ibug68", "wflw98", "cofw29", "kps5"]))
def test_the_landmarks_box_follows_the_five_points(angle, scale, shift, markup):
    """The outline turns and grows with the points, and the box is the upright one around it."""
    np.testing.assert_allclose(outline_weights(markup).sum(1), 1, atol=1e-12)
    outline = outline_weights(markup) @ np.asarray(ARCFACE_112)
    moved = outline @ rotation(angle, scale).T + shift
    expected = [*moved.min(0), *moved.max(0)]
    found = landmarks_box(np.asarray(ARCFACE_112) @ rotation(angle, scale).T + shift, markup)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4 * scale)


def test_the_landmarks_box_is_even_and_fits_the_markup():
    kps = (np.asarray(ARCFACE_112) + np.asarray(ARCFACE_112)[[1, 0, 2, 4, 3]] * [-1, 1] + [112, 0]) / 2
    boxes = {name: landmarks_box(kps, name) for name in ("ibug68", "jd106", "cofw29", "aflw19", "kps5")}
    for box in boxes.values():
        assert (box[0] + box[2]) / 2 == pytest.approx(56, abs=0.05)
    width = {name: box[2] - box[0] for name, box in boxes.items()}
    assert width["ibug68"] == width["jd106"] > width["cofw29"] == width["aflw19"] > width["kps5"]
    np.testing.assert_array_equal(boxes["kps5"], [*kps.min(0), *kps.max(0)])
    with pytest.raises(MarkupError):
        landmarks_box(kps, "ibug69")


def test_a_detection_is_cut_by_the_landmarks_box():
    kps, recipe = np.asarray(ARCFACE_112) * 3 + 40, CropRecipe(64, "box", scale=1.2, box="landmarks")
    own = recipe.transform(landmarks_box(kps))
    for box in (None, [0, 0, 9, 9]):
        np.testing.assert_array_equal(recipe.of_detection("ibug68", box, kps).matrix, own.matrix)
    alone = recipe.of_detection("ibug68", [100, 200, 300, 450])  # the constants that the docstring states
    width, height = 1.02 * 200, 0.77 * 250
    assert 64 / alone.scale == pytest.approx(1.2 * max(width, height), rel=0.01)
    middle = alone.invert(np.array([31.5, 31.5]))
    np.testing.assert_allclose(middle, [200, 325 + 0.154 * 250], atol=1)
    given = recipe.transform([10, 10, 60, 70])  # training gives the annotated box itself
    assert given.scale == pytest.approx(64 / 72)
    with pytest.raises(InputError, match="none was given"):
        recipe.of_detection("ibug68")
    with pytest.raises(InputError, match=r"five points .* finite"):
        recipe.of_detection("ibug68", None, np.full((5, 2), np.nan))


def test_very_wide_pictures_are_cropped():
    picture = np.zeros((200, 33000, 3), np.uint8)
    cv2.circle(picture, (32500, 100), 20, (255, 255, 255), -1)
    crop = CropTransform.from_box([32450, 50, 32550, 150], 100).warp(picture)
    assert crop[50, 50].tolist() == [255, 255, 255]
    assert crop[0, 0].tolist() == [0, 0, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "box",
    [
        [-1e308, -1e308, 1e308, 1e308],
        [0, 0, 1e200, 1],
        [0, 0, 1e9, 1e9],
        [10**400] * 4,
        ["a"] * 4,
        [1j] * 4,
        [[0], [0, 1]],
    ],
    ids=repr,
)
def test_boxes_that_no_number_can_follow(box):
    with pytest.raises(InputError, match=r"numbers|too large or too small"):
        CropRecipe(size=64, kind="box", scale=2.0).transform(box=box)
    with pytest.raises(InputError, match="too large or too small"):
        CropRecipe(size=64, kind="box", scale=1e-10).transform(box=[0, 0, 5e-324, 1e-320])


@pytest.mark.filterwarnings("error")
def test_the_largest_boxes_are_exact():
    transform = CropTransform.from_box([-(2**20), -(2**20), 2**20, 2**20], 64)
    np.testing.assert_allclose(transform.invert(np.array([[31.5, 31.5], [-0.5, 63.5]])), [[0, 0], [-(2**20), 2**20]])
    for kps in (np.array([[0, 0], [1e300, 0], [0, 100], [0, 1e300], [1e300, 1e300]]), [[10**400, 0]] * 5):
        with pytest.raises(InputError):
            CropTransform.from_kps5(kps, ARCFACE_112, 112)


def test_an_offset_moves_the_boxs_centre_in_the_crop():
    """SLPT's code has the centre of the box on pixel 128 of a crop of 256."""
    plain, moved = (CropRecipe(256, "box", scale=1.2, offset=offset) for offset in ((0.0, 0.0), (0.5, 0.5)))
    box = (10.0, 20.0, 110.0, 140.0)
    corners = np.array([[60.0, 80.0], [10.0, 20.0]])
    np.testing.assert_allclose(moved.transform(box).apply(corners) - plain.transform(box).apply(corners), 0.5)
    np.testing.assert_allclose(moved.transform(box).apply(corners[:1]), [[128.0, 128.0]])
    assert CropRecipe.from_dict(moved.to_dict()) == moved and "offset" not in plain.to_dict()
    with pytest.raises(ContractError, match="not a crop recipe"):
        CropRecipe(256, "box", offset=(0.0, float("nan")))
