"""Sizes of the networks beside what their papers print.

``python -m facelm_models.complexity models/README.md`` makes the table of that page anew.

Multiply-adds are those of convolutions, linear layers and attention products of one forward pass at batch 1, as
``torch.utils.flop_counter`` counts them, halved.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .registry import create, info


def parameters(network: nn.Module) -> int:
    """Trainable values."""
    return sum(p.numel() for p in network.parameters())


def running_statistics(network: nn.Module) -> int:
    """Values of batch norms' running means and variances, which some count as parameters."""
    return sum(b.numel() for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var")))


def multiply_adds(network: nn.Module, size: int) -> dict[str, int]:
    """Of each submodule by its path from the class's name, for one picture of ``size`` pixels; "Global" is all."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    picture = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    # The fused attention kernel is not counted, its parts are.
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(picture)
    return {name: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items()}


@dataclass(frozen=True)
class Printed:
    """A row of a paper: its figures in millions and billions. ``statistics``: the paper's count has them in it."""

    model: str
    points: int | None
    millions: float
    billions: float | None
    options: dict[str, Any] = field(default_factory=dict)
    statistics: bool = False
    size: int | None = None
    remark: str = ""


MARKERS = ("<!-- sizes -->", "<!-- end of sizes -->")
LOTR_REMARK = "parameters with batch norm statistics, as the paper counts"
MTLD_REMARK = "the paper's count holds the backbone's unused classifier"
PAPERS = (
    Printed("lotr_m", 106, 2.81, 0.23, statistics=True, remark=LOTR_REMARK),
    Printed("lotr_m_plus", 106, 3.71, 0.44, statistics=True, remark=LOTR_REMARK),
    Printed("lotr_r_plus", 106, 25.21, 3.23, statistics=True, remark=LOTR_REMARK),
    Printed("slpt_hrnet18", 98, 13.19, 6.12),
    Printed("slpt_hrnet18", 68, 13.18, 5.17),
    Printed("slpt_hrnet18", 29, 13.16, 3.99),
    Printed("slpt_hrnet18_12l", 98, 19.515, 8.109, remark="the paper prints none; its code's"),
    Printed("mtld_r18", 98, 12.6, 2.7, remark=MTLD_REMARK),
    Printed("mtld_r50", 98, 27.3, 5.8, remark=MTLD_REMARK),
    Printed("mtld_r101", 98, 46.0, 10.7, remark=MTLD_REMARK),
    Printed("hourglass4", 98, 13.48, 17.54),
    Printed("hrnet18", 98, 9.66, 4.75),
    Printed("fan2", 68, 12.107, 13.92, remark="the public code's"),
    Printed("fan4", 68, 23.820, 25.24, remark="the public code's"),
    Printed("retinaface_mnet025", None, 0.4266, 0.981, remark="the public code's"),
    Printed("retinaface_mnet025", None, 0.4266, 0.245, size=320, remark="the public code's"),
    Printed("retinaface_r50", None, 27.294, 44.26, remark="the public code's"),
)


def _row(printed: Printed) -> str:
    described = info(printed.model)
    options = printed.options if printed.points is None else {**printed.options, "num_landmarks": printed.points}
    size = printed.size or described.input_size
    with torch.device("meta"):  # nothing is computed
        network = create(printed.model, **options)
    millions = (parameters(network) + (running_statistics(network) if printed.statistics else 0)) / 1e6
    billions = multiply_adds(network, size)["Global"] / 1e9
    theirs = "" if printed.billions is None else f"{printed.billions:g}"
    cells = (
        printed.model,
        size,
        printed.points or "",
        f"{millions:.3f}",
        f"{printed.millions:g}",
        f"{100 * (millions / printed.millions - 1):+.1f}%",
        f"{billions:.3f}",
        theirs,
        f"{100 * (billions / printed.billions - 1):+.1f}%" if printed.billions else "",
        printed.remark,
    )
    return f"| {' | '.join(map(str, cells))} |"


def table() -> str:
    """The Markdown table of all variants against the papers."""
    heads = ("model", "input", "points", "parameters, M", "paper", "", "multiply-adds, G", "paper", "", "remark")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *map(_row, PAPERS)]
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """``text`` with the table between its two markers made anew."""
    before, _, rest = text.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    return f"{before}{MARKERS[0]}\n{table()}{MARKERS[1]}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text()))
