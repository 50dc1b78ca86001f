"""Openness of eyes and mouth: known ellipses, and what does not change it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError, MarkupError
from facelm_sdk.expression import eye_openness, mouth_openness


def face(left: float, right: float, mouth: float) -> np.ndarray:
    """68 points (68, 2) whose eyes and inner lips are that high, for widths of 10, 10 and 20."""
    points = np.zeros((68, 2))
    for start, x, height in ((36, 0, left), (42, 30, right)):
        across = np.array([0, 3, 7, 10, 7, 3])
        points[start : start + 6] = np.stack([x + across, np.array([0, -1, -1, 0, 1, 1]) * height / 2], 1)
    across = np.array([0, 5, 10, 15, 20, 15, 10, 5])
    points[60:68] = np.stack([10 + across, 40 + np.array([0, -1, -1, -1, 0, 1, 1, 1]) * mouth / 2], 1)
    return points


def test_the_ratios():
    assert eye_openness(face(3, 0, 5)) == pytest.approx((0.3, 0.0))
    assert eye_openness(face(0, 2, 5)) == pytest.approx((0.0, 0.2))
    assert mouth_openness(face(3, 3, 5)) == pytest.approx(0.25)
    assert mouth_openness(face(3, 3, 0)) == 0


def test_each_pair_counts():
    points = face(2, 2, 4)
    points[37, 1] -= 1
    points[66, 1] += 3
    assert eye_openness(points) == pytest.approx((0.25, 0.2))
    assert mouth_openness(points) == pytest.approx((4 + 7 + 4) / 3 / 20)


@settings(max_examples=30, deadline=None)
@given(*(st.floats(*bounds, allow_subnormal=False) for bounds in ((-3, 3), (0.1, 50), (-1000, 1000))))
def test_place_size_and_roll_do_not_matter(angle, scale, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = face(3, 1, 6) @ turn.T + shift
    assert eye_openness(points) == pytest.approx((0.3, 0.1), abs=1e-6)
    assert mouth_openness(points) == pytest.approx(0.3, abs=1e-6)


def test_mirrored_eyes_change_places():
    points = markups.flip_points(face(3, 1, 6), 100, "ibug68")
    assert eye_openness(points) == pytest.approx((0.1, 0.3))


def test_what_is_refused():
    with pytest.raises(MarkupError):
        eye_openness(np.zeros((19, 2)), "aflw19")
    for bad in (np.full((68, 2), np.nan), np.zeros((1, 68, 2))):
        with pytest.raises(InputError, match="finite points"):
            mouth_openness(bad)
    with pytest.raises(InputError, match="corners 36 and 39 coincide"):
        eye_openness(np.zeros((68, 2)))
    with pytest.raises(InputError, match="too far apart"):
        mouth_openness(face(3, 3, 5) * 1e200)
