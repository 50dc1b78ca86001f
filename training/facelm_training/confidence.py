"""The last stage of a landmark network: heads for how far its points and the crop can be trusted.

Everything else is frozen, so what the heads are given is computed once for each crop, and so is what they learn:
whether the network's own point lies within 5% of the eye distance of its label, and whether there is a face at all.
Both are then calibrated on held-out faces and pictures, and as many training faces, by a line through the logits (Platt
1999, "Probabilistic Outputs for Support Vector Machines"), which becomes part of the last layers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from facelm_export.passes.batch_norm import without_batch_norm
from facelm_models.protocol import ConfidenceNetwork
from facelm_models.registry import decoder
from facelm_models.weights import default_weights, read_card
from facelm_sdk import Detector
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError
from facelm_sdk.transform import CropTransform
from facelm_sdk.types import ImageArray

from .augment import cover_part, degrade, photometric
from .data import LandmarkFaces, shuffled
from .landmarks import LandmarkTask, inside, to_input
from .loop import train
from .negatives import LOW, Negatives, Part, misplaced, read_negatives, read_scenes
from .objectives import SHORTEST
from .progress import StageProgress
from .recipe import LandmarkRecipe, Stage, described

log = logging.getLogger(__name__)

WITHIN = 0.05
"""Of the eye distance: how near to its label a point is right (the contract's ``scores``)."""
KINDS = {"false face": 0.55, "misplaced": 0.25, "anything": 0.2}
"""What the crops without a face are, and how many of them."""
RUN = 32
"""Crops that the frozen network sees at a time."""
PARTS: tuple[Part, ...] = ("train", "calibration")
ROUNDS = 4
"""Of as many faces as are held out: see HeldOut."""


@dataclass(frozen=True)
class Shown:
    """A crop (S, S, 3) uint8 BGR; of a face, the points (L, 2) in its pixels, and which (L,) of them are known."""

    crop: ImageArray
    points: NDArray[np.float32] | None = None
    known: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Seen:
    """What the heads are given of n crops, and what is true of them.

    ``features`` (n, ...) each; ``right`` and ``known`` (n, L), whether a point is within 5% and whether that is known;
    ``face`` (n,).
    """

    features: tuple[torch.Tensor, ...]
    right: torch.Tensor
    known: torch.Tensor
    face: torch.Tensor

    def batch(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Those rows as a batch of the training loop."""
        features = {f"feature{i}": part[rows].float() for i, part in enumerate(self.features)}
        return {**features, "right": self.right[rows], "known": self.known[rows], "face": self.face[rows]}


def with_heads(network: nn.Module, name: str) -> nn.Module:
    """The same network with new heads. Raises InputError where its architecture has none."""
    if not isinstance(network, ConfidenceNetwork) or not hasattr(network.config, "confidence"):
        raise InputError(f"{name} has no heads for the confidence of its points; LOTR and the pyramid have")
    config: Any = network.config
    extended: nn.Module = type(network)(replace(config, confidence=True))
    own = {key: value for key, value in network.state_dict().items() if not key.startswith("confidence.")}
    heads = {key: value for key, value in extended.state_dict().items() if key.startswith("confidence.")}
    extended.load_state_dict(own | heads)
    return extended.eval()


def with_confidence(card: Mapping[str, Any], start: str) -> dict[str, Any]:
    """The card of the weights that were given their confidence, and of how, as this recipe's ``card`` says.

    What it says of accuracy is left out, as that of another file.
    """
    path = Path(start) if Path(start).suffix else default_weights(start)
    before = {} if path is None else read_card(path)
    kept = {key: value for key, value in before.items() if key != "accuracy"}
    told = before.get("recipe", "")
    both = ". ".join(part for part in (told.rstrip("."), card["recipe"]) if part)
    return {**card, **kept, "recipe": told if card["recipe"] in told else both}


class ConfidenceTask:
    """Trains the heads on features that are in memory; the held-out ones tell the best, and calibrate them."""

    watch = "val_loss"

    def __init__(self, heads: nn.Module, stage: Stage, seed: int, seen: Seen, held_out: Seen) -> None:
        self.model, self.stage, self.seed, self.seen, self.held_out = heads, stage, seed, seen, held_out

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """See Task."""
        rows = shuffled(np.arange(len(self.seen.face)), self.seed, step, self.stage.schedule.batch)
        return self.seen.batch(torch.from_numpy(rows))

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See Task."""
        return _losses(*run_heads(self.model, batch), batch)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """See Task."""
        batch = self.held_out.batch(torch.arange(len(self.held_out.face)))
        losses = _losses(*run_heads(model, batch), batch)
        named = {f"val_{name}": float(value) for name, value in losses.items()}
        return {"val_loss": sum(named.values()), **named}


def run_heads(heads: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, L) and (n,) of a batch's features."""
    scores, presence = heads(*(value for key, value in batch.items() if key.startswith("feature")))
    return scores.float(), presence.float()


def _losses(scores: torch.Tensor, presence: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Cross-entropies: proper scores, least where the probabilities are the true ones."""
    each = F.binary_cross_entropy_with_logits(scores, batch["right"].float(), reduction="none")
    known = batch["known"].float()
    return {
        "scores": (known * each).sum() / known.sum().clamp(min=1),
        "presence": F.binary_cross_entropy_with_logits(presence, batch["face"].float()),
    }


class Crops:
    """The crops that the heads are trained on, each a function of its number and the recipe's seed."""

    def __init__(self, recipe: LandmarkRecipe, stage: Stage, task: LandmarkTask, negatives: Negatives) -> None:
        self.recipe, self.size, self.task, self.negatives = recipe, stage.size, task, negatives

    def face(self, number: int) -> Shown:
        """A view of a training face, augmented as the recipe says."""
        rng = np.random.default_rng([self.recipe.seed, 1, number])
        weights = self.task.faces.weights[self.task.usable]
        index = int(rng.choice(self.task.usable, p=weights / weights.sum()))
        crop, points, known, _, _ = self.task.view(index, self.task.cut(index, rng), rng)
        return Shown(crop, points, known)

    def no_face(self, number: int) -> Shown:
        """A false face, a crop that misses its face or one of anything, in the light and blur of the others."""
        rng = np.random.default_rng([self.recipe.seed, 2, number])
        how = self.recipe.augmentation
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        if kind == "misplaced":
            index = int(rng.choice(self.task.usable))
            matrix = misplaced(self.task.cut(index, rng), self.size, rng)
            crop = CropTransform(matrix, self.size).warp(self.task.faces.images[index])
        elif kind == "false face" and self.negatives.false:
            index = int(rng.integers(len(self.negatives.false)))
            crop = self.negatives.false_face(index, self.task.crop, rng, how.cut_noise)
        else:
            crop = self.negatives.anything(self.size, rng)
        if rng.random() < how.flip:
            crop = np.ascontiguousarray(crop[:, ::-1])
        crop = photometric(crop, rng, how.colour, how.grey)
        return Shown(degrade(crop, rng) if rng.random() < how.degrade else crop)


class HeldOut:
    """The crops that calibrate: faces cut as the runtime cuts them, every other one half covered, and false faces.

    Half of the faces are held out and half training faces, drawn as they are in training: the held-out ones may be of
    pictures that are harder than most, and a network of this size errs as much on the faces that it has seen.
    """

    def __init__(self, recipe: LandmarkRecipe, held_out: LandmarkTask, trained: LandmarkTask, none: Negatives) -> None:
        self.seed, self.held_out, self.trained, self.negatives = recipe.seed, held_out, trained, none
        self.noise = recipe.augmentation.cut_noise

    def face(self, number: int) -> Shown:
        """A face: two rounds of the held-out ones, plain and covered, then as many that were trained on."""
        rng = np.random.default_rng([self.seed, 3, number])
        count = len(self.held_out.faces)
        task, index = self.held_out, number % count
        if number // count % 4 > 1:
            task = self.trained
            index = int(rng.choice(len(task.faces), p=task.faces.weights / task.faces.weights.sum()))
        transform, image = CropTransform(task.cut(index, rng), task.stage.size), task.faces.images[index]
        crop, points = transform.warp(image), transform.apply(task.faces.points[index]).astype(np.float32)
        known = task.faces.known[index] & inside(task.faces.points[index], image)
        if number // count % 2:
            crop, _ = cover_part(crop, points, rng)
        return Shown(crop, points, known)

    def no_face(self, number: int) -> Shown:
        """A false face."""
        rng = np.random.default_rng([self.seed, 4, number])
        return Shown(self.negatives.false_face(number % len(self.negatives.false), self.held_out.crop, rng, self.noise))


def train_confidence(
    network: nn.Module,
    recipe: LandmarkRecipe,
    faces: LandmarkFaces,
    val: LandmarkFaces,
    data: Path,
    out: Path,
    device: str = "cpu",
) -> nn.Module:
    """Run the last stage of ``recipe``, whose network is ``confidence``: a copy of ``network`` with heads.

    ``val`` calibrates; ``data`` is the folder that the recipe's pictures without a face are below. Raises InputError
    where the network can have no heads or is of another size, and where there are no such pictures.
    """
    stage, wanted = recipe.stages[-1], recipe.confidence
    extended = with_heads(network, recipe.model)
    config: Any = extended.config
    if config.size != stage.size:
        raise InputError(f"stage {stage.name} is for crops of {stage.size} pixels, but the network takes {config.size}")
    detector = Detector(det_thresh=LOW, threads=1)
    scenes = read_scenes(data / "frames.zip")
    without = {
        part: [picture for name in wanted.negatives for picture in read_negatives(data / name, part).values()]
        for part in PARTS
    }
    negatives = Negatives.of(without["train"], detector, scenes)
    spared = Negatives.of(without["calibration"], detector)
    log.info("%s: %d false faces to train on, %d to calibrate on", stage.name, len(negatives.false), len(spared.false))
    if not spared.false:
        folders = ", ".join(str(data / name) for name in wanted.negatives)
        raise InputError(f"the detector finds no false face in the pictures for calibration in {folders}")
    frozen = without_batch_norm(extended, stage.size).to(device)  # a copy that computes the same faster
    task_of = partial(LandmarkTask, frozen, recipe, stage)
    crops = Crops(recipe, stage, task_of(faces, val), negatives)
    held = HeldOut(recipe, task_of(val, val), task_of(faces, val), spared)
    see = _Eye(frozen, recipe, stage)
    seen = see("training crops", _crops(crops.face, wanted.faces, crops.no_face, wanted.others))
    count = ROUNDS * len(val)
    held_out = see("held-out crops", _crops(held.face, count, held.no_face, min(2 * len(spared.false), count)))
    heads = extended.get_submodule("confidence")
    task = ConfidenceTask(heads, stage, recipe.seed, seen, held_out)
    schedule = stage.schedule.over(len(seen.face))
    description = f"{recipe.model} {stage.name}"
    trained = train(task, schedule, out, evaluate_every=recipe.evaluate_every, description=description)
    heads.load_state_dict(trained.state_dict())
    calibrate(heads, held_out)
    return extended.eval()


def _crops(
    face: Callable[[int], Shown], faces: int, other: Callable[[int], Shown], others: int
) -> tuple[int, Iterable[Shown]]:
    return faces + others, (
        (face(number) if number < faces else other(number - faces)) for number in range(faces + others)
    )


class _Eye:
    """Runs the frozen network once on each crop."""

    def __init__(self, network: nn.Module, recipe: LandmarkRecipe, stage: Stage) -> None:
        self.network, self.recipe, self.size = cast(ConfidenceNetwork, network), recipe, stage.size
        self.decoder, self.offset = decoder(described(recipe).decoding), described(recipe).offset
        self.corners = markups.get(recipe.markup).outer_eye_corners
        self.device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, description: str, crops: tuple[int, Iterable[Shown]]) -> Seen:
        """What the heads will be given of the crops, in half precision, and what is true of them."""
        total, shown = crops
        parts: list[tuple[torch.Tensor, ...]] = []
        started, waiting, done = time.monotonic(), list[Shown](), 0
        with StageProgress(description, total, 0) as progress:
            for one in shown:
                waiting.append(one)
                done += 1
                if len(waiting) == RUN or done == total:
                    parts.append(self._run(waiting))
                    waiting = []
                progress.step(done, (time.monotonic() - started) / 60, {})
        *features, right, known, face = (torch.cat(part) for part in zip(*parts, strict=True))
        return Seen(tuple(features), right, known, face)

    def _run(self, shown: list[Shown]) -> tuple[torch.Tensor, ...]:
        crops = to_input(np.stack([one.crop for one in shown]), self.recipe.model).to(self.device)
        output, features = self.network.forward_features(crops)
        found = self.decoder(output)[0].float().cpu()
        count = found.shape[1]
        label = np.stack([np.zeros((count, 2), np.float32) if one.points is None else one.points for one in shown])
        known = np.stack([np.zeros(count, np.bool_) if one.known is None else one.known for one in shown])
        truth = torch.from_numpy((label - self.offset) / self.size).float()
        left, right = self.corners
        eyes = (truth[:, left] - truth[:, right]).norm(dim=-1).clamp(min=SHORTEST)
        near = (found - truth).norm(dim=-1) <= WITHIN * eyes[:, None]
        face = torch.tensor([one.points is not None for one in shown])
        return *(part.half().cpu() for part in features), near, torch.from_numpy(known), face


def calibrate(heads: nn.Module, held_out: Seen) -> None:
    """Change the last layers of ``heads`` by the line that makes their probabilities true on ``held_out``.

    Crops with and without a face weigh as much as each other.
    """
    batch = held_out.batch(torch.arange(len(held_out.face)))
    with torch.no_grad():
        scores, presence = run_heads(heads, batch)
    known, face = batch["known"], batch["face"]
    _scale(heads.get_submodule("scores"), platt(scores[known], batch["right"][known]))
    _scale(heads.get_submodule("presence"), platt(presence, face, balanced=True))


@torch.no_grad()
def _scale(layer: nn.Module, line: tuple[float, float]) -> None:
    assert isinstance(layer, nn.Linear)
    slope, shift = line
    layer.weight.mul_(slope)
    layer.bias.mul_(slope).add_(shift)


def platt(
    logits: torch.Tensor,  # (n,)
    true: torch.Tensor,  # (n,) bool
    *,
    balanced: bool = False,
) -> tuple[float, float]:
    """Slope and shift of the line through ``logits`` that is most likely to have given ``true``.

    The targets are a little inside 0 and 1 (Platt's eq. 2), so that classes that a line parts are given no infinite
    slope. ``balanced``: both classes weigh as much.
    """
    count = float(true.sum()), float((~true).sum())
    target = torch.where(true, (count[0] + 1) / (count[0] + 2), 1 / (count[1] + 2)).double()
    weight = torch.ones_like(target)
    if balanced:
        weight = torch.where(true, 0.5 / max(count[0], 1), 0.5 / max(count[1], 1)).double() * len(true)
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    values = logits.detach().double()
    optimiser = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(line[0] * values + line[1], target, weight)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return float(line[0].detach()), float(line[1].detach())
