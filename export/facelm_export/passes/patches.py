"""Patch cropping by row gathers: SLPT's PatchCrop without GridSample, which is slow on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from facelm_models.slpt import PatchCrop


class GatheredPatchCrop(nn.Module):
    """What :class:`PatchCrop` computes, from the four cells around each sample, gathered as rows of channels.

    Positions stay in the precision of ``corner``, so a network in fp16 reads where its fp32 twin does.
    """

    steps: torch.Tensor

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.register_buffer("steps", torch.linspace(0, 1, samples), persistent=False)

    def forward(
        self,
        features: torch.Tensor,  # (n, C, h, w), h and w at least 2
        corner: torch.Tensor,  # (n, L, 2), (x, y) of the top left ends, fractions in 0..1
        extent: torch.Tensor,  # (n, L, 2), width and height
    ) -> torch.Tensor:  # (n, L, K * K, C), row by row
        at = corner[:, :, None] + extent[:, :, None] * self.steps[:, None]  # (n, L, K, 2)
        cells, shares = cells_and_shares(at, *features.shape[2:])
        rows = F.embedding(cells, features.flatten(2).transpose(1, 2).flatten(0, 1))  # (n, L, K * K, 4, C)
        return (shares.to(rows.dtype)[..., None, :] @ rows).squeeze(-2)


def cells_and_shares(
    at: torch.Tensor,  # (n, L, K, 2), (x, y) of the samples' columns and rows, fractions as of cell_and_share
    height: int,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, K * K, 4) each, row by row
    """Of the four cells around each sample, the index among all cells of the n maps, and the share in the sample."""
    n = at.shape[0]
    left, right_share = cell_and_share(at[:, :, None, :, 0], width)  # (n, L, 1, K)
    top, lower_share = cell_and_share(at[:, :, :, None, 1], height)  # (n, L, K, 1)
    picture = torch.arange(n, device=at.device).view(n, 1, 1, 1) * (height * width)
    first = picture + top * width + left  # (n, L, K, K)
    cells = torch.stack([first, first + 1, first + width, first + width + 1], -1).flatten(2, 3)
    upper_share, left_share = 1 - lower_share, 1 - right_share
    shares = torch.stack(
        [upper_share * left_share, upper_share * right_share, lower_share * left_share, lower_share * right_share],
        -1,
    ).flatten(2, 3)
    return cells, shares


def cell_and_share(
    at: torch.Tensor,  # fractions, 0 the first cell's centre and 1 the last one's
    cells: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the two cells a position lies between, the index of the first and the share 0..1 of the second."""
    position = at * (cells - 1)
    first = position.floor().clamp(0, cells - 2)
    return first.long(), (position - first).clamp(0, 1)


def swap_patch_crops(network: nn.Module) -> None:
    """Put the twin in the place of every :class:`PatchCrop` inside ``network``."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, PatchCrop):
                setattr(module, name, GatheredPatchCrop(child.samples).to(child.steps.device))
