"""What a landmark network is trained to do: one objective for each paper, by name, and what a recipe may set of it.

No objective learns from points that are not ``known`` (n, L): what is said of a point outside the picture is a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from facelm_models import LandmarkNetwork
from facelm_models.heatmaps import at_least_fp32, encode_quantised, to_cells
from facelm_models.heatmaps import encode as encode_continuous
from facelm_sdk.errors import InputError
from facelm_sdk.markup import Markup

from . import losses
from .checks import number
from .losses.label_smoothing import covariances, edge_maps, samples

SHORTEST = 0.02  # of the crop: the eye distance of a face in full profile
Batch = dict[str, torch.Tensor]

POINT_LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "smooth_wing": losses.smooth_wing,
    "wing": losses.wing,
    "smooth_l1": losses.smooth_l1,
    "l1": losses.l1,
    "l2": losses.l2,
}
"""The losses that the LOTR paper compares, with its constants (section IV-C)."""


@dataclass(frozen=True)
class CoordinatesWeights:
    """``loss``: of :data:`POINT_LOSSES`. ``unit`` of the error: a pixel of the crop, or a 192nd of any crop's side.

    ``eye_weights``: whether a face weighs the more, the smaller its eye distance is.
    """

    loss: Literal["smooth_wing", "wing", "smooth_l1", "l1", "l2"] = "smooth_wing"
    unit: Literal["192nd", "pixel"] = "192nd"
    eye_weights: bool = True


@dataclass(frozen=True)
class SLPTWeights:
    """There is nothing to set of the SLPT paper's loss."""


@dataclass(frozen=True)
class HeatmapWeights:
    """``scale``: of the squared differences, whose mean over cells is small. ``sigma``: of the Gaussians, in cells.

    ``quantised``: their centres are cells, as before the sub-pixel paper. ``siamese``: weight of that paper's
    consistency of two views (eq. 6) against the heatmaps; 0: one view. ``correction``: weight of the squared error, in
    cells, of the correction that a network with one regresses (section 4.1); ``correction_of`` the ``encoding``, from
    the label to its nearest cell (static there), or the ``prediction``, from the label to the map's largest cell
    (dynamic).
    """

    scale: float = 1.0
    sigma: float = 1.0
    quantised: bool = False
    siamese: float = 0.0
    correction: float = 0.0
    correction_of: Literal["encoding", "prediction"] = "encoding"

    def __post_init__(self) -> None:
        number("scale", self.scale, above=0)
        number("sigma", self.sigma, above=0)
        number("siamese", self.siamese, least=0)
        number("correction", self.correction, least=0)


@dataclass(frozen=True)
class SoftArgmaxWeights:
    """``loss`` of points that a soft-argmax reads from every stack's maps, in units of half a crop.

    ``star`` is the STAR loss, ``smooth_l1`` has STAR's beta of 0.01. ``reading``: the decoder they are read by, over
    the softmax of a map at ``temperature`` or, ``expectation``, over its positive part as STAR and ADNet have it; the
    recipe's decoding is the same. ``edges`` and ``points``: of an hourglass's adaptive Wings; STAR's code has 10 to a
    loss of 1. ``sigma``: of the point maps, in cells.
    """

    loss: Literal["l1", "l2", "smooth_l1", "star"] = "l2"
    reading: Literal["soft_argmax", "expectation"] = "soft_argmax"
    temperature: float = 1.0
    scale: float = 1.0
    edges: float = 10.0
    points: float = 10.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "scale", "sigma"):
            number(name, getattr(self, name), above=0)
        for name in ("edges", "points"):
            number(name, getattr(self, name), least=0)

    @property
    def decoding(self) -> str:
        """The decoding that reads points as the loss does."""
        return "expectation" if self.reading == "expectation" else f"soft_argmax:temperature={self.temperature:g}"


@dataclass(frozen=True)
class MTLDWeights:
    """``points``, ``heatmaps`` and ``structure``: the MTLD paper's three lambdas (eq. 5).

    ``sigma``: of the heatmaps, in cells. ``neighbours``: points whose distances the structure loss compares.
    """

    points: float = 1.0
    heatmaps: float = 100.0
    structure: float = 0.001
    sigma: float = 1.0
    neighbours: int = 5

    def __post_init__(self) -> None:
        for name in ("points", "heatmaps", "structure"):
            number(name, getattr(self, name), least=0)
        number("sigma", self.sigma, above=0)
        number("neighbours", self.neighbours, least=1)


@dataclass(frozen=True)
class StructuredWeights:
    """``structured``, ``edges`` and ``points``: of the structured paper's loss (its lambda) and the adaptive Wings.

    ``alpha``, ``epsilon``, ``s`` and ``margin``: of eq. 11 and 12 and table 5. ``samples``: draws of the image-aware
    label smoothing for each point (eq. 13; 0: the label itself), of ``gamma`` times the covariance of a Gaussian over
    ``kernel`` cells and ``edge_weight`` times the edges in ``patch`` cells. ``sigma``: of the point maps, in cells.
    ``corners``: where points are read by expectation, whose grid ends on the crop's edges.
    """

    structured: float = 1.0
    edges: float = 1.0
    points: float = 1.0
    alpha: float = 1.0
    epsilon: float = 1.0
    s: float = 0.01
    margin: losses.Margin = "smooth_l1"
    samples: int = 10
    gamma: float = 0.01
    edge_weight: float = 0.01
    patch: int = 5
    kernel: int = 5
    sigma: float = 1.0
    corners: bool = False

    def __post_init__(self) -> None:
        for name in ("structured", "edges", "points", "alpha", "samples", "edge_weight"):
            number(name, getattr(self, name), least=0)
        for name in ("epsilon", "s", "gamma", "sigma"):
            number(name, getattr(self, name), above=0)
        for name in ("patch", "kernel"):
            number(name, getattr(self, name), least=1)
            if getattr(self, name) % 2 == 0:
                raise InputError(f"{name} is an odd number of cells, not {getattr(self, name)}")


Weights = CoordinatesWeights | SLPTWeights | HeatmapWeights | SoftArgmaxWeights | MTLDWeights | StructuredWeights


def eye_weights(points: torch.Tensor, markup: Markup) -> torch.Tensor:
    """(n,) weights of faces: the score divides by the eye distance, so faces seen from the side weigh more."""
    left, right = markup.outer_eye_corners
    eyes = (points[:, left] - points[:, right]).norm(dim=-1)
    weights: torch.Tensor = (eyes.mean() / eyes).clamp(0.7, 2.5)
    return weights


def coordinates(network: nn.Module, batch: Batch, markup: Markup, weights: CoordinatesWeights) -> Batch:
    """The LOTR paper's objective (eq. 20), as a mean over points and axes: a loss of each coordinate's error."""
    points, crops = batch["points"], batch["crops"]
    unit = 192 if weights.unit == "192nd" else crops.shape[-1]
    error = unit * (network(crops).float() - points)
    weight = batch["known"].to(error.dtype)
    if weights.eye_weights:
        weight = eye_weights(points, markup)[:, None] * weight
    values = POINT_LOSSES[weights.loss](error).mean(2)
    return {"loss": (weight * values).sum() / weight.sum().clamp(min=1e-6)}


def slpt(network: nn.Module, batch: Batch, markup: Markup, weights: SLPTWeights) -> Batch:
    """Distances of all stages and layers over the eye distance (SLPT paper, eq. 8)."""
    points = batch["points"]
    left, right = markup.outer_eye_corners
    eyes = (points[:, left] - points[:, right]).norm(dim=-1).clamp(min=SHORTEST)
    return {"loss": losses.normalised_l2(_intermediate(network, batch).float(), points, eyes, batch["known"])}


def heatmap(network: nn.Module, batch: Batch, markup: Markup, weights: HeatmapWeights) -> Batch:
    """Squared differences of every stack's heatmaps, ``scale`` times their mean over cells.

    With ``siamese``, two views of each crop are brought back into its frame, merged, and compared there as well (the
    sub-pixel paper's eq. 6).
    """
    encode = encode_quantised if weights.quantised else encode_continuous
    stacks = _intermediate(network, batch)
    maps = [stacks] if isinstance(stacks, torch.Tensor) else list(stacks)
    corrections = None
    if maps[-1].ndim == 3:  # the cells and a correction
        side = math.isqrt(maps[-1].shape[-1] - 2)
        corrections = maps[-1][..., -2:]
        maps[-1] = maps[-1][..., :-2].reshape(*corrections.shape[:2], side, side)
    size = maps[0].shape[-2], maps[0].shape[-1]
    target, known = encode(batch["points"], size, sigma=weights.sigma), batch["known"]
    total = {"heatmaps": weights.scale * torch.stack([losses.heatmap_l2(m, target, known) for m in maps]).sum()}
    if corrections is not None:
        error = corrections.float() - _correction(batch["points"], maps[-1], weights)
        total["correction"] = weights.correction * losses.known_mean(error.square().mean(-1), known)
    if weights.siamese:
        base = encode(batch["base_points"], size, sigma=weights.sigma)
        transforms = fraction_maps(batch["matrices"], batch["crops"].shape[-1])
        mirrored, order = batch["mirrored"], list(markup.flip)
        views = torch.where(mirrored[:, None, None, None], maps[-1][:, order], maps[-1])
        unmirrored = torch.where(mirrored[:, None], known[:, order], known).chunk(2)[0]
        views, transforms = (torch.stack(part.chunk(2)) for part in (views, transforms))
        siamese = losses.siamese(views, transforms, base, unmirrored)
        total["siamese"] = weights.siamese * weights.scale * siamese
    return total


@torch.no_grad()
def _correction(points: torch.Tensor, maps: torch.Tensor, weights: HeatmapWeights) -> torch.Tensor:  # (n, L, 2)
    """What is to be added to a cell, in cells: to the label's nearest one, or to the map's largest."""
    cells = to_cells(points, (maps.shape[-2], maps.shape[-1]))
    if weights.correction_of == "encoding":
        return cells - (cells + 0.5).floor()
    index, width = maps.flatten(2).argmax(-1), maps.shape[-1]
    return cells - torch.stack([index % width, index.div(width, rounding_mode="floor")], -1)


def soft_argmax(network: nn.Module, batch: Batch, markup: Markup, weights: SoftArgmaxWeights) -> Batch:
    """Regress points read by a soft-argmax (structured paper, eq. 3 and 4), of every stack's maps.

    An hourglass's edge and point maps are trained as :func:`structured` trains them.
    """
    points, known, stacks = batch["points"], batch["known"], _intermediate(network, batch)
    maps = [stack if isinstance(stack, torch.Tensor) else stack.scores for stack in stacks]
    size = maps[0].shape[-2], maps[0].shape[-1]
    sides = points.new_tensor((size[1] - 1, size[0] - 1))
    corners = weights.reading == "expectation"
    target = 2 * to_cells(points, size, corners=corners) / sides - 1
    read = torch.stack([_read(one, target, known, weights) for one in maps]).sum()
    total = {"coordinates": weights.scale * read}
    if not isinstance(stacks[0], torch.Tensor):
        total |= _attention(network, stacks, points, known, weights.edges, weights.points, weights.sigma)
    return total


def _read(
    maps: torch.Tensor,  # (n, L, h, w)
    target: torch.Tensor,  # (n, L, 2) in -1..1
    known: torch.Tensor,
    weights: SoftArgmaxWeights,
) -> torch.Tensor:  # ()
    maps = at_least_fp32(maps)
    if weights.reading == "expectation":
        mass = maps.relu()
    else:
        mass = (weights.temperature * maps).flatten(2).softmax(-1).view_as(maps)
    if weights.loss == "star":
        return losses.star(mass, target, known)
    error = losses.spread(mass)[0] - target
    values = losses.smooth_l1(error, beta=0.01) if weights.loss == "smooth_l1" else POINT_LOSSES[weights.loss](error)
    return losses.known_mean(values.sum(-1), known)


def _attention(
    network: nn.Module,
    stacks: Any,
    points: torch.Tensor,
    known: torch.Tensor,
    edge_weight: float,
    point_weight: float,
    sigma: float,
) -> Batch:
    """Adaptive Wing of the edge and point maps that an hourglass's attention is made of.

    The edge maps are of all points, known or not: a curve has no gaps.
    """
    size = stacks[0].scores.shape[-2], stacks[0].scores.shape[-1]
    curves = _curves(network)
    with torch.no_grad():
        edges = edge_maps(points, curves, size) if curves else torch.zeros_like(stacks[0].edges)
        spots = encode_continuous(points, size, sigma=sigma)
    wings = [(_awing(m.edges, edges).mean(), _awing(m.points, spots).mean((2, 3))) for m in stacks]
    return {
        "edges": edge_weight * torch.stack([edge for edge, _ in wings]).sum(),
        "points": point_weight * torch.stack([losses.known_mean(spot, known) for _, spot in wings]).sum(),
    }


def _curves(network: nn.Module) -> list[Any]:
    config: Any = network.config
    return [curve for curve in config.edges if curve]


def mtld(network: nn.Module, batch: Batch, markup: Markup, weights: MTLDWeights) -> Batch:
    """Joint regression (MTLD paper, eq. 5): L1 of every layer's points, heatmap L2, and structure loss of the last.

    Coordinates in 256ths of the crop, so that the weights do not depend on its size; the paper prints none.
    """
    points, known = batch["points"], batch["known"]
    landmarks, heatmaps = _intermediate(network, batch)  # (n, layers, L, 2), (n, L, h, w)
    landmarks = landmarks.float()
    target = encode_continuous(points, (heatmaps.shape[-2], heatmaps.shape[-1]), sigma=weights.sigma)
    structure = losses.structure(256 * landmarks[:, -1], 256 * points, known, neighbours=weights.neighbours)
    return {
        "points": weights.points * losses.known_mean(losses.l1(256 * (landmarks - points[:, None])).mean(-1), known),
        "heatmaps": weights.heatmaps * losses.heatmap_l2(heatmaps, target, known),
        "structure": weights.structure * structure,
    }


def structured(network: nn.Module, batch: Batch, markup: Markup, weights: StructuredWeights) -> Batch:
    """The structured paper's eq. A14 over all stacks: its loss of the scores, adaptive Wing of edge and point maps."""
    points, known, stacks = batch["points"], batch["known"], _intermediate(network, batch)
    size = stacks[0].scores.shape[-2], stacks[0].scores.shape[-1]
    curves = _curves(network)
    with torch.no_grad():
        target = to_cells(points, size, corners=weights.corners)
        if weights.samples and curves:
            spread = covariances(
                points,
                curves,
                size,
                gamma=weights.gamma,
                edge_weight=weights.edge_weight,
                patch=weights.patch,
                kernel=weights.kernel,
            )
            target = samples(target, spread, count=weights.samples)
    options: dict[str, Any] = {name: getattr(weights, name) for name in ("alpha", "epsilon", "s", "margin")}
    return {
        "structured": weights.structured
        * torch.stack([losses.structured(maps.scores, target, known, **options) for maps in stacks]).sum(),
        **_attention(network, stacks, points, known, weights.edges, weights.points, weights.sigma),
    }


def _awing(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return losses.foreground_weight(target) * losses.adaptive_wing(predicted, target)


def fraction_maps(
    matrices: torch.Tensor,  # (n, 2, 3) pixels of one crop to pixels of another
    size: int,
) -> torch.Tensor:  # (n, 2, 3) the same between fractions, pixel = fraction * size - 0.5
    """Affine maps of pixels as maps of fractions of the crop."""
    linear, shift = matrices[..., :2], matrices[..., 2]
    return torch.cat([linear, ((shift + 0.5 - 0.5 * linear.sum(-1)) / size)[..., None]], -1)


def _intermediate(network: nn.Module, batch: Batch) -> Any:
    return cast(LandmarkNetwork, network).intermediate(batch["crops"])


OBJECTIVES: dict[str, Callable[[nn.Module, Batch, Markup, Any], Batch]] = {
    "coordinates": coordinates,
    "mtld": mtld,
    "slpt": slpt,
    "heatmap": heatmap,
    "soft_argmax": soft_argmax,
    "structured": structured,
}
WEIGHTS: dict[str, type[Weights]] = {
    "coordinates": CoordinatesWeights,
    "mtld": MTLDWeights,
    "slpt": SLPTWeights,
    "heatmap": HeatmapWeights,
    "soft_argmax": SoftArgmaxWeights,
    "structured": StructuredWeights,
}
"""What a recipe may set of each objective."""
