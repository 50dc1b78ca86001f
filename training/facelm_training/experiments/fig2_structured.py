"""A one-dimensional heatmap trained by gradient descent (structured paper, section 5.1 and Fig. 2).

``python -m facelm_training.experiments.fig2_structured --out DIR``

One heatmap theta of 11 cells, whose right answer is cell 5, starts with its highest value at cell 9 and the second
highest at 1. Soft-argmax + L2 (eq. 4) against the structured loss (eq. 11) with the squared distance as margin. The
paper prints neither the peaks' heights nor the step size: here they are 2 and 1.8, and 0.3, and a sweep over random
starts and step sizes says what depends on that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ..figures import new_figure
from ..losses import loss_augmented
from . import write_results

CELLS, TARGET = 11, 5
FIRST, SECOND = 9, 1
RATE = 0.3
SHOWN = (10, 20, 50)
RATES = (0.03, 0.1, 0.3, 1.0)
STARTS = {"two peaks": (0.3, 1.0), "one peak": (0.0, 0.0)}
"""The second peak's least and largest share of the first."""

PLACES = torch.arange(CELLS, dtype=torch.float64)
MARGIN = (PLACES - TARGET).square()
SOFT, STRUCTURED = "soft-argmax + L2", "structured"

Loss = Callable[[torch.Tensor], torch.Tensor]


def expectations(
    path: torch.Tensor,  # (..., 11)
) -> torch.Tensor:  # (...)
    """What soft-argmax reads from a heatmap (eq. 3)."""
    return (path.softmax(-1) * PLACES).sum(-1)


def soft_argmax_l2(
    theta: torch.Tensor,  # (n, 11)
) -> torch.Tensor:  # (n,)
    """Eq. 3 and 4."""
    return (expectations(theta) - TARGET).square()


def structured(
    theta: torch.Tensor,  # (n, 11)
) -> torch.Tensor:  # (n,)
    """Eq. 11 with epsilon 1."""
    return loss_augmented(theta, MARGIN, theta[:, TARGET])


LOSSES: dict[str, Loss] = {SOFT: soft_argmax_l2, STRUCTURED: structured}


def bimodal(
    first: torch.Tensor,  # (n,) height of the peak at cell 9
    second: torch.Tensor,  # (n,) height of the peak at cell 1
) -> torch.Tensor:  # (n, 11)
    """Two Gaussian peaks, one cell wide."""
    peaks = (torch.exp(-(PLACES - place).square() / 2) for place in (FIRST, SECOND))
    return sum((height[:, None] * peak for height, peak in zip((first, second), peaks, strict=True)), torch.zeros(1))


def random_starts(count: int, least: float, most: float, seed: int = 0) -> torch.Tensor:  # (count, 11)
    """Peaks at 9 of height 1 to 4, at 1 of ``least`` to ``most`` times that, and noise of 0.1."""
    generator = torch.Generator().manual_seed(seed)
    first = 1 + 3 * torch.rand(count, generator=generator, dtype=torch.float64)
    second = first * (least + (most - least) * torch.rand(count, generator=generator, dtype=torch.float64))
    noise = torch.randn(count, CELLS, generator=generator, dtype=torch.float64)
    return bimodal(first, second) + 0.1 * noise


def descend(
    loss: Loss,
    theta: torch.Tensor,  # (n, 11)
    *,
    rate: float,
    steps: int,
) -> torch.Tensor:  # (steps + 1, n, 11)
    """Plain gradient descent; the start is step 0."""
    path = [theta]
    for _ in range(steps):
        theta = theta.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(theta).sum(), theta)
        theta = (theta - rate * slope).detach()
        path.append(theta)
    return torch.stack(path)


def gaps(
    path: torch.Tensor,  # (..., 11)
) -> torch.Tensor:  # (...)
    """How far the right cell lies above the best other one; negative where argmax is wrong."""
    others = torch.cat([path[..., :TARGET], path[..., TARGET + 1 :]], -1)
    return path[..., TARGET] - others.amax(-1)


def first_right(
    path: torch.Tensor,  # (steps + 1, n, 11)
) -> torch.Tensor:  # (n,) float, inf where never
    """The step from which on argmax is right until the end."""
    wrong = gaps(path) <= 0
    last_wrong = torch.where(wrong, torch.arange(len(path))[:, None], -1).amax(0)
    return torch.where(wrong[-1], torch.inf, last_wrong.double() + 1)


def single(steps: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Paths (steps + 1, 11) from the paper's kind of start, and what is to be said of them."""
    start = bimodal(torch.tensor([2.0]).double(), torch.tensor([1.8]).double())
    paths = {name: descend(loss, start, rate=RATE, steps=steps)[:, 0] for name, loss in LOSSES.items()}
    report = {}
    for name, path in paths.items():
        step = first_right(path[:, None]).item()
        updates = path.diff(dim=0)[: max(SHOWN)]
        others = torch.arange(CELLS) != TARGET
        report[name] = {
            "argmax right from step": int(step) if step < torch.inf else None,
            "gap": {str(at): round(gaps(path[at]).item(), 3) for at in (0, *SHOWN, steps)},
            "soft-argmax": {str(at): round(expectations(path[at]).item(), 3) for at in (0, *SHOWN, steps)},
            "soft-argmax within 0.05 from step": int(((expectations(path) - TARGET).abs() < 0.05).int().argmax()),
            "mean update of the right cell, first 10 steps": round(updates[:10, TARGET].mean().item(), 4),
            "share of other cells' updates that are downwards": round(
                (updates[:, others] < 0).double().mean().item(), 3
            ),
        }
    return paths, report


def sweep(
    theta: torch.Tensor,  # (n, 11)
    steps: int,
) -> dict[str, Any]:
    """Several step sizes from many starts: how many end with the right argmax, and after how many steps."""
    rows: dict[str, Any] = {name: {} for name in LOSSES}
    for name, loss in LOSSES.items():
        for rate in RATES:
            path = descend(loss, theta, rate=rate, steps=steps)
            right = first_right(path)
            reached = right[right < torch.inf]
            rows[name][str(rate)] = {
                "argmax right, %": round(100 * len(reached) / len(theta), 1),
                "median steps of those": int(reached.median().item()) if len(reached) else None,
                "median gap at the end": round(gaps(path[-1]).median().item(), 3),
                "median |soft-argmax - 5| at the end": round(
                    (expectations(path[-1]) - TARGET).abs().median().item(), 3
                ),
            }
    return rows


def draw(paths: dict[str, torch.Tensor], steps: int) -> Any:
    """The paper's figure, and the gap over the steps beside it."""
    figure = new_figure(11, 4.6)
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.3))
    for row, (name, path) in enumerate(paths.items()):
        for column, at in enumerate(SHOWN):
            axes = figure.add_subplot(grid[row, column])
            values, update = path[at].numpy(), path[at] - path[at - 1]
            axes.bar(range(CELLS), values, color=["tab:orange" if k == TARGET else "tab:blue" for k in range(CELLS)])
            for k in range(CELLS):
                if update[k].abs() > 1e-4:
                    arrow, side = ("↑", "bottom") if update[k] > 0 else ("↓", "top")
                    axes.text(k, values[k], arrow, ha="center", va="bottom" if values[k] >= 0 else side, fontsize=8)
            axes.set_title(f"{name}, step {at}", fontsize=9)
            axes.tick_params(labelsize=7)
            axes.margins(y=0.15)
    axes = figure.add_subplot(grid[:, 3])
    for name, path in paths.items():
        axes.plot(range(len(path)), gaps(path).numpy(), label=name)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlim=(1, steps), xlabel="step")
    axes.set_title("gap: cell 5 less the largest other\n(above 0 argmax is right)", fontsize=9)
    axes.legend(fontsize=8)
    return figure


def run(out: Path, *, starts: int = 200, steps: int = 1000) -> dict[str, Any]:
    """The whole experiment; the result is what the JSON holds."""
    paths, report = single(steps)
    result = {
        "cells": CELLS,
        "target": TARGET,
        "single start": {"peaks": {str(FIRST): 2.0, str(SECOND): 1.8}, "step size": RATE, **report},
        "random starts": {
            "count": starts,
            "steps": steps,
            **{name: sweep(random_starts(starts, *STARTS[name]), steps) for name in STARTS},
        },
    }
    command = "python -m facelm_training.experiments.fig2_structured --out training/results"
    write_results(out, "fig2_structured", command, result, draw(paths, steps))
    return result


def main(out: Annotated[Path, typer.Option(help="where fig2_structured.json and .png go")]) -> None:
    """Soft-argmax + L2 against the structured loss on one heatmap of 11 cells."""
    report = run(out)["single start"]
    for name in LOSSES:
        typer.echo(f"{name}: argmax right from step {report[name]['argmax right from step']}; {report[name]['gap']}")


if __name__ == "__main__":
    typer.run(main)
