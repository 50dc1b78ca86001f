"""HRNetV2-W18 (Wang et al. 2020): four resolutions in parallel that exchange their maps again and again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

MOMENTUM = 0.01  # of the running statistics, as in the authors' code


class ConvBN(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, momentum=MOMENTUM),
            *([nn.ReLU(inplace=True)] if relu else []),
        )


class Residual(nn.Module):
    """relu(layers(x) + skip(x))."""

    def __init__(self, layers: nn.Sequential, skip: nn.Module) -> None:
        super().__init__()
        self.layers, self.skip = layers, skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x) + self.skip(x)
        return out.relu_()


def basic_block(channels: int) -> Residual:
    return Residual(nn.Sequential(ConvBN(channels, channels), ConvBN(channels, channels, relu=False)), nn.Identity())


def bottleneck(inputs: int, hidden: int = 64) -> Residual:
    outputs = 4 * hidden
    skip = nn.Identity() if inputs == outputs else ConvBN(inputs, outputs, 1, relu=False)
    layers = nn.Sequential(
        ConvBN(inputs, hidden, 1),
        ConvBN(hidden, hidden),
        ConvBN(hidden, outputs, 1, relu=False),
    )
    return Residual(layers, skip)


def exchange(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """Build what turns the map of one resolution into an addend of another's."""
    if source == target:
        return nn.Identity()
    if source > target:
        up = nn.Upsample(scale_factor=2 ** (source - target), mode="bilinear")
        return nn.Sequential(*ConvBN(channels[source], channels[target], 1, relu=False), up)
    halvings = [ConvBN(channels[source], channels[source], stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*halvings, ConvBN(channels[source], channels[target], stride=2, relu=False))


class HighResolutionModule(nn.Module):
    """Four basic blocks a resolution, then each resolution becomes the sum over all of them."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        count = range(len(channels))
        self.branches = nn.ModuleList(nn.Sequential(*(basic_block(width) for _ in range(4))) for width in channels)
        self.fuse = nn.ModuleList(nn.ModuleList(exchange(channels, j, i) for j in count) for i in count)

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for row in self.fuse:
            assert isinstance(row, nn.ModuleList)
            first, *others = (layer(x) for layer, x in zip(row, maps, strict=True))
            fused.append(sum(others, first).relu_())
        return fused


class Stage(nn.Module):
    """Adds the next lower resolution to those there are, then ``modules`` exchanges."""

    def __init__(self, inputs: Sequence[int], channels: Sequence[int], modules: int) -> None:
        super().__init__()
        self.transition = nn.ModuleList(
            nn.Identity() if before == width else ConvBN(before, width)
            for before, width in zip(inputs, channels, strict=False)
        )
        self.transition.append(ConvBN(inputs[-1], channels[-1], stride=2))
        self.exchanges = nn.Sequential(*(HighResolutionModule(channels) for _ in range(modules)))

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        maps = [layer(x) for layer, x in zip(self.transition, [*maps, maps[-1]], strict=True)]
        out: list[torch.Tensor] = self.exchanges(maps)
        return out


class HRNetW18(nn.Module):
    """Feature extractor with maps of stride 4, 8, 16 and 32; no classifier.

    ``modules``: exchanges of stages 2 to 4; SLPT's "lite" version has one each. Sides of pictures are multiples of 32.
    """

    channels = (18, 36, 72, 144)

    def __init__(self, modules: tuple[int, int, int] = (1, 4, 3)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvBN(3, 64, stride=2),
            ConvBN(64, 64, stride=2),
            bottleneck(64),
            *(bottleneck(256) for _ in range(3)),
        )
        self.stages = nn.ModuleList(
            Stage((256,) if i == 0 else self.channels[: i + 1], self.channels[: i + 2], count)
            for i, count in enumerate(modules)
        )

    def forward(
        self,
        x: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # each (n, channels[i], S / stride, S / stride)
        maps = [self.stem(x)]
        for stage in self.stages:
            maps = stage(maps)
        s4, s8, s16, s32 = maps
        return s4, s8, s16, s32


def upsampled(maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Maps of which each has half the resolution of the one before, all at the first one's."""
    return [x if i == 0 else F.interpolate(x, scale_factor=2.0**i, mode="bilinear") for i, x in enumerate(maps)]


class HRNetHead(nn.Module):
    """All four maps of an :class:`HRNetW18` as one of stride 4."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        width = sum(HRNetW18.channels)
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 1),
            nn.BatchNorm2d(width, momentum=MOMENTUM),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1),
        )

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        out: torch.Tensor = self.layers(torch.cat(upsampled(maps), 1))
        return out
