"""Training of landmark networks on crops."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from facelm_models import create, info, restore
from facelm_models.heatmaps import decode
from facelm_models.protocol import MeanShapeNetwork
from facelm_models.slpt import SLPT
from facelm_models.weights import WeightsError, load_backbone, read_card
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError
from facelm_sdk.metrics import bounding_box, inter_ocular, point_errors
from facelm_sdk.transform import CropRecipe, CropTransform
from facelm_sdk.types import ImageArray

from .augment import channel_gains, cover_part, degrade, jitter_matrix, occlude, photometric
from .data import LandmarkFaces, drawn, same_face, shuffled
from .evaluation import mean_of_known, predict_cuts
from .fast import speed_up
from .loop import train
from .objectives import OBJECTIVES, Batch
from .recipe import HEADS, LandmarkRecipe, Stage, crop_recipe, described


def to_input(crops: NDArray[np.uint8], name: str) -> torch.Tensor:
    """uint8 BGR crops (n, S, S, 3) to the network's normalised (n, 3, S, S)."""
    model = info(name)
    x = torch.from_numpy(np.ascontiguousarray(crops)).float().permute(0, 3, 1, 2)  # stays channels-last in memory
    if model.channels == "rgb":
        x = x.flip(1).contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.mean, model.std))
    return (x - mean) / std


class Pooled(nn.Module):
    """A network's backbone under global average pooling and one linear layer; gives fractions of the crop."""

    part, decoding = HEADS["pooled"][0], "coordinates"

    def __init__(self, network: nn.Module, shape: torch.Tensor) -> None:
        super().__init__()
        backbone = network.backbone
        assert isinstance(backbone, nn.Module)
        channels = backbone.channels
        self.backbone = backbone
        self.linear = nn.Linear(channels if isinstance(channels, int) else channels[-1], shape.numel())  # type: ignore
        self.register_buffer("mean_shape", shape.clone())

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(crops)
        last = maps if isinstance(maps, torch.Tensor) else maps[-1]
        offsets = 0.1 * self.linear(last.mean((2, 3))).unflatten(1, (-1, 2))
        out: torch.Tensor = self.mean_shape + offsets
        return out


class Mapped(nn.Module):
    """A network's feature map (n, config.dim, S/4, S/4) under one 1x1 convolution; gives heatmaps."""

    part, decoding = HEADS["heatmaps"][0], "local_soft_argmax"

    def __init__(self, network: nn.Module, shape: torch.Tensor) -> None:
        super().__init__()
        features = network.features
        assert isinstance(features, nn.Module)
        self.features = features
        self.heatmaps = nn.Conv2d(network.config.dim, len(shape), 1)  # type: ignore[arg-type]

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.heatmaps(self.features(crops))
        return out

    def intermediate(self, crops: torch.Tensor) -> torch.Tensor:
        return self.forward(crops)


WARM: dict[str, type[Pooled] | type[Mapped]] = {"pooled": Pooled, "heatmaps": Mapped}
"""Heads under which a network's image part learns from random weights, before the transformer over it."""


class LandmarkTask:
    """One stage: augmented batches, the recipe's objective, and the error on held-out faces."""

    watch = "val_nme"

    def __init__(
        self, model: nn.Module, recipe: LandmarkRecipe, stage: Stage, faces: LandmarkFaces, val: LandmarkFaces
    ) -> None:
        self.model, self.recipe, self.stage, self.faces = speed_up(model), recipe, stage, faces
        self.markup = markups.get(recipe.markup)
        self.crop = crop_recipe(recipe, stage.size)
        self.val = Validation(recipe, stage.size, val)
        self.usable = np.flatnonzero(same_face(faces.kps, faces.points, recipe.markup))
        if not len(self.usable):
            raise InputError(f"none of the {len(faces)} training faces has five points that belong to its landmarks")
        self.objective, self.weights = recipe.weights_of(stage)
        self.views = 2 if getattr(self.weights, "siamese", 0) else 1

    def cut(self, index: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """The picture -> crop matrix (2, 3) of a face, cut with the noise a detector would have."""
        kps = self.faces.kps[index].astype(np.float64)
        noise = self.recipe.augmentation.cut_noise
        if self.crop.kind == "kps5":
            eyes = float(np.linalg.norm(kps[0] - kps[1]))
            kps = kps + rng.normal(0, noise * max(eyes, 0.6 * float(np.ptp(kps[:, 1]))), kps.shape)
            return self.crop.transform(kps=kps).matrix
        box = bounding_box(self.faces.points[index])
        return self.crop.transform(box=box + rng.normal(0, noise * (box[2] - box[0]) / 2, 4)).matrix

    def view(
        self, index: int, base: NDArray[np.float64], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32], bool]:
        """One augmented view of a face.

        The crop (S, S, 3), the points (L, 2) in its pixels, which of them (L,) are known, the matrix from ``base`` to
        the crop, and whether it is mirrored.
        """
        how, size = self.recipe.augmentation, self.stage.size
        jitter = jitter_matrix(
            np.eye(2, 3), size, rng, degrees=how.degrees, scale=how.scale, shift=how.shift, uniform=how.uniform
        )
        mirrored = bool(rng.random() < how.flip)
        if mirrored:
            jitter = np.array([[-1.0, 0, size - 1], [0, 1, 0]]) @ np.concatenate([jitter, [[0, 0, 1]]])
        transform = CropTransform(jitter @ np.concatenate([base, [[0, 0, 1]]]), size)
        image = transform.warp(self.faces.images[index])
        points = transform.apply(self.faces.points[index])
        known = self.faces.known[index] & inside(self.faces.points[index], self.faces.images[index])
        if mirrored:
            order = list(self.markup.flip)
            points, known = points[order], known[order]
        image = photometric(image, rng, how.colour, how.grey)
        if how.gains:
            image = channel_gains(image, rng, how.gains)
        if rng.random() < how.occlusion:
            other = self.faces.images[int(rng.integers(len(self.faces)))]
            image = occlude(image, rng, cv2.resize(other, (size, size)))  # type: ignore[arg-type]
        if how.cover and rng.random() < how.cover:
            other = self.faces.images[int(rng.integers(len(self.faces)))]
            piece = np.asarray(cv2.resize(other, (size, size)), np.uint8)
            image, _ = cover_part(image, points.astype(np.float32), rng, piece, part=rng.uniform(0.25, 0.7))
        if rng.random() < how.degrade:
            image = degrade(image, rng)
        return image, points.astype(np.float32), known, jitter.astype(np.float32), mirrored

    def batch(self, step: int) -> Batch:
        """See Task. With two views of each face, the second half of the batch holds the second views."""
        recipe, size = self.recipe, self.stage.size
        count, weights = self.stage.schedule.batch, self.faces.weights[self.usable]
        if (weights == weights[0]).all():
            indices = shuffled(self.usable, recipe.seed, step, count)
        else:
            indices = self.usable[drawn(weights, recipe.seed, step, count)]
        seen = []
        generators = [np.random.default_rng([recipe.seed, size, step, i]) for i in range(len(indices))]
        bases = [self.cut(int(index), rng) for index, rng in zip(indices, generators, strict=True)]
        for _ in range(self.views):
            for index, base, rng in zip(indices, bases, generators, strict=True):
                seen.append(self.view(int(index), base, rng))
        images, points, known, matrices, mirrored = (np.stack(part) for part in zip(*seen, strict=True))
        base_points = [
            CropTransform(base, size).apply(self.faces.points[int(index)])
            for index, base in zip(indices, bases, strict=True)
        ]
        offset = info(recipe.model).offset
        return {
            "crops": to_input(images, recipe.model),
            "points": torch.from_numpy((points - offset) / size),
            "known": torch.from_numpy(known),
            "matrices": torch.from_numpy(matrices),
            "mirrored": torch.from_numpy(mirrored),
            "base_points": torch.from_numpy((np.stack(base_points) - offset) / size).float(),
        }

    def loss(self, batch: Batch) -> Batch:
        """See Task."""
        return OBJECTIVES[self.objective](self.model, batch, self.markup, self.weights)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See Task. Networks of several stages (SLPT) have the error after each of them as well, from 1."""
        errors = stage_errors(model, self.val)
        stages = {f"val_nme_{i}": 100 * float(one.mean()) for i, one in enumerate(errors, 1)} if len(errors) > 1 else {}
        return {"val_nme": 100 * float(errors[-1].mean())} | stages


class _EveryStage(nn.Module):
    """The points of all stages as if they were those of one."""

    def __init__(self, model: SLPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: torch.Tensor) -> torch.Tensor:  # (n, stages * L, 2)
        return self.model.stage_points(crops).flatten(1, 2)


def stage_errors(model: nn.Module, val: Validation) -> list[NDArray[np.float64]]:
    """Return the inter-ocular NME (n,), fractions, after each stage of a network; of most there is one."""
    if not isinstance(model, SLPT):
        return [val.errors(model)]
    stages = model.config.stages
    return [val.score(one) for one in np.split(val.predict(_EveryStage(model), stages), stages, axis=1)]


class Validation:
    """Held-out faces cut as the runtime cuts them: by the detector's five points, or by the landmarks' box."""

    def __init__(self, recipe: LandmarkRecipe, size: int, faces: LandmarkFaces) -> None:
        crop = crop_recipe(recipe, size)
        self.size, self.faces, self.model = size, faces, described(recipe)
        self.markup = markups.get(recipe.markup)
        self.transforms = [
            crop.transform(kps=kps, box=bounding_box(points))
            for kps, points in zip(faces.kps, faces.points, strict=True)
        ]

    def predict(self, model: nn.Module, stages: int = 1) -> NDArray[np.float64]:
        """Landmarks (n, stages * L, 2) in pixels of the pictures."""
        model.eval()
        device = next((p.device for p in model.parameters()), torch.device("cpu"))

        @torch.no_grad()
        def run(crops: ImageArray) -> NDArray[np.float64]:
            output = model(to_input(crops, self.model.name).to(device))
            fractions, _ = decode(output, getattr(model, "decoding", self.model.decoding))
            return np.asarray(fractions.double().cpu().numpy() * self.size + self.model.offset)

        faces = zip(self.faces.images, self.transforms, strict=True)
        return predict_cuts(faces, run, self.size, stages * self.markup.num_points, batch=64)

    def errors(self, model: nn.Module) -> NDArray[np.float64]:
        """Inter-ocular NME (n,) of the points that are known, as fractions."""
        return self.score(self.predict(model))

    def score(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same of landmarks (n, L, 2) that were found."""
        points = self.faces.points
        return mean_of_known(point_errors(found, points, inter_ocular(points, self.markup)), self.faces.known)


def inside(points: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which points (L,) lie in the picture; where an annotator or a teacher puts the others is a guess."""
    height, width = image.shape[:2]
    return np.asarray(((points >= -0.5) & (points <= (width - 0.5, height - 0.5))).all(-1))


def mean_shape(crop: CropRecipe, faces: LandmarkFaces, offset: float = -0.5) -> torch.Tensor:
    """Mean of the cut faces' landmarks (L, 2), as fractions of the crop."""
    cut = [crop.transform(kps=k, box=bounding_box(p)).apply(p) for k, p in zip(faces.kps, faces.points, strict=True)]
    return torch.from_numpy((np.mean(cut, 0) - offset) / crop.size).float()


def resized(model: nn.Module, name: str, size: int) -> nn.Module:
    """The same network for another crop size: learned positions are resampled, all else is kept."""
    config = dataclasses.replace(model.config, size=size)  # type: ignore[type-var]
    other = info(name).build(config)
    own = other.state_dict()
    state = {key: _resampled(value, own[key].shape) for key, value in model.state_dict().items()}
    if fixed := [key for key, value in state.items() if value.shape != own[key].shape]:
        raise InputError(f"{fixed[0]} of {name} is for crops of {model.config.size} pixels only, not {size}")
    other.load_state_dict(state)
    return other


def _resampled(table: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A table of positions for another number of cells: (1, side^2, D) or, one axis each, (side, D)."""
    if table.shape == shape:
        return table
    if table.ndim == 2:
        return F.interpolate(table.T[None], size=shape[0], mode="linear", align_corners=False)[0].T
    sides = [round(cells**0.5) for cells in (table.shape[1], shape[1])]
    grid = table.unflatten(1, (sides[0], sides[0])).permute(0, 3, 1, 2)  # type: ignore[no-untyped-call]
    grid = F.interpolate(grid, size=(sides[1], sides[1]), mode="bicubic", align_corners=False)
    return grid.flatten(2).transpose(1, 2)


def _restored(recipe: LandmarkRecipe) -> nn.Module:
    if not recipe.start:
        raise InputError(
            'a recipe that trains the confidence only needs trained weights: start = "FILE" (--start FILE)'
        )
    try:
        return restore(recipe.start)
    except WeightsError as error:
        raise InputError(f"training cannot start from {recipe.start}: {error}") from error


def _started(model: nn.Module, recipe: LandmarkRecipe) -> nn.Module:
    """The trained network of ``recipe.start`` at the size of ``model``. Raises InputError where it does not fit."""
    trained = _restored(recipe)
    wanted: Any = model.config
    found = dataclasses.replace(trained.config, size=wanted.size) if type(trained) is type(model) else None  # type: ignore[type-var]
    if found != wanted:
        raise InputError(f"training cannot start from {recipe.start}: {trained.config} is not {wanted} at another size")
    return resized(trained, recipe.model, wanted.size)


def _load_backbone(model: nn.Module, recipe: LandmarkRecipe) -> None:
    """Fill the backbone of ``model`` from ImageNet, or from that of another network which was trained here."""
    try:
        if Path(recipe.backbone).suffix == "" or "model" in read_card(recipe.backbone):
            _copy_backbone(restore(recipe.backbone), model)
        else:
            load_backbone(model.get_submodule("backbone"), recipe.backbone)
    except (WeightsError, AttributeError) as error:
        raise InputError(
            f"the backbone of {recipe.model} cannot start from {recipe.backbone}: {error}. --backbone takes an "
            "ImageNet checkpoint in torchvision's names, or a network trained here (name or .safetensors) with the "
            "same backbone; --backbone '' trains it from random weights"
        ) from error


def _copy_backbone(trained: nn.Module, model: nn.Module) -> None:
    """All of the backbone of ``model`` from that of ``trained``, which may go on where a lighter one ends."""
    source, target = _backbone(trained), _backbone(model)
    found, wanted = source.state_dict(), target.state_dict()
    lacking = [key for key, value in wanted.items() if key not in found or found[key].shape != value.shape]
    if type(source) is not type(target) or lacking:
        raise WeightsError(f"its {type(source).__name__} does not hold a {type(target).__name__}'s {[*lacking, ''][0]}")
    target.load_state_dict({key: found[key] for key in wanted})


def _backbone(network: nn.Module) -> nn.Module:
    features = getattr(network, "features", None)  # SLPT has its backbone and what makes one map of it in there
    return features[0] if isinstance(features, nn.Sequential) else network.get_submodule("backbone")


def train_landmarks(
    recipe: LandmarkRecipe,
    faces: LandmarkFaces,
    val: LandmarkFaces,
    out: Path,
    device: str = "cpu",
    *,
    compiled: bool = False,
) -> nn.Module:
    """Run every stage of ``recipe`` but that of the confidence, each from the last one's averaged weights.

    Returns the trained model.
    """
    torch.manual_seed(recipe.seed)
    if recipe.only_confidence:
        return _restored(recipe)
    options = {"num_landmarks": markups.get(recipe.markup).num_points, "size": recipe.stages[0].size}
    model = create(recipe.model, **options, **recipe.options)
    if recipe.start:
        model = _started(model, recipe)
    elif recipe.backbone:
        _load_backbone(model, recipe)
    shape = mean_shape(crop_recipe(recipe, 256), faces, info(recipe.model).offset)
    if isinstance(model, MeanShapeNetwork):
        model.mean_shape.copy_(shape)
    for stage in recipe.stages:
        if stage.network == "confidence":
            continue
        if stage.size != model.config.size:
            model = resized(model, recipe.model, stage.size)
        network = (WARM[stage.network](model, shape) if stage.network in WARM else model).to(device)
        task = LandmarkTask(network, recipe, stage, faces, val)
        if compiled:
            task.model.compile()
        trained = train(
            task,
            stage.schedule.over(len(task.usable)),
            out / stage.name,
            evaluate_every=recipe.evaluate_every,
            description=f"{recipe.model} {stage.name}",
        )
        if isinstance(trained, Pooled | Mapped):
            model.get_submodule(trained.part).load_state_dict(trained.get_submodule(trained.part).state_dict())
        else:
            model.load_state_dict(trained.state_dict())
    return model.cpu()
