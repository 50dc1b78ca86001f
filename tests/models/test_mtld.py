"""MTLD: its sizes against table 4 of the paper, and its layers."""

from __future__ import annotations

import pytest
import torch

from facelm_models import create
from facelm_models.complexity import multiply_adds, outline, parameters, share
from facelm_models.mtld import FeaturePyramidAttention
from tests.tolerances import REWRITE

CLASSIFIER = {"mtld_r18": 513 * 1000, "mtld_r50": 2049 * 1000, "mtld_r101": 2049 * 1000}
"""Parameters of the backbone's ImageNet classifier, which nothing uses but the paper's sizes seem to hold."""


def tiny(**options):
    torch.manual_seed(0)
    return create("mtld_r18", **({"num_landmarks": 5, "size": 64} | options)).eval()


@pytest.mark.parametrize(
    ("name", "paper", "counted", "tolerance"),
    [("mtld_r18", 12.6, 12.914, 0.025), ("mtld_r50", 27.3, 27.126, 0.01), ("mtld_r101", 46.0, 46.118, 0.01)],
)
def test_parameters(name, paper, counted, tolerance):
    """Without the heatmap branch, with the classifier; no layers meet all three (see the module's docstring)."""
    model = outline(name)
    millions = (parameters(model) - parameters(model.heatmaps) + CLASSIFIER[name]) / 1e6
    assert millions == pytest.approx(counted, abs=1e-3)
    assert millions == pytest.approx(paper, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "paper", "total"), [("mtld_r18", 2.7, 4.299), ("mtld_r50", 5.8, 7.357), ("mtld_r101", 10.7, 12.206)]
)
def test_multiply_adds(name, paper, total):
    """All but attention is the paper's figure; 1,344 tokens' attention to each other is most of the rest."""
    counts = multiply_adds(outline(name), 256)
    attention = share(counts, "attention", "self_attention", "cross_attention")
    assert counts["Global"] == pytest.approx(total, rel=1e-3)
    assert counts["Global"] - attention == pytest.approx(paper, rel=0.012)
    assert not any("heatmaps" in module for module in counts)


@torch.no_grad()
def test_shapes_and_independence_of_the_batch():
    model = tiny()
    crops = torch.randn(3, 3, 64, 64)
    together = model(crops)
    assert together.shape == (3, 5, 2)
    torch.testing.assert_close(torch.cat([model(crop[None]) for crop in crops]), together, **REWRITE)
    assert together.std(0).max() > 1e-4, "the points do not depend on the picture"


@torch.no_grad()
def test_a_mobilenet_in_the_place_of_the_resnet():
    torch.manual_seed(0)
    model = create("mtld_m", num_landmarks=5, size=64).eval()
    crops = torch.randn(2, 3, 64, 64)
    maps = model._features(crops)
    assert [tuple(x.shape[1:]) for x in maps] == [(128, 8, 8), (128, 4, 4), (128, 2, 2)]
    expected = [reduce(x) for reduce, x in zip(model.reduce, model.backbone.maps(crops)[1:], strict=True)]
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))
    assert model(crops).shape == (2, 5, 2) and model.intermediate(crops).heatmaps.shape == (2, 5, 16, 16)


@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_intermediate(layers):
    model = tiny(decoder_layers=layers)
    crops = torch.randn(2, 3, 64, 64)
    outputs = model.intermediate(crops)
    assert outputs.landmarks.shape == (2, layers, 5, 2)
    assert outputs.heatmaps.shape == (2, 5, 16, 16)
    assert torch.equal(outputs.landmarks[:, -1], model(crops))


@torch.no_grad()
def test_heads_refine_the_mean_shape_and_each_other():
    model = tiny()
    crops = torch.randn(2, 3, 64, 64)
    model.mean_shape.uniform_(0.2, 0.8)
    before = model.intermediate(crops).landmarks
    model.heads[1][-1].weight.zero_()
    model.heads[1][-1].bias.copy_(torch.tensor([0.1, -0.2]))
    after = model.intermediate(crops).landmarks
    assert torch.equal(after[:, 0], before[:, 0])
    torch.testing.assert_close(after[:, 1] - after[:, 0], torch.tensor([0.1, -0.2]).expand(2, 5, 2))
    model.heads[0][-1].weight.zero_()
    torch.testing.assert_close(model.intermediate(crops).landmarks[:, 0], model.mean_shape.expand(2, -1, -1))


@torch.no_grad()
def test_pyramid_attention_is_the_papers_formula():
    torch.manual_seed(0)
    layer = FeaturePyramidAttention(8, 2, 16)
    s, p, m = torch.randn(2, 9, 8), torch.randn(1, 9, 8), torch.randn(2, 9, 8)
    t = layer.norm1(s + layer.attention(s + p, s * m + p, s * m))
    torch.testing.assert_close(layer(s, p, m), layer.norm2(t + layer.feedforward(t)))
    torch.testing.assert_close(layer(s, p, None), layer(s, p, torch.ones_like(m)))


@torch.no_grad()
def test_coarser_maps_see_the_finer_ones_memory():
    model = tiny()
    maps = [torch.randn(1, 128, side, side) for side in (8, 4, 2)]
    positions = [position() for position in model.positions]
    before = model._memories(model.pyramid, maps, positions)
    maps[0] += 1.0
    after = model._memories(model.pyramid, maps, positions)
    assert all((x - y).abs().max() > 1e-4 for x, y in zip(before, after, strict=True))
    assert [x.shape for x in after] == [(1, 64, 128), (1, 16, 128), (1, 4, 128)]


def test_every_parameter_learns():
    model = tiny().train()
    outputs = model.intermediate(torch.randn(2, 3, 64, 64))
    (outputs.landmarks.square().sum() + outputs.heatmaps.square().sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_sides_are_checked():
    with pytest.raises(ValueError, match="multiple of 32, not 100"):
        create("mtld_r18", size=100)


@torch.no_grad()
def test_the_base_transformer_sees_the_coarsest_map_alone():
    model, crops = tiny(multi_scale=False), torch.randn(2, 3, 64, 64)
    assert not any(key.startswith("pyramid") for key in model.state_dict())
    maps = model._features(crops)
    before = model._landmarks(maps)[-1]
    torch.testing.assert_close(model._landmarks([maps[0] + 1, maps[1] + 1, maps[2]])[-1], before)
    assert (model._landmarks([maps[0], maps[1], maps[2] + torch.randn(1, 128, 1, 1)])[-1] - before).abs().max() > 1e-4
    assert torch.equal(model(crops), before) and model.intermediate(crops).heatmaps.shape == (2, 5, 16, 16)


@torch.no_grad()
def test_maps_are_added_to_their_memories():
    model, sums = tiny(), tiny(fusion="sum")
    assert parameters(model) == parameters(sums)
    maps = [torch.randn(1, 128, side, side) for side in (8, 4, 2)]
    positions = [position() for position in model.positions]
    for memory, token, x in zip(model._tokens(maps, positions), sums._tokens(maps, positions), maps, strict=True):
        torch.testing.assert_close(token, memory + x.flatten(2).transpose(1, 2))
