"""MobileNetV2 (Sandler et al. 2018), MobileNetV1 of any width, and the 0.25-width one of RetinaFace."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


class ConvBNReLU6(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; with a skip where shape allows."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.skip = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *([ConvBNReLU6(inputs, hidden, kernel=1)] if expansion != 1 else []),
            ConvBNReLU6(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return x + out if self.skip else out


# (expansion, channels, repeats, stride of the first), table 2 of the MobileNetV2 paper
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# Layers up to the last of stride 4, 8 and 16, the first one counted.
LAST_OF_STRIDE = tuple(1 + sum(repeats for _, _, repeats, _ in STAGES[:stages]) for stages in (2, 3, 5))


class MobileNetV2(nn.Module):
    """Feature extractor of width 1.0, stride 32, 1280 channels; no classifier."""

    channels = 1280
    stride = 32
    map_channels = (24, 32, 96, 1280)
    """Of the maps of stride 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBNReLU6(3, 32, stride=2)]
        inputs = 32
        for expansion, outputs, repeats, stride in STAGES:
            for i in range(repeats):
                layers.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expansion))
                inputs = outputs
        layers.append(ConvBNReLU6(inputs, self.channels, kernel=1))
        self.layers = nn.Sequential(*layers)

    def forward(
        self,
        x: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, 1280, S/32, S/32)
        out: torch.Tensor = self.layers(x)
        return out

    def maps(
        self,
        x: torch.Tensor,  # (n, 3, S, S)
    ) -> list[torch.Tensor]:  # (n, 24, S/4, S/4), (n, 32, S/8, S/8), (n, 96, S/16, S/16), (n, 1280, S/32, S/32)
        """The last map of each stride; that of 32 is what ``forward`` gives."""
        found = []
        for start, end in pairwise((0, *LAST_OF_STRIDE, len(self.layers))):
            x = self.layers[start:end](x)
            found.append(x)
        return found


def activation(leaky: float) -> nn.Module:
    """ReLU, or with a slope below 0."""
    return nn.LeakyReLU(leaky, inplace=True) if leaky else nn.ReLU(inplace=True)


def conv_bn(inputs: int, outputs: int, stride: int, leaky: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), activation(leaky)
    )


def conv_dw(inputs: int, outputs: int, stride: int, leaky: float, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        activation(leaky),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        activation(leaky),
    )


class MobileNetV1(nn.Module):
    """MobileNetV1 (Howard et al. 2017) of other widths, returning the maps of stride 8, 16 and 32.

    ``widths``: channels of the maps of stride 2, 4, 8, 16 and 32; ``repeats``: separable convolutions at each of the
    last four.
    """

    def __init__(self, widths: tuple[int, ...], repeats: tuple[int, ...], leaky: float = 0.0) -> None:
        super().__init__()
        self.channels = widths[2:]
        self.stem = conv_bn(3, widths[0], 2, leaky)
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv_dw(inputs, outputs, 2, leaky), *(conv_dw(outputs, outputs, 1, leaky) for _ in range(count - 1))
            )
            for (inputs, outputs), count in zip(pairwise(widths), repeats, strict=True)
        )

    def forward(
        self,
        x: torch.Tensor,  # (n, 3, H, W)
    ) -> list[torch.Tensor]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[2:]


class MobileNetV1x025(nn.Module):
    """MobileNetV1 of width 0.25, returning the maps of stride 8, 16 and 32 with 64, 128 and 256 channels."""

    channels = (64, 128, 256)

    def __init__(self, leaky: float = 0.1) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            conv_bn(3, 8, 2, leaky),
            conv_dw(8, 16, 1, leaky),
            conv_dw(16, 32, 2, leaky),
            conv_dw(32, 32, 1, leaky),
            conv_dw(32, 64, 2, leaky),
            conv_dw(64, 64, 1, leaky),
        )
        self.stage2 = nn.Sequential(conv_dw(64, 128, 2, leaky), *(conv_dw(128, 128, 1, leaky) for _ in range(5)))
        self.stage3 = nn.Sequential(conv_dw(128, 256, 2, leaky), conv_dw(256, 256, 1, leaky))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        c3 = self.stage1(x)
        c4 = self.stage2(c3)
        return c3, c4, self.stage3(c4)
