"""Sizes of the networks beside what their papers print.

``python -m facelm_models.complexity models/README.md`` makes the table of that page anew.

Multiply-adds are those of convolutions, linear layers and attention products of one forward pass at batch 1, as
``torch.utils.flop_counter`` counts them, halved.
"""

from __future__ import annotations

import copy
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .registry import create, info, list_models


def outline(name: str, **options: Any) -> nn.Module:
    """A variant without memory for its tensors: shapes only, which is enough to count."""
    with torch.device("meta"):
        return create(name, **options)


def parameters(network: nn.Module) -> int:
    """Trainable values."""
    return sum(p.numel() for p in network.parameters())


def running_statistics(network: nn.Module) -> int:
    """Values of batch norms' running means and variances, which some count as parameters."""
    return sum(b.numel() for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var")))


def multiply_adds(network: nn.Module, size: int) -> dict[str, float]:
    """Billions for a picture of ``size`` pixels, by each submodule's path from the class's name; "Global" is all."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    picture = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    # The fused attention kernel is not counted, its parts are.
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(picture)
    return {name: sum(flops.values()) / 2e9 for name, flops in counter.get_flop_counts().items()}


def share(counts: dict[str, float], *leaves: str) -> float:
    """Sum up what the modules whose names are among ``leaves`` take of :func:`multiply_adds`."""
    return sum(count for module, count in counts.items() if module.rpartition(".")[2] in leaves)


@dataclass(frozen=True)
class Printed:
    """A row of a paper: its figures in millions and billions, None where it prints none.

    ``statistics``: its parameters have batch norms' statistics among them; ``training_only`` modules are not among
    them, a classifier of a thousand classes on ``classifier`` channels, which nothing uses, is.
    """

    model: str
    points: int | None
    millions: float | None = None
    billions: float | None = None
    statistics: bool = False
    training_only: tuple[str, ...] = ()
    classifier: int = 0
    size: int | None = None
    remark: str = ""


MARKERS = ("<!-- sizes -->", "<!-- end of sizes -->")
LOTR = "batch norm statistics counted, as the paper does; its multiply-adds fit eq. 13's one layer, its sizes two"
LOTR_M = "batch norm statistics counted, as the paper does; backbone and eq. 8 alone are 0.223"
MTLD = "without the heatmap branch, with the backbone's unused classifier; without attention {:.2f} G"
TOOL = "the paper's count has norms in it: its public code is this network"
CODE = "printed: its public code's"
PAPERS = (
    Printed("lotr_m", 106, 2.81, 0.23, statistics=True, remark=LOTR_M),
    Printed("lotr_m_128", 68, remark="the paper has it at 192 pixels only"),
    Printed("lotr_m_plus", 106, 3.71, 0.44, statistics=True, remark=LOTR),
    Printed("lotr_r_plus", 106, 25.21, 3.23, statistics=True, remark=LOTR),
    Printed("lotr_hr_plus", 98, remark="the paper prints no size"),
    Printed("slpt_hrnet18", 98, 13.19, 6.12),
    Printed("slpt_hrnet18", 68, 13.18, 5.17),
    Printed("slpt_hrnet18", 29, 13.16, 3.99),
    Printed("slpt_hrnet18_12l", 98, 19.515, 8.109, remark=CODE),
    Printed("slpt_resnet34", 98, remark="the paper prints no size"),
    Printed("mtld_r18", 68, 12.6, 2.7, training_only=("heatmaps",), classifier=512, remark=MTLD),
    Printed("mtld_r50", 68, 27.3, 5.8, training_only=("heatmaps",), classifier=2048, remark=MTLD),
    Printed("mtld_r101", 68, 46.0, 10.7, training_only=("heatmaps",), classifier=2048, remark=MTLD),
    Printed("mtld_m", 68, training_only=("heatmaps",), remark="the paper has ResNets only"),
    Printed("hourglass4", 98, 13.48, 17.54, remark=TOOL),
    Printed("hrnet18", 98, 9.66, 4.75, remark=TOOL),
    Printed("fan2", 68, 12.107, 13.92, remark=CODE),
    Printed("fan4", 68, 23.820, 25.24, remark=CODE),
    Printed("fan2_s", 68, remark="half of the paper's channels, for half of its crop"),
    Printed("retinaface_mnet025", None, 0.4266, 0.981, remark=CODE),
    Printed("retinaface_mnet025", None, 0.4266, 0.245, size=320, remark=CODE),
    Printed("retinaface_r50", None, 27.294, 44.26, remark=CODE),
)


def rows() -> list[Printed]:
    """Return the rows of the table: the papers' variants, then every other registered network."""
    others = sorted(set(list_models()) - {printed.model for printed in PAPERS})
    points = [getattr(info(name).config, "num_landmarks", None) for name in others]
    return [*PAPERS, *(Printed(name, count, remark="of no paper") for name, count in zip(others, points, strict=True))]


@functools.cache
def counted(printed: Printed) -> tuple[float, float, float]:
    """Millions of parameters as the paper counts them, billions of multiply-adds, and those without attention."""
    options = {} if printed.points is None else {"num_landmarks": printed.points}
    network = outline(printed.model, **options)
    values = parameters(network) + (running_statistics(network) if printed.statistics else 0)
    values -= sum(parameters(network.get_submodule(name)) for name in printed.training_only)
    values += 1000 * (printed.classifier + 1) if printed.classifier else 0
    billions = multiply_adds(network, printed.size or info(printed.model).input_size)
    attention = share(billions, "attention", "self_attention", "cross_attention")
    return values / 1e6, billions["Global"], billions["Global"] - attention


def _row(printed: Printed) -> str:
    millions, billions, plain = counted(printed)
    cells = (
        printed.model,
        printed.size or info(printed.model).input_size,
        printed.points or "",
        *_beside(millions, printed.millions),
        *_beside(billions, printed.billions),
        printed.remark.format(plain),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _beside(ours: float, theirs: float | None) -> tuple[str, str, str]:
    return f"{ours:.3f}", *(("", "") if theirs is None else (f"{theirs:g}", f"{100 * (ours / theirs - 1):+.1f}%"))


def table() -> str:
    """The Markdown table of all variants against the papers."""
    heads = ("model", "input", "points", "parameters, M", "paper", "", "multiply-adds, G", "paper", "", "remark")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *map(_row, rows())]
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """``text`` with the table between its two markers made anew."""
    before, _, rest = text.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    return f"{before}{MARKERS[0]}\n{table()}{MARKERS[1]}{after}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text()))
