"""Edges drawn from annotations, and the scatter that follows them."""

from __future__ import annotations

import math

import pytest
import torch

from facelm_models.edges import CURVES
from facelm_models.heatmaps import to_fractions
from facelm_training.losses.label_smoothing import blur, covariances, edge_maps, samples, sharpen, smooth_line
from tests.tolerances import REWRITE

SIZE = (24, 32)  # h, w: unequal, so that swapped axes show


def fractions(cells):
    return to_fractions(torch.tensor(cells, dtype=torch.float64), SIZE)


def circle(count, *, centre=(15.0, 11.0), radius=8.0):
    angles = torch.arange(count, dtype=torch.float64) * 2 * math.pi / count
    return torch.stack([centre[0] + radius * angles.cos(), centre[1] + radius * angles.sin()], -1)


def test_a_smooth_line_goes_through_its_points():
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0], [4.0, 4.0]])
    line = smooth_line(points, steps=5)
    assert line.shape == (16, 2)
    torch.testing.assert_close(line[::5], points)


def test_a_smooth_line_of_two_points_is_straight():
    line = smooth_line(torch.tensor([[1.0, 1.0], [3.0, 5.0]]), steps=4)
    torch.testing.assert_close(line[:, 1] - 1, 2 * (line[:, 0] - 1))


def test_a_closed_line_is_round_everywhere():
    """Twelve points of a circle: the spline stays within 0.3% of its radius, at the seam as elsewhere."""
    points = circle(12)
    line = smooth_line(torch.cat([points, points[:1]]), closed=True)
    radius = (line - torch.tensor([15.0, 11.0], dtype=torch.float64)).norm(dim=-1) / 8
    assert (radius - 1).abs().max() < 0.003
    torch.testing.assert_close(line[0], line[-1])


def test_edge_maps_by_hand():
    """A level line and an upright one: Gaussians of the distance, round at the ends, nothing from 3 sigma on."""
    points = fractions([[[4, 6], [10, 6], [20, 3], [20, 15]]])
    maps = edge_maps(points, [(0, 1), (2, 3)], SIZE, sigma=1.5)
    assert maps.shape == (1, 2, *SIZE)
    level, upright = maps[0]
    assert level[6, 7].item() == pytest.approx(1)
    assert level[8, 7].item() == pytest.approx(math.exp(-4 / 4.5))
    assert level[7, 12].item() == pytest.approx(math.exp(-5 / 4.5))
    assert level[11, 7].item() == 0
    assert upright[9, 20].item() == pytest.approx(1)
    assert upright[9, 17].item() == pytest.approx(math.exp(-9 / 4.5))


@pytest.mark.parametrize("points", sorted(CURVES))
def test_every_markup_has_edge_maps(points):
    torch.manual_seed(points)
    maps = edge_maps(torch.rand(2, points, 2), CURVES[points], SIZE)
    assert maps.shape == (2, len(CURVES[points]), *SIZE)
    assert (maps.amax((2, 3)) > 0.5).all()
    assert covariances(torch.rand(2, points, 2), CURVES[points], SIZE).isfinite().all()


def test_blur_by_hand():
    """A kernel of 9 has sigma 1.7 and sum 1; at a border what lies beyond is the mirror image."""
    maps = torch.zeros(1, 2, 16, 16, dtype=torch.float64)
    maps[0, 0, 8, 7] = 1
    maps[0, 1] = 0.3
    smooth = blur(maps)
    weights = [math.exp(-(k**2) / (2 * 1.7**2)) for k in range(-4, 5)]
    total = sum(weights)
    assert smooth[0, 0, 8, 7].item() == pytest.approx((1 / total) ** 2)
    assert smooth[0, 0, 6, 10].item() == pytest.approx(weights[2] * weights[7] / total**2)
    assert smooth[0, 0].sum().item() == pytest.approx(1)
    torch.testing.assert_close(smooth[0, 1], maps[0, 1])


def test_sharpen_by_hand():
    """Smoothed with weights 5 / 13 and 1 / 13, then 5 times the difference is given back, within [0, 1]."""
    maps = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    maps[0, 0, 3, 3], maps[0, 0, 0, 0] = 0.26, 0.5
    sharp = sharpen(maps)[0, 0]
    assert sharp[3, 3].item() == pytest.approx(0.1 + 5 * 0.16)
    assert sharp[3, 4].item() == 0  # 0.02 - 5 * 0.02
    assert sharp[0, 0].item() == pytest.approx(0.5)
    torch.testing.assert_close(sharpen(0.5 * torch.ones(1, 1, 7, 7)), 0.5 * torch.ones(1, 1, 7, 7), **REWRITE)


def test_without_edges_the_scatter_is_round():
    """The covariance of a 5x5 Gaussian of sigma 1.1, times gamma."""
    covariance = covariances(fractions([[[9.3, 11.8], [2, 2], [25, 20]]]), [(1, 2)], SIZE, edge_weight=0.0)
    weights = [math.exp(-(k**2) / (2 * 1.1**2)) for k in range(-2, 3)]
    variance = sum(w * k**2 for w, k in zip(weights, range(-2, 3), strict=True)) / sum(weights)
    expected = 0.01 * variance * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(covariance[0, 0], expected, **REWRITE)


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
def test_the_scatter_follows_the_edge(angle):
    along = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))], dtype=torch.float64)
    cells = torch.tensor([15.2, 11.7], dtype=torch.float64) + 8 * torch.tensor([[-1.0], [0.0], [1.0]]) * along
    points = to_fractions(cells[None], SIZE)
    covariance = covariances(points, [(0, 1, 2)], SIZE, edge_weight=1.0)[0, 1]
    sizes, directions = torch.linalg.eigh(covariance)
    assert sizes[1] > 1.2 * sizes[0]
    assert (directions[:, 1] @ along).abs() > 0.98
    printed = covariances(points, [(0, 1, 2)], SIZE)[0, 1]  # the paper's weight of 0.01 is barely felt
    sizes = torch.linalg.eigvalsh(printed)
    assert 1 < sizes[1] / sizes[0] < 1.04


def test_a_larger_patch_follows_the_edge_further():
    """The Gaussian keeps its five cells; what the patch holds beyond them is edge."""
    points = to_fractions(torch.tensor([[[7.2, 11.7], [15.2, 11.7], [23.2, 11.7]]], dtype=torch.float64), SIZE)
    ratios = []
    for patch in (3, 5, 9, 17):
        spread = covariances(points, [(0, 1, 2)], SIZE, patch=patch)[0, 1]
        ratios.append((spread[0, 0] / spread[1, 1]).item())
    assert ratios == sorted(ratios) and ratios[0] < 1.04 and ratios[-1] > 1.3
    narrow, wide = (covariances(points, [(0, 1, 2)], SIZE, patch=9, kernel=k)[0, 1] for k in (5, 9))
    assert torch.linalg.det(wide) > 2 * torch.linalg.det(narrow)


@pytest.mark.parametrize("options", [{"patch": 4}, {"kernel": 0}], ids=str)
def test_patches_are_odd(options):
    with pytest.raises(ValueError, match="odd and positive"):
        covariances(torch.rand(1, 3, 2), [(0, 1, 2)], SIZE, **options)


def test_gamma_is_a_factor():
    points = fractions([[[9.3, 11.8], [2, 2], [25, 20]]])
    wide, narrow = (covariances(points, [(0, 1, 2)], SIZE, gamma=gamma) for gamma in (0.01, 0.001))
    torch.testing.assert_close(wide, 10 * narrow)


def test_samples_scatter_as_told():
    points = torch.tensor([[[5.0, 7.0], [1.0, 2.0]]])
    covariance = torch.tensor([[[[0.5, 0.3], [0.3, 0.4]], [[0.01, 0.0], [0.0, 0.04]]]])
    drawn = samples(points, covariance, count=20000, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (1, 2, 20000, 2)
    torch.testing.assert_close(drawn.mean(2), points, rtol=0, atol=0.02)
    for k in range(2):
        torch.testing.assert_close(drawn[0, k].T.cov(), covariance[0, k], rtol=0.05, atol=0.01)


def test_ten_samples_that_a_generator_repeats():
    points, covariance = torch.zeros(2, 3, 2), torch.eye(2).expand(2, 3, 2, 2)
    first, second = (samples(points, covariance, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (2, 3, 10, 2)
    assert torch.equal(first, second)
