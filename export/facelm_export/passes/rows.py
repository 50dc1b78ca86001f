"""Perceptrons over the rows of a matrix: runtimes have one operator for product, bias and activation of those."""

from __future__ import annotations

import torch
from torch import nn

KINDS = (nn.Linear, nn.ReLU, nn.GELU, nn.Dropout)


class Rows(nn.Module):
    """A perceptron that is given (n, ..., D) and computes with (n * ..., D)."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(
        self,
        x: torch.Tensor,  # (n, ..., inputs)
    ) -> torch.Tensor:  # (n, ..., outputs)
        out: torch.Tensor = self.layers(x.flatten(0, -2))
        return out.view(-1, *x.shape[1:-1], out.shape[-1])


def perceptrons_over_rows(network: nn.Module) -> None:
    """Put :class:`Rows` around every perceptron inside ``network``."""
    for name, module in list(network.named_modules()):
        if type(module) is nn.Sequential and len(module) and all(isinstance(layer, KINDS) for layer in module):
            network.set_submodule(name, Rows(module))
