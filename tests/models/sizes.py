"""How large a network is, counted as papers do."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from facelm_models import create


def outline(name: str, **options: Any) -> nn.Module:
    """A variant without memory for its tensors: shapes only, which is enough to count."""
    with torch.device("meta"):
        return create(name, **options)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def running_statistics(model: nn.Module) -> int:
    return sum(b.numel() for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var")))


def multiply_adds(model: nn.Module, *shape: int) -> dict[str, float]:
    """Of each submodule by name, in billions; "Global" is all of them."""
    model.eval().requires_grad_(False)
    inputs = torch.zeros(*shape, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernel is not counted
        model(inputs)
    return {name: sum(flops.values()) / 2e9 for name, flops in counter.get_flop_counts().items()}


def share(counts: dict[str, float], *leaves: str) -> float:
    """What the modules that end in one of the names ``leaves`` take of :func:`multiply_adds`."""
    return sum(count for module, count in counts.items() if module.rpartition(".")[2] in leaves)
