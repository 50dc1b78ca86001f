"""What a landmark network is trained to do: one objective for each paper, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from facelm_models.heatmaps import encode as encode_continuous
from facelm_models.heatmaps import encode_quantised, to_cells
from facelm_sdk.markup import Markup

from . import losses
from .losses.label_smoothing import covariances, edge_maps, samples

SHORTEST = 0.02  # of the crop: the eye distance of a face in full profile
Batch = dict[str, torch.Tensor]
Objective = Callable[[nn.Module, Batch, Markup, Mapping[str, float]], Batch]


def eye_weights(points: torch.Tensor, markup: Markup) -> torch.Tensor:
    """(n,) weights of faces: the score divides by the eye distance, so faces seen from the side weigh more."""
    left, right = markup.outer_eye_corners
    eyes = (points[:, left] - points[:, right]).norm(dim=-1)
    weights: torch.Tensor = (eyes.mean() / eyes).clamp(0.7, 2.5)
    return weights


def coordinates(network: nn.Module, batch: Batch, markup: Markup, weights: Mapping[str, float]) -> Batch:
    """Smooth-Wing in 192ths of the crop (LOTR paper, eq. 21) of known points, faces weighted by their eye distance."""
    points = batch["points"]
    error = 192 * (network(batch["crops"]).float() - points)
    weight = eye_weights(points, markup)[:, None] * batch["known"]
    return {"loss": (weight * losses.smooth_wing(error).mean(2)).sum() / weight.sum()}


def slpt(network: nn.Module, batch: Batch, markup: Markup, weights: Mapping[str, float]) -> Batch:
    """Distances of all stages and layers over the eye distance (SLPT paper, eq. 8)."""
    points = batch["points"]
    left, right = markup.outer_eye_corners
    eyes = (points[:, left] - points[:, right]).norm(dim=-1).clamp(min=SHORTEST)
    return {"loss": losses.normalised_l2(_intermediate(network, batch).float(), points, eyes)}


def heatmap(network: nn.Module, batch: Batch, markup: Markup, weights: Mapping[str, float]) -> Batch:
    """Squared differences of every stack's heatmaps, ``scale`` times their mean over cells.

    ``sigma`` in cells; ``quantised`` centres the targets on cells, as before the sub-pixel paper. With ``siamese``, two
    views of each crop are brought back into its frame, merged, and compared there as well (that paper's eq. 6).
    """
    scale, sigma = weights.get("scale", 1.0), weights.get("sigma", 1.0)
    encode = encode_quantised if weights.get("quantised") else encode_continuous
    stacks = _intermediate(network, batch)
    maps = [stacks] if isinstance(stacks, torch.Tensor) else list(stacks)
    size = maps[0].shape[-2], maps[0].shape[-1]
    target = encode(batch["points"], size, sigma=sigma)
    total = {"heatmaps": scale * torch.stack([losses.heatmap_l2(m, target) for m in maps]).sum()}
    if weight := weights.get("siamese"):
        base = encode(batch["base_points"], size, sigma=sigma)
        transforms = fraction_maps(batch["matrices"], batch["crops"].shape[-1])
        mirrored = batch["mirrored"][:, None, None, None]
        views = torch.where(mirrored, maps[-1][:, list(markup.flip)], maps[-1])
        views, transforms = (torch.stack(part.chunk(2)) for part in (views, transforms))
        total["siamese"] = weight * scale * losses.siamese(views, transforms, base)
    return total


def mtld(network: nn.Module, batch: Batch, markup: Markup, weights: Mapping[str, float]) -> Batch:
    """Joint regression (MTLD paper, eq. 5): L1 of every layer's points, heatmap L2, and structure loss of the last.

    Coordinates in 256ths of the crop, so that the weights do not depend on its size; the paper prints none.
    """
    points = batch["points"]
    landmarks, heatmaps = _intermediate(network, batch)
    landmarks = landmarks.float()
    target = encode_continuous(points, (heatmaps.shape[-2], heatmaps.shape[-1]), sigma=weights.get("sigma", 1.0))
    return {
        "points": weights.get("points", 1.0) * losses.l1(256 * (landmarks - points[:, None])).mean(),
        "heatmaps": weights.get("heatmaps", 100.0) * losses.heatmap_l2(heatmaps, target),
        "structure": weights.get("structure", 0.001) * losses.structure(256 * landmarks[:, -1], 256 * points),
    }


def structured(network: nn.Module, batch: Batch, markup: Markup, weights: Mapping[str, float]) -> Batch:
    """The structured paper's eq. A14 over all stacks: its loss of the scores, adaptive Wing of edge and point maps.

    ``samples`` draws of the image-aware label smoothing each (eq. 13; 0: the label itself), their spread times
    ``gamma``. ``corners`` where cells are decoded by expectation, whose grid ends on the crop's edges.
    """
    points, stacks = batch["points"], _intermediate(network, batch)
    size = stacks[0].scores.shape[-2], stacks[0].scores.shape[-1]
    config: Any = network.config
    curves = [curve for curve in config.edges if curve]
    with torch.no_grad():
        edges = edge_maps(points, curves, size) if curves else torch.zeros_like(stacks[0].edges)
        spots = encode_continuous(points, size, sigma=weights.get("sigma", 1.0))
        target = to_cells(points, size, corners=bool(weights.get("corners")))
        count = int(weights.get("samples", 10))
        if count and curves:
            spread = covariances(points, curves, size, gamma=weights.get("gamma", 0.01))
            target = samples(target, spread, count=count)
    total = {
        "structured": torch.stack([losses.structured(maps.scores, target) for maps in stacks]).sum(),
        "edges": torch.stack([_awing(maps.edges, edges) for maps in stacks]).sum(),
        "points": torch.stack([_awing(maps.points, spots) for maps in stacks]).sum(),
    }
    return {key: weights.get(key, 1.0) * value for key, value in total.items()}


def _awing(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (losses.foreground_weight(target) * losses.adaptive_wing(predicted, target)).mean()


def fraction_maps(
    matrices: torch.Tensor,  # (n, 2, 3) pixels of one crop to pixels of another
    size: int,
) -> torch.Tensor:  # (n, 2, 3) the same between fractions, pixel = fraction * size - 0.5
    """Affine maps of pixels as maps of fractions of the crop."""
    linear, shift = matrices[..., :2], matrices[..., 2]
    return torch.cat([linear, ((shift + 0.5 - 0.5 * linear.sum(-1)) / size)[..., None]], -1)


def _intermediate(network: nn.Module, batch: Batch) -> Any:
    return network.intermediate(batch["crops"])  # type: ignore[operator]


OBJECTIVES: dict[str, Objective] = {
    "coordinates": coordinates,
    "mtld": mtld,
    "slpt": slpt,
    "heatmap": heatmap,
    "structured": structured,
}
