"""The detector's graph against the readable form that decodes every prior."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facelm_export.ops.candidates import DetectorGraph, JoinedHeads, priors_at
from facelm_export.wrappers import FusedDetector
from facelm_models import create, info
from facelm_models.retinaface import priors

NAME = "retinaface_mnet025"
SIZES = ((16, 32), (64, 128), (256, 512))


@pytest.fixture(scope="module")
def network():
    """Random weights whose heads tell priors apart."""
    torch.manual_seed(0)
    network = create(NAME).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False).add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 131), (240, 320), (33, 200)])
def test_priors_by_index(height, width):
    every = priors(height, width, SIZES)
    index = torch.randperm(len(every))
    torch.testing.assert_close(priors_at(index, height, width, SIZES), every[index])
    assert priors_at(index[:0], height, width, SIZES).shape == (0, 4)


def test_joined_heads_are_the_three(network):
    x = torch.randn(2, 3, 97, 131)
    boxes, logits, points = network(x)
    rows = JoinedHeads(network)(x)
    torch.testing.assert_close(rows[..., 0], logits[..., 1] - logits[..., 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows[..., 1:], torch.cat([boxes, points], -1), rtol=1e-4, atol=1e-4)


def test_the_graph_finds_what_the_reference_finds(network):
    reference = FusedDetector(network, info(NAME)).eval()
    graph = DetectorGraph(reference.pixels, network, iou=0.4, floor=0.05).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 97, 131, 3), np.uint8))
    expected, actual = reference(image), graph(image)
    assert len(expected[0]) > 3
    for one, other in zip(expected, actual, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-3)


def test_nothing_is_found_where_nothing_scores(network):
    graph = DetectorGraph(FusedDetector(network, info(NAME)).pixels, network, iou=0.4, floor=1 - 1e-7).eval()
    boxes, scores, kps = graph(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert (boxes.shape, scores.shape, kps.shape) == ((0, 4), (0,), (0, 5, 2))
