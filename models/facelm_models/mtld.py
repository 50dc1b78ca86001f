"""MTLD: accurate facial landmark detector via multi-scale transformer (Sha et al.), coordinates by direct regression.

Equations and tables refer to that paper, which leaves much open. Chosen here:

- D = 128, 8 heads, feed-forward layers of 256, two fusion layers ("multiple") and two decoder layers (a first head and
  "subsequent ones"), heads D -> D -> 2 that add to the points so far, positions learned per row and column.
- A map's cells attend to each other with values weighted by the finer map's memory, averaged down to their
  resolution; the finest has none before it.
- The fusion encoder sees the memories of all three maps as one sequence. The text has it combine "representations from
  the CNN-based backbone and FPA"; it does not say how. ``fusion = "sum"`` adds the backbone's maps to their memories,
  which costs no weight, as table 4's sizes leave no room for any; the papers' recipes take it. A memory holds its map
  by the residual of eq. 1 already, so that the two are close.
- Table 3's baseline, "the coordinate regression framework with ResNet-18", is here the same encoder and decoder on the
  map of stride 32 alone.

Table 4 does not say what it counts. Parameters without the heatmap branch but with the backbone's ImageNet classifier,
which nothing uses, are 12.9 / 27.1 / 46.1 M for ResNet-18 / 50 / 101 (paper 12.6 / 27.3 / 46.0). No layers meet all
three: depths 18 and 50 differ by 14.7 M there, while backbones and 1x1 convolutions to D differ by 14.2 M.
Multiply-adds of all but attention's projections and products, as tools count that look at plain layers, are 2.67 / 5.73
/ 10.58 G (paper 2.7 / 5.8 / 10.7); with them 4.30 / 7.36 / 12.21 G.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .backbones.mobilenet import MobileNetV2
from .backbones.resnet import Depth, ResNet
from .layers import AxialPositions, DecoderLayer, EncoderLayer, initialise, shrink_last
from .registry import IMAGENET_MEAN, IMAGENET_STD, ModelInfo, register

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class MTLDConfig:
    """Options of the MTLD variants.

    ``size``: side of the crop in pixels, a multiple of 32; ``depth``: of the ResNet, None for a MobileNetV2 in its
    place, which is not in the paper; ``dim``: channels of tokens.
    ``multi_scale``: False leaves out the feature pyramid attention, and the encoder sees the map of stride 32 alone.
    ``fusion``: what the encoder is given, the ``memories`` or their ``sum`` with the maps they are of.
    """

    num_landmarks: int = 68
    size: int = 256
    depth: Depth | None = 18
    dim: int = 128
    heads: int = 8
    feedforward: int = 256
    encoder_layers: int = 2
    decoder_layers: int = 2
    multi_scale: bool = True
    fusion: Literal["memories", "sum"] = "memories"


class FeaturePyramidAttention(EncoderLayer):
    """One resolution of the pyramid, eq. 1 and figure 2 (a): values are weighted by the memory before."""

    def forward(
        self,
        x: torch.Tensor,  # (n, tokens, D): s_i
        position: torch.Tensor,  # (1, tokens, D): p_i
        before: torch.Tensor | None = None,  # (n, tokens, D): m_(i-1) at this resolution
    ) -> torch.Tensor:  # (n, tokens, D): m_i
        return self.attend(x, position, x if before is None else x * before)


class HeatmapBranch(nn.Module):
    """Heatmaps of stride 4 from the maps of all three strides; for training only (section 3.3)."""

    def __init__(self, dim: int, num_landmarks: int) -> None:
        super().__init__()
        self.coarse = _conv(dim, dim)
        self.fine = _conv(dim, dim)
        self.heatmaps = nn.Conv2d(dim, num_landmarks, 1)

    def forward(
        self,
        maps: Sequence[torch.Tensor],  # (n, D, S/8, S/8) and two of half and a quarter of that
    ) -> torch.Tensor:  # (n, L, S/4, S/4)
        first, *others = maps
        for i, other in enumerate(others):
            first = first + F.interpolate(other, scale_factor=2.0 ** (i + 1), mode="bilinear")
        x = F.interpolate(self.coarse(first), scale_factor=2.0, mode="bilinear")
        out: torch.Tensor = self.heatmaps(self.fine(x))
        return out


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _halved(
    memory: torch.Tensor,  # (n, 4 * side * side, D)
    side: int,
) -> torch.Tensor:  # (n, side * side, D)
    grid: torch.Tensor = memory.transpose(1, 2).unflatten(2, (2 * side, 2 * side))  # type: ignore[no-untyped-call]
    return F.avg_pool2d(grid, 2).flatten(2).transpose(1, 2)


class Outputs(NamedTuple):
    """All that is trained: ``landmarks`` (n, layers, L, 2) as fractions of the crop, ``heatmaps`` (n, L, S/4, S/4)."""

    landmarks: torch.Tensor
    heatmaps: torch.Tensor


class MTLD(nn.Module):
    """Crops to landmarks.

    ``forward``: float (n, 3, S, S), RGB, normalised as its ModelInfo says -> (n, L, 2) float, (x, y) as fractions of
    the crop: pixel = fraction * S - 0.5. ``intermediate``: the :class:`Outputs` of every decoder layer, the last of
    which is what ``forward`` gives, and of the heatmap branch. ``mean_shape`` (L, 2), where the first layer starts, is
    a buffer filled by training.
    """

    mean_shape: torch.Tensor

    def __init__(self, config: MTLDConfig) -> None:
        super().__init__()
        if config.size % STRIDES[-1]:
            raise ValueError(f"MTLD takes crops whose side is a multiple of {STRIDES[-1]}, not {config.size}")
        self.config = config
        dim, shape = config.dim, (config.dim, config.heads, config.feedforward)
        self.backbone = MobileNetV2() if config.depth is None else ResNet(config.depth)
        widths = self.backbone.map_channels if isinstance(self.backbone, MobileNetV2) else self.backbone.channels
        self.reduce = nn.ModuleList(nn.Conv2d(channels, dim, 1) for channels in widths[1:])
        scales = STRIDES if config.multi_scale else STRIDES[-1:]
        self.positions = nn.ModuleList(AxialPositions(config.size // stride, dim) for stride in scales)
        self.pyramid = nn.ModuleList(FeaturePyramidAttention(*shape) for _ in scales) if config.multi_scale else None
        self.encoder = nn.ModuleList(EncoderLayer(*shape) for _ in range(config.encoder_layers))
        self.queries = nn.Parameter(torch.randn(1, config.num_landmarks, dim))
        self.decoder = nn.ModuleList(DecoderLayer(*shape) for _ in range(config.decoder_layers))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, 2))
            for _ in range(config.decoder_layers)
        )
        self.heatmaps = HeatmapBranch(dim, config.num_landmarks)
        self.register_buffer("mean_shape", torch.full((config.num_landmarks, 2), 0.5))
        initialise(self)
        for head in self.heads:  # starts at the mean shape
            shrink_last(head)

    def forward(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, L, 2)
        return self._landmarks(self._features(crops))[-1]

    def intermediate(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> Outputs:
        maps = self._features(crops)
        return Outputs(torch.stack(self._landmarks(maps), 1), self.heatmaps(maps))

    def _features(self, crops: torch.Tensor) -> list[torch.Tensor]:  # three (n, D, S / stride, S / stride)
        """s_3 to s_5."""
        maps = self.backbone.maps(crops) if isinstance(self.backbone, MobileNetV2) else self.backbone(crops)
        return [reduce(x) for reduce, x in zip(self.reduce, maps[1:], strict=True)]

    def _landmarks(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:  # of every layer (n, L, 2)
        positions = [position() for position in self.positions]
        memory, position = torch.cat(self._tokens(maps, positions), 1), torch.cat(positions, 1)
        for layer in self.encoder:
            memory = layer(memory, position)
        y: torch.Tensor = self.queries  # of one crop, and so the same for all
        offsets = []
        for layer, head in zip(self.decoder, self.heads, strict=True):
            y = layer(y, self.queries, memory, position)
            offsets.append(head(y))
        return list(itertools.accumulate(offsets, initial=self.mean_shape))[1:]

    def _tokens(
        self,
        maps: Sequence[torch.Tensor],  # three (n, D, h, w), each half of the one before
        positions: Sequence[torch.Tensor],  # (1, h * w, D) of each that is used
    ) -> list[torch.Tensor]:  # (n, h * w, D) of each
        """What the fusion encoder is given."""
        if self.pyramid is None:
            return [maps[-1].flatten(2).transpose(1, 2)]
        memories = self._memories(self.pyramid, maps, positions)
        if self.config.fusion == "memories":
            return memories
        return [memory + x.flatten(2).transpose(1, 2) for memory, x in zip(memories, maps, strict=True)]

    @staticmethod
    def _memories(
        pyramid: nn.ModuleList,
        maps: Sequence[torch.Tensor],  # three (n, D, h, w), each half of the one before
        positions: Sequence[torch.Tensor],  # (1, h * w, D) of each
    ) -> list[torch.Tensor]:  # (n, h * w, D) of each
        memories: list[torch.Tensor] = []
        for layer, x, position in zip(pyramid, maps, positions, strict=True):
            before = _halved(memories[-1], x.shape[-1]) if memories else None
            memories.append(layer(x.flatten(2).transpose(1, 2), position, before))
        return memories


def _register(name: str, config: MTLDConfig, where: str) -> None:
    register(
        ModelInfo(
            name=name,
            task="landmarks",
            build=MTLD,
            config=config,
            input_size=config.size,
            channels="rgb",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            paper=f"Accurate Facial Landmark Detector via Multi-scale Transformer, {where}",
        )
    )


for depth in (18, 50, 101):
    _register(f"mtld_r{depth}", MTLDConfig(depth=depth), "table 4")
_register("mtld_m", MTLDConfig(size=128, depth=None), "for crops of 128 pixels and with a MobileNetV2")
