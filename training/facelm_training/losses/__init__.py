"""Training losses as functions.

Losses of an ``error`` give one value for each, in the error's shape, for the caller to average; the others give one
number, a mean over all that they compare, so that their weight depends on neither the number of points nor of cells.
``known`` (n, L) says which points count, all of them where it is None; of none the mean is 0.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F

from facelm_models.heatmaps import at_least_fp32

Margin = Literal["smooth_l1", "l1", "l2", "none"]
"""The distances of the structured paper's table 5."""


def known_mean(
    values: torch.Tensor,  # (n, ..., L)
    known: torch.Tensor | None,  # (n, L)
) -> torch.Tensor:  # ()
    """Return the mean of the values of known points."""
    if known is None:
        return values.mean()
    count, points = known.shape
    weight = known.to(values.dtype).view(count, *(1,) * (values.ndim - 2), points).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)


def l1(
    error: torch.Tensor,  # any shape
) -> torch.Tensor:  # the same shape
    """|x|."""
    return error.abs()


def l2(
    error: torch.Tensor,  # any shape
) -> torch.Tensor:  # the same shape
    """x^2 / 2 (LOTR paper, section II-E)."""
    return 0.5 * error.square()


def smooth_l1(
    error: torch.Tensor,  # any shape
    *,
    beta: float = 1.0,
) -> torch.Tensor:  # the same shape
    """x^2 / (2 beta) below ``beta``, |x| - beta / 2 above (LOTR paper, eq. 6)."""
    if beta <= 0:
        raise ValueError(f"smooth_l1 needs beta > 0, not {beta}")
    x = error.abs()
    return torch.where(x < beta, 0.5 / beta * x.square(), x - 0.5 * beta)


def wing(
    error: torch.Tensor,  # any shape, in pixels
    *,
    w: float = 10.0,
    epsilon: float = 2.0,
) -> torch.Tensor:  # the same shape
    """Wing loss of each error (Feng et al. 2018; LOTR paper, eq. 7): continuous, with corners at 0 and at ``w``."""
    x = error.abs()
    return torch.where(x < w, w * torch.log1p(x / epsilon), x - (w - w * math.log(1 + w / epsilon)))


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


def adaptive_wing(
    predicted: torch.Tensor,  # (n, L, h, w) heatmaps
    target: torch.Tensor,  # (n, L, h, w) in [0, 1]
    *,
    omega: float = 14.0,
    theta: float = 0.5,
    epsilon: float = 1.0,
    alpha: float = 2.1,
) -> torch.Tensor:  # (n, L, h, w)
    """Adaptive Wing loss of each cell (Wang et al. 2019): sharper the closer ``target`` is to 1.

    Value and slope are continuous at ``theta``. The paper averages it weighted by :func:`foreground_weight`.
    """
    predicted, target = at_least_fp32(predicted), at_least_fp32(target)
    x = (predicted - target).abs()
    power = alpha - target
    edge = (theta / epsilon) ** power
    slope = omega * power / epsilon * (theta / epsilon) ** (power - 1) / (1 + edge)  # A of the paper
    near = omega * torch.log1p((x / epsilon) ** power)
    return torch.where(x < theta, near, slope * (x - theta) + omega * torch.log1p(edge))


def foreground_weight(
    target: torch.Tensor,  # (n, L, h, w) in [0, 1]
    *,
    threshold: float = 0.2,
    weight: float = 10.0,
) -> torch.Tensor:  # (n, L, h, w)
    """The weighted loss map of adaptive Wing (Wang et al. 2019).

    1, and ``weight`` more on cells that have one of at least ``threshold`` among them and their eight neighbours.
    """
    return 1 + weight * (F.max_pool2d(target, 3, stride=1, padding=1) >= threshold).to(target.dtype)


def heatmap_l2(
    predicted: torch.Tensor,  # (n, L, h, w)
    target: torch.Tensor,  # (n, L, h, w)
    known: torch.Tensor | None = None,  # (n, L)
) -> torch.Tensor:  # ()
    """Mean squared difference of heatmaps (MTLD paper, eq. 2, which sums; sub-pixel paper, section 5.1)."""
    return known_mean((at_least_fp32(predicted) - at_least_fp32(target)).square().mean((2, 3)), known)


def normalised_l2(
    predicted: torch.Tensor,  # (n, ..., L, 2) points; the axes between are stages and layers
    target: torch.Tensor,  # (n, L, 2)
    norm: torch.Tensor,  # (n,) distance between the outer eye corners, in the unit of the points
    known: torch.Tensor | None = None,  # (n, L)
) -> torch.Tensor:  # ()
    """Mean distance over faces, stages, layers and points, each divided by its face's ``norm`` (SLPT paper, eq. 8)."""
    between = (1,) * (predicted.ndim - target.ndim)
    count, *shape = target.shape
    distance = torch.linalg.vector_norm(predicted - target.view(count, *between, *shape), dim=-1)
    return known_mean(distance / norm.view(count, *between, 1), known)


def structure(
    predicted: torch.Tensor,  # (n, L, 2) points
    target: torch.Tensor,  # (n, L, 2)
    known: torch.Tensor | None = None,  # (n, L)
    *,
    neighbours: int = 5,
) -> torch.Tensor:  # ()
    """Return how far squared distances between neighbouring points are from the labelled ones (MTLD paper, eq. 4).

    The mean of | ||J_i - J_j||^2 - ||L_i - L_j||^2 | over every point i and the ``neighbours`` points j closest to it
    in its face's label. Eq. 4 as printed lacks the outer bars: it is least, and negative, where all predicted points
    fall together, while the text wants the distances to be the same. A gap counts where both its points are known.
    """
    if not 1 <= neighbours < target.shape[1]:
        raise ValueError(
            f"each of {target.shape[1]} points has 1 to {target.shape[1] - 1} neighbours, not {neighbours}"
        )
    predicted_gaps, gaps = (
        (points[:, :, None] - points[:, None]).square().sum(-1)  # (n, L, L)
        for points in (predicted, target)
    )
    itself = torch.eye(target.shape[1], dtype=torch.bool, device=target.device)
    nearest = gaps.masked_fill(itself, torch.inf).topk(neighbours, largest=False).indices  # (n, L, neighbours)
    differences = (predicted_gaps - gaps).abs().gather(2, nearest)  # (n, L, neighbours)
    if known is None:
        return differences.mean()
    both = (known[:, :, None] & known[:, None]).gather(2, nearest).to(differences.dtype)
    return (differences * both).sum() / both.sum().clamp(min=1)


def loss_augmented(
    scores: torch.Tensor,  # (..., cells) F of every possible answer
    margin: torch.Tensor,  # (..., cells) how wrong each is
    truth: torch.Tensor,  # (...) F of the right answer
    *,
    epsilon: float = 1.0,
) -> torch.Tensor:  # (...)
    """epsilon * log sum exp((margin + scores) / epsilon) - truth: the L of structured paper's eq. 11, in fp32."""
    scores, margin, truth = at_least_fp32(scores), at_least_fp32(margin), at_least_fp32(truth)
    return epsilon * torch.logsumexp((margin + scores) / epsilon, -1) - truth


def _margin(
    target: torch.Tensor,  # (n, L, k, 2) cells
    h: int,
    w: int,
    s: float,
    kind: Margin,
) -> torch.Tensor:  # (n, L, k, h, w)
    """Eq. 12 without alpha, or another row of table 5; distances in the [-1, 1] coordinates that s = 0.01 is for."""
    across, down = (
        (torch.arange(side, device=target.device) - target[..., axis, None]).abs() * (2 / max(side - 1, 1))
        for axis, side in ((0, w), (1, h))
    )
    across, down = across[..., None, :], down[..., :, None]
    city, square = across + down, across.square() + down.square()
    if kind == "smooth_l1":
        return torch.where(city < s, 0.5 / s * square, city - 0.5 * s)
    return {"l1": city, "l2": square, "none": torch.zeros_like(city)}[kind]


def structured(
    heatmaps: torch.Tensor,  # (n, L, h, w) scores of any range
    target: torch.Tensor,  # (n, L, 2), or (n, L, k, 2) samples, cells (x, y)
    known: torch.Tensor | None = None,  # (n, L)
    *,
    alpha: float = 1.0,
    epsilon: float = 1.0,
    s: float = 0.01,
    margin: Margin = "smooth_l1",
) -> torch.Tensor:  # ()
    """The structured-prediction loss (structured paper, eq. 11-12; eq. 13 with ``samples`` of label_smoothing).

    The mean over faces, points and samples (the paper sums). ``target`` is in cells, centres at whole numbers, so that
    the caller says which convention its decoder has (heatmaps.to_cells). Between cells the right answer's score is
    interpolated bilinearly, and the margin counts from the point itself; on a cell this is eq. 11 as printed.
    ``margin``: a distance of table 5 (``l2`` squared), weighed by ``alpha``. Computed in fp32, under autocast too; the
    samples' margins need n * L * k * h * w floats.
    """
    heatmaps, target = at_least_fp32(heatmaps), at_least_fp32(target)
    if target.ndim == 3:
        target = target[:, :, None]
    h, w = heatmaps.shape[-2:]
    sides = torch.tensor([max(w - 1, 1), max(h - 1, 1)], dtype=heatmaps.dtype, device=heatmaps.device)
    place = (2 * target / sides - 1).to(heatmaps.dtype).flatten(0, 1)[:, :, None]  # (n L, k, 1, 2)
    maps = heatmaps.flatten(0, 1)[:, None]  # (n L, 1, h, w)
    truth = F.grid_sample(maps, place, padding_mode="border", align_corners=True).view(target.shape[:-1])
    wrong = alpha * _margin(target, h, w, s, margin)
    losses = loss_augmented(heatmaps[:, :, None].flatten(3), wrong.flatten(3), truth, epsilon=epsilon)  # (n, L, k)
    return known_mean(losses.mean(2), known)


def spread(
    mass: torch.Tensor,  # (n, L, h, w), not negative
    *,
    smallest: float = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, 2), (n, L, 2, 2)
    """Return mean (x, y) and unbiased covariance of each map's mass, on coordinates of -1 to 1 from edge to edge."""
    mass = at_least_fp32(mass)
    h, w = mass.shape[-2:]
    mass = mass / mass.sum((2, 3), keepdim=True).clamp(min=smallest)
    x, y = (torch.linspace(-1, 1, side, dtype=mass.dtype, device=mass.device) for side in (w, h))
    places = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], -1).flatten(0, 1)  # (h w, 2)
    mean = mass.flatten(2) @ places
    offsets = places - mean[:, :, None]  # (n, L, h w, 2)
    covariance = (mass.flatten(2)[..., None] * offsets).transpose(-2, -1) @ offsets
    effective = (1 - mass.square().sum((2, 3))).clamp(min=smallest)
    return mean, covariance / effective[..., None, None]


def star(
    mass: torch.Tensor,  # (n, L, h, w), not negative
    target: torch.Tensor,  # (n, L, 2) in -1 to 1 from edge to edge
    known: torch.Tensor | None = None,  # (n, L)
    *,
    restriction: float = 1.0,
    beta: float = 0.01,
    epsilon: float = 1e-5,
) -> torch.Tensor:  # ()
    """STAR loss (Zhou et al. 2023): the error along each principal axis of the map over the spread along it.

    Smooth L1 of both, and ``restriction`` times the sum of the variances. As in its public code, but for the axes,
    which are constants here: the gradient of an axis is without bound where the spreads are equal.
    """
    mean, covariance = spread(mass)
    with torch.no_grad():
        axes = torch.linalg.eigh(covariance)[1]  # (n, L, 2, 2), columns
    variances = (axes * (covariance @ axes)).sum(-2).clamp(min=0)  # (n, L, 2)
    error = ((target - mean)[..., None, :] @ axes)[..., 0, :]
    values = smooth_l1(error, beta=beta) / (variances + epsilon).sqrt() + restriction * variances
    return known_mean(values.sum(-1), known)


def merge_views(
    views: torch.Tensor,  # (v, n, L, h, w) heatmaps of v transformed copies of each crop
    transforms: torch.Tensor,  # (v, n, 2, 3) affine maps, fractions of the crop to fractions of the copy
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, h, w), (n, 1, h, w) how many copies see a cell
    """Heatmaps brought back into the crop's own frame, averaged over the copies that see a cell.

    Eq. 6 of the sub-pixel paper, which sums: the mean keeps a heatmap's height. The maps of a mirrored copy must be in
    flipped order already.
    """
    views, (h, w) = at_least_fp32(views), views.shape[-2:]
    a, b, c = transforms.to(views.dtype)[..., None, None, :].unbind(-1)  # (v, n, 2, 1, 1)
    x, y = ((2 * torch.arange(side, device=views.device) + 1) / side - 1 for side in (w, h))  # grid_sample's [-1, 1]
    grid = (a * (x + 1) + b * (y[:, None] + 1) + 2 * c - 1).permute(0, 1, 3, 4, 2)  # (v, n, h, w, 2)
    back = F.grid_sample(views.flatten(0, 1), grid.flatten(0, 1), padding_mode="border", align_corners=False)
    seen = (grid.abs() <= 1).all(-1)[:, :, None].to(views.dtype)  # (v, n, 1, h, w)
    count = seen.sum(0)
    return (back.view_as(views) * seen).sum(0) / count.clamp(min=1), count


def siamese(
    views: torch.Tensor,  # (v, n, L, h, w) as of merge_views
    transforms: torch.Tensor,  # (v, n, 2, 3)
    target: torch.Tensor,  # (n, L, h, w) heatmaps in the crop's own frame
    known: torch.Tensor | None = None,  # (n, L)
) -> torch.Tensor:  # ()
    """Siamese training (sub-pixel paper, section 3.4): :func:`heatmap_l2` of :func:`merge_views` over what is seen."""
    merged, count = merge_views(views, transforms)
    seen = (count > 0).to(merged.dtype).expand_as(merged)
    if known is not None:
        seen = seen * known[:, :, None, None]
    squares = (merged - at_least_fp32(target)).square() * seen
    return squares.sum() / seen.sum().clamp(min=1)


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

    Cross-entropy of face / background over all faces and the hardest background priors of the batch, ``negatives``
    times as many as there are faces in a picture and at least 50 of each, plus weighted smooth-L1 of boxes and of the
    five points of the faces. Returns (class, box, landmark) losses, each averaged over the faces, the first over a
    ``negatives``-th of the background priors if that is more, the last two already weighted.
    """
    box, logits, landmark = predicted
    face = labels == 1
    count = face.sum().clamp(min=1)
    cross = F.cross_entropy(logits.transpose(1, 2), labels.clamp(min=0), reduction="none")  # (n, p)
    background = (labels == 0).flatten().nonzero().squeeze(1)
    wanted = int((face.sum(1) * negatives).clamp(min=50).sum())
    hardest = cross.detach().flatten()[background].topk(min(wanted, len(background))).indices
    hard = torch.zeros_like(face)
    hard.view(-1)[background[hardest]] = True
    class_loss = cross[face | hard].sum() / torch.maximum(count, hard.sum() / negatives)
    box_loss = F.smooth_l1_loss(box[face], boxes[face], reduction="sum") / count
    known = face & ~points.isnan().any(-1)
    landmark_loss = F.smooth_l1_loss(landmark[known], points[known], reduction="sum") / known.sum().clamp(min=1)
    return class_loss, box_weight * box_loss, landmark_weight * landmark_loss
