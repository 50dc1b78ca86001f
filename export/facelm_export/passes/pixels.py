"""Order and gain of the channels moved into the convolutions that see the pixels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from facelm_models import ModelInfo

from .uses import Uses


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
    with Uses() as uses:
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
