"""MobileNetV2's maps joined from coarse to fine, and what its heads make of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facelm_models import create
from facelm_models.pyramid import tokens_of
from tests.tolerances import REWRITE


def tiny(**options):
    torch.manual_seed(0)
    return create("pyramid_m", **{"num_landmarks": 29, "size": 64, "dim": 16, **options}).eval()


def test_size():
    assert sum(p.numel() for p in create("pyramid_m").parameters()) == 2_473_169


@torch.no_grad()
def test_every_map_of_the_backbone_is_joined():
    model, crops = tiny(), torch.randn(2, 3, 64, 64)
    maps = model.backbone.maps(crops)
    assert [tuple(x.shape[1:]) for x in maps] == [(24, 16, 16), (32, 8, 8), (96, 4, 4), (1280, 2, 2)]
    torch.testing.assert_close(maps[-1], model.backbone(crops), rtol=0, atol=0)
    x = None
    for level in (3, 2, 1, 0):
        own = model.lateral[level](maps[level])
        x = own if x is None else own + x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = model.join[level](x)
    found = model.intermediate(crops)[0]
    torch.testing.assert_close(found.logits, model.heatmaps(x), **REWRITE)
    torch.testing.assert_close(found.edges, model.edges(x).sigmoid(), **REWRITE)
    on_edges = F.conv2d(found.edges, model.edge_weight, model.edge_bias)
    scores = F.instance_norm(found.logits) * on_edges * model.points(x).sigmoid()
    torch.testing.assert_close(found.scores, scores, **REWRITE)
    torch.testing.assert_close(model(crops), scores.clamp(min=0), **REWRITE)


def test_every_parameter_learns_from_the_maps():
    model = tiny().train()
    (maps,) = model.intermediate(torch.randn(2, 3, 64, 64))
    (maps.scores.square().mean() + maps.edges.mean() + maps.points.mean()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("size", [16, 100])
def test_size_that_does_not_halve_is_refused(size):
    with pytest.raises(ValueError, match="multiple of 32"):
        create("pyramid_m", size=size)


def test_a_token_is_what_lies_under_the_heatmap():
    features = torch.randn(2, 5, 4, 4)
    heatmaps = torch.zeros(2, 3, 4, 4)
    heatmaps[:, 1, 2, 3] = 8.0
    heatmaps[:, 2, 0, :2] = torch.tensor([1.0, 3.0])
    tokens = tokens_of(heatmaps, features)
    assert tokens.shape == (2, 3, 7)
    assert not tokens[:, 0].any()  # an empty map
    torch.testing.assert_close(tokens[:, 1, :5], features[:, :, 2, 3], **REWRITE)
    assert tokens[:, 1, 5:].tolist() == [[8.0, 0.5]] * 2  # peak and mean
    torch.testing.assert_close(tokens[:, 2, :5], (features[:, :, 0, 0] + 3 * features[:, :, 0, 1]) / 4, **REWRITE)
    half = tokens_of(heatmaps, features.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), tokens, rtol=2e-3, atol=2e-3)


@torch.no_grad()
def test_heads_are_beside_the_heatmaps():
    torch.manual_seed(0)
    model, crops = tiny(confidence=True), torch.randn(2, 3, 64, 64)
    heatmaps, (tokens, coarse) = model.forward_features(crops)
    torch.testing.assert_close(heatmaps, model(crops), rtol=0, atol=0)
    assert isinstance(model.confidence, nn.Module) and tiny().confidence is None
    assert tokens.shape == (2, 29, 18) and coarse.equal(model.backbone.maps(crops)[2])
    scores, presence = model.confidence(tokens, coarse)
    assert scores.shape == (2, 29) and presence.shape == (2,)
