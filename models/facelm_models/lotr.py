"""LOTR: Localization Transformer (Watchareeruetai et al. 2022), landmarks by direct coordinate regression.

Equations and table I refer to that paper. Where it is silent or contradicts itself: feed-forward layers are
D -> 128 -> D (the width that meets every size it prints), 8 heads, and the head regresses offsets from a mean shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .backbones.mobilenet import MobileNetV2
from .registry import IMAGENET_MEAN, IMAGENET_STD, ModelInfo, register


@dataclass(frozen=True)
class LOTRConfig:
    """``size``: side of the crop in pixels; ``dim``: D of the paper; ``layers``: of encoder and of decoder each."""

    num_landmarks: int = 68
    size: int = 192
    dim: int = 64
    heads: int = 8
    layers: int = 2
    feedforward: int = 128
    head: int = 512
    dropout: float = 0.1


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
        query: torch.Tensor,  # (n, q, D)
        key: torch.Tensor,  # (n, k, D)
        value: torch.Tensor,  # (n, k, D)
    ) -> torch.Tensor:  # (n, q, D)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)  # (n, heads, q, D / heads)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class EncoderLayer(nn.Module):
    """Eq. 10-13."""

    def __init__(self, config: LOTRConfig) -> None:
        super().__init__()
        self.attention = Attention(config.dim, config.heads)
        self.feedforward = FeedForward(config.dim, config.feedforward)
        self.norm1, self.norm2 = nn.LayerNorm(config.dim), nn.LayerNorm(config.dim)

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.attention(x + position, x + position, x))
        out: torch.Tensor = self.norm2(x + self.feedforward(x))
        return out


class DecoderLayer(nn.Module):
    """Eq. 15-18."""

    def __init__(self, config: LOTRConfig) -> None:
        super().__init__()
        self.self_attention = Attention(config.dim, config.heads)
        self.cross_attention = Attention(config.dim, config.heads)
        self.feedforward = FeedForward(config.dim, config.feedforward)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(config.dim) for _ in range(3))

    def forward(
        self,
        y: torch.Tensor,  # (n, L, D)
        queries: torch.Tensor,  # (1, L, D)
        memory: torch.Tensor,  # (n, tokens, D)
        position: torch.Tensor,  # (1, tokens, D)
    ) -> torch.Tensor:  # (n, L, D)
        y = self.norm1(y + self.self_attention(y + queries, y + queries, y))
        y = self.norm2(y + self.cross_attention(y + queries, memory + position, memory))
        out: torch.Tensor = self.norm3(y + self.feedforward(y))
        return out


class LOTR(nn.Module):
    """Crops to landmarks.

    ``forward``: float (n, 3, S, S), RGB, normalised as its ModelInfo says -> (n, L, 2) float, (x, y) as fractions of
    the crop: pixel = fraction * S - 0.5. ``mean_shape`` (L, 2), in the same fractions, is a buffer filled by training.
    """

    mean_shape: torch.Tensor

    def __init__(self, config: LOTRConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = MobileNetV2()
        self.side = config.size // self.backbone.stride
        self.reduce = nn.Conv2d(self.backbone.channels, config.dim, 1)  # eq. 8
        self.position = nn.Parameter(0.1 * torch.randn(1, self.side**2, config.dim))
        # The paper's std of 1e-4 leaves all queries alike and training at the mean shape; 1 tells them apart.
        self.queries = nn.Parameter(torch.randn(1, config.num_landmarks, config.dim))
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(  # eq. 19 with two hidden layers, table I
            nn.Linear(config.dim, config.head),
            nn.ReLU(inplace=True),
            nn.Linear(config.head, config.head),
            nn.ReLU(inplace=True),
            nn.Linear(config.head, 2),
        )
        self.register_buffer("mean_shape", torch.full((config.num_landmarks, 2), 0.5))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")  # He's method, as the paper
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # starts at the mean shape
            last.weight.mul_(0.1)

    def forward(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, L, 2)
        memory = self.reduce(self.backbone(crops)).flatten(2).transpose(1, 2)  # (n, tokens, D)
        for layer in self.encoder:
            memory = layer(memory, self.position)
        y = self.queries.expand(crops.shape[0], -1, -1)
        for layer in self.decoder:
            y = layer(y, self.queries, memory, self.position)
        offsets: torch.Tensor = self.head(self.dropout(y))
        return self.mean_shape + offsets


register(
    ModelInfo(
        name="lotr_m",
        task="landmarks",
        build=LOTR,
        config=LOTRConfig(),
        input_size=192,
        channels="rgb",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        paper="LOTR: Face Landmark Localization Using Localization Transformer, table I",
    )
)
