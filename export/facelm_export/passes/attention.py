"""Transformer layers of few nodes: LOTR's and MTLD's, with projections joined and constants apart.

A projection of ``x + position`` is one of ``x`` plus a constant, so queries, keys and values of the same ``x`` come
from one matrix product, and a runtime folds what depends on weights alone: the first decoder layer's self-attention,
too, whose queries are learned.
"""

from __future__ import annotations

import torch
from torch import nn

from facelm_models.layers import Attention, DecoderLayer, EncoderLayer


def attend(
    query: torch.Tensor,  # (n or 1, heads, q, d), scaled by d ** -0.5
    key: torch.Tensor,  # (n or 1, heads, k, d)
    value: torch.Tensor,  # (n or 1, heads, k, d)
    out: nn.Linear,
) -> torch.Tensor:  # (n or 1, q, heads * d)
    mixed = (query @ key.transpose(-2, -1)).softmax(-1) @ value
    mixed = mixed.transpose(1, 2)
    result: torch.Tensor = out(mixed.reshape(-1, mixed.shape[1], out.in_features))
    return result


class JoinedAttention(nn.Module):
    """:class:`Attention` with its projections as the rows of one matrix, the scale of the products inside."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.out = attention.heads, attention.out
        dim = self.out.in_features
        scale = (dim // self.heads) ** -0.5
        parts = (attention.query, attention.key, attention.value)
        factors = (scale, 1.0, 1.0)
        with torch.no_grad():
            weight = torch.cat([p.weight * f for p, f in zip(parts, factors, strict=True)])
            bias = torch.cat([p.bias * f for p, f in zip(parts, factors, strict=True)])
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def project(
        self,
        x: torch.Tensor,  # (n or 1, T, D)
        position: torch.Tensor | None,  # (1, T, D), added to x
        first: int,
        last: int,
    ) -> torch.Tensor:  # (n or 1, (last - first) * heads, T, d)
        """Of query (0), key (1) and value (2) those from ``first`` to before ``last``; a value gets no position."""
        dim, tokens = self.out.in_features, x.shape[1]
        rows = slice(first * dim, last * dim)
        constant = self.bias[rows]
        if position is not None:
            placed = nn.functional.linear(position, self.weight[first * dim : min(last, 2) * dim])
            constant = nn.functional.pad(placed, (0, max(0, last - 2) * dim)) + constant
        joined = nn.functional.linear(x, self.weight[rows]) + constant
        return joined.view(-1, tokens, (last - first) * self.heads, dim // self.heads).transpose(1, 2)

    def self_attention(
        self,
        x: torch.Tensor,  # (n or 1, T, D)
        position: torch.Tensor,  # (1, T, D)
    ) -> torch.Tensor:  # (n or 1, T, D)
        query, key, value = self.project(x, position, 0, 3).chunk(3, 1)
        return attend(query, key, value, self.out)


class JoinedEncoderLayer(nn.Module):
    """:class:`EncoderLayer` and, where values are weighted, MTLD's :class:`FeaturePyramidAttention`."""

    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        self.attention = JoinedAttention(layer.attention)
        self.feedforward, self.norm1, self.norm2 = layer.feedforward, layer.norm1, layer.norm2

    def forward(
        self,
        x: torch.Tensor,  # (n, tokens, D)
        position: torch.Tensor,  # (1, tokens, D)
        before: torch.Tensor | None = None,  # (n, tokens, D), weights of the values
    ) -> torch.Tensor:  # (n, tokens, D)
        if before is None:
            mixed = self.attention.self_attention(x, position)
        else:
            value = x * before
            query = self.attention.project(x, position, 0, 1)
            key, value = self.attention.project(value, position, 1, 3).chunk(2, 1)
            mixed = attend(query, key, value, self.attention.out)
        x = self.norm1(x + mixed)
        out: torch.Tensor = self.norm2(x + self.feedforward(x))
        return out


class JoinedDecoderLayer(nn.Module):
    """:class:`DecoderLayer`; ``y`` of one picture stands for all of them."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        self.self_attention = JoinedAttention(layer.self_attention)
        self.cross_attention = JoinedAttention(layer.cross_attention)
        self.feedforward, self.norm1, self.norm2, self.norm3 = layer.feedforward, layer.norm1, layer.norm2, layer.norm3

    def forward(
        self,
        y: torch.Tensor,  # (n or 1, L, D)
        queries: torch.Tensor,  # (1, L, D)
        memory: torch.Tensor,  # (n, tokens, D)
        position: torch.Tensor,  # (1, tokens, D)
    ) -> torch.Tensor:  # (n, L, D)
        y = self.norm1(y + self.self_attention.self_attention(y, queries))
        query = self.cross_attention.project(y, queries, 0, 1)
        key, value = self.cross_attention.project(memory, position, 1, 3).chunk(2, 1)
        y = self.norm2(y + attend(query, key, value, self.cross_attention.out))
        out: torch.Tensor = self.norm3(y + self.feedforward(y))
        return out


def join_attention(network: nn.Module) -> None:
    """Put the twins in the place of every encoder and decoder layer inside ``network``."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, EncoderLayer):
                module.set_submodule(name, JoinedEncoderLayer(child))
            elif isinstance(child, DecoderLayer):
                module.set_submodule(name, JoinedDecoderLayer(child))
