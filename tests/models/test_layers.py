"""LOTR's transformer against its paper's equations, written out with torch's own attention or none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facelm_models import create
from facelm_models.layers import Attention, DecoderLayer, EncoderLayer

DIM, HEADS, HIDDEN = 12, 3, 20


def filled(module):
    """In fp64, with biases and norms that matter."""
    torch.manual_seed(5)
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.4)
    return module.double().eval()


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def torchs(attention):
    """torch's own multi-head attention of the same weights."""
    dim = attention.out.in_features
    own = nn.MultiheadAttention(dim, attention.heads, batch_first=True, dtype=torch.float64).eval()
    layers = (attention.query, attention.key, attention.value)
    own.in_proj_weight.data = torch.cat([layer.weight for layer in layers]).detach()
    own.in_proj_bias.data = torch.cat([layer.bias for layer in layers]).detach()
    own.out_proj.load_state_dict(attention.out.state_dict())
    return lambda q, k, v: own(q, k, v, need_weights=False)[0]


def written_out(attention):
    """Eq. 3 to 5, head by head: D' = D / M, softmax over the keys."""
    width = attention.out.in_features // attention.heads

    def head(layer, x, i):
        rows = slice(i * width, (i + 1) * width)
        return x @ layer.weight[rows].T + layer.bias[rows]

    def mha(q, k, v):
        heads = []
        for i in range(attention.heads):
            queries, keys, values = (
                head(layer, x, i) for layer, x in ((attention.query, q), (attention.key, k), (attention.value, v))
            )
            scores = (queries @ keys.transpose(1, 2) / width**0.5).exp()
            heads.append(scores / scores.sum(-1, keepdim=True) @ values)
        return torch.cat(heads, -1) @ attention.out.weight.T + attention.out.bias

    return mha


def perceptron(feedforward, x):
    """Of two layers, as the sizes that the paper prints demand (its eq. 13 has one)."""
    first, _, last = feedforward
    return (x @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias


def norm(layer, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def encode(layer, x, p, mha):
    """Eq. 10 to 12."""
    x = norm(layer.norm1, mha(layer.attention)(x + p, x + p, x) + x)
    return norm(layer.norm2, perceptron(layer.feedforward, x) + x)


def decode(layer, y, y0, x, p, mha):
    """Eq. 15 to 18."""
    y = norm(layer.norm1, mha(layer.self_attention)(y + y0, y + y0, y) + y)
    y = norm(layer.norm2, mha(layer.cross_attention)(y + y0, x + p, x) + y)
    return norm(layer.norm3, perceptron(layer.feedforward, y) + y)


@pytest.mark.parametrize("mha", [torchs, written_out])
@torch.no_grad()
def test_attention(mha):
    attention = filled(Attention(DIM, HEADS))
    query, key, value = random(2, 5, DIM), random(2, 7, DIM), 2 + random(2, 7, DIM)
    expected = mha(attention)(query, key, value)
    assert expected.shape == (2, 5, DIM)
    torch.testing.assert_close(attention(query, key, value), expected)
    shared = attention(query[:1], key, value)
    torch.testing.assert_close(shared, mha(attention)(query[:1].expand(2, -1, -1), key, value))


@pytest.mark.parametrize("mha", [torchs, written_out])
@torch.no_grad()
def test_an_encoder_layer(mha):
    layer = filled(EncoderLayer(DIM, HEADS, HIDDEN))
    x, position = random(2, 7, DIM), random(1, 7, DIM)
    torch.testing.assert_close(layer(x, position), encode(layer, x, position, mha))


@pytest.mark.parametrize("mha", [torchs, written_out])
@torch.no_grad()
def test_a_decoder_layer(mha):
    layer = filled(DecoderLayer(DIM, HEADS, HIDDEN))
    y, queries, memory, position = random(2, 5, DIM), random(1, 5, DIM), random(2, 7, DIM), random(1, 7, DIM)
    torch.testing.assert_close(layer(y, queries, memory, position), decode(layer, y, queries, memory, position, mha))


@torch.no_grad()
def test_the_whole_transformer():
    """Eq. 8, 9, 14 and 19, cells row by row; the head has two hidden layers and adds to the mean shape."""
    network = create("lotr_m", num_landmarks=5, size=64, dim=DIM, heads=HEADS, feedforward=HIDDEN, head=16)
    network.backbone = nn.Identity()
    network, features = filled(network), 0.1 * random(2, 1280, 2, 2)
    cells = [features[:, :, row, column] for row in range(2) for column in range(2)]
    x = torch.stack(cells, 1) @ network.reduce.weight[:, :, 0, 0].T + network.reduce.bias
    for layer in network.encoder:
        x = encode(layer, x, network.position, written_out)
    y = queries = network.queries.expand(2, -1, -1)
    for layer in network.decoder:
        y = decode(layer, y, queries, x, network.position, written_out)
    for linear in network.head[::2]:
        y = y @ linear.weight.T + linear.bias
        y = y if linear is network.head[-1] else y.clamp(min=0)
    torch.testing.assert_close(network(features), network.mean_shape + y)
