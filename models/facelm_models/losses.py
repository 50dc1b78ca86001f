"""Training losses as functions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def smooth_wing(
    error: torch.Tensor,  # any shape, in pixels
    *,
    t: float = 0.01,
    w: float = 10.0,
    epsilon: float = 2.0,
) -> torch.Tensor:  # the same shape
    """Smooth-Wing loss of each error (LOTR paper, eq. 21-24): value and slope are continuous at ``t`` and at ``w``."""
    if not 0 < t < w:
        raise ValueError(f"smooth_wing needs 0 < t < w, not t={t}, w={w}")
    s = (w + epsilon) / (2 * t * (epsilon + t))
    c1 = w - (w + epsilon) * math.log(1 + w / epsilon)
    # Eq. 24 gives c2 = s t^2, which leaves a step at t; what is continuous there is the logarithm less the square.
    c2 = (w + epsilon) * math.log(1 + t / epsilon) - s * t**2
    x = error.abs()
    middle = (w + epsilon) * torch.log1p(x / epsilon) - c2
    return torch.where(x < t, s * x.square(), torch.where(x > w, x - c1 - c2, middle))


def multibox(
    predicted: tuple[torch.Tensor, torch.Tensor, torch.Tensor],  # (n, p, 4), (n, p, 2), (n, p, 10)
    boxes: torch.Tensor,  # (n, p, 4) encoded targets
    labels: torch.Tensor,  # (n, p) 1 face, 0 background, -1 not counted
    points: torch.Tensor,  # (n, p, 10) encoded targets, NaN where a face has no points
    *,
    negatives: int = 7,
    box_weight: float = 2.0,
    landmark_weight: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """RetinaFace's multi-box loss (Deng et al. 2019, eq. 1, without the dense branch) over all priors of a batch.

    Cross-entropy of face / background over all faces and the hardest ``negatives`` times as many background priors of
    each picture, plus weighted smooth-L1 of boxes and of the five points of the faces. Returns (class, box, landmark)
    losses, each averaged over the faces, the last two already weighted.
    """
    box, logits, landmark = predicted
    face = labels == 1
    count = face.sum().clamp(min=1)
    cross = F.cross_entropy(logits.transpose(1, 2), labels.clamp(min=0), reduction="none")  # (n, p)
    hardness = cross.detach().masked_fill(labels != 0, -1.0)
    wanted = (face.sum(1) * negatives).clamp(min=50, max=labels.shape[1] - 1)  # pictures without a face teach too
    ranks = torch.empty_like(labels)
    order = hardness.argsort(1, descending=True)
    ranks.scatter_(1, order, torch.arange(labels.shape[1]).expand_as(labels))
    hard = (labels == 0) & (ranks < wanted[:, None])
    class_loss = cross[face | hard].sum() / count
    box_loss = F.smooth_l1_loss(box[face], boxes[face], reduction="sum") / count
    known = face & ~points.isnan().any(-1)
    landmark_loss = F.smooth_l1_loss(landmark[known], points[known], reduction="sum") / known.sum().clamp(min=1)
    return class_loss, box_weight * box_loss, landmark_weight * landmark_loss
