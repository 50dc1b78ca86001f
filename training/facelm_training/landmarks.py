"""Training of landmark networks on aligned crops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from facelm_models import create, info
from facelm_models.losses import smooth_wing
from facelm_models.lotr import LOTR
from facelm_sdk import markup as markups
from facelm_sdk.metrics import inter_ocular, nme
from facelm_sdk.transform import CropRecipe, CropTransform, kps5_recipe

from .augment import degrade, jitter_matrix, occlude, photometric
from .data import LandmarkFaces, landmark_faces, shuffled
from .fast import speed_up
from .loop import Schedule, train

MARKUP = markups.get("ibug68")


@dataclass(frozen=True)
class Stage:
    """One network at one resolution.

    ``network``: ``pooled`` (the backbone under a plain regression head, which learns from random weights) or ``full``.
    """

    name: str
    network: str
    size: int
    schedule: Schedule


@dataclass(frozen=True)
class LandmarkRecipe:
    """How a landmark model's weights are made. ``kps_noise``: std of the five points' jitter, of the eye distance."""

    model: str
    stages: tuple[Stage, ...]
    seed: int = 0
    kps_noise: float = 0.035
    degrees: float = 12.0
    scale: float = 0.08
    shift: float = 0.03
    occlusion: float = 0.35
    worst_disagreement: float = 25.0
    evaluate_every: int = 500
    data: str = (
        "3,670 train crops of YouTube Faces frames (landmarks68) and 1,601 web portraits, research data; cleaned "
        "68-point labels made from MediaPipe FaceMesh (Apache-2.0) teacher points and the set's own annotations. The "
        "lfw pictures, which have an annotator's dots drawn into them, are left out."
    )
    summary: str = (
        "the MobileNetV2 learns under a pooled regression head, then under LOTR's transformer at 128 and at 192 "
        "pixels; smooth-Wing loss weighted by the face's eye distance, AdamW, EMA, bf16 on a CPU"
    )
    floor: str = (
        "The floor of these scores: both labels come from machines. The set's own annotation scatters by 3.9% at the "
        "median against a smooth function of the mesh, and the cleaned label itself is about 5.6% from people's labels "
        "of other faces, because conventions differ, most on the jaw. In one val picture the data's five points "
        "are another face's: that one adds 0.7% to the mean of the rows of the data's points."
    )


def crop_recipe(name: str, size: int) -> CropRecipe:
    """The model's crop recipe at another resolution."""
    crop = info(name).crop
    return kps5_recipe(size, zoom=crop["zoom"], shift=crop["shift"])


def to_input(crops: NDArray[np.uint8], name: str) -> torch.Tensor:
    """uint8 BGR crops (n, S, S, 3) to the network's normalised (n, 3, S, S)."""
    model = info(name)
    x = torch.from_numpy(np.ascontiguousarray(crops)).float().permute(0, 3, 1, 2)  # stays channels-last in memory
    if model.channels == "rgb":
        x = x.flip(1).contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.mean, model.std))
    return (x - mean) / std


class Pooled(nn.Module):
    """A LOTR's backbone under global average pooling and one linear layer; same input and output as the LOTR."""

    def __init__(self, lotr: LOTR) -> None:
        super().__init__()
        self.backbone = lotr.backbone
        self.linear = nn.Linear(lotr.backbone.channels, 2 * lotr.config.num_landmarks)
        self.register_buffer("mean_shape", lotr.mean_shape.clone())

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        offsets = 0.1 * self.linear(self.backbone(crops).mean((2, 3))).unflatten(1, (-1, 2))
        out: torch.Tensor = self.mean_shape + offsets
        return out


class LandmarkTask:
    """One stage: augmented batches, smooth-Wing in 192ths of the crop weighted by the face's eye distance."""

    def __init__(
        self, model: nn.Module, recipe: LandmarkRecipe, stage: Stage, faces: LandmarkFaces, val: LandmarkFaces
    ) -> None:
        self.model, self.recipe, self.stage, self.faces = speed_up(model), recipe, stage, faces
        self.crop = crop_recipe(recipe.model, stage.size)
        self.val = Validation(recipe.model, stage.size, val)
        self.usable = np.flatnonzero(~(faces.disagreement > recipe.worst_disagreement) & same_face(faces))

    def sample(self, index: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """An augmented crop (S, S, 3) and its points (68, 2) as fractions of the crop."""
        recipe, size = self.recipe, self.stage.size
        kps = self.faces.kps[index].astype(np.float64)
        eyes = float(np.linalg.norm(kps[0] - kps[1]))
        noise = rng.normal(0, recipe.kps_noise * max(eyes, 0.6 * float(np.ptp(kps[:, 1]))), kps.shape)
        matrix = self.crop.transform(kps=kps + noise).matrix
        matrix = jitter_matrix(matrix, size, rng, degrees=recipe.degrees, scale=recipe.scale, shift=recipe.shift)
        transform = CropTransform(matrix, size)
        image = transform.warp(self.faces.images[index])
        points = transform.apply(self.faces.points[index])
        if rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            points = markups.flip_points(points, size, MARKUP)
        image = photometric(image, rng)
        if rng.random() < recipe.occlusion:
            other = self.faces.images[int(rng.integers(len(self.faces)))]
            image = occlude(image, rng, cv2.resize(other, (size, size)))  # type: ignore[arg-type]
        image = degrade(image, rng)
        return image, ((points + 0.5) / size).astype(np.float32)

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """See Task."""
        indices = shuffled(self.usable, self.recipe.seed, step, self.stage.schedule.batch)
        pairs = [
            self.sample(int(index), np.random.default_rng([self.recipe.seed, self.stage.size, step, i]))
            for i, index in enumerate(indices)
        ]
        images, points = (np.stack(part) for part in zip(*pairs, strict=True))
        return {"crops": to_input(images, self.recipe.model), "points": torch.from_numpy(points)}

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See Task."""
        points = batch["points"]
        error = 192 * (self.model(batch["crops"]).float() - points)
        left, right = MARKUP.outer_eye_corners
        eyes = (points[:, left] - points[:, right]).norm(dim=-1)
        # The score divides by the eye distance, so faces seen from the side weigh more.
        weight = (eyes.mean() / eyes).clamp(0.7, 2.5)
        per_face = smooth_wing(error).mean((1, 2))
        return {"loss": (weight * per_face).sum() / weight.sum()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See Task."""
        return {"val_nme": 100 * float(self.val.errors(model).mean())}


class Validation:
    """The val faces cut as the runtime cuts them, by the detector's five points."""

    def __init__(self, name: str, size: int, faces: LandmarkFaces) -> None:
        recipe = crop_recipe(name, size)
        self.size, self.faces = size, faces
        self.transforms = [recipe.transform(kps=kps) for kps in faces.kps]
        crops = np.stack([t.warp(image) for t, image in zip(self.transforms, faces.images, strict=True)])
        self.inputs = to_input(crops, name)

    @torch.no_grad()
    def predict(self, model: nn.Module, *, flip: bool = False) -> NDArray[np.float64]:
        """Landmarks (n, 68, 2) in pixels of the pictures."""
        model.eval()
        fractions = torch.cat([model(part) for part in torch.split(self.inputs, 64)]).double().numpy()
        points = fractions * self.size - 0.5
        if flip:
            mirrored = torch.cat([model(part.flip(3)) for part in torch.split(self.inputs, 64)]).double().numpy()
            points = (points + markups.flip_points(mirrored * self.size - 0.5, self.size, MARKUP)) / 2
        return np.stack([t.invert(p) for t, p in zip(self.transforms, points, strict=True)])

    def errors(self, model: nn.Module, *, flip: bool = False) -> NDArray[np.float64]:
        """Inter-ocular NME (n,) against the cleaned label, as fractions."""
        points = self.faces.points
        return nme(self.predict(model, flip=flip), points, inter_ocular(points, MARKUP))


def same_face(faces: LandmarkFaces) -> NDArray[np.bool_]:
    """Whether a face's five points belong to its landmarks; in a few pictures the detector took another face."""
    distance = np.linalg.norm(markups.convert(faces.points, MARKUP.name, "kps5") - faces.kps, axis=-1).mean(1)
    return np.asarray(distance < 0.15 * np.ptp(faces.points, axis=1).max(1))


def mean_shape(recipe: CropRecipe, faces: LandmarkFaces) -> torch.Tensor:
    """Mean of the aligned landmarks (68, 2), as fractions of the crop."""
    aligned = [recipe.transform(kps=k).apply(p) for k, p in zip(faces.kps, faces.points, strict=True)]
    return torch.from_numpy((np.mean(aligned, 0) + 0.5) / recipe.size).float()


def resized(model: LOTR, size: int) -> LOTR:
    """The same network for another crop size: the learned positions are resampled, all else is kept."""
    other = create("lotr_m", num_landmarks=model.config.num_landmarks, size=size)
    assert isinstance(other, LOTR)
    state = model.state_dict()
    grid = state["position"].unflatten(1, (model.side, model.side)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(other.side, other.side), mode="bicubic", align_corners=False)
    other.load_state_dict(state | {"position": grid.flatten(2).transpose(1, 2)})
    return other


def train_landmarks(recipe: LandmarkRecipe, data: Path, out: Path) -> nn.Module:
    """Run every stage of ``recipe``, each from the last one's averaged weights. Returns the trained model."""
    faces, val = landmark_faces(data, "train"), landmark_faces(data, "val", frames=False)
    model = create(recipe.model, size=recipe.stages[0].size)
    assert isinstance(model, LOTR)
    torch.manual_seed(recipe.seed)
    model.mean_shape.copy_(mean_shape(crop_recipe(recipe.model, 192), faces))
    for stage in recipe.stages:
        if stage.size != model.config.size:
            model = resized(model, stage.size)
        network: nn.Module = Pooled(model) if stage.network == "pooled" else model
        task = LandmarkTask(network, recipe, stage, faces, val)
        folder = out / stage.name
        trained = train(
            task,
            stage.schedule,
            folder,
            evaluate_every=recipe.evaluate_every,
            description=f"{recipe.model} {stage.name}",
        )
        if isinstance(trained, Pooled):
            model.backbone.load_state_dict(trained.backbone.state_dict())
        else:
            model.load_state_dict(trained.state_dict())
    return model
