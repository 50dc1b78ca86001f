"""Training of RetinaFace on pictures composed from frames: single faces of any size, and mosaics of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelm_models import create, info
from facelm_models.retinaface import RetinaFace, decode_boxes, decode_points, encode_boxes, encode_points, priors
from facelm_sdk import Detector
from facelm_sdk import markup as markups
from facelm_sdk.boxes import iou
from facelm_sdk.transform import CropTransform

from . import datasets
from .augment import any_square, degrade, draw_faces, photometric, write_text
from .data import Frame, detection_frames, same_face, shuffled
from .fast import speed_up
from .loop import train
from .losses import multibox
from .negatives import LOW, Part, empty_frames
from .recipe import DetectionRecipe

Float = NDArray[np.float32]
KPS_FLIP = list(markups.get("kps5").flip)


@dataclass(slots=True)
class Scene:
    """A composed picture and what is in it; a face that is ``doubtful`` is neither face nor background."""

    image: NDArray[np.uint8]
    boxes: Float  # (k, 4)
    kps: Float  # (k, 5, 2), NaN where unknown
    doubtful: NDArray[np.bool_]  # (k,)


class Composer:
    """Scenes from ``frames``, and from those of ``scenery``, which show no face."""

    def __init__(self, recipe: DetectionRecipe, frames: Sequence[Frame], scenery: Sequence[Frame]) -> None:
        self.recipe, self.frames, self.scenery = recipe, frames, scenery

    def _place(
        self, frame: Frame, size: int, face: float, rng: np.random.Generator, target: NDArray[np.uint8]
    ) -> Scene:
        """``frame`` drawn over ``target`` (size, size, 3), scaled so that one of its faces is ``face`` pixels."""
        image, boxes, kps = frame.image(), frame.boxes.astype(np.float64), frame.kps.astype(np.float64)
        sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(-1)) if len(boxes) else np.array([max(image.shape[:2]) / 3])
        sure = np.flatnonzero(frame.scores >= self.recipe.sure)
        # by area: the teacher's rare false faces are small
        chosen = int(rng.choice(sure, p=sides[sure] ** 2 / (sides[sure] ** 2).sum())) if len(sure) else None
        scale = face / float(sides[chosen if chosen is not None else 0])
        height, width = image.shape[:2]
        anchor = boxes[chosen].reshape(2, 2).mean(0) if chosen is not None else np.array([width, height]) / 2
        angle = np.deg2rad(self._roll(rng))
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        room = max(0.0, size - face) / 2 + 0.15 * min(face, size)
        where = size / 2 + rng.uniform(-room, room, 2)
        matrix = np.concatenate([linear, (where - linear @ anchor)[:, None]], 1)
        transform = CropTransform(matrix, size)
        warped = transform.warp(image)
        mask = np.zeros((size, size), np.uint8)
        corners = transform.apply(np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64))
        cv2.fillConvexPoly(mask, np.round(corners).astype(np.int32), 1)
        cv2.copyTo(warped, mask, target)
        centres = transform.apply((boxes[:, :2] + boxes[:, 2:]) / 2)
        half = np.sqrt(np.square((boxes[:, 2:] - boxes[:, :2]) / 2) @ np.square(linear).T)  # of the ellipse in it
        placed = np.concatenate([centres - half, centres + half], 1)
        visible = np.clip(placed, 0, size)
        share = (visible[:, 2:] - visible[:, :2]).prod(-1) / np.maximum((placed[:, 2:] - placed[:, :2]).prod(-1), 1e-9)
        doubtful = (frame.scores < self.recipe.sure) | (share < 0.55)
        doubtful |= np.sqrt((visible[:, 2:] - visible[:, :2]).prod(-1)) < self.recipe.smallest
        keep = share > 0.1
        points = transform.apply(kps)
        return Scene(target, visible[keep].astype(np.float32), points[keep].astype(np.float32), doubtful[keep])

    def _roll(self, rng: np.random.Generator) -> float:
        """Degrees by which a face is turned in the picture."""
        if not self.recipe.turned:
            return float(rng.normal(0, 10) * (2.5 if rng.random() < 0.15 else 1))
        return float(rng.uniform(-180, 180) if rng.random() < self.recipe.turned else rng.normal(0, 18))

    def _without_face(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A square (size, size, 3) of any place, scale and roll in a picture of the scenery."""
        image = self.scenery[int(rng.integers(len(self.scenery)))].image()
        return any_square(image, size, rng, np.deg2rad(self._roll(rng)), (0.25, 1.7), 0.25)

    def _backdrop(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        draw = rng.random()
        if draw < 0.25:
            return np.full((size, size, 3), rng.integers(0, 256, 3) if draw < 0.15 else 0, np.uint8)
        return self._without_face(size, rng)

    def compose(self, rng: np.random.Generator, first: Frame, size: int) -> Scene:
        """A picture (size, size, 3) around a face of ``first``, or without any."""
        low, high = self.recipe.faces[0], self.recipe.faces[1] * size
        if rng.random() < self.recipe.background:
            empty = np.zeros((0, 4), np.float32)
            image = self._without_face(size, rng)
            scene = Scene(image, empty, np.zeros((0, 5, 2), np.float32), np.zeros(0, np.bool_))
        elif rng.random() < self.recipe.mosaic:
            image = self._backdrop(size, rng)
            cells = int(rng.choice([2, 2, 3, 4]))
            side = size // cells
            parts = []
            for i in range(cells * cells):
                if i and rng.random() < 0.15:
                    continue
                frame = first if i == 0 else self.frames[int(rng.integers(len(self.frames)))]
                y, x = side * (i // cells), side * (i % cells)
                face = np.exp(rng.uniform(np.log(low), np.log(0.9 * side)))
                part = self._place(frame, side, face, rng, image[y : y + side, x : x + side])
                offset = np.array([x, y], np.float32)
                part.boxes, part.kps = part.boxes + np.tile(offset, 2), part.kps + offset
                parts.append(part)
            scene = Scene(
                image,
                np.concatenate([p.boxes for p in parts]),
                np.concatenate([p.kps for p in parts]),
                np.concatenate([p.doubtful for p in parts]),
            )
        else:
            face = np.exp(rng.uniform(np.log(2 * low), np.log(high)))
            scene = self._place(first, size, face, rng, self._backdrop(size, rng))
        if rng.random() < 0.5:
            scene.image = np.ascontiguousarray(scene.image[:, ::-1])
            scene.boxes = np.stack(
                [size - 1 - scene.boxes[:, i] if i % 2 == 0 else scene.boxes[:, i] for i in (2, 1, 0, 3)], 1
            )
            scene.kps = scene.kps[:, KPS_FLIP]
            scene.kps[..., 0] = size - 1 - scene.kps[..., 0]
        if rng.random() < self.recipe.text:
            write_text(scene.image, rng, scene.boxes)
        if rng.random() < self.recipe.drawn:
            draw_faces(scene.image, rng, scene.boxes)
        scene.image = degrade(photometric(scene.image, rng), rng, lowest=0.5)
        return scene


class DetectionTask:
    """Composed pictures, prior matching and the multi-box loss.

    ``held_out``: what the best weights are chosen on.
    """

    watch = "missed"

    def __init__(self, model: RetinaFace, recipe: DetectionRecipe, pictures: Composer, held_out: Composer) -> None:
        self.model, self.recipe, self.pictures, self.held_out = speed_up(model), recipe, pictures, held_out
        self.priors = {size: priors(size, size, model.config.min_sizes) for size in recipe.sizes}
        self.mean = torch.tensor(info(recipe.model).mean).view(1, 3, 1, 1)

    def targets(self, scene: Scene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encoded boxes (p, 4), labels (p,) and encoded points (p, 10) of a picture's priors."""
        prior = self.priors[scene.image.shape[0]]
        count = len(prior)
        labels = torch.zeros(count, dtype=torch.long)
        boxes, points = torch.zeros(count, 4), torch.full((count, 10), torch.nan)
        if len(scene.boxes) == 0:
            return boxes, labels, points
        centre, half = prior[:, :2].numpy(), prior[:, 2:].numpy() / 2
        overlap = iou(np.concatenate([centre - half, centre + half], 1)[:, None], scene.boxes)  # (p, k)
        sure = np.flatnonzero(~scene.doubtful)
        unclear = overlap[:, scene.doubtful].max(1, initial=0) > 0.2
        within = (centre[:, None] > scene.boxes[None, :, :2]) & (centre[:, None] < scene.boxes[None, :, 2:])
        inside: NDArray[np.bool_] = np.asarray(within.all(-1))
        unclear |= inside[:, scene.doubtful].any(1)
        labels[torch.from_numpy(unclear)] = -1
        if len(sure) == 0:
            return boxes, labels, points
        own = overlap[:, sure].copy()
        best = own.argmax(0)
        own[best, np.arange(len(sure))] = 2.0  # every face has a prior
        match, value = own.argmax(1), own.max(1)
        # Just below the threshold a prior is neither: there the teacher's box decides by a pixel or two.
        labels[torch.from_numpy((value < self.recipe.match) & (value > self.recipe.match - 0.08))] = -1
        face = np.flatnonzero(value >= self.recipe.match)
        labels[face] = 1
        chosen = sure[match[face]]
        boxes[face] = encode_boxes(torch.from_numpy(scene.boxes[chosen]), prior[face])
        points[face] = encode_points(torch.from_numpy(scene.kps[chosen]), prior[face])
        return boxes, labels, points

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """See Task."""
        size, batch = self.recipe.sizes[step % len(self.recipe.sizes)], self.recipe.schedule.batch
        frames = self.pictures.frames
        firsts = shuffled(np.arange(len(frames)), self.recipe.seed, step, batch)
        scenes = [
            self.pictures.compose(np.random.default_rng([self.recipe.seed, 1, step * batch + i]), frames[first], size)
            for i, first in enumerate(firsts[: batch * self.recipe.sizes[0] ** 2 // size**2])
        ]
        images = torch.from_numpy(np.stack([s.image for s in scenes])).float().permute(0, 3, 1, 2) - self.mean
        boxes, labels, points = (torch.stack(part) for part in zip(*(self.targets(s) for s in scenes), strict=True))
        return {"images": images, "boxes": boxes, "labels": labels, "points": points}

    def loss(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See Task."""
        predicted = tuple(part.float() for part in self.model(batch["images"]))
        parts = multibox(predicted, batch["boxes"], batch["labels"], batch["points"])
        return dict(zip(("class", "box", "points"), parts, strict=True))

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """What the model finds in pictures composed of held-out frames, and in pictures without a face.

        At score 0.5 and IoU 0.5: ``recall``; ``false_boxes`` a picture; ``points``, the mean distance of the five
        points of a face that is found, in percent of its box's side; ``false_pictures``, the part of the pictures
        without a face, at long sides of 320 and 160 pixels, in which it sees one; ``missed``, 1 - recall +
        false_pictures.
        """
        assert isinstance(model, RetinaFace)
        model.eval()
        size, faces, found, false = self.recipe.sizes[0], 0, 0, 0
        distances = []
        for i, frame in enumerate(self.held_out.frames):
            scene = self.held_out.compose(np.random.default_rng([self.recipe.seed, 2, i]), frame, size)
            boxes, kps = self._detect(model, scene.image)
            hits, sure = iou(boxes[:, None], scene.boxes) >= 0.5, ~scene.doubtful
            faces, found = faces + int(sure.sum()), found + int(hits[:, sure].any(0).sum())
            false += int((~hits.any(1)).sum())
            for one, face in zip(*np.nonzero(hits & sure), strict=True):
                side = np.sqrt((scene.boxes[face, 2:] - scene.boxes[face, :2]).prod())
                distances.append(np.linalg.norm(kps[one] - scene.kps[face], axis=-1).mean() / side)
        seen = [
            len(self._detect(model, part)[0]) > 0 for frame in self.held_out.scenery for part in _reduced(frame.image())
        ]
        recall, false_pictures = found / max(faces, 1), float(np.mean(seen))
        return {
            "recall": recall,
            "false_boxes": false / len(self.held_out.frames),
            "points": 100 * float(np.mean(distances)) if distances else 100.0,
            "false_pictures": false_pictures,
            "missed": 1 - recall + false_pictures,
        }

    def _detect(self, model: RetinaFace, image: NDArray[np.uint8]) -> tuple[Float, Float]:
        """Boxes (k, 4) and points (k, 5, 2) of score 0.5 and more."""
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() - self.mean
        device = next(model.parameters()).device
        encoded, logits, points = (part[0].cpu() for part in model(x.to(device)))
        scores = logits.softmax(-1)[:, 1].numpy()
        (height, width), likely = image.shape[:2], scores > 0.5
        prior = priors(height, width, model.config.min_sizes)
        boxes, kps = decode_boxes(encoded, prior).numpy()[likely], decode_points(points, prior).numpy()[likely]
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        kept = list(cv2.dnn.NMSBoxes(xywh.tolist(), scores[likely].tolist(), 0.5, 0.4))
        return boxes[kept], kps[kept]


def _reduced(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    scales = [side / max(image.shape[:2]) for side in (320, 160)]
    return [np.asarray(cv2.resize(image, None, fx=s, fy=s, interpolation=cv2.INTER_AREA), np.uint8) for s in scales]


def landmark_frames(dataset: datasets.Dataset, detector: Detector) -> list[Frame]:
    """The pictures of a landmark data set, each with the box that ``detector`` has of its face, if it finds it.

    What else the detector sees may be a face that nobody annotated: it scores 0, neither face nor background.
    """
    frames = []
    for sample in dataset.samples:
        image = sample.image()
        found = detector(image)
        own = same_face(found.kps, sample.points[None], sample.markup)
        if not own.any():
            continue
        kps = found.kps.copy()
        kps[own.argmax()] = markups.convert(sample.points, sample.markup, "kps5")
        scores = np.zeros(len(own), np.float32)
        scores[own.argmax()] = 1
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        frames.append(Frame(sample.name, jpeg, found.boxes, scores, kps))
    return frames


def composer(recipe: DetectionRecipe, data: Path, part: Part, detector: Detector) -> Composer:
    """The pictures of ``data`` to train on, or those of the ``calibration`` part to choose the best weights on."""
    names = recipe.landmarks if part == "train" else (recipe.held_out,) if recipe.held_out else ()
    frames = detection_frames(data, "train") if part == "train" or not names else []
    if part != "train" and not names:
        frames = detection_frames(data, "val")[::4]
    faces = [frame for frame in frames if (frame.scores >= recipe.sure).any()]
    for name in names:
        faces += landmark_frames(datasets.open_below(name, data), detector)
    scenery = [frame for frame in frames if frame.name.startswith("bsds") and not (frame.scores >= recipe.sure).any()]
    for folder in recipe.negatives:
        scenery += empty_frames(data / folder, part)
    return Composer(recipe, faces, scenery)


def train_detector(recipe: DetectionRecipe, data: Path, out: Path, device: str = "cpu") -> nn.Module:
    """Run ``recipe``. Returns the trained model."""
    detector = Detector(det_size=320, det_thresh=LOW, threads=1)
    pictures, held_out = (composer(recipe, data, part, detector) for part in ("train", "calibration"))
    torch.manual_seed(recipe.seed)
    model = create(recipe.model).to(device)
    assert isinstance(model, RetinaFace)
    task = DetectionTask(model, recipe, pictures, held_out)
    schedule = recipe.schedule.over(len(pictures.frames))
    trained = train(task, schedule, out / "train", evaluate_every=recipe.evaluate_every, description=recipe.model)
    return trained.cpu()
