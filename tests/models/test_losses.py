"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from facelm_models.losses import multibox, smooth_wing


def test_smooth_wing_by_hand():
    """t = 0.01, w = 10, epsilon = 2: s = 12 / 0.0402, c1 = 10 - 12 ln 6, c2 = 12 ln 1.005 - s / 10000."""
    s, c1 = 298.507463, -11.501114
    c2 = 12 * 0.0049875415 - 0.0298507463
    error = torch.tensor([0.0, 0.005, 1.0, -1.0, 20.0, -20.0], dtype=torch.float64)
    one, far = 12 * 0.4054651081 - c2, 20 - c1 - c2
    expected = torch.tensor([0.0, s * 0.000025, one, one, far, far], dtype=torch.float64)
    torch.testing.assert_close(smooth_wing(error), expected, rtol=1e-6, atol=1e-9)
    assert far == pytest.approx(31.4711, abs=1e-4)


@pytest.mark.parametrize("threshold", ["t", "w"])
@pytest.mark.parametrize("options", [{}, {"t": 0.5, "w": 3.0, "epsilon": 0.3}], ids=["paper", "other"])
def test_smooth_wing_has_no_step_and_no_corner(threshold, options):
    at = {"t": 0.01, "w": 10.0, **options}[threshold]
    step = 1e-9
    x = torch.tensor([at - step, at + step], dtype=torch.float64, requires_grad=True)
    values = smooth_wing(x, **options)
    (slopes,) = torch.autograd.grad(values.sum(), x)
    assert values[0].item() == pytest.approx(values[1].item(), abs=1e-6)
    assert slopes[0].item() == pytest.approx(slopes[1].item(), rel=1e-6)


def test_smooth_wing_needs_ordered_thresholds():
    with pytest.raises(ValueError, match="0 < t < w"):
        smooth_wing(torch.zeros(1), t=2.0, w=1.0)


def test_multibox_by_hand():
    """Two faces, one of them without points, one background prior and one that is not counted."""
    boxes, logits, points = torch.zeros(1, 4, 4), torch.zeros(1, 4, 2), torch.zeros(1, 4, 10)
    logits[0, 1] = torch.tensor([0.0, math.log(3)])  # a face seen with 3/4
    logits[0, 2] = torch.tensor([math.log(4), 0.0])  # background seen with 4/5
    logits[0, 3] = torch.tensor([-100.0, 100.0])
    box_targets = torch.zeros(1, 4, 4)
    box_targets[0, 0] = torch.tensor([0.5, -2.0, 0.0, 0.0])  # smooth L1: 0.125 + 1.5
    point_targets = torch.zeros(1, 4, 10)
    point_targets[0, 0] = torch.nan
    point_targets[0, 1, :2] = torch.tensor([1.0, 3.0])  # 0.5 + 2.5
    labels = torch.tensor([[1, 1, 0, -1]])
    losses = multibox((boxes, logits, points), box_targets, labels, point_targets, box_weight=2.0, landmark_weight=0.5)
    expected = (math.log(2) + math.log(4 / 3) + math.log(5 / 4)) / 2, 2 * 1.625 / 2, 0.5 * 3.0 / 1
    assert [loss.item() for loss in losses] == pytest.approx(expected, rel=1e-5)


def test_multibox_counts_the_hardest_negatives_only():
    count = 100
    logits = torch.zeros(1, count, 2)
    logits[0, :, 1] = torch.linspace(-5, 5, count)
    labels = torch.zeros(1, count, dtype=torch.long)
    labels[0, :8] = 1
    zeros = torch.zeros(1, count, 4), torch.zeros(1, count, 10)
    loss, *_ = multibox((zeros[0], logits, zeros[1]), zeros[0], labels, zeros[1], negatives=7)
    faces = torch.log1p(torch.exp(-logits[0, :8, 1])).sum()
    hardest = torch.log1p(torch.exp(logits[0, count - 56 :, 1])).sum()
    assert loss.item() == pytest.approx(((faces + hardest) / 8).item(), rel=1e-5)


def test_multibox_of_pictures_without_a_face():
    logits = torch.zeros(2, 200, 2, requires_grad=True)
    zeros = torch.zeros(2, 200, 4), torch.zeros(2, 200, 10)
    losses = multibox((zeros[0], logits, zeros[1]), zeros[0], torch.zeros(2, 200, dtype=torch.long), zeros[1])
    assert [loss.item() for loss in losses] == pytest.approx([2 * 50 * math.log(2), 0, 0])
