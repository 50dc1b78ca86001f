"""The stacked hourglass of the structured-prediction paper (Yang and Yeh, appendix A1.3): landmark heatmaps with
coordinate channels, guided by edge and point maps.

It is the network of ADNet (Huang et al. 2021) and STAR (Zhou et al. 2023), whose public code settles what the papers
leave open, down to the coordinate channels being switched by the last landmark's heatmap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .backbones.hourglass import BottleneckBlock, Hourglass, check_size
from .edges import CURVES, Curve
from .registry import ModelInfo, register


@dataclass(frozen=True)
class HourglassConfig:
    """``size``: side of the crop in pixels; ``dim``: an hourglass's channels; ``depth``: how often it halves its maps.

    ``curves``: the edges of the face as runs of landmark indices; empty takes those known for ``num_landmarks``, see
    :mod:`facelm_models.edges`. Where none are known either there is one edge map without landmarks, and the attention
    mask is the point map alone.
    """

    num_landmarks: int = 68
    size: int = 256
    stacks: int = 4
    dim: int = 256
    depth: int = 4
    curves: tuple[Curve, ...] = ()

    @property
    def edges(self) -> tuple[Curve, ...]:
        """The curves that have an edge map each."""
        return self.curves or CURVES.get(self.num_landmarks, ((),))


class Maps(NamedTuple):
    """The maps of one stack; h = w = S / 4. ``L`` landmarks, ``E`` edges of the face."""

    logits: torch.Tensor  # (n, L, h, w) heatmaps as the last convolution gives them
    scores: torch.Tensor  # (n, L, h, w) logits normalised per map to mean 0 and variance 1, times the attention mask
    heatmaps: torch.Tensor  # (n, L, h, w) the positive part of scores
    edges: torch.Tensor  # (n, E, h, w) in 0..1
    points: torch.Tensor  # (n, L, h, w) in 0..1


def edge_members(
    edges: tuple[Curve, ...], num_landmarks: int
) -> tuple[torch.Tensor, torch.Tensor]:  # (L, E, 1, 1), (L,)
    """Which edges a landmark lies on, and 1 for landmarks on none."""
    weight = torch.zeros(num_landmarks, len(edges), 1, 1)
    for edge, curve in enumerate(edges):
        weight[list(curve), edge] = 1
    return weight, (weight.sum((1, 2, 3)) == 0).float()


def masked(
    logits: torch.Tensor,  # (n, L, h, w)
    normal: torch.Tensor,  # (n, L, h, w) logits normalised per map
    edges: torch.Tensor,  # (n, E, h, w) in 0..1
    points: torch.Tensor,  # (n, L, h, w) in 0..1
    edge_weight: torch.Tensor,  # (L, E, 1, 1)
    edge_bias: torch.Tensor,  # (L,)
) -> Maps:
    """The maps of what three convolutions give: the attention mask is what edges say of a landmark, times its point."""
    mask = F.conv2d(edges, edge_weight.to(edges.dtype), edge_bias.to(edges.dtype)) * points
    scores = mask * normal
    return Maps(logits, scores, F.relu(scores), edges, points)


def coordinates(side: int) -> torch.Tensor:  # (1, 3, side, side)
    """Row and column of each cell in -1..1, in this order, and its distance from the centre in 0..1."""
    axis = torch.arange(side) / (side - 1) * 2 - 1
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    radius = (row**2 + column**2).sqrt()
    return torch.stack((row, column, radius / radius.max()))[None]


class CoordConv(nn.Module):
    """A convolution that also sees where it is (Liu et al. 2018), optionally also the coordinates within a region."""

    coordinates: torch.Tensor

    def __init__(
        self, inputs: int, outputs: int, side: int, *, kernel: int = 1, stride: int = 1, region: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs + (5 if region else 3), outputs, kernel, stride, kernel // 2)
        self.register_buffer("coordinates", coordinates(side), persistent=False)

    def forward(
        self,
        x: torch.Tensor,  # (n, c, side, side)
        region: torch.Tensor | None = None,  # (n, 1, side, side) bool
    ) -> torch.Tensor:
        coordinates = self.coordinates.to(x.dtype)
        parts = [x, coordinates.expand(x.shape[0], -1, -1, -1)]
        if region is not None:
            parts.append(coordinates[:, :2] * region)
        out: torch.Tensor = self.conv(torch.cat(parts, 1))
        return out


class Stack(nn.Module):
    """One hourglass and its heads: features to features and (logits, edges, points)."""

    def __init__(self, config: HourglassConfig, first: bool) -> None:
        super().__init__()
        dim = config.dim
        self.locate = CoordConv(dim, dim, config.size // 4, region=not first)
        self.hourglass = Hourglass(dim, config.depth, BottleneckBlock, nn.MaxPool2d(2))
        self.features = nn.Sequential(BottleneckBlock(dim, dim), nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim), nn.ReLU())
        self.heatmaps = nn.Conv2d(dim, config.num_landmarks, 1)
        self.edges = nn.Conv2d(dim, len(config.edges), 1)
        self.points = nn.Conv2d(dim, config.num_landmarks, 1)

    def forward(
        self,
        x: torch.Tensor,  # (n, dim, h, w)
        region: torch.Tensor | None,  # (n, 1, h, w) bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        features: torch.Tensor = self.features(self.hourglass(self.locate(x, region)))
        return features, self.heatmaps(features), self.edges(features).sigmoid(), self.points(features).sigmoid()


class Merge(nn.Module):
    """Adds what a stack found to the features that the next one starts from."""

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.features = nn.Conv2d(config.dim, config.dim, 1)
        self.heatmaps = nn.Conv2d(config.num_landmarks, config.dim, 1)
        self.edges = nn.Conv2d(len(config.edges), config.dim, 1)
        self.points = nn.Conv2d(config.num_landmarks, config.dim, 1)

    def forward(
        self,
        x: torch.Tensor,  # (n, dim, h, w)
        features: torch.Tensor,  # (n, dim, h, w)
        heatmaps: torch.Tensor,  # (n, L, h, w)
        edges: torch.Tensor,  # (n, E, h, w)
        points: torch.Tensor,  # (n, L, h, w)
    ) -> torch.Tensor:  # (n, dim, h, w)
        x = x + self.features(features) + self.heatmaps(heatmaps)
        out: torch.Tensor = x + self.points(points) + self.edges(edges)
        return out


class StackedHourglass(nn.Module):
    """Crops to heatmaps.

    ``forward``: float (n, 3, S, S), BGR, normalised as its ModelInfo says -> (n, L, S/4, S/4) float, not negative: the
    last stack's heatmaps under its attention mask. Trained as the structured paper does, they are logits of where the
    landmark is (decoding ``structured``); STAR's weights give maps whose mass lies around it (``expectation``).
    ``intermediate``: the :class:`Maps` of every stack. S must be a multiple of 4 * 2^depth.

    ``edge_weight`` (L, E, 1, 1) and ``edge_bias`` (L,) are buffers: which edges a landmark lies on, and 1 for landmarks
    on none. A landmark's attention mask is the sum of its edges' maps plus its bias, times its point map.
    """

    edge_weight: torch.Tensor
    edge_bias: torch.Tensor

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        check_size(config.size, config.depth)
        self.config = config
        dim = config.dim
        self.stem = nn.Sequential(
            CoordConv(3, dim // 4, config.size, kernel=7, stride=2),
            nn.BatchNorm2d(dim // 4),
            nn.ReLU(),
            BottleneckBlock(dim // 4, dim // 2),
            nn.MaxPool2d(2),
            BottleneckBlock(dim // 2, dim // 2),
            BottleneckBlock(dim // 2, dim),
        )
        self.stacks = nn.ModuleList(Stack(config, first=i == 0) for i in range(config.stacks))
        self.merges = nn.ModuleList(Merge(config) for _ in range(config.stacks - 1))
        weight, bias = edge_members(config.edges, config.num_landmarks)
        self.register_buffer("edge_weight", weight)
        self.register_buffer("edge_bias", bias)

    def forward(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, L, S/4, S/4)
        return self.intermediate(crops)[-1].heatmaps

    def intermediate(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[Maps, ...]:
        """The maps of every stack, first to last."""
        x = self.stem(crops)
        region = None
        found = []
        for i, stack in enumerate(self.stacks):
            features, logits, edges, points = stack(x, region)
            normal = F.instance_norm(logits)
            found.append(masked(logits, normal, edges, points, self.edge_weight, self.edge_bias))
            if i < len(self.merges):
                heatmaps = F.relu(normal)
                region = heatmaps[:, -1:] > 0.05  # once a boundary map; since ADNet the last landmark's
                x = self.merges[i](x, features, heatmaps, edges, points)
        return tuple(found)


register(
    ModelInfo(
        name="hourglass4",
        task="landmarks",
        build=StackedHourglass,
        config=HourglassConfig(),
        input_size=256,
        channels="bgr",
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
        paper="Heatmap Regression without Soft-Argmax for Facial Landmark Detection, appendix A1.3",
        decoding="structured",
    )
)
