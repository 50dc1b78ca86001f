"""Heatmaps of a mobile backbone: MobileNetV2's maps joined from coarse to fine (Lin et al. 2017, "Feature Pyramid
Networks for Object Detection"), under the heads and the attention mask of the structured paper's hourglass.

Of no paper, but trained by the structured paper's loss and decoded as its hourglass is: what that loss gives to a
network of LOTR-M's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .backbones.mobilenet import MobileNetV2
from .confidence import Confidence
from .edges import CURVES, Curve
from .hourglass import Maps, edge_members, masked
from .registry import IMAGENET_MEAN, IMAGENET_STD, ModelInfo, register

STRIDE = 32


@dataclass(frozen=True)
class PyramidConfig:
    """``size``: side of the crop in pixels, a multiple of 32; ``dim``: channels of the joined maps.

    ``curves``: see :class:`facelm_models.hourglass.HourglassConfig`. ``confidence``: it has a
    :class:`~facelm_models.confidence.Confidence`.
    """

    num_landmarks: int = 68
    size: int = 128
    dim: int = 64
    curves: tuple[Curve, ...] = ()
    confidence: bool = False

    @property
    def edges(self) -> tuple[Curve, ...]:
        """The curves that have an edge map each."""
        return self.curves or CURVES.get(self.num_landmarks, ((),))


class Pyramid(nn.Module):
    """Crops to heatmaps.

    ``forward``: float (n, 3, S, S), RGB, normalised as its ModelInfo says -> (n, L, S/4, S/4) float, not negative:
    logits of where a landmark is (decoding ``structured``). ``intermediate``: the
    :class:`~facelm_models.hourglass.Maps` in a tuple, as the one output that is trained. ``confidence`` are the heads
    of a :class:`facelm_models.protocol.ConfidenceNetwork`, None without them.
    """

    edge_weight: torch.Tensor
    edge_bias: torch.Tensor

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        if config.size % STRIDE:
            raise ValueError(f"a pyramid takes crops whose side is a multiple of {STRIDE}, not {config.size}")
        self.config = config
        dim, points, edges = config.dim, config.num_landmarks, len(config.edges)
        self.backbone = MobileNetV2()
        channels = self.backbone.map_channels
        self.lateral = nn.ModuleList(nn.Conv2d(count, dim, 1) for count in channels)
        self.join = nn.ModuleList(_conv(dim) for _ in channels)
        self.heatmaps, self.edges, self.points = (nn.Conv2d(dim, count, 1) for count in (points, edges, points))
        weight, bias = edge_members(config.edges, points)
        self.register_buffer("edge_weight", weight)
        self.register_buffer("edge_bias", bias)
        self.confidence = Confidence(channels[-2], config.size // 16, dim + 2) if config.confidence else None

    def forward(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, L, S/4, S/4)
        return self._run(crops)[0].heatmaps

    def forward_features(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:  # (n, L, S/4, S/4)
        """Return the heatmaps, and what ``confidence`` is given: tokens, and the backbone's map of stride 16."""
        maps, features, coarse = self._run(crops)
        return maps.heatmaps, (tokens_of(maps.heatmaps, features), coarse)

    def intermediate(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[Maps]:
        return (self._run(crops)[0],)

    def _run(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[Maps, torch.Tensor, torch.Tensor]:  # maps, (n, dim, S/4, S/4), (n, 96, S/16, S/16)
        maps = self.backbone.maps(crops)
        levels = [(lateral(x), join) for lateral, x, join in zip(self.lateral, maps, self.join, strict=True)]
        x, join = levels.pop()
        x = join(x)
        for finer, join in reversed(levels):
            x = join(finer + F.interpolate(x, scale_factor=2.0, mode="nearest"))
        logits, edges, points = self.heatmaps(x), self.edges(x).sigmoid(), self.points(x).sigmoid()
        found = masked(logits, F.instance_norm(logits), edges, points, self.edge_weight, self.edge_bias)
        return found, x, maps[-2]


def tokens_of(
    heatmaps: torch.Tensor,  # (n, L, h, w)
    features: torch.Tensor,  # (n, dim, h, w)
) -> torch.Tensor:  # (n, L, dim + 2)
    """The mean of the features under each landmark's heatmap, and the heatmap's peak and mass: what is sure of it."""
    peak, mass = heatmaps.amax((2, 3))[..., None], heatmaps.mean((2, 3))[..., None]
    wide = features.to(heatmaps.dtype).flatten(2).transpose(1, 2)  # an fp16 file's heatmaps are in fp32
    under = heatmaps.flatten(2) @ wide / features[0, 0].numel()
    return torch.cat([under / mass.clamp(min=1e-6), peak, mass], 2).to(features.dtype)


def _conv(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim), nn.ReLU(inplace=True))


register(
    ModelInfo(
        name="pyramid_m",
        task="landmarks",
        build=Pyramid,
        config=PyramidConfig(),
        input_size=128,
        channels="rgb",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        paper="the loss of Heatmap Regression without Soft-Argmax, on a MobileNetV2",
        decoding="structured",
    )
)
