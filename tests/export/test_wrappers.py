"""What is done to a network before it is traced."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from facelm_export.passes.batch_norm import without_batch_norm
from facelm_export.passes.half import to_half
from facelm_export.passes.pixels import absorb_pixels
from facelm_export.wrappers import FusedDetector, FusedLandmarks, PixelInput
from facelm_models import info
from facelm_sdk import markup as markups
from tests.tolerances import PIXELS, REWRITE

from .conftest import disturbed

MARKUP = markups.get("ibug68")


@pytest.fixture
def crops():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 192, 192, 3), np.uint8))


class Centre(nn.Module):
    """The fractions of every point are the colour of the crop's pixel (row 1, column 0)."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.one * x[:, None, :2, 1, 0].expand(-1, 68, -1)


def test_pixels_by_hand():
    model = dataclasses.replace(info("lotr_m"), channels="rgb", mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    pixels = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    pixels[0, 1, 0] = torch.tensor([30, 20, 10])  # BGR
    expected = torch.tensor([(10 - 1) / 2, (20 - 2) / 4, (30 - 3) / 8])
    torch.testing.assert_close(PixelInput(model, Centre())(pixels)[0, :, 1, 0], expected)
    model = dataclasses.replace(model, channels="bgr")
    expected = torch.tensor([(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8])
    torch.testing.assert_close(PixelInput(model, Centre())(pixels)[0, :, 1, 0], expected)


def test_fractions_become_pixels():
    model = dataclasses.replace(info("lotr_m"), mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    crop = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    crop[0, 1, 0] = torch.tensor([0, 51, 255])  # R = 1, G = 0.2: x at the right edge, y a fifth down
    points = FusedLandmarks(Centre(), model, 4, MARKUP, flip=False)(crop)
    torch.testing.assert_close(points, torch.tensor([3.5, 0.3]).expand(1, 68, 2))


@torch.no_grad()
def test_flip_averaging_is_mirror_symmetric(crops):
    fused = FusedLandmarks(disturbed("lotr_m"), info("lotr_m"), 192, MARKUP, flip=True).eval()
    mirrored = markups.flip_points(fused(crops.flip(2)).numpy(), 192, MARKUP)
    np.testing.assert_allclose(fused(crops).numpy(), mirrored, **REWRITE)


@pytest.mark.parametrize(
    ("name", "options"),
    [("lotr_m", {}), ("lotr_m_plus", {"size": 64}), ("hrnet18", {"size": 64}), ("retinaface_mnet025", {})],
)
@torch.no_grad()
def test_folding_batch_norms_changes_nothing(name, options):
    network = disturbed(name, **options)
    size = options.get("size", 192)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = without_batch_norm(network, size)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    x = torch.randn(2, 3, size, size)
    expected, actual = network(x), folded(x)
    if isinstance(expected, torch.Tensor):
        expected, actual = (expected,), (actual,)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, **REWRITE)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@torch.no_grad()
def test_a_norm_that_no_convolution_precedes_stays():
    network = disturbed("fan2", size=64, stacks=1, dim=32)
    folded = without_batch_norm(network, 64)
    count = [sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (network, folded)]
    assert 0 < count[1] < count[0]
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(folded(x), network(x), **REWRITE)


class Peaks(nn.Module):
    """A heatmap for each point, a spot of height 0.8 one cell right of the crop's first bright pixel."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, x):
        maps = torch.zeros(len(x), 68, 8, 8)
        for i, crop in enumerate(x[:, 0]):
            row, column = divmod(int(crop[::4, ::4].argmax()), 8)
            maps[i, :, row, column] = 0.8 + 0.1 * crop.max()
        return maps


def test_heatmaps_become_pixels_and_scores():
    model = dataclasses.replace(info("fan2"), mean=(0.0, 0.0, 0.0))
    crop = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    crop[0, 8, 20] = 255
    for flip in (False, True):
        points, scores = FusedLandmarks(Peaks(), model, 32, MARKUP, flip=flip)(crop)
        if not flip:
            torch.testing.assert_close(points, torch.tensor([21.5, 9.5]).expand(1, 68, 2), rtol=0, atol=1e-4)
        torch.testing.assert_close(scores, torch.full((1, 68), 0.9 if not flip else scores[0, 0].item()))
        assert scores.max() <= 1


def test_half_precision_keeps_buffers():
    network = to_half(without_batch_norm(disturbed("lotr_m"), 192), info("lotr_m"))
    single = {name for name, parameter in network.named_parameters() if parameter.dtype != torch.float16}
    assert all(name.startswith("backbone.layers.0.") for name in single)  # which sees pixels
    assert all(b.dtype == torch.float32 for b in network.buffers() if b.is_floating_point())
    assert torch.equal(network.mean_shape, disturbed("lotr_m").mean_shape)
    assert dict(network.named_buffers()).keys() == {"mean_shape"}


@torch.no_grad()
def test_points_leave_a_half_precision_network_in_fp32(crops):
    network = without_batch_norm(disturbed("lotr_m"), 192)
    expected = FusedLandmarks(network, info("lotr_m"), 192, MARKUP, flip=True)(crops)
    actual = FusedLandmarks(to_half(network, info("lotr_m")), info("lotr_m"), 192, MARKUP, flip=True)(crops)
    assert actual.dtype == torch.float32
    assert (actual - expected).norm(dim=-1).max() < PIXELS["fp16"]


@torch.no_grad()
def test_detections_are_sorted_and_told_apart():
    fused = FusedDetector(disturbed("retinaface_mnet025"), info("retinaface_mnet025")).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 97, 131, 3), np.uint8))
    boxes, scores, kps = fused(image)
    assert len(boxes) == len(scores) == len(kps) > 3
    assert boxes.shape[1:] == (4,) and kps.shape[1:] == (5, 2)
    assert (scores.diff() <= 0).all() and scores.min() > 0.05


@torch.no_grad()
@pytest.mark.parametrize("name", ["lotr_m", "retinaface_mnet025"])
def test_order_and_gain_move_into_the_first_convolution(name):
    """Also at the crop's edge, where zeros stand for the mean."""
    network, model = without_batch_norm(disturbed(name), 192), info(name)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 192, 192, 3), np.uint8))
    expected = network(PixelInput(model, network)(pixels))
    left = absorb_pixels(network, model)
    assert (left.channels, left.std) == ("bgr", (1.0, 1.0, 1.0))
    torch.testing.assert_close(network(PixelInput(left, network)(pixels)), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_pixels_that_something_else_sees_are_left_alone():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return x + self.first(x)

    network, model = Both(), info("lotr_m")
    before = network.first.weight.clone()
    assert absorb_pixels(network, model) == model
    assert torch.equal(network.first.weight, before)
