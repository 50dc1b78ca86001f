"""Heatmap decoding with operators that every backend has: twins of :mod:`facelm_models.heatmaps`' decoders.

Heatmaps of any precision, points and scores in fp32: fp16 misses by up to 55 px. Indices stay integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from facelm_models import Decoder, heatmaps
from facelm_models.heatmaps import SMALLEST_MASS
from facelm_models.registry import Decoding, Points, decoder


def _peaks(
    heatmaps: torch.Tensor,  # (n, L, h, w)
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L) int64 x, y
    """The largest cell, of equal ones the first. Row, then column: ArgMax of a whole map takes twice as long."""
    y = heatmaps.amax(-1).argmax(-1)
    row = heatmaps.gather(2, y[..., None, None].expand(-1, -1, 1, heatmaps.shape[-1]))  # (n, L, 1, w)
    return row.argmax(-1)[..., 0], y


def _fractions(x: torch.Tensor, y: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return torch.stack([(x + 0.5) / w, (y + 0.5) / h], -1)


def argmax_quarter(
    heatmaps: torch.Tensor,  # (n, L, h, w)
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, 2) fractions, (n, L) scores
    """:func:`facelm_models.heatmaps.argmax_quarter`."""
    h, w = heatmaps.shape[-2:]
    heatmaps = heatmaps.float()
    x, y = _peaks(heatmaps)
    index = y * w + x
    around = torch.stack([index, index - 1, index + 1, index - w, index + w], -1).clamp(0, h * w - 1)
    peak, left, right, up, down = heatmaps.flatten(2).gather(2, around).unbind(-1)
    inside = (x > 0) & (x < w - 1) & (y > 0) & (y < h - 1)
    quarter = 0.25 * inside.float()
    points = _fractions(x + quarter * (right - left).sign(), y + quarter * (down - up).sign(), h, w)
    return points, peak.clamp(0, 1)


def local_soft_argmax(
    heatmaps: torch.Tensor,  # (n, L, h, w)
    *,
    window: int = 5,
    temperature: float = 10.0,
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, 2) fractions, (n, L) scores
    """:func:`facelm_models.heatmaps.local_soft_argmax`."""
    h, w = heatmaps.shape[-2:]
    heatmaps = heatmaps.float()
    x, y = _peaks(heatmaps)
    offsets = torch.arange(window, device=heatmaps.device) - window // 2
    columns, rows = x[..., None] + offsets, y[..., None] + offsets  # (n, L, window)
    inside = ((rows >= 0) & (rows < h))[..., :, None] & ((columns >= 0) & (columns < w))[..., None, :]
    cells = rows.clamp(0, h - 1)[..., :, None] * w + columns.clamp(0, w - 1)[..., None, :]
    values = heatmaps.flatten(2).gather(2, cells.flatten(2))
    weights = (temperature * values).masked_fill(~inside.flatten(2), -torch.inf).softmax(-1)
    square = weights.reshape(*weights.shape[:2], window, window)
    dx, dy = ((square.sum(axis) * offsets).sum(-1) for axis in (-2, -1))
    peak = values[..., values.shape[-1] // 2]
    return _fractions(x + dx, y + dy, h, w), peak.clamp(0, 1)


def expectation(
    heatmaps: torch.Tensor,  # (n, L, h, w), not negative
) -> tuple[torch.Tensor, None]:  # (n, L, 2) fractions
    """:func:`facelm_models.heatmaps.expectation`, its three sums as one product of matrices."""
    h, w = heatmaps.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    basis = torch.stack([x, y, torch.ones(h, w)], -1).flatten(0, 1).to(heatmaps.device)  # (h w, 3)
    sums = heatmaps.float().flatten(2) @ basis  # (n, L, 3)
    return (sums[..., :2] / sums[..., 2:].clamp(min=SMALLEST_MASS) + 1) / 2, None


def soft_argmax(
    heatmaps: torch.Tensor,  # (n, L, h, w)
    *,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, None]:  # (n, L, 2) fractions
    """:func:`facelm_models.heatmaps.soft_argmax`, its two sums as one product of matrices."""
    h, w = heatmaps.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    places = _fractions(x, y, h, w).flatten(0, 1).to(heatmaps.device)  # (h w, 2)
    return (temperature * heatmaps.float()).flatten(2).softmax(-1) @ places, None


def corrected_argmax(
    output: torch.Tensor,  # (n, L, h * h + 2)
) -> tuple[torch.Tensor, torch.Tensor]:  # (n, L, 2) fractions, (n, L) scores
    """:func:`facelm_models.heatmaps.corrected_argmax`."""
    output = output.float()
    side = math.isqrt(output.shape[-1] - 2)
    maps = output[..., :-2].reshape(-1, output.shape[1], side, side)
    x, y = _peaks(maps)
    return _fractions(x + output[..., -2], y + output[..., -1], side, side), maps.amax((2, 3)).clamp(0, 1)


TWINS: dict[Callable[..., Points], Callable[..., Points]] = {
    heatmaps.argmax_quarter: argmax_quarter,
    heatmaps.local_soft_argmax: local_soft_argmax,
    heatmaps.expectation: expectation,
    heatmaps.soft_argmax: soft_argmax,
    heatmaps.corrected_argmax: corrected_argmax,
}
"""Reference -> its form for graphs, of the same parameters."""


def export_twin(of: Decoder) -> Callable[..., Points]:
    """Return what decodes in a graph: the decoder's own twin, this package's of its reference, or the reference."""
    return of.export_twin or TWINS.get(of.reference, of.reference)


def decode(
    output: torch.Tensor,  # (n, L, h, w) heatmaps, (n, L, 2) points, or what else the decoder takes
    decoding: Decoding,
) -> Points:  # (n, L, 2) fractions, (n, L) scores in [0, 1] or None, both fp32
    """:func:`facelm_models.heatmaps.decode` for the graph. Raises UnknownDecoding, which lists the names."""
    named = decoder(decoding)
    points, scores = named.run(export_twin(named), output)
    return points.float(), None if scores is None else scores.float()
