"""LOTR: Localization Transformer (Watchareeruetai et al. 2022), landmarks by direct coordinate regression.

Equations and table I refer to that paper. Where it is silent or contradicts itself:

- Feed-forward layers are D -> 128 -> D (the width that meets every size it prints), 8 heads, and the head regresses
  offsets from a mean shape.
- The variants with upsampling learn their positions per row and per column. A vector for each of their 24 x 24 cells
  would alone be 1% of LOTR-M+, and the sizes it prints have no room for one.
- Deconvolutions are followed by batch norm and ReLU.
- Table V's CNN + FFN flattens the map of D channels into the head, whose last layer gives all points at once; its sizes
  (3.89 and 25.24 M) are met to 0.1%.
- HRNet, of which it says no more than the name, is the ImageNet network HRNet-W18-C without its classifier, so that
  LOTR-HR+ has "the same architecture" as the others: 32 pixels to a cell before two deconvolutions.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from .backbones.hrnet import ConvBN, HRNetW18, bottleneck
from .backbones.mobilenet import MobileNetV2
from .backbones.resnet import ResNet
from .confidence import Confidence
from .layers import AxialPositions, DecoderLayer, EncoderLayer, initialise, shrink_last
from .registry import IMAGENET_MEAN, IMAGENET_STD, ModelInfo, register

STRIDE = 32  # of every backbone

Backbone = Literal["mobilenet_v2", "resnet50", "hrnet_w18"]


@dataclass(frozen=True)
class LOTRConfig:
    """Options of the LOTR variants.

    ``size``: side of the crop in pixels, a multiple of 32. ``upsampling``: channels that enter each deconvolution; each
    doubles the resolution. ``axial``: positions are learned per row and column, not per cell. ``dim``: D of the paper.
    ``layers``: of encoder and of decoder each. ``lateral``: the tokens are cells of the backbone's map of stride 16,
    added to the map of stride 32 at twice its resolution (not in the paper; Lin et al. 2017, "Feature Pyramid
    Networks", section 3); MobileNetV2 only, without upsampling. ``confidence``: it has a :class:`Confidence`.
    ``transformer``: False is table V's CNN + FFN, the head alone on the flat map, which ``layers``, ``heads``,
    ``feedforward`` and ``axial`` say nothing of.
    """

    num_landmarks: int = 68
    size: int = 192
    backbone: Backbone = "mobilenet_v2"
    upsampling: tuple[int, ...] = ()
    axial: bool = False
    dim: int = 64
    heads: int = 8
    layers: int = 2
    feedforward: int = 128
    head: int = 512
    dropout: float = 0.1
    lateral: bool = False
    confidence: bool = False
    transformer: bool = True


class HRNetW18C(nn.Module):
    """HRNet-W18 under the head of its ImageNet networks: every map widened, then added to the next lower resolution."""

    channels = 2048

    def __init__(self) -> None:
        super().__init__()
        self.body = HRNetW18()
        hidden = (32, 64, 128, 256)
        self.widen = nn.ModuleList(bottleneck(c, h) for c, h in zip(self.body.channels, hidden, strict=True))
        self.halve = nn.ModuleList(ConvBN(4 * h, 8 * h, stride=2) for h in hidden[:-1])
        self.last = ConvBN(1024, self.channels, 1)

    def forward(
        self,
        x: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, 2048, S/32, S/32)
        first, *others = (widen(y) for widen, y in zip(self.widen, self.body(x), strict=True))
        for halve, other in zip(self.halve, others, strict=True):
            first = other + halve(first)
        out: torch.Tensor = self.last(first)
        return out


def build_backbone(name: Backbone) -> MobileNetV2 | ResNet | HRNetW18C:
    """The convolutional network called ``name``; its last or only map has stride 32."""
    if name == "mobilenet_v2":
        return MobileNetV2()
    if name == "resnet50":
        return ResNet(50)
    if name == "hrnet_w18":
        return HRNetW18C()
    raise ValueError(f"LOTR has no backbone {name!r}; backbones: mobilenet_v2, resnet50, hrnet_w18")


def deconvolution(inputs: int, outputs: int) -> nn.Sequential:
    """Doubles the resolution with filters of 4 x 4."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class LOTR(nn.Module):
    """Crops to landmarks.

    ``forward``: float (n, 3, S, S), RGB, normalised as its ModelInfo says -> (n, L, 2) float, (x, y) as fractions of
    the crop: pixel = fraction * S - 0.5. ``intermediate``: the same in a tuple, as the one output that is trained.
    ``mean_shape`` (L, 2), in the same fractions, is a buffer filled by training. ``confidence`` are the heads of a
    :class:`facelm_models.protocol.ConfidenceNetwork`, None without them.
    """

    mean_shape: torch.Tensor

    def __init__(self, config: LOTRConfig) -> None:
        super().__init__()
        if config.size % STRIDE:
            raise ValueError(f"LOTR takes crops whose side is a multiple of {STRIDE}, not {config.size}")
        if config.confidence and not config.transformer:
            raise ValueError("LOTR without its transformer has no tokens of points for a confidence")
        self.config = config
        self.backbone = build_backbone(config.backbone)
        if config.lateral and (config.backbone != "mobilenet_v2" or config.upsampling):
            raise ValueError("LOTR has a lateral connection with mobilenet_v2 and without upsampling only")
        self.side = config.size // STRIDE * 2 ** (len(config.upsampling) + config.lateral)
        widths = (*config.upsampling, config.dim)
        channels = self.backbone.channels if isinstance(self.backbone.channels, int) else self.backbone.channels[-1]
        self.reduce = nn.Conv2d(channels, widths[0], 1)  # eq. 8
        self.upsample = nn.Sequential(*itertools.starmap(deconvolution, itertools.pairwise(widths)))
        self.lateral = (
            nn.Conv2d(self.backbone.map_channels[-2], config.dim, 1)
            if config.lateral and isinstance(self.backbone, MobileNetV2)
            else None
        )
        inputs, outputs = self.side**2 * config.dim, 2 * config.num_landmarks
        if config.transformer:
            inputs, outputs = config.dim, 2
            self.position: nn.Parameter | AxialPositions = (
                AxialPositions(self.side, config.dim)
                if config.axial
                else nn.Parameter(0.1 * torch.randn(1, self.side**2, config.dim))
            )
            # The paper's std of 1e-4 leaves all queries alike and training at the mean shape; 1 tells them apart.
            self.queries = nn.Parameter(torch.randn(1, config.num_landmarks, config.dim))
            shape = (config.dim, config.heads, config.feedforward)
            self.encoder = nn.ModuleList(EncoderLayer(*shape) for _ in range(config.layers))
            self.decoder = nn.ModuleList(DecoderLayer(*shape) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(  # eq. 19 with two hidden layers, table I
            nn.Linear(inputs, config.head),
            nn.ReLU(inplace=True),
            nn.Linear(config.head, config.head),
            nn.ReLU(inplace=True),
            nn.Linear(config.head, outputs),
        )
        self.register_buffer("mean_shape", torch.full((config.num_landmarks, 2), 0.5))
        initialise(self)
        shrink_last(self.head)  # starts at the mean shape
        if self.lateral is not None:
            channels = self.lateral.in_channels
        side = config.size // STRIDE * (2 if config.lateral else 1)
        self.confidence = Confidence(channels, side, config.dim) if config.confidence else None

    def forward(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, L, 2)
        if self.config.transformer:
            return self.forward_features(crops)[0]
        offsets = self.head(self.dropout(self.tokens(crops)[0].flatten(1)))
        out: torch.Tensor = self.mean_shape + offsets.view(-1, *self.mean_shape.shape)
        return out

    def forward_features(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:  # (n, L, 2)
        """Return the points, and what ``confidence`` is given."""
        tokens, finest = self.tokens(crops)
        memory = tokens.flatten(2).transpose(1, 2)  # (n, cells, D)
        position = self.position() if isinstance(self.position, AxialPositions) else self.position
        for layer in self.encoder:
            memory = layer(memory, position)
        y: torch.Tensor = self.queries  # of one crop, and so the same for all
        for layer in self.decoder:
            y = layer(y, self.queries, memory, position)
        points: torch.Tensor = self.mean_shape + self.head(self.dropout(y))
        return points, (y, finest)

    def tokens(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor, torch.Tensor]:  # (n, D, side, side), (n, channels, ...)
        """What the transformer or the flat head looks at, as a map, and the finest of the backbone's that is in it."""
        if self.lateral is not None and isinstance(self.backbone, MobileNetV2):
            *_, finer, deepest = self.backbone.maps(crops)
            coarser = F.interpolate(self.reduce(deepest), scale_factor=2.0, mode="nearest")
            return coarser + self.lateral(finer), finer
        maps = self.backbone(crops)
        deepest = maps if isinstance(maps, torch.Tensor) else maps[-1]
        return self.upsample(self.reduce(deepest)), deepest

    def intermediate(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor]:
        return (self(crops),)


def _register(name: str, config: LOTRConfig, where: str = "table I") -> None:
    register(
        ModelInfo(
            name=name,
            task="landmarks",
            build=LOTR,
            config=config,
            input_size=config.size,
            channels="rgb",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            paper=f"LOTR: Face Landmark Localization Using Localization Transformer, {where}",
        )
    )


_register("lotr_m", LOTRConfig())
_register(
    "lotr_m_128",
    LOTRConfig(size=128, dropout=0.0, lateral=True),
    "table I, for crops of 128 pixels and with a lateral connection",
)
_register("lotr_m_plus", LOTRConfig(upsampling=(256, 128), axial=True))
_register("lotr_r_plus", LOTRConfig(backbone="resnet50", upsampling=(256, 128), axial=True))
_register(
    "lotr_hr_plus",
    LOTRConfig(size=256, backbone="hrnet_w18", upsampling=(256, 128), axial=True),
    "section IV-C",
)
