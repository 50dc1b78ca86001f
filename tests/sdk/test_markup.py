"""Markups: permutations, groups, conversion."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facelm_sdk import markup as markups
from facelm_sdk.conversions import TABLES
from facelm_sdk.errors import InputError, MarkupError

ALL = [markups.get(name) for name in markups.names()]
each = pytest.mark.parametrize("markup", ALL, ids=lambda m: m.name)


def test_names():
    assert markups.names() == ["kps5", "aflw19", "cofw29", "ibug68", "wflw98", "jd106"]
    assert [m.num_points for m in ALL] == [5, 19, 29, 68, 98, 106]


@each
def test_flip_is_an_involution(markup):
    flip = np.array(markup.flip)
    assert sorted(flip) == list(range(markup.num_points))
    np.testing.assert_array_equal(flip[flip], np.arange(markup.num_points))


@each
def test_parts_partition_the_points_and_mirror_into_themselves(markup):
    parts = [markup.groups[name] for name in ("jaw", "brows", "eyes", "nose", "mouth") if name in markup.groups]
    assert sorted(index for part in parts for index in part) == list(range(markup.num_points))
    for part in parts:
        assert {markup.flip[index] for index in part} == set(part)
    assert {markup.flip[index] for index in markup.groups["left_eye"]} == set(markup.groups["right_eye"])
    left, right = markup.outer_eye_corners
    assert markup.flip[left] == right
    assert left in markup.groups["left_eye"] and right in markup.groups["right_eye"]


@each
def test_polylines_mirror_into_polylines(markup):
    edges = {frozenset(pair) for run in markup.polylines for pair in pairwise(run)}
    assert {frozenset(markup.flip[index] for index in edge) for edge in edges} == edges


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ALL), st.integers(1, 4000), st.integers(0, 2**32 - 1))
def test_flipping_twice_is_identity(markup, width, seed):
    points = np.random.default_rng(seed).uniform(0, width, (3, markup.num_points, 2))
    twice = markups.flip_points(markups.flip_points(points, width, markup), width, markup.name)
    np.testing.assert_allclose(twice, points, atol=1e-9)


def test_flip_is_about_pixel_centres():
    points = np.array([[0, 1], [9, 1], [4.5, 3], [2, 6], [7, 6]], np.float32)
    flipped = markups.flip_points(points, 10, "kps5")
    np.testing.assert_array_equal(flipped, points)  # symmetric about 4.5
    assert flipped.dtype == np.float32


def test_known_pairs():
    """From the figures of the data sets' papers: outer corners, mouth corners, a brow's ends, a lower lid."""
    known = {
        "ibug68": [(0, 16), (17, 26), (31, 35), (36, 45), (39, 42), (41, 46), (48, 54), (60, 64), (8, 8), (30, 30)],
        "wflw98": [(0, 32), (33, 46), (38, 50), (41, 47), (60, 72), (64, 68), (67, 73), (76, 82), (96, 97), (54, 54)],
        "jd106": [(0, 32), (33, 46), (38, 50), (55, 65), (66, 79), (70, 75), (73, 80), (74, 83), (104, 105), (60, 60)],
        "cofw29": [(0, 1), (4, 6), (5, 7), (8, 9), (12, 14), (16, 17), (18, 19), (22, 23), (28, 28)],
        "aflw19": [(0, 5), (2, 3), (6, 11), (7, 10), (12, 14), (15, 17), (16, 16), (18, 18)],
    }
    for name, pairs in known.items():
        for one, other in pairs:
            assert markups.get(name).flip[one] == other, (name, one)


def test_inner_points_leave_the_jaw_out():
    assert markups.get("ibug68").inner == tuple(range(17, 68))


@each
def test_conversion_commutes_with_flipping(markup):
    points = np.random.default_rng(0).uniform(0, 100, (2, markup.num_points, 2))
    for source, target in TABLES:
        if source == markup.name:
            one = markups.convert(markups.flip_points(points, 100, markup), source, target, missing="nan")
            other = markups.flip_points(markups.convert(points, source, target, missing="nan"), 100, target)
            np.testing.assert_allclose(one, other, atol=1e-9)


@each
def test_kps5_is_reached_from_everywhere(markup):
    points = np.random.default_rng(0).uniform(0, 100, (markup.num_points, 2))
    assert markups.convert(points, markup.name, "kps5").shape == (5, 2)


def test_kps5_of_68_points():
    points = np.zeros((68, 2))
    points[36:42] = [10, 20]
    points[37] += 6
    points[42:48] = [30, 20]
    points[30], points[48], points[54] = (20, 30), (12, 40), (28, 40)
    expected = [[11, 21], [30, 20], [20, 30], [12, 40], [28, 40]]
    np.testing.assert_allclose(markups.convert(points, "ibug68", "kps5"), expected)


def test_68_points_from_the_denser_markups_keep_their_parts():
    target = markups.get("ibug68")
    for source in (markups.get("wflw98"), markups.get("jd106")):
        labels = np.zeros((source.num_points, 2))
        for number, part in enumerate(("jaw", "brows", "eyes", "nose", "mouth")):
            labels[list(source.groups[part])] = number
        converted = markups.convert(labels, source.name, "ibug68")
        for number, part in enumerate(("jaw", "brows", "eyes", "nose", "mouth")):
            assert (converted[list(target.groups[part])] == number).all()


def test_errors_say_what_there_is():
    with pytest.raises(MarkupError, match="kps5, aflw19"):
        markups.get("ibug")
    with pytest.raises(MarkupError, match="wflw98 to ibug68"):
        markups.convert(np.zeros((29, 2)), "cofw29", "aflw19")
    with pytest.raises(MarkupError, match="points 38, 39, 40, 41, 47, 48, 49, 50 of wflw98; missing='nan'"):
        markups.convert(np.zeros((68, 2)), "ibug68", "wflw98")
    with pytest.raises(InputError, match="'error' or 'nan'"):
        markups.convert(np.zeros((68, 2)), "ibug68", "wflw98", missing="zero")
    with pytest.raises(MarkupError, match=r"\(\.\.\., 68, 2\)"):
        markups.convert(np.zeros((98, 2)), "ibug68", "kps5")


def test_conversion_to_itself_is_a_copy():
    points = np.zeros((5, 2), np.float32)
    assert markups.convert(points, "kps5", "kps5") is not points


@pytest.mark.parametrize("name", ["wflw98", "jd106", "cofw29", "aflw19"])
def test_conversions_there_and_back(name):
    """Points that are taken as they are come back so; those of the denser markups all are."""
    points = np.random.default_rng(0).uniform(0, 100, (3, 68, 2))
    made = markups.convert(points, "ibug68", name, missing="nan")
    back = markups.convert(made, name, "ibug68", missing="nan")
    returned = ~(markups.conversion(name, "ibug68").interpolated | markups.conversion(name, "ibug68").missing)
    np.testing.assert_array_equal(back[:, returned], points[:, returned])
    assert returned.sum() == {"wflw98": 68, "jd106": 68, "cofw29": 21, "aflw19": 16}[name]


@pytest.mark.parametrize(
    ("source", "target", "missing"),
    [
        ("ibug68", "wflw98", {*range(38, 42), *range(47, 51)}),
        ("ibug68", "jd106", {*range(38, 42), *range(47, 51), 55, 56, 64, 65}),
        ("ibug68", "cofw29", {5, 7}),
        ("ibug68", "aflw19", set()),
        ("cofw29", "ibug68", {*range(17), 27, 28, 29, 60, 61, 63, 64, 65, 67} - {8}),
        (
            "aflw19",
            "ibug68",
            {*range(17), 27, 28, 29, 32, 33, 34, 37, 38, 40, 41, 43, 44, 46, 47, *range(49, 68)} - {8, 54},
        ),
    ],
)
def test_what_a_conversion_lacks(source, target, missing):
    made = markups.conversion(source, target)
    assert set(np.flatnonzero(made.missing)) == missing
    assert not (made.missing & made.interpolated).any()
    points = markups.convert(np.zeros((markups.get(source).num_points, 2), np.float32), source, target, missing="nan")
    assert points.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(points[:, 0]), made.missing)


def on_curves(angle):
    """A face (68, 2) whose jaw, lids and nose base are arcs: a point of each at ``angle`` of its index."""
    points = np.random.default_rng(0).uniform(0, 100, (68, 2))
    for run, radius in (
        (range(17), 60),
        (range(36, 40), 8),
        ((39, 40, 41, 36), 8),
        (range(42, 46), 8),
        (range(31, 36), 9),
    ):
        turn = np.linspace(0, angle, len(run))
        points[list(run)] = np.stack([np.cos(turn), np.sin(turn)], 1) * radius
    return points


def test_interpolated_points_lie_on_the_curve():
    points = on_curves(2.0)
    dense = markups.convert(points, "ibug68", "wflw98", missing="nan")
    np.testing.assert_allclose(np.linalg.norm(dense[:33], axis=1), 60, atol=0.01)
    middle = np.array([np.cos(1), np.sin(1)]) * 8
    np.testing.assert_allclose([dense[62], dense[66], dense[70]], [middle] * 3, atol=0.05)
    jd = markups.convert(points, "ibug68", "jd106", missing="nan")
    np.testing.assert_allclose(np.linalg.norm(jd[57:64], axis=1), 9, atol=0.05)
    marked = markups.conversion("ibug68", "wflw98").interpolated
    assert set(np.flatnonzero(marked)) == {*range(1, 33, 2), 62, 66, 70, 74, 96, 97}
    few = markups.convert(points, "ibug68", "cofw29", missing="nan")
    np.testing.assert_allclose(few[12], middle, atol=0.05)


def test_a_point_that_is_not_known_spoils_only_its_neighbours():
    points = np.zeros((68, 2))
    points[0] = np.nan
    lacking = np.isnan(markups.convert(points, "ibug68", "aflw19")[:, 0])
    assert not lacking.any()
    dense = np.isnan(markups.convert(points, "ibug68", "wflw98", missing="nan")[:, 0])
    assert set(np.flatnonzero(dense)) == {0, 1, 3, *range(38, 42), *range(47, 51)}
