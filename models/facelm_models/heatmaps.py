"""Points to heatmaps and back: readable references of what training encodes and inference decodes.

A point at fraction f of the crop (0 left edge, 1 right edge) lies at cell f * w - 0.5 of a heatmap w cells wide: cell
centres are at whole numbers. Only :func:`expectation` has its first and last cell on the crop's edges (``corners``).
Decoders take (n, L, h, w) in any precision and compute in fp32 or better.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .registry import COORDINATES, CORRECTED, Decoder, Decoding, Points, decoder, register_decoder

SMALLEST_MASS = 1e-6  # an empty heatmap's expectation is the middle of the crop


def _sides(
    size: tuple[int, int],  # (h, w)
    like: torch.Tensor,
) -> torch.Tensor:  # (2,) w, h
    return torch.tensor((size[1], size[0]), dtype=like.dtype, device=like.device)


def to_cells(
    points: torch.Tensor,  # (..., 2) fractions of the crop
    size: tuple[int, int],  # (h, w)
    *,
    corners: bool = False,
) -> torch.Tensor:  # (..., 2) cells (x, y)
    """Return where points lie in a heatmap of ``size``. ``corners``: the outer cells' centres are the crop's edges."""
    sides = _sides(size, points)
    return points * (sides - 1) if corners else points * sides - 0.5


def to_fractions(
    cells: torch.Tensor,  # (..., 2) cells (x, y)
    size: tuple[int, int],  # (h, w)
    *,
    corners: bool = False,
) -> torch.Tensor:  # (..., 2) fractions of the crop
    """The inverse of :func:`to_cells`."""
    sides = _sides(size, cells)
    return cells / (sides - 1) if corners else (cells + 0.5) / sides


def _gaussians(
    cells: torch.Tensor,  # (n, L, 2)
    size: tuple[int, int],
    sigma: float,
) -> torch.Tensor:  # (n, L, h, w)
    if sigma <= 0:
        raise ValueError(f"a Gaussian needs sigma > 0, not {sigma}")
    columns, rows = (
        torch.exp(-(torch.arange(side, device=cells.device) - cells[..., axis, None]).square() / (2 * sigma**2))
        for axis, side in ((0, size[1]), (1, size[0]))
    )
    return rows[..., :, None] * columns[..., None, :]


def encode(
    points: torch.Tensor,  # (n, L, 2) fractions of the crop
    size: tuple[int, int],  # (h, w)
    *,
    sigma: float = 1.0,
) -> torch.Tensor:  # (n, L, h, w)
    """Gaussians of ``sigma`` cells centred on the points themselves (sub-pixel paper, eq. 1 and 3).

    The peak of a point on a cell's centre is 1: eq. 1 without its factor, so that peaks are scores.
    """
    return _gaussians(to_cells(points, size), size, sigma)


def encode_quantised(
    points: torch.Tensor,  # (n, L, 2) fractions of the crop
    size: tuple[int, int],  # (h, w)
    *,
    sigma: float = 1.0,
) -> torch.Tensor:  # (n, L, h, w)
    """Gaussians centred on the nearest cell, as in most heatmap networks (sub-pixel paper, eq. 1 and 2)."""
    return _gaussians((to_cells(points, size) + 0.5).floor(), size, sigma)


def at_least_fp32(x: torch.Tensor) -> torch.Tensor:
    """``x`` in fp32 where it is of a half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _peaks(
    heatmaps: torch.Tensor,  # (n, L, h, w)
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, 2) int64 cells (x, y), (n, L) scores
    """The largest cell, of equal ones the first in reading order, and its value clamped to [0, 1]."""
    peak, index = heatmaps.flatten(2).max(-1)
    width = heatmaps.shape[-1]
    return torch.stack([index % width, index // width], -1), peak.clamp(0, 1)


def _windows(
    heatmaps: torch.Tensor,  # (n, L, h, w)
    cells: torch.Tensor,  # (n, L, 2) int64
    radius: int,
) -> torch.Tensor:  # (n, L, 2 radius + 1, 2 radius + 1), -inf outside the heatmap
    side = 2 * radius + 1
    padded = F.pad(heatmaps, (radius,) * 4, value=-torch.inf)
    every = padded.unfold(2, side, 1).unfold(3, side, 1)  # (n, L, h, w, side, side)
    n, landmark = (torch.arange(count, device=cells.device) for count in cells.shape[:2])
    return every[n[:, None], landmark, cells[..., 1], cells[..., 0]]


def argmax_quarter(
    heatmaps: torch.Tensor,  # (n, L, h, w)
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, 2) fractions, (n, L) scores
    """The largest cell, a quarter of a cell towards its larger neighbour in x and in y.

    As HRNet's and FAN's code have it: no shift between equal neighbours, and none at all for a peak on the border.
    """
    heatmaps = at_least_fp32(heatmaps)
    size = heatmaps.shape[-2], heatmaps.shape[-1]
    cells, scores = _peaks(heatmaps)
    window = _windows(heatmaps, cells, 1)
    slopes = torch.stack([window[..., 1, 2] - window[..., 1, 0], window[..., 2, 1] - window[..., 0, 1]], -1)
    inside = ((cells > 0) & (cells < _sides(size, cells) - 1)).all(-1, keepdim=True)
    shift = torch.where(inside, 0.25 * slopes.sign(), 0)
    return to_fractions(cells + shift, size), scores


def local_soft_argmax(
    heatmaps: torch.Tensor,  # (n, L, h, w)
    *,
    window: int = 5,
    temperature: float = 10.0,
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, 2) fractions, (n, L) scores
    """The soft-argmax of the ``window`` around the largest cell (sub-pixel paper, eq. 4 and 5).

    Cells outside the heatmap have no weight. ``window`` is odd, in cells; gradients flow through the window's values.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window of a local soft-argmax is odd and positive, not {window}")
    heatmaps = at_least_fp32(heatmaps)
    cells, scores = _peaks(heatmaps)
    radius = window // 2
    values = _windows(heatmaps, cells, radius).flatten(2)  # (n, L, window^2)
    weights = (temperature * values).softmax(-1).view(*cells.shape[:2], window, window)
    offsets = torch.arange(-radius, radius + 1, dtype=values.dtype, device=values.device)
    shift = torch.stack([(weights.sum(-2) * offsets).sum(-1), (weights.sum(-1) * offsets).sum(-1)], -1)
    return to_fractions(cells + shift, (heatmaps.shape[-2], heatmaps.shape[-1])), scores


def soft_argmax(
    heatmaps: torch.Tensor,  # (n, L, h, w)
    *,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, None]:  # (n, L, 2) fractions
    """The mean cell under the softmax of the whole map (structured paper, eq. 3; "global" of the sub-pixel paper)."""
    h, w = heatmaps.shape[-2:]
    weights = (temperature * at_least_fp32(heatmaps)).flatten(2).softmax(-1).view_as(heatmaps)
    x, y = (
        (weights.sum(axis) * torch.arange(side, dtype=weights.dtype, device=weights.device)).sum(-1)
        for axis, side in ((2, w), (3, h))
    )
    return to_fractions(torch.stack([x, y], -1), (h, w)), None


def corrected_argmax(
    output: torch.Tensor,  # (n, L, h * h + 2) the cells of a square heatmap, and (x, y) in cells
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, 2) fractions, (n, L) scores
    """The largest cell and the correction of it that a network regresses (sub-pixel paper, section 4.1)."""
    output = at_least_fp32(output)
    side = math.isqrt(output.shape[-1] - 2)
    cells, scores = _peaks(output[..., :-2].reshape(*output.shape[:2], side, side))
    return to_fractions(cells + output[..., -2:], (side, side)), scores


def expectation(
    heatmaps: torch.Tensor,  # (n, L, h, w), not negative
) -> tuple[torch.Tensor, None]:  # (n, L, 2) fractions
    """The centre of mass over cells on linspace(-1, 1) from edge to edge, as STAR's code has it; no score.

    Fraction = cell / (w - 1): ``corners`` of :func:`to_cells`.
    """
    heatmaps = at_least_fp32(heatmaps)
    mass = heatmaps.sum((2, 3)).clamp(min=SMALLEST_MASS)
    x, y = (
        (heatmaps.sum(axis) * torch.linspace(-1, 1, side, dtype=heatmaps.dtype, device=heatmaps.device)).sum(-1) / mass
        for axis, side in ((2, heatmaps.shape[3]), (3, heatmaps.shape[2]))
    )
    return (torch.stack([x, y], -1) + 1) / 2, None


def identity(
    points: torch.Tensor,  # (n, L, 2) fractions
) -> tuple[torch.Tensor, None]:  # (n, L, 2) fractions
    """Return ``points`` as they are: the decoding of networks that regress coordinates."""
    return points, None


register_decoder(Decoder("coordinates", identity, has_scores=False, takes=COORDINATES))
register_decoder(Decoder("argmax", argmax_quarter, has_scores=True))
register_decoder(Decoder("local_soft_argmax", local_soft_argmax, has_scores=True, window=5, temperature=10.0))
# The structured paper's scores are logits of a softmax at its loss's epsilon = 1; no peak of theirs is a probability.
register_decoder(Decoder("structured", local_soft_argmax, has_scores=False, window=5, temperature=1.0))
register_decoder(Decoder("soft_argmax", soft_argmax, has_scores=False, temperature=1.0))
register_decoder(Decoder("corrected_argmax", corrected_argmax, has_scores=True, takes=CORRECTED))
register_decoder(Decoder("expectation", expectation, has_scores=False))


def decode(
    output: torch.Tensor,  # (n, L, h, w) heatmaps, (n, L, 2) points, or what else the decoder takes
    decoding: Decoding,
) -> Points:  # (n, L, 2) fractions, (n, L) scores in [0, 1] or None
    """Decode a network's output by the decoder that its ModelInfo names.

    Raises UnknownDecoding, which lists the names.
    """
    return decoder(decoding)(output)
