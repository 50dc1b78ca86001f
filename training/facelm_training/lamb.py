"""LAMB (You et al. 2020, algorithm 2), the optimiser of the LOTR paper; PyTorch has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Lamb(torch.optim.Optimizer):
    """Adam's step, scaled for each tensor to the ratio of its weights' norm to the step's norm."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; ``closure`` is not supported."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros(())
                    state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                count = float(state["step"])
                state["mean"].lerp_(p.grad, 1 - beta1)
                state["square"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                scale = (state["square"] / (1 - beta2**count)).sqrt_().add_(group["eps"])
                update = state["mean"] / (1 - beta1**count) / scale + group["weight_decay"] * p
                weight, size = p.norm(), update.norm()
                ratio = torch.where((weight > 0) & (size > 0), weight / size, 1.0)
                p.add_(update * ratio, alpha=-group["lr"])
