"""Image-aware label smoothing (structured paper, section 4.2 and appendix A1.3): annotators waver along edges.

Edges are drawn from the annotation itself. All sizes are in cells of the heatmap, its cell centres at whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from facelm_models.heatmaps import to_cells

STEPS = 4  # line pieces between two points of a curve


def smooth_line(
    points: torch.Tensor,  # (..., p, 2)
    *,
    closed: bool = False,
    steps: int = STEPS,
) -> torch.Tensor:  # (..., (p - 1) * steps + 1, 2)
    """A smooth line through ``points`` (Catmull-Rom spline), ``steps`` pieces from one to the next.

    A closed line's last point is its first one again.
    """
    first, last = (points[..., -2:-1, :], points[..., 1:2, :]) if closed else (points[..., :1, :], points[..., -1:, :])
    around = torch.cat([first, points, last], -2)
    p0, p1, p2, p3 = (around[..., i : around.shape[-2] - 3 + i, None, :] for i in range(4))  # (..., p - 1, 1, 2)
    t = (torch.arange(steps, dtype=points.dtype, device=points.device) / steps)[:, None]
    middle = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return torch.cat([middle.flatten(-3, -2), points[..., -1:, :]], -2)


def _distance(
    line: torch.Tensor,  # (n, p, 2) cells
    size: tuple[int, int],  # (h, w)
) -> torch.Tensor:  # (n, h, w)
    """Of each cell to the nearest point of the line."""
    h, w = size
    start, along = line[:, :-1, :, None, None], line.diff(dim=1)[..., None, None]  # (n, pieces, 2, 1, 1)
    x = torch.arange(w, device=line.device) - start[:, :, 0]  # (n, pieces, 1, w)
    y = torch.arange(h, device=line.device)[:, None] - start[:, :, 1]  # (n, pieces, h, 1)
    ax, ay = along.unbind(2)
    t = ((x * ax + y * ay) / (ax.square() + ay.square()).clamp(min=1e-12)).clamp(0, 1)
    return ((x - t * ax).square() + (y - t * ay).square()).amin(1).sqrt()


def edge_maps(
    points: torch.Tensor,  # (n, L, 2) fractions of the crop
    curves: Sequence[Sequence[int]],
    size: tuple[int, int],  # (h, w)
    *,
    sigma: float = 1.0,
) -> torch.Tensor:  # (n, len(curves), h, w) in [0, 1]
    """Boundary heatmaps: Gaussians of the distance to the smooth line through each of ``curves``, 0 beyond 3 sigma.

    As adaptive Wing's and LAB's; the targets of an hourglass's edge maps, too. ``curves`` are runs of point indices, a
    closed one ending with its first (facelm_models.edges.CURVES).
    """
    cells = to_cells(points, size)
    distances = torch.stack(
        [_distance(smooth_line(cells[:, list(line)], closed=line[0] == line[-1]), size) for line in curves], 1
    )
    return torch.where(distances < 3 * sigma, torch.exp(-distances.square() / (2 * sigma**2)), 0)


def _gaussian_kernel(side: int, like: torch.Tensor) -> torch.Tensor:
    """(side,) with sum 1 and the standard deviation that OpenCV and torchvision give a kernel of that size."""
    sigma = 0.3 * ((side - 1) * 0.5 - 1) + 0.8
    x = torch.arange(side, dtype=like.dtype, device=like.device) - side // 2
    weights = torch.exp(-x.square() / (2 * sigma**2))
    return weights / weights.sum()


def blur(
    maps: torch.Tensor,  # (n, c, h, w)
    side: int = 9,
) -> torch.Tensor:  # (n, c, h, w)
    """Gaussian blur with a kernel of ``side`` cells, mirrored at the borders, as torchvision's gaussian_blur."""
    kernel = _gaussian_kernel(side, maps)
    flat = F.pad(maps.flatten(0, 1)[:, None], (side // 2,) * 4, mode="reflect")
    rows = F.conv2d(flat, kernel.view(1, 1, 1, side))
    return F.conv2d(rows, kernel.view(1, 1, side, 1)).view_as(maps)


def sharpen(
    maps: torch.Tensor,  # (n, c, h, w) in [0, 1]
    factor: float = 5.0,
) -> torch.Tensor:  # (n, c, h, w) in [0, 1]
    """``factor`` times what a 3x3 smoothing takes away, as torchvision's adjust_sharpness; the border stays."""
    kernel = maps.new_ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 5
    smooth = maps.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(maps.flatten(0, 1)[:, None], kernel / kernel.sum()).view(
        *maps.shape[:2], maps.shape[2] - 2, maps.shape[3] - 2
    )
    return (smooth + factor * (maps - smooth)).clamp(0, 1)


def _patches(
    edges: torch.Tensor,  # (n, h, w)
    cells: torch.Tensor,  # (n, L, 2)
    offsets: torch.Tensor,  # (side^2, 2)
) -> torch.Tensor:  # (n, L, side^2)
    """Bilinear samples around each point, their largest 1; 0 outside the map and where there is no edge at all."""
    h, w = edges.shape[-2:]
    places = 2 * (cells[:, :, None] + offsets + 0.5) / cells.new_tensor([w, h]) - 1
    values = F.grid_sample(edges[:, None], places, align_corners=False)[:, 0]
    return values / values.amax(-1, keepdim=True).clamp(min=1e-6)


def covariances(
    points: torch.Tensor,  # (n, L, 2) fractions of the crop
    curves: Sequence[Sequence[int]],
    size: tuple[int, int] = (64, 64),  # (h, w)
    *,
    gamma: float = 0.01,
    edge_weight: float = 0.01,
    patch: int = 5,
    kernel: int = 5,
) -> torch.Tensor:  # (n, L, 2, 2) cells^2
    """Return how annotators would scatter around each point: gamma times the covariance of 0.01 E' + N around it.

    E' is the edge map of all ``curves`` together, blurred and sharpened, in a patch of ``patch`` cells; N a Gaussian in
    ``kernel`` cells; both with a largest value of 1. ``patch`` and ``kernel`` are odd, else ValueError. The paper's
    ``gamma`` is 0.01 for WFLW and 300W, 0.001 for COFW, and N has 5 cells; the patch's size it does not print. How far
    the scatter follows the edges hangs on it: on landmarks68 it is longer than wide by 0.4% at the median with a patch
    of 5 cells, by 22% with 17 and by 30% with 25.
    """
    if min(patch, kernel) < 1 or patch % 2 == 0 or kernel % 2 == 0:
        raise ValueError(f"patch and kernel are odd and positive, not {patch} and {kernel}")
    radius = patch // 2
    edges = sharpen(blur(edge_maps(points, curves, size).amax(1, keepdim=True)))[:, 0]
    axis = torch.arange(-radius, radius + 1, dtype=points.dtype, device=points.device)
    offsets = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).flatten(0, 1)  # (patch^2, 2) x, y
    gaussian = _gaussian_kernel(kernel, points)
    gaussian = F.pad(gaussian / gaussian.max(), ((patch - kernel) // 2,) * 2)  # cut where the patch is the smaller one
    normal = (gaussian[:, None] * gaussian).flatten()
    weights = edge_weight * _patches(edges, to_cells(points, size), offsets) + normal  # (n, L, patch^2)
    weights = weights / weights.sum(-1, keepdim=True)
    mean = (weights[..., None] * offsets).sum(-2, keepdim=True)  # (n, L, 1, 2)
    centred = offsets - mean
    return gamma * (weights[..., None, None] * centred[..., :, None] * centred[..., None, :]).sum(-3)


def samples(
    points: torch.Tensor,  # (n, L, 2), in the covariance's unit
    covariance: torch.Tensor,  # (n, L, 2, 2)
    *,
    count: int = 10,
    generator: torch.Generator | None = None,
) -> torch.Tensor:  # (n, L, count, 2)
    """``count`` draws from the normal distribution around each point, the targets of structured paper's eq. 13."""
    noise = torch.randn(*points.shape[:2], count, 2, generator=generator, dtype=points.dtype, device=points.device)
    root: torch.Tensor = torch.linalg.cholesky(covariance)[:, :, None]  # (n, L, 1, 2, 2)
    return points[:, :, None] + (root * noise[..., None, :]).sum(-1)
