"""Half precision of a torch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from facelm_models import ModelInfo
from facelm_models.registry import decoder


class InFloat32(nn.Module):
    """A layer of a half-precision network that computes in single precision; its output is of type ``gives``."""

    def __init__(self, layer: nn.Module, gives: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layer, self.gives = layer.float(), gives

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x.float()).to(self.gives)
        return out


def to_half(network: nn.Module, info: ModelInfo) -> nn.Module:
    """Weights and activations in fp16. Changes ``network``, a form of what ``info`` builds, and returns it.

    In fp32 stay buffers (mean faces, grids), so coordinates come out in fp32, the convolutions that give heatmaps, as a
    peak and its neighbours must not be rounded to the same value, and the one that sees pixels, whose rounding all
    others inherit: it is half of the error of lotr_m.
    """
    names = {module: name for name, module in network.named_modules()}
    heads = _heads(network, info.input_size) if decoder(info.decoding).of_maps else []
    norms = {names[module] for module in names if isinstance(module, nn.BatchNorm2d)}
    buffers = {
        name: buffer.clone()
        for name, buffer in network.named_buffers()
        if buffer.is_floating_point() and name.rpartition(".")[0] not in norms
    }
    network.half()
    for name, buffer in buffers.items():
        owner, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(owner), leaf, buffer)
    for head in heads:
        network.set_submodule(names[head], InFloat32(head))
    for module, name in names.items():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            network.set_submodule(name, InFloat32(module, torch.float16))
    return network


def _heads(network: nn.Module, size: int) -> list[nn.Module]:
    """The convolutions after which no other module's weights have a part in the output."""
    made: dict[Any, nn.Module] = {}

    def after(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        made[output.grad_fn] = module

    hooks = [m.register_forward_hook(after) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.enable_grad():
        output = network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    found, seen, steps = [], set(), [output.grad_fn]
    while steps:
        step = steps.pop()
        if step in made:
            found.append(made[step])
        elif step is not None and step not in seen:
            seen.add(step)
            steps += [before for before, _ in step.next_functions]
    return list(dict.fromkeys(found))
