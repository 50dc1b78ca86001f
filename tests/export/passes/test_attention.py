"""Transformer layers of few nodes against the readable ones of the models."""

from __future__ import annotations

import collections

import onnx
import pytest
import torch

from facelm_export.passes.attention import JoinedDecoderLayer, JoinedEncoderLayer, join_attention
from facelm_models.layers import DecoderLayer, EncoderLayer
from facelm_models.mtld import FeaturePyramidAttention
from tests.tolerances import REWRITE

from ..conftest import disturbed

DIM, HEADS = 32, 4


def filled(layer):
    """The layer with biases and norms that matter."""
    torch.manual_seed(5)
    for name, parameter in layer.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.3)
    return layer.eval()


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
def test_encoder_layers_agree(batch):
    x, position = random(batch, 10, DIM), random(1, 10, DIM)
    layer = filled(EncoderLayer(DIM, HEADS, 48))
    torch.testing.assert_close(JoinedEncoderLayer(layer)(x, position), layer(x, position), **REWRITE)


@torch.no_grad()
@pytest.mark.parametrize("weighted", [False, True])
def test_pyramid_layers_agree(weighted):
    x, position = random(2, 10, DIM), random(1, 10, DIM)
    before = random(2, 10, DIM + 0).sigmoid() if weighted else None
    layer = filled(FeaturePyramidAttention(DIM, HEADS, 48))
    torch.testing.assert_close(JoinedEncoderLayer(layer)(x, position, before), layer(x, position, before), **REWRITE)


@torch.no_grad()
@pytest.mark.parametrize("shared", [False, True])
def test_decoder_layers_agree(shared):
    y, queries = random(1 if shared else 3, 7, DIM), random(1, 7, DIM)
    memory, position = random(3, 10, DIM), random(1, 10, DIM)
    layer = filled(DecoderLayer(DIM, HEADS, 48))
    expected = layer(y, queries, memory, position)
    assert expected.shape == (3, 7, DIM)
    torch.testing.assert_close(JoinedDecoderLayer(layer)(y, queries, memory, position), expected, **REWRITE)


@torch.no_grad()
@pytest.mark.parametrize("name", ["lotr_m_plus", "mtld_r18"])
def test_a_network_with_joined_layers_finds_the_same_points(name):
    network = disturbed(name, size=64)
    crops = random(2, 3, 64, 64)
    expected, weights = network(crops), {key: value.clone() for key, value in network.state_dict().items()}
    join_attention(network)
    assert not any(isinstance(module, EncoderLayer | DecoderLayer) for module in network.modules())
    torch.testing.assert_close(network(crops), expected, **REWRITE)
    for key, value in network.state_dict().items():  # what was not joined is as it was
        assert key not in weights or torch.equal(value, weights[key])


def test_an_attention_is_few_nodes(exported):
    """Of LOTR-M's six, none asks for shapes, and each projects queries, keys and values by at most two products."""
    found = collections.Counter(node.op_type for node in onnx.load(exported("lotr_m").path).graph.node)
    assert found["Softmax"] == 6 and found["Gemm"] == 6 - 1 + 2 * 4 + 3
    assert not {"Shape", "Expand", "Gather"} & found.keys()
    assert found["Concat"] == 0 and found["Sqrt"] == 0
