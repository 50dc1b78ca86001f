"""The heads of a :class:`facelm_models.protocol.ConfidenceNetwork`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .layers import initialise


class Confidence(nn.Module):
    """Logits of two probabilities: that a point is within 5% of the eye distance, and that the crop shows a face.

    Of no paper. Both are small perceptrons on what the network has computed anyway: on what a map of its shows cell by
    cell (``channels``, ``side`` cells wide), of which two convolutions and a layer make ``hidden`` units, and on the
    points' tokens of ``dim`` channels. A mean of the map in its place let five times as many false faces pass.
    """

    def __init__(self, channels: int, side: int, dim: int, width: int = 48, hidden: int = 64) -> None:
        super().__init__()
        self.cells = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 2, 1),
            nn.ReLU(inplace=True),
        )
        self.shown = nn.Linear(width * ((side + 1) // 2) ** 2, hidden)
        self.point = nn.Linear(dim, hidden, bias=False)
        self.context = nn.Linear(hidden, hidden)
        self.scores = nn.Linear(hidden, 1)
        self.presence = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(0.3)
        initialise(self)

    def forward(
        self,
        tokens: torch.Tensor,  # (n, L, D)
        shown: torch.Tensor,  # (n, channels, side, side)
    ) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L), (n,)
        cells = self.dropout(self.cells(shown).flatten(1))
        units = self.dropout(F.relu(self.shown(cells)))
        scores = self.scores(F.relu(self.point(tokens) + self.context(units)[:, None]))
        return scores.flatten(1), self.presence(units).flatten()
