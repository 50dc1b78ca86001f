"""RetinaFace: single-stage face detection with five points (Deng et al. 2019).

Module names are those of the widely used PyTorch checkpoints, so that a state dict of theirs fits key for key. The
paper's dense 3D branch is left out, as it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from .backbones.mobilenet import MobileNetV1, MobileNetV1x025, activation, conv_dw
from .backbones.resnet import ResNet
from .registry import ModelInfo, register

STRIDES = (8, 16, 32)
VARIANCES = (0.1, 0.2)
CONTEXT_KERNELS = (3, 5, 5)
"""Of separable contexts; at stride 8 a larger one costs more than all of stride 32."""


Backbone = Literal["mobilenet025", "resnet50", "lite"]
Context = Literal["ssh", "separable"]


@dataclass(frozen=True)
class RetinaFaceConfig:
    """Options of the RetinaFace variants.

    ``channels``: of the feature pyramid. ``leaky``: slope below 0 of all activations but a ResNet's. ``min_sizes``:
    sides in pixels of the square priors of each stride. ``context``: what a map of the pyramid goes through before the
    heads, the paper's SSH after a 3x3 convolution of each sum, or one separable convolution and nothing after the sums.
    """

    backbone: Backbone = "mobilenet025"
    channels: int = 64
    leaky: float = 0.1
    min_sizes: tuple[tuple[int, ...], ...] = ((16, 32), (64, 128), (256, 512))
    context: Context = "ssh"


def build_backbone(config: RetinaFaceConfig) -> MobileNetV1x025 | MobileNetV1 | ResNet:
    """The convolutional network of a config; its last three maps have the strides of STRIDES."""
    if config.backbone == "lite":
        return MobileNetV1((16, 32, 64, 128, 192), (1, 1, 5, 3), config.leaky)
    if config.backbone == "mobilenet025":
        return MobileNetV1x025(config.leaky)
    if config.backbone == "resnet50":
        return ResNet(50)
    raise ValueError(f"RetinaFace has no backbone {config.backbone!r}; backbones: mobilenet025, resnet50, lite")


def conv_bn(inputs: int, outputs: int, kernel: int = 3, leaky: float | None = None) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if leaky is not None:
        layers.append(activation(leaky))
    return nn.Sequential(*layers)


class FPN(nn.Module):
    """Top-down feature pyramid over three maps; without ``merge`` the sums stay as they are."""

    def __init__(self, inputs: Sequence[int], outputs: int, leaky: float, *, merge: bool = True) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (conv_bn(c, outputs, 1, leaky) for c in inputs)
        self.merge1, self.merge2 = (conv_bn(outputs, outputs, 3, leaky) if merge else nn.Identity() for _ in range(2))

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p3, p4, p5 = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        p4 = self.merge2(p4 + F.interpolate(p5, size=p4.shape[2:], mode="nearest"))
        p3 = self.merge1(p3 + F.interpolate(p4, size=p3.shape[2:], mode="nearest"))
        return p3, p4, p5


class SSH(nn.Module):
    """Context module: 3x3, 5x5 and 7x7 receptive fields from stacked 3x3 convolutions."""

    def __init__(self, channels: int, leaky: float) -> None:
        super().__init__()
        self.conv3X3 = conv_bn(channels, channels // 2)
        self.conv5X5_1 = conv_bn(channels, channels // 4, leaky=leaky)
        self.conv5X5_2 = conv_bn(channels // 4, channels // 4)
        self.conv7X7_2 = conv_bn(channels // 4, channels // 4, leaky=leaky)
        self.conv7x7_3 = conv_bn(channels // 4, channels // 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = self.conv5X5_1(x)
        parts = (self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared)))
        return F.relu(torch.cat(parts, 1))


class Head(nn.Module):
    """One 1x1 convolution; ``values`` outputs for each of a cell's priors."""

    def __init__(self, channels: int, priors: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(channels, priors * values, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, cells * priors, values)
        out: torch.Tensor = self.conv1x1(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, self.values))
        return out


class RetinaFace(nn.Module):
    """Pictures to what its heads say of every prior.

    ``forward``: float (n, 3, H, W), BGR less its mean -> encoded boxes (n, p, 4), logits (n, p, 2), points (n, p, 10).
    p runs over strides, then rows, columns and priors of a cell, as :func:`priors` does.
    """

    def __init__(self, config: RetinaFaceConfig) -> None:
        super().__init__()
        self.config = config
        self.body = build_backbone(config)
        ssh = config.context == "ssh"
        self.fpn = FPN(self.body.channels[-3:], config.channels, config.leaky, merge=ssh)
        self.ssh1, self.ssh2, self.ssh3 = (
            SSH(config.channels, config.leaky)
            if ssh
            else conv_dw(config.channels, config.channels, 1, config.leaky, kernel)
            for kernel in CONTEXT_KERNELS
        )
        counts = [len(sizes) for sizes in config.min_sizes]
        self.ClassHead = nn.ModuleList(Head(config.channels, n, 2) for n in counts)
        self.BboxHead = nn.ModuleList(Head(config.channels, n, 4) for n in counts)
        self.LandmarkHead = nn.ModuleList(Head(config.channels, n, 10) for n in counts)

    def forward(
        self,
        images: torch.Tensor,  # (n, 3, H, W)
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pyramid = self.fpn(self.body(images)[-3:])
        maps = [ssh(p) for ssh, p in zip((self.ssh1, self.ssh2, self.ssh3), pyramid, strict=True)]
        boxes, logits, points = (
            torch.cat([head(x) for head, x in zip(heads, maps, strict=True)], 1)
            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return boxes, logits, points


def priors(
    height: int,
    width: int,
    min_sizes: Sequence[Sequence[int]],
) -> torch.Tensor:  # (p, 4): centre x, centre y, width, height in pixels, edges of the picture at 0 and its size
    """The priors of a picture, in the order of RetinaFace's outputs."""
    rows = []
    for stride, sizes in zip(STRIDES, min_sizes, strict=True):
        y = torch.arange((height + stride - 1) // stride) * stride + stride / 2
        x = torch.arange((width + stride - 1) // stride) * stride + stride / 2
        cells = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).reshape(-1, 1, 2)  # (cells, 1, 2)
        side = torch.tensor(sizes, dtype=torch.float32).view(1, -1, 1).expand(cells.shape[0], -1, 2)
        rows.append(torch.cat([cells.expand(-1, len(sizes), -1), side], -1).reshape(-1, 4))
    return torch.cat(rows)


def decode_boxes(encoded: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """Encoded (..., p, 4) to xyxy in pixels."""
    centre = prior[:, :2] + encoded[..., :2] * VARIANCES[0] * prior[:, 2:]
    half = prior[:, 2:] * torch.exp(encoded[..., 2:] * VARIANCES[1]) / 2
    return torch.cat([centre - half, centre + half], -1)


def encode_boxes(boxes: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`decode_boxes`; boxes (p, 4) xyxy."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 - prior[:, :2]) / (VARIANCES[0] * prior[:, 2:])
    size = torch.log((boxes[:, 2:] - boxes[:, :2]) / prior[:, 2:]) / VARIANCES[1]
    return torch.cat([centre, size], -1)


def decode_points(encoded: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """Encoded (..., p, 10) to (..., p, 5, 2) in pixels."""
    offsets: torch.Tensor = encoded.unflatten(-1, (5, 2))  # type: ignore[no-untyped-call]
    return prior[:, None, :2] + offsets * VARIANCES[0] * prior[:, None, 2:]


def encode_points(points: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`decode_points`; points (p, 5, 2)."""
    return ((points - prior[:, None, :2]) / (VARIANCES[0] * prior[:, None, 2:])).flatten(-2)


def _register(name: str, config: RetinaFaceConfig, paper: str) -> None:
    register(
        ModelInfo(
            name=name,
            task="detection",
            build=RetinaFace,
            config=config,
            input_size=640,
            channels="bgr",
            mean=(104.0, 117.0, 123.0),
            std=(1.0, 1.0, 1.0),
            paper=f"RetinaFace: Single-stage Dense Face Localisation in the Wild; {paper}",
        )
    )


_register("retinaface_mnet025", RetinaFaceConfig(), "MobileNet-0.25 as in its public code")
# The public code makes activations leaky up to 64 channels only.
_register(
    "retinaface_r50",
    RetinaFaceConfig(backbone="resnet50", channels=256, leaky=0.0),
    "ResNet-50 as in its public code",
)
_register(
    "retinaface_lite",
    RetinaFaceConfig(backbone="lite", channels=48, leaky=0.0, context="separable"),
    "this project's own: a narrow MobileNet, separable context",
)
