"""Crop geometry of many faces at once: the graph's twin of :meth:`facelm_sdk.transform.CropRecipe.of_detection`."""

from __future__ import annotations

import torch

from facelm_sdk.boxes import outline_weights
from facelm_sdk.transform import CropRecipe

TINY = 1e-12
"""What a length that is not positive counts as: points that coincide give finite nonsense."""


def crops_to_picture(
    recipe: CropRecipe,
    boxes: torch.Tensor,  # (k, 4) xyxy
    kps: torch.Tensor,  # (k, 5, 2)
    markup: str,
) -> torch.Tensor:  # (k, 2, 3)
    """The maps from a crop's pixels to the picture's: ``recipe.of_detection(markup, ...).inverse`` of each face."""
    if recipe.kind == "kps5":
        return _by_kps(torch.tensor(recipe.template), kps)
    if recipe.box == "landmarks":
        outline = torch.tensor(outline_weights(markup), dtype=kps.dtype) @ kps
        boxes = torch.cat([outline.amin(1), outline.amax(1)], 1)
    return _by_box(recipe, boxes)


def _by_kps(
    template: torch.Tensor,  # (5, 2)
    kps: torch.Tensor,
) -> torch.Tensor:
    """:func:`facelm_sdk.transform.similarity` from points to template, turned round: 1 / (p + iq), up to a scale."""
    mean, anchor = kps.mean(1, keepdim=True), template.mean(0)
    a, b = kps - mean, template - anchor
    p = (a * b).sum((1, 2))
    q = (a[..., 0] * b[:, 1] - a[..., 1] * b[:, 0]).sum(1)
    shrink = (a * a).sum((1, 2)) / (p * p + q * q).clamp(min=TINY)
    p, q = p * shrink, q * shrink
    linear = torch.stack([torch.stack([p, q], 1), torch.stack([-q, p], 1)], 1)  # (k, 2, 2)
    return torch.cat([linear, mean.mT - linear @ anchor[:, None]], 2)


def _by_box(recipe: CropRecipe, boxes: torch.Tensor) -> torch.Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    side = {"max": sides.amax(1), "min": sides.amin(1), "mean": sides.mean(1)}[recipe.side]
    step = (side * (recipe.scale / recipe.size)).clamp(min=TINY)[:, None]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + sides * torch.tensor(recipe.shift)
    linear = step[:, None] * torch.eye(2)
    middle = torch.tensor(recipe.offset) + (recipe.size - 1) / 2
    return torch.cat([linear, (centre - step * middle)[..., None]], 2)
