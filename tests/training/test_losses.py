"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from facelm_training.losses import (
    adaptive_wing,
    foreground_weight,
    heatmap_l2,
    l1,
    l2,
    loss_augmented,
    merge_views,
    multibox,
    normalised_l2,
    siamese,
    smooth_l1,
    smooth_wing,
    spread,
    star,
    structure,
    structured,
    wing,
)
from tests.tolerances import GRADIENT, REWRITE


def slopes(loss, at, step=1e-9):
    """Values and slopes of ``loss`` just below and just above ``at``."""
    x = torch.tensor([at - step, at + step], dtype=torch.float64, requires_grad=True)
    values = loss(x)
    (slope,) = torch.autograd.grad(values.sum(), x)
    return values.tolist(), slope.tolist()


def test_plain_losses_by_hand():
    error = torch.tensor([0.0, 0.5, -0.5, 1.0, -3.0], dtype=torch.float64)
    assert l1(error).tolist() == [0, 0.5, 0.5, 1, 3]
    assert l2(error).tolist() == [0, 0.125, 0.125, 0.5, 4.5]
    assert smooth_l1(error).tolist() == [0, 0.125, 0.125, 0.5, 2.5]
    assert smooth_l1(error, beta=0.25).tolist() == [0, 0.375, 0.375, 0.875, 2.875]


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_smooth_l1_has_no_step_and_no_corner(beta):
    values, steepness = slopes(lambda x: smooth_l1(x, beta=beta), beta)
    assert values == pytest.approx([beta / 2] * 2)
    assert steepness == pytest.approx([1, 1])


def test_smooth_l1_needs_a_width():
    with pytest.raises(ValueError, match="beta > 0"):
        smooth_l1(torch.zeros(1), beta=0.0)


def test_wing_by_hand():
    """w = 10, epsilon = 2: 10 ln(1 + x / 2) below 10, x - 10 + 10 ln 6 above; its corner at w is 10 / 12 against 1."""
    error = torch.tensor([0.0, 2.0, -2.0, 20.0], dtype=torch.float64)
    far = 10 + 10 * 1.791759469
    assert wing(error).tolist() == pytest.approx([0, 10 * math.log(2), 10 * math.log(2), far])
    assert wing(error, w=1.0, epsilon=0.5)[1].item() == pytest.approx(1 + math.log(3))
    values, steepness = slopes(wing, 10.0)
    assert values == pytest.approx([10 * math.log(6)] * 2)
    assert steepness == pytest.approx([10 / 12, 1])


def test_smooth_wing_by_hand():
    """t = 0.01, w = 10, epsilon = 2: s = 12 / 0.0402, c1 = 10 - 12 ln 6, c2 = 12 ln 1.005 - s / 10000."""
    s, c1 = 298.507463, -11.501114
    c2 = 12 * 0.0049875415 - 0.0298507463
    error = torch.tensor([0.0, 0.005, 1.0, -1.0, 20.0, -20.0], dtype=torch.float64)
    one, far = 12 * 0.4054651081 - c2, 20 - c1 - c2
    expected = torch.tensor([0.0, s * 0.000025, one, one, far, far], dtype=torch.float64)
    torch.testing.assert_close(smooth_wing(error), expected, rtol=1e-6, atol=1e-9)
    assert far == pytest.approx(31.4711, abs=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("threshold", ["t", "w"])
@pytest.mark.parametrize("options", [{}, {"t": 0.5, "w": 3.0, "epsilon": 0.3}], ids=["paper", "other"])
def test_smooth_wing_has_no_step_and_no_corner(threshold, options, sign):
    at = {"t": 0.01, "w": 10.0, **options}[threshold]
    values, steepness = slopes(lambda x: smooth_wing(x, **options), sign * at)
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert steepness[0] == pytest.approx(steepness[1], rel=1e-6)
    assert steepness[0] * sign > 0


def test_smooth_wing_needs_ordered_thresholds():
    with pytest.raises(ValueError, match="0 < t < w"):
        smooth_wing(torch.zeros(1), t=2.0, w=1.0)


def test_adaptive_wing_by_hand():
    """omega 14, theta 0.5, epsilon 1, alpha 2.1: on a peak (y = 1) the exponent is 1.1, on background 2.1."""
    predicted = torch.tensor([1.0, 0.8, 0.3, 0.3, 0.9], dtype=torch.float64)
    target = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)

    def far(power, x):
        edge = 0.5**power
        return 14 * power * 0.5 ** (power - 1) / (1 + edge) * (x - 0.5) + 14 * math.log(1 + edge)

    expected = [0, 14 * math.log(1 + 0.2**1.1), far(1.1, 0.7), 14 * math.log(1 + 0.3**2.1), far(2.1, 0.9)]
    assert adaptive_wing(predicted, target).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("target", [0.0, 0.4, 1.0])
def test_adaptive_wing_has_no_step_and_no_corner(target):
    options = {"theta": 0.4, "epsilon": 0.7}
    values, steepness = slopes(lambda x: adaptive_wing(x, torch.full_like(x, target), **options), target + 0.4)
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert steepness[0] == pytest.approx(steepness[1], rel=1e-6)


def test_adaptive_wing_has_a_slope_of_zero_at_zero():
    target = torch.tensor([0.0, 0.5, 1.0])
    predicted = target.clone().requires_grad_()
    (slope,) = torch.autograd.grad(adaptive_wing(predicted, target).sum(), predicted)
    assert slope.tolist() == [0, 0, 0]


def test_foreground_weight_by_hand():
    target = torch.zeros(1, 2, 4, 5)
    target[0, 0, 0, 1] = 0.2
    target[0, 1, 2, 2] = 0.19
    weight = foreground_weight(target)
    assert weight[0, 0].tolist() == [[11, 11, 11, 1, 1], [11, 11, 11, 1, 1], [1] * 5, [1] * 5]
    assert (weight[0, 1] == 1).all()


def test_heatmap_l2_by_hand():
    predicted = torch.tensor([0.5, -1.0, 0.0, 0.0]).view(1, 1, 2, 2)
    target = torch.tensor([0.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
    assert heatmap_l2(predicted, target).item() == pytest.approx((0.25 + 4) / 4)
    assert heatmap_l2(predicted.half(), target.half()).dtype == torch.float32


def test_normalised_l2_by_hand():
    """Two faces, two stages of one layer, one point; 3-4-5 triangles over eye distances of 10 and 2."""
    target = torch.tensor([[[1.0, 1.0]], [[2.0, 0.0]]])
    predicted = torch.tensor([[[[[4.0, 5.0]]], [[[1.0, 1.0]]]], [[[[2.0, 1.0]]], [[[5.0, -4.0]]]]])  # (2, 2, 1, 1, 2)
    loss = normalised_l2(predicted, target, torch.tensor([10.0, 2.0]))
    assert loss.item() == pytest.approx((5 / 10 + 0 + 1 / 2 + 5 / 2) / 4)
    assert normalised_l2(predicted[:, 0, 0], target, torch.tensor([10.0, 2.0])).item() == pytest.approx(0.5)


def test_normalised_l2_has_a_gradient_where_points_are_right():
    points = torch.rand(2, 3, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(normalised_l2(points, points.detach(), torch.ones(2)), points)
    assert (slope == 0).all()


def test_structure_by_hand():
    """Points at 0, 1, 3 on a line, the last predicted at 2: of the nearest pairs 0-1, 1-0 and 2-1 the last is off."""
    target = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]]])
    predicted = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]])
    assert structure(predicted, target, neighbours=1).item() == pytest.approx((0 + 0 + 3) / 3)
    assert structure(predicted, target, neighbours=2).item() == pytest.approx((0 + 5 + 0 + 3 + 5 + 3) / 6)


def test_structure_is_least_where_distances_are_right():
    """Eq. 4 as printed would reward points that fall together."""
    torch.manual_seed(0)
    target = torch.rand(3, 12, 2)
    turned = target @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]]) + 5
    assert structure(turned, target).item() == pytest.approx(0, abs=1e-5)
    together = target.mean(1, keepdim=True) + 0.1 * (target - target.mean(1, keepdim=True))
    assert structure(together, target).item() > 0.01


def test_structure_takes_five_neighbours():
    """Points at 0, 1, 2, 4, 8, 16, 32 on a line, the last predicted at 33: it is a neighbour of itself's five only."""
    target = torch.zeros(1, 7, 2, dtype=torch.float64)
    target[0, :, 0] = torch.tensor([0.0, 1, 2, 4, 8, 16, 32])
    predicted = target.clone()
    predicted[0, 6, 0] = 33
    off = sum((33 - x) ** 2 - (32 - x) ** 2 for x in (1, 2, 4, 8, 16))
    assert structure(predicted, target).item() == pytest.approx(off / 35)


@pytest.mark.parametrize("neighbours", [0, 4])
def test_structure_needs_as_many_points(neighbours):
    with pytest.raises(ValueError, match=f"each of 4 points has 1 to 3 neighbours, not {neighbours}"):
        structure(torch.rand(1, 4, 2), torch.rand(1, 4, 2), neighbours=neighbours)


def by_definition(heatmap, x, y, alpha=1.0, epsilon=1.0, s=0.01):
    """Eq. 11-12 of the structured paper for one (h, w) heatmap and one cell, in Python's own arithmetic."""
    h, w = heatmap.shape
    total = 0.0
    for row in range(h):
        for column in range(w):
            dx, dy = 2 / (w - 1) * abs(column - x), 2 / (h - 1) * abs(row - y)
            small = dx + dy < s
            margin = alpha * (0.5 / s * (dx**2 + dy**2) if small else dx + dy - 0.5 * s)
            total += math.exp((margin + heatmap[row, column].item()) / epsilon)
    return epsilon * math.log(total) - heatmap[y, x].item()


@pytest.mark.parametrize("options", [{}, {"alpha": 3.0, "epsilon": 0.5, "s": 0.4}], ids=["paper", "other"])
def test_structured_by_definition(options):
    torch.manual_seed(1)
    heatmaps = torch.randn(2, 2, 5, 7, dtype=torch.float64)
    cells = [[(0, 0), (6, 4)], [(3, 1), (2, 4)]]
    expected = [by_definition(heatmaps[n, k], *cells[n][k], **options) for n in range(2) for k in range(2)]
    loss = structured(heatmaps, torch.tensor(cells, dtype=torch.float64), **options)
    assert loss.item() == pytest.approx(sum(expected) / 4, rel=1e-6)


@pytest.mark.parametrize(
    ("beside", "margin"),
    [((4, 1), 0.5 / 0.4 / 9), ((3, 2), 1 / 2 - 0.2), ((4, 2), 5 / 6 - 0.2)],
    ids=["below s", "above s", "both axes"],
)
def test_structured_margins_by_hand(beside, margin):
    """Eq. 12 of cells 1/3 apart in x and 1/2 in y, s = 0.4, alpha = 3: two scores alike, all others far below."""
    heatmap = torch.full((1, 1, 5, 7), -100.0, dtype=torch.float64)
    heatmap[0, 0, 1, 3] = heatmap[0, 0, beside[1], beside[0]] = 1.0
    target = torch.tensor([[[3.0, 1.0]]], dtype=torch.float64)
    loss = structured(heatmap, target, alpha=3.0, epsilon=0.5, s=0.4)
    assert loss.item() == pytest.approx(0.5 * math.log(1 + math.exp(3 * margin / 0.5)), rel=1e-6)


def test_structured_margin_within_a_cell():
    """A point 0.1 cells beside a cell of 5 along [-1, 1], in x and y, is 0.05 from it: s = 0.2 gives 2 * 0.05^2 / 0.4.

    A tenth of its own score is that of the row below, -100.
    """
    heatmap = torch.full((1, 1, 5, 5), -100.0, dtype=torch.float64)
    heatmap[0, 0, 2, 2] = heatmap[0, 0, 2, 3] = 1.0
    target = torch.tensor([[[2.1, 2.1]]], dtype=torch.float64)
    expected = 1 + math.log(math.exp(2 * 0.05**2 / 0.4) + math.exp(0.45 + 0.05 - 0.1)) - (0.9 - 10)
    assert structured(heatmap, target, s=0.2).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (2, 2)])
def test_structured_of_the_smallest_maps(size):
    """Half way between two cells the right answer's score is their mean."""
    heatmaps = torch.arange(1.0, 1 + size[0] * size[1], dtype=torch.float64).view(1, 1, *size)
    middle = torch.tensor([[[(size[1] - 1) / 2, (size[0] - 1) / 2]]], dtype=torch.float64)
    margin = sum(side - 1 for side in size) - 0.005  # of every cell: 1 in x, or y, or both
    expected = margin + heatmaps.logsumexp((2, 3)).item() - heatmaps.mean().item()
    assert structured(heatmaps, middle).item() == pytest.approx(expected)


def test_structured_by_hand():
    """Two cells of a row, the right one first: margins 0 and 2 - 0.005, scores 1 and 3."""
    heatmaps = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    expected = math.log(math.exp(1) + math.exp(3 + 2 - 0.005)) - 1
    assert structured(heatmaps, torch.zeros(1, 1, 2)).item() == pytest.approx(expected)


def test_structured_averages_samples():
    torch.manual_seed(2)
    heatmaps = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    target = torch.rand(2, 3, 4, 2, dtype=torch.float64) * 5
    single = torch.stack([structured(heatmaps, target[:, :, i]) for i in range(4)])
    assert structured(heatmaps, target).item() == pytest.approx(single.mean().item())


def test_structured_interpolates_between_cells():
    """A quarter of the way from one cell to the next its score is three quarters of the one, one of the other."""
    heatmaps = torch.zeros(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(structured(heatmaps, torch.tensor([[[0.25, 1.0]]], dtype=torch.float64)), heatmaps)
    x, y = torch.tensor([0.25, 0.75, 1.75]), torch.tensor([1.0, 0, 1])
    margin = (x + y[:, None] - 0.005).double()
    wanted = torch.tensor([[0, 0, 0], [0.75, 0.25, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(slope[0, 0], margin.flatten().softmax(0).view(3, 3) - wanted, **GRADIENT)


def test_structured_pushes_up_the_right_cell_alone():
    heatmaps = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(3)).requires_grad_()
    (slope,) = torch.autograd.grad(structured(heatmaps, torch.tensor([[[3.0, 1.0]]])), heatmaps)
    assert slope[0, 0, 1, 3] < 0
    assert (slope[0, 0] > 0).sum() == 24
    assert slope.sum().item() == pytest.approx(0, abs=1e-6)


def test_structured_is_computed_in_fp32():
    """Scores of 300 overflow exp in fp32 and are 2 apart in bf16: neither the half types nor autocast may show."""
    torch.manual_seed(4)
    heatmaps = (300 + torch.randn(1, 2, 8, 8)).bfloat16()
    target = torch.tensor([[[2.0, 3.0], [6.5, 1.25]]])
    expected = structured(heatmaps.double(), target.double())
    for context in (torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False)):
        with context:
            for maps in (heatmaps, heatmaps.float()):
                loss = structured(maps, target)
                assert loss.dtype == torch.float32
                torch.testing.assert_close(loss.double(), expected, **REWRITE)


def test_loss_augmented_becomes_the_largest_violation():
    """Eq. 10: for a small epsilon the logarithm is a maximum."""
    scores, margin = torch.tensor([[1.0, 4.0, 2.0]]), torch.tensor([[0.0, 1.0, 5.0]])
    loss = loss_augmented(scores, margin, torch.tensor([1.0]), epsilon=0.01)
    assert loss.tolist() == pytest.approx([7 - 1])
    plain = math.log(math.exp(1) + math.exp(5) + math.exp(7)) - 1
    assert loss_augmented(scores, margin, torch.tensor([1.0])).tolist() == pytest.approx([plain])


def shift_by(cells, size):
    """The affine map (2, 3) of fractions that moves a crop's content by whole cells (x, y)."""
    h, w = size
    return torch.tensor([[1.0, 0.0, cells[0] / w], [0.0, 1.0, cells[1] / h]])


def test_views_are_brought_back():
    """One copy as it is, one moved by (2, -1): where both see a cell their mean, elsewhere the one that sees it."""
    size = (4, 6)
    views = torch.rand(2, 1, 3, *size, generator=torch.Generator().manual_seed(5))
    transforms = torch.stack([shift_by((0, 0), size), shift_by((2, -1), size)])[:, None]
    merged, count = merge_views(views, transforms)
    expected = views[0].clone()
    expected[..., 1:, :4] = (views[0, ..., 1:, :4] + views[1, ..., :3, 2:]) / 2
    torch.testing.assert_close(merged, expected, **REWRITE)
    assert count[0, 0].tolist() == [[1] * 6] + [[2, 2, 2, 2, 1, 1]] * 3


def test_a_turned_view_is_brought_back():
    """A quarter turn about the crop's middle, and a mirrored copy: both give the original again."""
    original = torch.rand(1, 2, 5, 5, generator=torch.Generator().manual_seed(6))
    turned = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, 0.0]])  # (x, y) to (1 - y, x)
    mirrored = torch.tensor([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    views = torch.stack([original.rot90(-1, (2, 3)), original.flip(3)])
    merged, count = merge_views(views, torch.stack([turned, mirrored])[:, None])
    torch.testing.assert_close(merged, original, **REWRITE)
    assert (count == 2).all()


def test_siamese_by_hand():
    """Views of 1 and 3 against a target of 0: 2 where both see, 1 elsewhere; what none sees is not counted."""
    size = (2, 4)
    views = torch.stack([torch.ones(1, 1, *size), 3 * torch.ones(1, 1, *size)])
    transforms = torch.stack([shift_by((1, 0), size), shift_by((2, 0), size)])[:, None]
    loss = siamese(views, transforms, torch.zeros(1, 1, *size))
    assert loss.item() == pytest.approx((4 * 4 + 2 * 1) / 6)


def test_siamese_of_views_that_see_nothing():
    size = (2, 4)
    transforms = torch.stack([shift_by((9, 0), size)] * 2)[:, None]
    assert siamese(torch.ones(2, 1, 1, *size), transforms, torch.zeros(1, 1, *size)).item() == 0


def test_siamese_averages_over_points():
    """Two points of one view as it is, off by 1 and by 2."""
    views = torch.stack([torch.ones(1, 2, 4), 2 * torch.ones(1, 2, 4)], 1)[None]
    transforms = shift_by((0, 0), (2, 4))[None, None]
    assert siamese(views, transforms, torch.zeros(1, 2, 2, 4)).item() == pytest.approx((1 + 4) / 2)


def test_siamese_agrees_with_itself():
    """Copies that agree after being brought back, and with the target, cost nothing; the gradient reaches both."""
    target = torch.rand(1, 2, 5, 5, generator=torch.Generator().manual_seed(7))
    views = torch.stack([target, target.flip(3)]).requires_grad_()
    transforms = torch.tensor([[[[1.0, 0, 0], [0, 1, 0]]], [[[-1.0, 0, 1], [0, 1, 0]]]])
    assert siamese(views, transforms, target).item() == pytest.approx(0, abs=1e-10)
    (slope,) = torch.autograd.grad(siamese(views, transforms, target + 1), views)
    assert (slope < 0).all()


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
    point_targets[0, 0] = 0.0  # known too, and right
    point_targets[0, 0, 0] = 2.0  # but for 1.5
    losses = multibox((boxes, logits, points), box_targets, labels, point_targets)
    expected = *expected[:2], (3.0 + 1.5) / 2
    assert [loss.item() for loss in losses] == pytest.approx(expected, rel=1e-5)


def test_multibox_counts_the_hardest_negatives_only():
    count = 100
    logits = torch.zeros(1, count, 2)
    logits[0, :, 1] = torch.linspace(-5, 5, count)
    labels = torch.zeros(1, count, dtype=torch.long)
    labels[0, :8] = 1
    zeros = torch.zeros(1, count, 4), torch.zeros(1, count, 10)
    loss, *_ = multibox((zeros[0], logits, zeros[1]), zeros[0], labels, zeros[1])
    faces = torch.log1p(torch.exp(-logits[0, :8, 1])).sum()
    hardest = torch.log1p(torch.exp(logits[0, count - 56 :, 1])).sum()
    assert loss.item() == pytest.approx(((faces + hardest) / 8).item(), rel=1e-5)
    labels[0, -3:] = -1  # not counted, and no room among the hardest is theirs
    loss, *_ = multibox((zeros[0], logits, zeros[1]), zeros[0], labels, zeros[1], negatives=7)
    hardest = torch.log1p(torch.exp(logits[0, count - 59 : -3, 1])).sum()
    assert loss.item() == pytest.approx(((faces + hardest) / 8).item(), rel=1e-5)


def test_multibox_of_pictures_without_a_face():
    logits = torch.zeros(2, 200, 2, requires_grad=True)
    zeros = torch.zeros(2, 200, 4), torch.zeros(2, 200, 10)
    losses = multibox((zeros[0], logits, zeros[1]), zeros[0], torch.zeros(2, 200, dtype=torch.long), zeros[1])
    assert [loss.item() for loss in losses] == pytest.approx([7 * math.log(2), 0, 0])


def test_margins_by_hand():
    """Two cells of a row, 2 apart, the right one first, scores 1 and 3 (table 5 of the structured paper)."""
    heatmaps = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    for margin, wrong in {"smooth_l1": 2 - 0.005, "l1": 2.0, "l2": 4.0, "none": 0.0}.items():
        loss = structured(heatmaps, torch.zeros(1, 1, 2), alpha=0.5, margin=margin)
        assert loss.item() == pytest.approx(math.log(math.exp(1) + math.exp(3 + 0.5 * wrong)) - 1, rel=1e-6), margin


def among_known(loss, known, *arguments):
    """The loss with the points that are not known moved far away, and without them."""
    kept = [a[:, known] if a.shape[1] == len(known) else a[..., known, :] for a in arguments]
    moved = [a.clone() for a in arguments]
    for a in moved:
        (a[:, ~known] if a.shape[1] == len(known) else a[..., ~known, :]).fill_(7.0)
    return loss(*moved, known.expand(len(arguments[0]), -1)), loss(*kept, None)


def test_unknown_points_do_not_count():
    torch.manual_seed(5)
    known = torch.tensor([True, False, True, True, False])
    maps, others = torch.rand(2, 5, 6, 6), torch.rand(2, 5, 6, 6)
    points, target = torch.rand(2, 3, 5, 2), torch.rand(2, 5, 2)
    norm = torch.tensor([0.5, 2.0])

    def distances(predicted, labels, mask):
        return normalised_l2(predicted, labels, norm, mask)

    for loss, arguments in (
        (heatmap_l2, (maps, others)),
        (structured, (maps, target)),
        (distances, (points, target)),
    ):
        moved, kept = among_known(loss, known, *arguments)
        torch.testing.assert_close(moved, kept)
        assert loss(*arguments, torch.zeros(2, 5, dtype=torch.bool)) == 0


def test_gaps_to_unknown_points_do_not_count():
    """Points at 0, 1, 3 as above, all their gaps to the last off; without it nothing is."""
    target = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]]])
    predicted = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]])
    known = torch.tensor([[True, True, False]])
    assert structure(predicted, target, known, neighbours=2).item() == 0
    known = torch.tensor([[True, False, True]])
    assert structure(predicted, target, known, neighbours=2).item() == pytest.approx(5)


def test_siamese_of_unknown_points():
    maps = torch.rand(2, 1, 2, 4, 4)
    target = maps.mean(0)
    target[:, 1] += 3
    same = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 1, 2, 3)
    assert siamese(maps, same, target).item() == pytest.approx(4.5)
    assert siamese(maps, same, target, torch.tensor([[True, False]])).item() == pytest.approx(0, abs=1e-6)


def gaussian(mean, along, across, angle, side=65):
    """A map (1, 1, side, side) with the mean in -1..1, and the standard deviations of its axes."""
    x = torch.linspace(-1, 1, side, dtype=torch.float64)
    dx, dy = x[None] - mean[0], x[:, None] - mean[1]
    u = math.cos(angle) * dx + math.sin(angle) * dy
    v = -math.sin(angle) * dx + math.cos(angle) * dy
    return torch.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))[None, None]


def test_spread_of_a_gaussian():
    angle = 0.5
    mean, covariance = spread(gaussian((0.1, -0.2), 0.2, 0.1, angle))
    torch.testing.assert_close(mean[0, 0].tolist(), [0.1, -0.2], atol=1e-3, rtol=0)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    expected = turn @ torch.diag(torch.tensor([0.04, 0.01], dtype=torch.float64)) @ turn.T
    torch.testing.assert_close(covariance[0, 0], expected, atol=2e-4, rtol=2e-2)


def test_star_weighs_errors_by_the_spread_along_them():
    """An error along the long axis counts half of one across it, where the map is twice as long as wide."""
    angle, map_ = 0.5, gaussian((0.0, 0.0), 0.2, 0.1, 0.5)
    along = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    across = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
    variances = 0.05
    for direction, deviation in ((along, 0.2), (across, 0.1)):
        loss = star(map_, 0.1 * direction.view(1, 1, 2)).item()
        assert loss == pytest.approx((0.1 - 0.005) / deviation + variances, rel=0.02)
        assert star(map_, 0.1 * direction.view(1, 1, 2), restriction=0.0).item() < loss - 0.04
    unknown = torch.zeros(1, 1, dtype=torch.bool)
    assert star(map_, across.view(1, 1, 2), unknown).item() == 0


def test_star_has_a_gradient_where_the_axes_are_not_told_apart():
    maps = gaussian((0.0, 0.0), 0.1, 0.1, 0.0, side=17).requires_grad_()
    (slope,) = torch.autograd.grad(star(maps, torch.tensor([[[0.2, 0.1]]], dtype=torch.float64)), maps)
    assert slope.isfinite().all() and slope.abs().max() > 0
