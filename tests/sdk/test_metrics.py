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
