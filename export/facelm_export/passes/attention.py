"""Transformer layers of few nodes: LOTR's and MTLD's, with projections joined and constants apart.

A projection of ``x + position`` is one of ``x`` plus a constant, so queries, keys and values of the same ``x`` come
from one matrix product, and a runtime folds what depends on weights alone: the first decoder layer's self-attention,
too, whose queries are learned.

Projections come out as (heads, d, tokens), with tokens last, so heads are only another view of them: the products ask
for transposed factors, which runtimes take as they are, and no tensor is moved. A product adds to its rows what lies
beside it, and a norm gives its output with the bias of the next product already added: a norm alone takes onnxruntime
a quarter of the time of its norm of a sum.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from facelm_models.layers import Attention, DecoderLayer, EncoderLayer, FeedForward


def attend(
    query: torch.Tensor,  # (n or 1, heads, d, q), scaled by d ** -0.5
    key: torch.Tensor,  # (n or 1, heads, d, k)
    value: torch.Tensor,  # (n or 1, heads, d, k)
) -> torch.Tensor:  # (n * q, heads * d)
    shares = (query.transpose(2, 3) @ key).softmax(-1)
    mixed = (value @ shares.transpose(2, 3)).flatten(1, 2)
    return mixed.transpose(1, 2).reshape(-1, mixed.shape[1])


class JoinedAttention(nn.Module):
    """:class:`Attention` with its projections as the rows of one matrix, the scale of the products inside.

    ``shifted``: the query that it is given has the bias of ``out`` added.
    """

    def __init__(self, attention: Attention, *, shifted: bool = False) -> None:
        super().__init__()
        self.heads, self.out = attention.heads, attention.out
        dim = self.out.in_features
        scale = (dim // self.heads) ** -0.5
        parts = (attention.query, attention.key, attention.value)
        factors = (scale, 1.0, 1.0)
        with torch.no_grad():
            weight = torch.cat([p.weight * f for p, f in zip(parts, factors, strict=True)])
            bias = torch.cat([p.bias * f for p, f in zip(parts, factors, strict=True)])
            if shifted:
                bias[:dim] -= weight[:dim] @ self.out.bias
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def project(
        self,
        x: torch.Tensor,  # (n or 1, T, D)
        position: torch.Tensor | None,  # (1, T, D), added to x
        first: int,
        last: int,
    ) -> torch.Tensor:  # (n or 1, (last - first) * heads, d, T)
        """Of query (0), key (1) and value (2) those from ``first`` to before ``last``; a value gets no position."""
        dim, tokens = self.out.in_features, x.shape[1]
        rows = slice(first * dim, last * dim)
        constant = self.bias[rows, None]
        if position is not None:
            placed = self.weight[first * dim : min(last, 2) * dim] @ position.transpose(1, 2)
            constant = F.pad(placed, (0, 0, 0, max(0, last - 2) * dim)) + constant
        joined = self.weight[rows] @ x.transpose(1, 2) + constant
        return joined.view(-1, (last - first) * self.heads, dim // self.heads, tokens)

    def self_attention(
        self,
        x: torch.Tensor,  # (n or 1, T, D)
        position: torch.Tensor,  # (1, T, D)
    ) -> torch.Tensor:  # (n * T or T, D), x added
        query, key, value = self.project(x, position, 0, 3).chunk(3, 1)
        return self.added_to((x + self.out.bias).flatten(0, 1), attend(query, key, value))

    def added_to(
        self,
        rows: torch.Tensor,  # (n * T, D), with the bias of ``out``
        mixed: torch.Tensor,  # (n * T, D)
    ) -> torch.Tensor:  # (n * T, D)
        return torch.addmm(rows, mixed, self.out.weight.T)


class JoinedFeedForward(nn.Module):
    """:class:`FeedForward` of what ``before`` normalises, added to it, and ``after`` of that."""

    def __init__(self, before: nn.LayerNorm, feedforward: FeedForward, after: nn.LayerNorm) -> None:
        super().__init__()
        first, _, second = feedforward
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        self.before, self.after = shifted(before, second.bias), after
        self.weight, self.second = first.weight, second
        self.bias = nn.Parameter((first.bias - first.weight @ second.bias).detach())

    def forward(
        self,
        x: torch.Tensor,  # (rows, D)
    ) -> torch.Tensor:  # (rows, D)
        x = self.before(x)
        hidden = F.relu(F.linear(x, self.weight, self.bias))
        out: torch.Tensor = self.after(torch.addmm(x, hidden, self.second.weight.T))
        return out


def shifted(norm: nn.LayerNorm, bias: torch.Tensor) -> nn.LayerNorm:
    """Return ``norm`` with ``bias`` (D,) added to its output."""
    norm = copy.deepcopy(norm)
    norm.bias = nn.Parameter((norm.bias + bias).detach())
    return norm


class JoinedEncoderLayer(nn.Module):
    """:class:`EncoderLayer` and, where values are weighted, MTLD's :class:`FeaturePyramidAttention`."""

    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        self.attention = JoinedAttention(layer.attention)
        self.feedforward = JoinedFeedForward(layer.norm1, layer.feedforward, layer.norm2)

    def forward(
        self,
        x: torch.Tensor,  # (n, tokens, D)
        position: torch.Tensor,  # (1, tokens, D)
        before: torch.Tensor | None = None,  # (n, tokens, D), weights of the values
    ) -> torch.Tensor:  # (n, tokens, D)
        if before is None:
            rows = self.attention.self_attention(x, position)
        else:
            query = self.attention.project(x, position, 0, 1)
            key, value = self.attention.project(x * before, position, 1, 3).chunk(2, 1)
            rows = self.attention.added_to((x + self.attention.out.bias).flatten(0, 1), attend(query, key, value))
        out: torch.Tensor = self.feedforward(rows)
        return out.view(-1, *x.shape[1:])


class JoinedDecoderLayer(nn.Module):
    """:class:`DecoderLayer`; ``y`` of one picture stands for all of them."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        self.self_attention = JoinedAttention(layer.self_attention)
        self.cross_attention = JoinedAttention(layer.cross_attention, shifted=True)
        self.norm = shifted(layer.norm1, layer.cross_attention.out.bias)
        self.feedforward = JoinedFeedForward(layer.norm2, layer.feedforward, layer.norm3)

    def forward(
        self,
        y: torch.Tensor,  # (n or 1, L, D)
        queries: torch.Tensor,  # (1, L, D)
        memory: torch.Tensor,  # (n, tokens, D)
        position: torch.Tensor,  # (1, tokens, D)
    ) -> torch.Tensor:  # (n, L, D)
        shape = y.shape[1:]
        rows = self.norm(self.self_attention.self_attention(y, queries))
        query = self.cross_attention.project(rows.view(-1, *shape), queries, 0, 1)
        key, value = self.cross_attention.project(memory, position, 1, 3).chunk(2, 1)
        mixed = attend(query, key, value)
        if statically_known_true(y.shape[0] == 1):  # a picture may have any number of crops, known when it runs
            rows = ((mixed @ self.cross_attention.out.weight.T).view(-1, *shape) + rows).flatten(0, 1)
        else:
            rows = self.cross_attention.added_to(rows, mixed)
        out: torch.Tensor = self.feedforward(rows)
        return out.view(-1, *shape)


def join_attention(network: nn.Module) -> None:
    """Put the twins in the place of every encoder and decoder layer inside ``network``."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, EncoderLayer):
                module.set_submodule(name, JoinedEncoderLayer(child))
            elif isinstance(child, DecoderLayer):
                module.set_submodule(name, JoinedDecoderLayer(child))
