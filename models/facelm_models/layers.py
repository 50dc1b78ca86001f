"""Transformer parts of the coordinate networks; LOTR's equations, and MTLD's layers are the same."""

from __future__ import annotations

import torch
from torch import nn


class FeedForward(nn.Sequential):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))


class Attention(nn.Module):
    """Multi-head attention, eq. 3-5."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(
        self,
        query: torch.Tensor,  # (n, q, D), or (1, q, D) for the same query everywhere
        key: torch.Tensor,  # (n, k, D)
        value: torch.Tensor,  # (n, k, D)
    ) -> torch.Tensor:  # (n, q, D)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mixed = nn.functional.scaled_dot_product_attention(
            q.expand(k.shape[0], -1, -1, -1), k, v
        )  # (n, heads, q, D / heads)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class EncoderLayer(nn.Module):
    """Eq. 10-13."""

    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.feedforward = FeedForward(dim, feedforward)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self,
        x: torch.Tensor,  # (n, tokens, D)
        position: torch.Tensor,  # (1, tokens, D)
    ) -> torch.Tensor:  # (n, tokens, D)
        return self.attend(x, position, x)

    def attend(
        self,
        x: torch.Tensor,  # (n, tokens, D)
        position: torch.Tensor,  # (1, tokens, D)
        value: torch.Tensor,  # (n, tokens, D), what is attended to
    ) -> torch.Tensor:  # (n, tokens, D)
        x = self.norm1(x + self.attention(x + position, value + position, value))
        out: torch.Tensor = self.norm2(x + self.feedforward(x))
        return out


class DecoderLayer(nn.Module):
    """Eq. 15-18."""

    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads)
        self.cross_attention = Attention(dim, heads)
        self.feedforward = FeedForward(dim, feedforward)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self,
        y: torch.Tensor,  # (n, L, D), or (1, L, D) for the same everywhere
        queries: torch.Tensor,  # (1, L, D)
        memory: torch.Tensor,  # (n, tokens, D)
        position: torch.Tensor,  # (1, tokens, D)
    ) -> torch.Tensor:  # (n, L, D)
        y = self.norm1(y + self.self_attention(y + queries, y + queries, y))
        y = self.norm2(y + self.cross_attention(y + queries, memory + position, memory))
        out: torch.Tensor = self.norm3(y + self.feedforward(y))
        return out


class AxialPositions(nn.Module):
    """Learned positions of a square map's cells: a vector of D / 2 for each row beside one for each column."""

    def __init__(self, side: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(0.1 * torch.randn(side, dim // 2))
        self.columns = nn.Parameter(0.1 * torch.randn(side, dim - dim // 2))

    def forward(self) -> torch.Tensor:  # (1, side * side, D), row by row
        side = len(self.rows)
        rows = self.rows[:, None].expand(-1, side, -1)
        columns = self.columns[None].expand(side, -1, -1)
        return torch.cat([rows, columns], -1).flatten(0, 1)[None]


def initialise(network: nn.Module) -> None:
    """He's method for convolutions, Xavier's for linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def shrink_last(head: nn.Module) -> None:
    """Makes the last layer of a regression head small, so that training starts near the shape it adds to."""
    last = [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(0.1)
