"""Modules that exist for export only: a network fused with everything between raw pixels and points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from facelm_models import ModelInfo
from facelm_models.protocol import has_confidence
from facelm_models.registry import Decoding, Points
from facelm_models.retinaface import RetinaFace, decode_boxes, decode_points, priors
from facelm_sdk.markup import Markup

from .ops.decoding import decode
from .ops.nms import nms

Decode = Callable[[torch.Tensor, Decoding], Points]
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
        self.scaled = any(std != 1 for std in info.std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.to(torch.float32).permute(0, 3, 1, 2)  # cast first: TensorRT has no transpose of uint8
        if self.reverse:
            x = x.flip(1)
        x = x - self.mean
        if self.scaled:
            x = x * self.gain
        return x.to(self.dtype)


class FusedLandmarks(nn.Module):
    """crops uint8 (n, S, S, 3) BGR -> landmarks float32 (n, L, 2) in crop pixels and, where there are, scores (n, L)
    of the decoder or of a network with confidence, which also gives presence (n,).

    ``decoder`` turns the network's output into fractions of the crop: the graph's own twins, or their readable
    references. With ``flip``, the mirrored crops run in the same batch and their points, mirrored back and put in
    order, are averaged with the others (LOTR paper, section IV-E); so are scores and presence.
    """

    flip_order: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        info: ModelInfo,
        size: int,
        markup: Markup,
        *,
        flip: bool,
        decoder: Decode = decode,
    ) -> None:
        super().__init__()
        self.pixels, self.network, self.size, self.flip = PixelInput(info, network), network, size, flip
        self.decoding, self.offset, self.decoder = info.decoding, info.offset, decoder
        self.register_buffer("flip_order", torch.tensor(markup.flip))

    def forward(self, crops: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        x = self.pixels(crops)
        if self.flip:
            x = torch.cat([x, x.flip(3)])
        scores: torch.Tensor | None
        presence: torch.Tensor | None = None
        if has_confidence(self.network):
            output, features = self.network.forward_features(x)
            fractions, _ = self.decoder(output, self.decoding)
            scores, presence = (logits.float().sigmoid() for logits in self.network.confidence(*features))
        else:
            fractions, scores = self.decoder(self.network(x), self.decoding)
        points = fractions.float() * self.size + self.offset
        if self.flip:
            straight, mirrored = points.tensor_split(2)
            mirrored = mirrored.index_select(1, self.flip_order)
            mirrored = torch.stack([self.size - 1 - mirrored[..., 0], mirrored[..., 1]], -1)
            points = (straight + mirrored) / 2
        if scores is None:
            return points
        if self.flip:
            straight, mirrored = scores.tensor_split(2)
            scores = (straight + mirrored.index_select(1, self.flip_order)) / 2
        if presence is None:
            return points, scores
        return points, scores, torch.stack(presence.tensor_split(2)).mean(0) if self.flip else presence


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
