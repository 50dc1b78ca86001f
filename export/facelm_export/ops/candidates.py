"""RetinaFace as a graph: one convolution for a level's heads, and only what scores is decoded.

The twin of :class:`facelm_export.wrappers.FusedDetector`, which decodes every prior. Of thousands of priors a picture
leaves a few dozen, and small operators over all of them took as long as the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from facelm_models.retinaface import STRIDES, Head, RetinaFace, decode_boxes, decode_points

from .nms import nms

VALUES = 15
"""Of a prior: logit of a face against none, encoded box (4), encoded points (10)."""


class JoinedHeads(nn.Module):
    """RetinaFace whose three heads of a level are one convolution; the two logits of a prior become their difference.

    ``forward``: as RetinaFace's -> (n, p, VALUES).
    """

    def __init__(self, network: RetinaFace) -> None:
        super().__init__()
        self.config, self.body, self.fpn = network.config, network.body, network.fpn
        self.contexts = nn.ModuleList([network.ssh1, network.ssh2, network.ssh3])
        heads = zip(network.ClassHead, network.BboxHead, network.LandmarkHead, strict=True)
        self.heads = nn.ModuleList(_joined(*level) for level in heads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = zip(self.contexts, self.heads, self.fpn(self.body(images)[-3:]), strict=True)
        return torch.cat([head(context(x)) for context, head, x in levels], 1)


@torch.no_grad()
def _joined(*heads: nn.Module) -> Head:
    """One head of VALUES from those of logits, boxes and points."""
    parts = []
    for head in heads:
        assert isinstance(head, Head)
        weight, bias = head.conv1x1.weight, head.conv1x1.bias
        assert bias is not None
        parts.append(torch.cat([weight.flatten(1), bias[:, None]], 1).unflatten(0, (-1, head.values)))  # type: ignore[no-untyped-call]
    logits, boxes, points = parts  # (priors, values, channels + 1) each
    rows = torch.cat([logits[:, 1:] - logits[:, :1], boxes, points], 1)
    joined = Head(rows.shape[-1] - 1, len(rows), VALUES).to(rows.dtype)
    joined.conv1x1.weight.copy_(rows.flatten(0, 1)[:, :-1, None, None])
    assert joined.conv1x1.bias is not None
    joined.conv1x1.bias.copy_(rows.flatten(0, 1)[:, -1])
    return joined.eval()


def priors_at(
    index: torch.Tensor,  # (k,) int64
    height: int,
    width: int,
    min_sizes: Sequence[Sequence[int]],
) -> torch.Tensor:  # (k, 4)
    """Rows ``index`` of :func:`facelm_models.retinaface.priors`; every level has as many priors in a cell."""
    per_cell = len(min_sizes[0])
    columns = [(width + stride - 1) // stride for stride in STRIDES]
    cells = [c * ((height + stride - 1) // stride) for c, stride in zip(columns, STRIDES, strict=True)]
    cell, kind = index // per_cell, index % per_cell
    second, third = cell >= cells[0], cell >= cells[0] + cells[1]
    level = second.long() + third.long()
    cell = cell - second.long() * cells[0] - third.long() * cells[1]
    stride = STRIDES[0] * (1 + second.long() + 2 * third.long())  # 8, 16, 32
    across = columns[0] + second.long() * (columns[1] - columns[0]) + third.long() * (columns[2] - columns[1])
    centre = (torch.stack([cell % across, cell // across], 1) + 0.5) * stride[:, None]
    side = torch.tensor(min_sizes, dtype=torch.float32).flatten().index_select(0, level * per_cell + kind)
    return torch.cat([centre, side[:, None].expand(-1, 2)], 1)


class DetectorGraph(nn.Module):
    """image uint8 (1, H, W, 3) BGR -> boxes (k, 4) xyxy, scores (k,), kps (k, 5, 2), best score first."""

    def __init__(self, pixels: nn.Module, network: RetinaFace, *, iou: float, floor: float) -> None:
        super().__init__()
        self.pixels, self.network, self.iou, self.floor = pixels, JoinedHeads(network), iou, floor
        if len(set(map(len, network.config.min_sizes))) != 1:
            raise ValueError(f"every level has as many priors in a cell; got {network.config.min_sizes}")

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = self.network(self.pixels(image))[0].float()
        found = torch.nonzero(rows[:, 0] > math.log(self.floor / (1 - self.floor))).flatten()
        rows = rows.index_select(0, found)
        prior = priors_at(found, image.shape[1], image.shape[2], self.network.config.min_sizes)
        boxes, scores = decode_boxes(rows[:, 1:5], prior), rows[:, 0].sigmoid()
        keep = nms(boxes, scores, self.iou, self.floor)
        return (
            boxes.index_select(0, keep),
            scores.index_select(0, keep),
            decode_points(rows[:, 5:].index_select(0, keep), prior.index_select(0, keep)),
        )
