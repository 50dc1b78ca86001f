"""Modules that exist for export only: a network fused with everything between raw pixels and points."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from facelm_models import ModelInfo
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


@torch.no_grad()
def absorb_pixels(network: nn.Module, info: ModelInfo) -> ModelInfo:
    """Move the order and the gain of the channels into the convolutions that see the pixels, where nothing else does.

    Changes ``network`` (fp32, run on a picture of ``info.input_size``) and returns what is left for PixelInput to do.
    The mean stays: zeros beyond the crop's edge stand for it.
    """
    crops = torch.zeros(1, 3, info.input_size, info.input_size)
    first: list[nn.Conv2d] = []

    def after(module: nn.Conv2d, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if inputs[0] is crops:
            first.append(module)

    hooks = [m.register_forward_hook(after) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with _Uses() as uses:
        network(crops)
    for hook in hooks:
        hook.remove()
    if not first or uses.counts[id(crops)] != len(first) or len(set(first)) != len(first):
        return info
    gain = 1 / torch.tensor(info.std).view(1, 3, 1, 1)
    for conv in first:
        weight = conv.weight * gain
        conv.weight.copy_(weight.flip(1) if info.channels == "rgb" else weight)
    mean = info.mean[::-1] if info.channels == "rgb" else info.mean
    return replace(info, channels="bgr", mean=mean, std=(1.0, 1.0, 1.0))


class FusedLandmarks(nn.Module):
    """crops uint8 (n, S, S, 3) BGR -> landmarks float32 (n, L, 2) in crop pixels and, from heatmaps, scores (n, L).

    ``decoder`` turns the network's output into fractions of the crop: the graph's own twins, or their readable
    references. With ``flip``, the mirrored crops run in the same batch and their points, mirrored back and put in
    order, are averaged with the others (LOTR paper, section IV-E); so are scores.
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

    def forward(self, crops: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.pixels(crops)
        if self.flip:
            x = torch.cat([x, x.flip(3)])
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
        return points, scores


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


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often each tensor is the input of an operation, and holds it, so that its id stays its own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()
        self.held: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for leaf in pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self.counts[id(leaf)] += 1
                self.held.append(leaf)
        return func(*args, **kwargs)


@torch.no_grad()
def without_batch_norm(network: nn.Module, size: int) -> nn.Module:
    """A copy in eval mode whose batch norms are folded into the convolutions before them: the same function, faster.

    A run on a picture of ``size`` pixels tells which norm is all that becomes of a convolution's output.
    """
    network = copy.deepcopy(network).eval()
    made: dict[int, nn.Module] = {}
    runs: Counter[nn.Module] = Counter()
    pairs: list[tuple[nn.Module, nn.BatchNorm2d, int]] = []

    def after(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        runs[module] += 1
        if not isinstance(module, nn.BatchNorm2d):
            made[id(output)] = module
        elif id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])], module, id(inputs[0])))

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(after) for m in network.modules() if isinstance(m, kinds)]
    with _Uses() as uses:
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in network.named_modules()}
    for conv, norm, between in pairs:
        if runs[conv] == runs[norm] == uses.counts[between] == 1:
            transpose = isinstance(conv, nn.ConvTranspose2d)
            fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm, transpose)  # type: ignore[type-var]
            network.set_submodule(names[conv], fused)
            network.set_submodule(names[norm], nn.Identity())
    return network
