"""SLPT: Sparse Local Patch Transformer (Xia et al. 2022), landmarks from patches that shrink from stage to stage.

Equations refer to that paper. Where it is silent: the ResNet-34 maps of C2 to C5, which it says are all read, become
one map of stride 4 by a 1x1 convolution each, upsampling and a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from .backbones.hrnet import ConvBN, HRNetHead, HRNetW18, upsampled
from .backbones.resnet import ResNet
from .registry import IMAGENET_MEAN, IMAGENET_STD, ModelInfo, register

Backbone = Literal["hrnet18", "resnet34"]


@dataclass(frozen=True)
class SLPTConfig:
    """``size``: side of the crop in pixels, a multiple of 32; ``dim``: C_I of the paper, channels of map and tokens.

    ``layers``: inherent relation layers; ``samples``: K, points a patch is sampled at in a row; ``patch``: side of the
    first stage's patches as a fraction of the crop, halved from each of the ``stages`` to the next. Without
    ``self_attention`` a layer has no MSA block, without ``cross_attention`` no MCA block, and the landmarks'
    representations are then what the first layer starts from (section 4.5); without ``structure`` P of eq. 3 is 0.
    """

    num_landmarks: int = 68
    size: int = 256
    backbone: Backbone = "hrnet18"
    dim: int = 256
    heads: int = 8
    layers: int = 6
    feedforward: int = 1024
    dropout: float = 0.1
    samples: int = 7
    patch: float = 0.25
    stages: int = 3
    self_attention: bool = True
    cross_attention: bool = True
    structure: bool = True


class PatchCrop(nn.Module):
    """Bilinear samples of a map in rectangles, ``samples`` x ``samples`` in each.

    Fractions run from the centre of the map's first cell, 0, to that of its last, 1. Readable; ``facelm_export`` puts a
    faster twin in its place.
    """

    steps: torch.Tensor

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.register_buffer("steps", torch.linspace(0, 1, samples), persistent=False)

    def forward(
        self,
        features: torch.Tensor,  # (n, C, h, w)
        corner: torch.Tensor,  # (n, L, 2), (x, y) of the top left ends, fractions in 0..1
        extent: torch.Tensor,  # (n, L, 2), width and height
    ) -> torch.Tensor:  # (n, L, K * K, C), row by row
        at = corner[:, :, None] + extent[:, :, None] * self.steps[:, None]  # (n, L, K, 2)
        n, landmarks, samples, _ = at.shape
        x = at[:, :, None, :, 0].expand(-1, -1, samples, -1)
        y = at[:, :, :, None, 1].expand(-1, -1, -1, samples)
        grid = torch.stack([x, y], -1).flatten(1, 2)  # (n, L * K, K, 2)
        sampled = F.grid_sample(features.to(grid.dtype), 2 * grid - 1, padding_mode="border", align_corners=True)
        return sampled.flatten(2).transpose(1, 2).reshape(n, landmarks, samples**2, -1).to(features.dtype)


class PatchEmbedding(nn.Module):
    """A convolution over each whole patch, as one matrix product: convolving would read all weights for each patch."""

    def __init__(self, dim: int, samples: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim, samples, samples))  # (out, in, rows, columns)

    def forward(
        self,
        patches: torch.Tensor,  # (n, L, K * K, C)
    ) -> torch.Tensor:  # (n, L, C)
        return F.linear(patches.flatten(2), self.weight.permute(0, 2, 3, 1).flatten(1))


class Attention(nn.Module):
    """Multi-head attention, eq. 1-4; the projections of query, key and value are rows of one matrix."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: torch.Tensor,  # (n, L, D)
        key: torch.Tensor,  # (n, L, D)
        value: torch.Tensor,  # (n, L, D)
    ) -> torch.Tensor:  # (n, L, D)
        layers = zip(self.project.weight.chunk(3), self.project.bias.chunk(3), strict=True)
        q, k, v = (
            F.linear(x, weight, bias).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for x, (weight, bias) in zip((query, key, value), layers, strict=True)
        )
        # Written out: few points, and the exporter surrounds the fused operator with a dozen nodes of shapes.
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)  # (n, heads, L, L)
        out: torch.Tensor = self.out((self.dropout(weights) @ v).transpose(1, 2).flatten(2))
        return out


class InherentRelationLayer(nn.Module):
    """MSA, MCA and MLP blocks, each with a layer norm before it (section 3.1)."""

    def __init__(self, config: SLPTConfig) -> None:
        super().__init__()
        dim = config.dim
        shape = dim, config.heads, config.dropout
        self.self_attention = Attention(*shape) if config.self_attention else None
        self.cross_attention = Attention(*shape) if config.cross_attention else None
        self.mlp = nn.Sequential(
            nn.Linear(dim, config.feedforward),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.feedforward, dim),
        )
        self.norm1 = nn.LayerNorm(dim) if config.self_attention else None
        self.norm2 = nn.LayerNorm(dim) if config.cross_attention else None
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: torch.Tensor,  # (n, L, D), T of the paper, or (1, L, D) for the same everywhere
        queries: torch.Tensor,  # (1, L, D), Q
        patches: torch.Tensor,  # (n, L, D), R
        encoded: torch.Tensor,  # (n, L, D), R + P
    ) -> torch.Tensor:  # (n, L, D)
        if self.self_attention is not None and self.norm1 is not None:
            y = self.norm1(x)
            at = y + queries
            x = x + self.dropout(self.self_attention(at, at, y))  # eq. 1, 2
        if self.cross_attention is not None and self.norm2 is not None:
            y = self.norm2(x)
            x = x + self.dropout(self.cross_attention(y + queries, encoded, patches))  # eq. 3, 4
        out: torch.Tensor = x + self.dropout(self.mlp(self.norm3(x)))
        return out


class SummedMaps(nn.Module):
    """All maps of a ResNet as one of stride 4."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvBN(width, outputs, 1, relu=False) for width in channels)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        first, *others = upsampled([layer(x) for layer, x in zip(self.lateral, maps, strict=True)])
        return sum(others, first).relu()


def feature_extractor(config: SLPTConfig) -> nn.Sequential:
    """Crops (n, 3, S, S) to one map (n, C, S/4, S/4)."""
    if config.backbone == "hrnet18":
        return nn.Sequential(HRNetW18((1, 1, 1)), HRNetHead(config.dim))  # the paper's HRNetW18C-lite
    if config.backbone == "resnet34":
        resnet = ResNet(34)
        return nn.Sequential(resnet, SummedMaps(resnet.channels, config.dim))
    raise ValueError(f"SLPT has no backbone {config.backbone!r}; backbones: hrnet18, resnet34")


class SLPT(nn.Module):
    """Crops to landmarks.

    ``forward``: float (n, 3, S, S), RGB, normalised as its ModelInfo says -> (n, L, 2) float, (x, y) as fractions of
    the crop: pixel = fraction * S. ``mean_shape`` (L, 2), in the same fractions, is where the first stage looks: a
    buffer filled by training or by whoever loads weights that come without it.
    """

    mean_shape: torch.Tensor

    def __init__(self, config: SLPTConfig) -> None:
        super().__init__()
        if config.size % 32:
            raise ValueError(f"SLPT takes crops whose side is a multiple of 32 pixels, not {config.size}")
        if config.stages < 1 or config.layers < 1:
            raise ValueError(f"SLPT has at least one stage of one layer, not {config.stages} of {config.layers}")
        self.config = config
        self.features = feature_extractor(config)
        self.crop = PatchCrop(config.samples)
        self.embed = PatchEmbedding(config.dim, config.samples)
        points = 1, config.num_landmarks, config.dim
        encoded = config.structure and config.cross_attention
        self.structure = nn.Parameter(torch.randn(points)) if encoded else None  # P of eq. 3
        self.queries = nn.Parameter(torch.randn(points))  # Q of eq. 1
        self.relations = nn.ModuleList(InherentRelationLayer(config) for _ in range(config.layers))
        self.head = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, 2))
        self.register_buffer("mean_shape", torch.full((config.num_landmarks, 2), 0.5))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.embed.weight)
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # starts in the middle of the patches, at the mean face
            last.weight.mul_(0.1)
            last.bias.fill_(0.5)

    def forward(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, L, 2)
        return self._stages(crops)[-1][-1]

    def intermediate(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, stages, layers, L, 2)
        """The points that each layer of each stage finds, all of which eq. 8 supervises."""
        return torch.stack([torch.stack(layers, 1) for layers in self._stages(crops)], 1)

    def stage_points(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, stages, L, 2)
        """The points that each stage ends with, of which ``forward`` gives the last (table 5)."""
        return torch.stack([layers[-1] for layers in self._stages(crops)], 1)

    def _stages(self, crops: torch.Tensor) -> list[list[torch.Tensor]]:
        """Algorithm 1: of each stage, of each layer, the points (n, L, 2)."""
        features = self.features(crops)
        points = self.mean_shape.expand(crops.shape[0], -1, -1)
        found = []
        for stage in range(self.config.stages):
            found.append(self._stage(features, points.detach(), self.config.patch / 2**stage))
            points = found[-1][-1]
        return found

    def _stage(
        self,
        features: torch.Tensor,  # (n, C, S/4, S/4)
        points: torch.Tensor,  # (n, L, 2)
        side: float,
    ) -> list[torch.Tensor]:  # of (n, L, 2), a layer each
        corner = (points - side / 2).clamp(0, 1)
        extent = (points + side / 2).clamp(0, 1) - corner  # patches are smaller where the map ends
        patches = self.embed(self.crop(features, corner, extent))
        encoded = patches if self.structure is None else patches + self.structure
        x = patches.new_zeros(1, *patches.shape[1:]) if self.config.cross_attention else patches  # zeros of all crops
        found = []
        for layer in self.relations:
            x = layer(x, self.queries, patches, encoded)
            found.append(corner + extent * self.head(x))  # eq. 7
        return found


SLPT_HRNET18 = ModelInfo(
    name="slpt_hrnet18",
    task="landmarks",
    build=SLPT,
    config=SLPTConfig(),
    input_size=256,
    channels="rgb",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    paper="Sparse Local Patch Transformer for Robust Face Alignment and Landmarks Inherent Relation Learning, table 8",
    offset=0.0,
)
register(SLPT_HRNET18)
register(replace(SLPT_HRNET18, name="slpt_hrnet18_12l", config=SLPTConfig(layers=12)))
register(replace(SLPT_HRNET18, name="slpt_resnet34", config=SLPTConfig(backbone="resnet34")))
