"""The hourglass (Newell et al. 2016) and the two residual blocks that face networks build it from."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

Block = Callable[[int, int], nn.Module]
"""Makes a block of (input channels, output channels) that keeps the map's size."""


class BottleneckBlock(nn.Module):
    """Pre-activation bottleneck: batch norm and ReLU before each of a 1x1, a 3x3 and a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, middle, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(middle), nn.Conv2d(middle, middle, 3, padding=1)
        self.norm3, self.conv3 = nn.BatchNorm2d(middle), nn.Conv2d(middle, outputs, 1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv1(F.relu(self.norm1(x)))
        out = self.conv2(F.relu(self.norm2(out)))
        out = self.conv3(F.relu(self.norm3(out)))
        return self.skip(x) + out  # type: ignore[no-any-return]


class HierarchicalBlock(nn.Module):
    """Three 3x3 convolutions in a row whose outputs are all kept (Bulat and Tzimiropoulos 2017, binarized landmarks).

    Pre-activation; their half, quarter and quarter of the output channels are joined and added to the skip.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half, quarter = outputs // 2, outputs // 4
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, half, 3, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(half), nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(quarter), nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.conv1(F.relu(self.norm1(x)))
        second = self.conv2(F.relu(self.norm2(first)))
        third = self.conv3(F.relu(self.norm3(second)))
        return self.skip(x) + torch.cat((first, second, third), 1)  # type: ignore[no-any-return]


class Hourglass(nn.Module):
    """``depth`` times down by two and up again, with a block beside each level: (n, c, h, w) to the same shape.

    h and w must be multiples of 2^depth. ``pool`` halves a map.
    """

    def __init__(self, channels: int, depth: int, block: Block, pool: nn.Module) -> None:
        super().__init__()
        self.skip = block(channels, channels)
        self.pool = pool
        self.down = block(channels, channels)
        inner = Hourglass(channels, depth - 1, block, pool) if depth > 1 else block(channels, channels)
        self.inner: nn.Module = inner
        self.up = block(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.up(self.inner(self.down(self.pool(x))))
        out: torch.Tensor = self.skip(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")
        return out


def check_size(size: int, depth: int) -> None:
    """Raises ValueError unless crops of ``size`` pixels make maps of stride 4 that an hourglass of ``depth`` halves."""
    unit = 4 * 2**depth
    if size < unit or size % unit:
        raise ValueError(f"an hourglass of depth {depth} takes crops whose size is a multiple of {unit}, not {size}")
