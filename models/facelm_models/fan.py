"""FAN (Bulat and Tzimiropoulos 2017), the network of Subpixel Heatmap Regression (Bulat et al. 2021, section 5.1):
stacked hourglasses of hierarchical blocks, decoded by a local soft-argmax.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from .backbones.hourglass import HierarchicalBlock, Hourglass, check_size
from .registry import ModelInfo, register


@dataclass(frozen=True)
class FANConfig:
    """``size``: side of the crop in pixels; ``dim``: an hourglass's channels; ``depth``: how often it halves them.

    ``correction``: it regresses what is to be added to the largest cell, for the decoding ``corrected_argmax``: the
    baseline of the sub-pixel paper's section 4.1.
    """

    num_landmarks: int = 68
    size: int = 256
    stacks: int = 2
    dim: int = 256
    depth: int = 4
    correction: bool = False


class Stack(nn.Module):
    """One hourglass and its head: features to features and heatmaps."""

    def __init__(self, config: FANConfig) -> None:
        super().__init__()
        dim = config.dim
        self.hourglass = Hourglass(dim, config.depth, HierarchicalBlock, nn.AvgPool2d(2))
        self.features = nn.Sequential(
            HierarchicalBlock(dim, dim), nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim), nn.ReLU(inplace=True)
        )
        self.heatmaps = nn.Conv2d(dim, config.num_landmarks, 1)

    def forward(
        self,
        x: torch.Tensor,  # (n, dim, h, w)
    ) -> tuple[torch.Tensor, torch.Tensor]:  # (n, dim, h, w), (n, L, h, w)
        features = self.features(self.hourglass(x))
        return features, self.heatmaps(features)


class Merge(nn.Module):
    """Adds what a stack found to the features that the next one starts from."""

    def __init__(self, config: FANConfig) -> None:
        super().__init__()
        self.features = nn.Conv2d(config.dim, config.dim, 1)
        self.heatmaps = nn.Conv2d(config.num_landmarks, config.dim, 1)

    def forward(
        self,
        x: torch.Tensor,  # (n, dim, h, w)
        features: torch.Tensor,  # (n, dim, h, w)
        heatmaps: torch.Tensor,  # (n, L, h, w)
    ) -> torch.Tensor:  # (n, dim, h, w)
        out: torch.Tensor = x + self.features(features) + self.heatmaps(heatmaps)
        return out


class FAN(nn.Module):
    """Crops to heatmaps.

    ``forward``: float (n, 3, S, S), RGB, in 0..1 -> (n, L, S/4, S/4) float, the last stack's heatmaps; a Gaussian of
    height 1 around each landmark is what they are trained to be. ``intermediate``: the heatmaps of every stack. S must
    be a multiple of 4 * 2^depth. With ``correction`` the last stack's are (n, L, S/4 * S/4 + 2): cells, then (x, y).
    """

    def __init__(self, config: FANConfig) -> None:
        super().__init__()
        check_size(config.size, config.depth)
        self.config = config
        dim = config.dim
        self.stem = nn.Sequential(
            nn.Conv2d(3, dim // 4, 7, 2, 3),
            nn.BatchNorm2d(dim // 4),
            nn.ReLU(inplace=True),
            HierarchicalBlock(dim // 4, dim // 2),
            nn.AvgPool2d(2),
            HierarchicalBlock(dim // 2, dim // 2),
            HierarchicalBlock(dim // 2, dim),
        )
        self.stacks = nn.ModuleList(Stack(config) for _ in range(config.stacks))
        self.merges = nn.ModuleList(Merge(config) for _ in range(config.stacks - 1))
        self.correction = nn.Linear(dim, 2 * config.num_landmarks) if config.correction else None

    def forward(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, L, S/4, S/4)
        return self.intermediate(crops)[-1]

    def intermediate(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor, ...]:  # of (n, L, S/4, S/4)
        """The heatmaps of every stack, first to last."""
        x = self.stem(crops)
        found = []
        for i, stack in enumerate(self.stacks):
            features, heatmaps = stack(x)
            found.append(heatmaps)
            if i < len(self.merges):
                x = self.merges[i](x, features, heatmaps)
            elif self.correction is not None:
                shift = self.correction(features.mean((2, 3))).unflatten(1, (-1, 2))
                found[-1] = torch.cat([heatmaps.flatten(2), shift], 2)
        return tuple(found)


FAN2 = ModelInfo(
    name="fan2",
    task="landmarks",
    build=FAN,
    config=FANConfig(),
    input_size=256,
    channels="rgb",
    mean=(0.0, 0.0, 0.0),
    std=(255.0, 255.0, 255.0),
    paper="Subpixel Heatmap Regression for Facial Landmark Localization, section 5.1",
    decoding="local_soft_argmax",
)
register(FAN2)
register(replace(FAN2, name="fan4", config=FANConfig(stacks=4)))
register(
    replace(
        FAN2,
        name="fan2_s",
        config=FANConfig(size=128, dim=128),
        input_size=128,
        paper=f"{FAN2.paper}, with half of the channels",
    )
)
