"""HRNet-W18 with a heatmap head (Wang et al. 2020, section 7): the baseline that other papers compare with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .backbones.hrnet import HRNetHead, HRNetW18
from .registry import IMAGENET_MEAN, IMAGENET_STD, ModelInfo, register


@dataclass(frozen=True)
class HRNetConfig:
    """``size``: side of the crop in pixels, a multiple of 32; ``modules``: see HRNetW18."""

    num_landmarks: int = 68
    size: int = 256
    modules: tuple[int, int, int] = (1, 4, 3)


class HRNet(nn.Module):
    """Crops to heatmaps.

    ``forward``: float (n, 3, S, S), RGB, normalised as its ModelInfo says -> (n, L, S/4, S/4) float; a Gaussian around
    each landmark is what they are trained to be. ``intermediate``: the same, there being no other branch to train.
    """

    def __init__(self, config: HRNetConfig) -> None:
        super().__init__()
        if config.size % 32:
            raise ValueError(f"HRNet takes crops whose side is a multiple of 32 pixels, not {config.size}")
        self.config = config
        self.backbone = HRNetW18(config.modules)
        self.head = HRNetHead(config.num_landmarks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        last = self.head.layers[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.normal_(last.weight, std=0.001)  # heatmaps are zero nearly everywhere
        nn.init.zeros_(last.bias)

    def forward(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> torch.Tensor:  # (n, L, S/4, S/4)
        heatmaps: torch.Tensor = self.head(self.backbone(crops))
        return heatmaps

    def intermediate(
        self,
        crops: torch.Tensor,  # (n, 3, S, S)
    ) -> tuple[torch.Tensor]:  # of (n, L, S/4, S/4)
        return (self(crops),)


register(
    ModelInfo(
        name="hrnet18",
        task="landmarks",
        build=HRNet,
        config=HRNetConfig(),
        input_size=256,
        channels="rgb",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        paper="Deep High-Resolution Representation Learning for Visual Recognition, section 7",
        decoding="argmax",
    )
)
