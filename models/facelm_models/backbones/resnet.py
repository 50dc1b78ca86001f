"""ResNet (He et al. 2016) without its classifier; module names are torchvision's, so its checkpoints' keys fit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Depth = Literal[18, 34, 50, 101]

# Blocks of each stage, table 1 of the ResNet paper; from 50 layers on they are bottlenecks.
STAGES: dict[Depth, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The projection of a block whose output has another shape than its input."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a skip."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        out: torch.Tensor = self.relu(self.bn2(self.conv2(x)) + skip)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (which has the stride) and 1x1 convolutions with a skip."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: torch.Tensor = self.relu(self.bn3(self.conv3(x)) + skip)
        return out


def stage(block: type[BasicBlock | Bottleneck], blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Blocks in a row; the first changes channels and resolution."""
    width = outputs // block.expansion
    return nn.Sequential(
        block(inputs, width, stride),
        *(block(outputs, width, 1) for _ in range(blocks - 1)),
    )


class ResNet(nn.Module):
    """Feature extractor of 18, 34, 50 or 101 layers; ``channels`` and ``strides`` are those of its four maps."""

    strides = (4, 8, 16, 32)

    def __init__(self, depth: Depth) -> None:
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"there is no ResNet of depth {depth}; depths: {', '.join(map(str, STAGES))}")
        block: type[BasicBlock | Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        e = block.expansion
        self.channels = (64 * e, 128 * e, 256 * e, 512 * e)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = (64, *self.channels[:3])
        strides = (1, 2, 2, 2)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            stage(block, *shape) for shape in zip(STAGES[depth], inputs, self.channels, strides, strict=True)
        )

    def forward(
        self,
        x: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # (n, C, S/4, S/4) ... (n, C, S/32, S/32)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)
