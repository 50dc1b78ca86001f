"""Every registered landmark network is what training and export ask for, and gives the shapes that it promises."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facelm_models import LandmarkNetwork, info, list_models
from facelm_models.complexity import outline
from facelm_models.protocol import BackboneNetwork, FeatureNetwork, MeanShapeNetwork

WARM = {"lotr": BackboneNetwork, "mtld": BackboneNetwork, "slpt": FeatureNetwork}
"""Transformers do not leave the mean shape from random weights: each has a part that learns by itself."""


def small(name):
    return outline(name, num_landmarks=29, size=64).eval()


def leaves(output):
    """The tensors of what ``intermediate`` gives, whatever it is nested in."""
    if isinstance(output, torch.Tensor):
        return [output]
    return [leaf for part in output for leaf in leaves(part)]


@pytest.mark.parametrize("name", list_models("landmarks"))
@torch.no_grad()
def test_a_landmark_network(name):
    network, crops = small(name), torch.zeros(2, 3, 64, 64, device="meta")
    assert isinstance(network, nn.Module) and isinstance(network, LandmarkNetwork)
    assert (network.config.size, network.config.num_landmarks) == (64, 29)
    assert type(network.config) is type(info(name).config)
    output = network(crops)
    assert output.shape[:2] == (2, 29)
    trained = leaves(network.intermediate(crops))
    assert all(len(part) == 2 for part in trained)
    assert any(part.shape[-output.ndim + 1 :] == output.shape[1:] for part in trained)


@pytest.mark.parametrize("name", list_models("landmarks"))
@torch.no_grad()
def test_its_parts(name):
    network, crops = small(name), torch.zeros(2, 3, 64, 64, device="meta")
    family = name.partition("_")[0]
    assert family not in WARM or (isinstance(network, MeanShapeNetwork) and isinstance(network, WARM[family]))
    if isinstance(network, MeanShapeNetwork):
        assert network.mean_shape.shape == (29, 2) and "mean_shape" in network.state_dict()
    if isinstance(network, FeatureNetwork):
        assert isinstance(network.features, nn.Module)
        assert network.features(crops).shape == (2, network.config.dim, 16, 16)
    if isinstance(network, BackboneNetwork):
        assert isinstance(network.backbone, nn.Module)
        maps, channels = network.backbone(crops), network.backbone.channels
        deepest = maps if isinstance(maps, torch.Tensor) else maps[-1]
        assert deepest.shape == (2, channels if isinstance(channels, int) else channels[-1], 2, 2)


@pytest.mark.parametrize("name", ["retinaface_mnet025", "retinaface_r50"])
def test_a_detector_is_none(name):
    assert not isinstance(outline(name), LandmarkNetwork)
