"""Modules that exist for export only: a network fused with everything between raw pixels and points."""

from __future__ import annotations

import copy
import itertools
from typing import cast

import torch
from torch import nn

from facelm_models import ModelInfo
from facelm_models.retinaface import RetinaFace, decode_boxes, decode_points, priors
from facelm_sdk.markup import Markup

from .ops.nms import nms

IOU_THRESHOLD = 0.4
SCORE_FLOOR = 0.05  # the runtime's threshold lies above; suppression first and threshold second changes nothing


class PixelInput(nn.Module):
    """uint8 (n, H, W, 3) BGR to the network's normalised (n, 3, H, W), in the precision of its weights."""

    mean: torch.Tensor
    gain: torch.Tensor

    def __init__(self, info: ModelInfo, network: nn.Module) -> None:
        super().__init__()
        self.reverse = info.channels == "rgb"
        self.dtype = next(network.parameters()).dtype
        self.register_buffer("mean", torch.tensor(info.mean).view(1, 3, 1, 1))
        self.register_buffer("gain", 1 / torch.tensor(info.std).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.to(torch.float32).permute(0, 3, 1, 2)  # cast first: TensorRT has no transpose of uint8
        if self.reverse:
            x = x.flip(1)
        return ((x - self.mean) * self.gain).to(self.dtype)


class FusedLandmarks(nn.Module):
    """crops uint8 (n, S, S, 3) BGR -> landmarks float32 (n, L, 2) in crop pixels.

    ``network`` gives fractions of the crop. With ``flip``, the mirrored crops run in the same batch and their points,
    mirrored back and put in order, are averaged with the others (LOTR paper, section IV-E).
    """

    flip_order: torch.Tensor

    def __init__(self, network: nn.Module, info: ModelInfo, size: int, markup: Markup, *, flip: bool) -> None:
        super().__init__()
        self.pixels, self.network, self.size, self.flip = PixelInput(info, network), network, size, flip
        self.register_buffer("flip_order", torch.tensor(markup.flip))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        x = self.pixels(crops)
        if self.flip:
            x = torch.cat([x, x.flip(3)])
        points = self.network(x) * self.size - 0.5
        if self.flip:
            straight, mirrored = points.tensor_split(2)
            mirrored = mirrored.index_select(1, self.flip_order)
            mirrored = torch.stack([self.size - 1 - mirrored[..., 0], mirrored[..., 1]], -1)
            points = (straight + mirrored) / 2
        return cast(torch.Tensor, points)


class FusedDetector(nn.Module):
    """image uint8 (1, H, W, 3) BGR -> boxes (k, 4) xyxy, scores (k,), kps (k, 5, 2), best score first."""

    def __init__(self, network: RetinaFace, info: ModelInfo) -> None:
        super().__init__()
        self.pixels, self.network = PixelInput(info, network), network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.pixels(image)
        encoded, logits, points = (part[0].float() for part in self.network(x))
        prior = priors(image.shape[1], image.shape[2], self.network.config.min_sizes)
        boxes = decode_boxes(encoded, prior)
        scores = logits.softmax(-1)[:, 1]
        keep = nms(boxes, scores, IOU_THRESHOLD, SCORE_FLOOR)
        kept = prior.index_select(0, keep)
        return (
            boxes.index_select(0, keep),
            scores.index_select(0, keep),
            decode_points(points.index_select(0, keep), kept),
        )


def without_batch_norm(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose batch norms are folded into the convolutions before them: the same function, faster."""
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            for i, (conv, norm) in enumerate(itertools.pairwise(list(module))):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[i] = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
                    module[i + 1] = nn.Identity()
    return network


def to_half(network: nn.Module) -> nn.Module:
    """Weights and activations in fp16; buffers (mean faces, grids) stay fp32, so coordinates come out in fp32."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers() if buffer.is_floating_point()}
    network.half()
    for name, buffer in buffers.items():
        owner, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(owner), leaf, buffer)
    return network
