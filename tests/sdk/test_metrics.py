"""Metrics, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from facelm_sdk import markup as markups
from facelm_sdk import metrics
from facelm_sdk.errors import InputError


def test_nme_by_hand():
    target = np.zeros((2, 3, 2))
    prediction = target.copy()
    prediction[0, 0] = (3, 4)  # 5 pixels off
    prediction[1, 1] = (0, 6)
    prediction[1, 2] = (8, 0)
    np.testing.assert_allclose(metrics.nme(prediction, target, [10, 20]), [5 / 3 / 10, 14 / 3 / 20])
    np.testing.assert_allclose(metrics.nme(prediction, target, [10, 20], indices=[1, 2]), [0, 7 / 20])


def test_inter_ocular_distance():
    points = np.zeros((1, 68, 2))
    points[0, 36], points[0, 45] = (10, 10), (40, 50)
    np.testing.assert_allclose(metrics.inter_ocular(points, markups.get("ibug68")), [50])


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("kps5", (0,), (1,)),
        ("aflw19", (7,), (10,)),
        ("cofw29", (16,), (17,)),
        ("ibug68", range(36, 42), range(42, 48)),
        ("wflw98", (96,), (97,)),
        ("jd106", (104,), (105,)),
    ],
)
def test_inter_pupil_distance(name, left, right):
    markup = markups.get(name)
    points = np.full((2, markup.num_points, 2), 1000.0)
    for offset, index in enumerate(left):
        points[:, index] = (offset, 0)
    for offset, index in enumerate(right):
        points[:, index] = (offset + 30, 40)
    points[1] *= 2
    np.testing.assert_allclose(metrics.inter_pupil(points, markup), [50, 100])


def test_boxes_by_hand():
    points = np.array([[[1, 2], [4, 14], [2, 5]], [[0, 0], [3, 4], [1, 1]]])
    boxes = metrics.bounding_box(points)
    np.testing.assert_array_equal(boxes, [[1, 2, 4, 14], [0, 0, 3, 4]])
    np.testing.assert_allclose(metrics.box_size(boxes), [6, np.sqrt(12)])  # sqrt(3 * 12)
    np.testing.assert_allclose(metrics.box_diagonal(boxes), [np.sqrt(153), 5])
    for wrong in ([[4, 2, 1, 14]], [[1, 2, 3]]):
        with pytest.raises(InputError, match="xyxy"):
            metrics.box_size(wrong)


def test_errors_by_point_and_region_by_hand():
    markup = markups.get("kps5")
    target = np.zeros((3, 5, 2))
    prediction = target.copy()
    prediction[0, 0], prediction[0, 3] = (3, 4), (0, 10)
    prediction[1, 1] = (0, 4)
    prediction[2] = np.nan  # not found: no part of any mean
    errors = metrics.point_errors(prediction, target, [10, 20, 10])
    np.testing.assert_allclose(errors[:2], [[0.5, 0, 0, 1, 0], [0, 0.2, 0, 0, 0]])
    np.testing.assert_allclose(errors[:2].mean(1), metrics.nme(prediction[:2], target[:2], [10, 20]))
    np.testing.assert_allclose(metrics.landmark_errors(errors), [0.25, 0.1, 0, 0.5, 0])
    regions = metrics.region_errors(errors, markup.groups)
    expected = {"nose": 0, "mouth": 0.25, "eyes": 0.175, "left_eye": 0.25, "right_eye": 0.1}
    assert regions == pytest.approx(expected)
    assert np.isnan(metrics.landmark_errors(errors[2:])).all()
    errors[0, 3] = np.nan  # a point whose place is not known
    np.testing.assert_allclose(metrics.landmark_errors(errors), [0.25, 0.1, 0, 0, 0])


def test_a_summary_without_any_face_found():
    assert metrics.summary([np.nan, np.nan], 0.08) == {
        "faces": 2,
        "nme": None,
        "median": None,
        "fr@0.08": 100.0,
        "auc@0.08": 0.0,
    }
    assert metrics.summary([0.04, np.nan])["nme"] == 4.0


def test_failures_auc_and_ced_by_hand():
    errors = np.array([0.0, 0.05, 0.1, 0.2, np.nan])
    assert metrics.failure_rate(errors, 0.1) == pytest.approx(2 / 5)
    assert metrics.auc(errors, 0.1) == pytest.approx((1 + 0.5) / 5)
    np.testing.assert_allclose(metrics.ced(errors, [0, 0.05, 0.15, 1]), [0.2, 0.4, 0.6, 0.8])
    assert metrics.summary(errors[:4]) == {"faces": 4, "nme": 8.75, "median": 7.5, "fr@0.1": 25.0, "auc@0.1": 37.5}


def test_auc_is_the_area_under_the_ced():
    errors = np.random.default_rng(0).gamma(2, 0.02, 500)
    grid = np.linspace(0, 0.1, 20001)
    curve = metrics.ced(errors, grid)
    area = float(((curve[1:] + curve[:-1]) / 2 * np.diff(grid)).sum()) / 0.1
    assert metrics.auc(errors, 0.1) == pytest.approx(area, abs=1e-4)


def test_shapes_are_checked():
    with pytest.raises(InputError, match="must both be"):
        metrics.nme(np.zeros((1, 5, 2)), np.zeros((1, 6, 2)), [1])
    with pytest.raises(InputError, match="norm"):
        metrics.nme(np.zeros((2, 5, 2)), np.zeros((2, 5, 2)), [1])
