"""Training of RetinaFace on pictures composed from frames: single faces of any size, and mosaics of many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from facelm_models import create, info
from facelm_models.retinaface import RetinaFace, decode_boxes, encode_boxes, encode_points, priors
from facelm_sdk import markup as markups
from facelm_sdk.boxes import iou
from facelm_sdk.transform import CropTransform

from .augment import degrade, photometric, write_text
from .data import Frame, detection_frames, shuffled
from .fast import speed_up
from .loop import train
from .losses import multibox
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


class DetectionTask:
    """Composed pictures, prior matching and the multi-box loss."""

    watch = "missed"

    def __init__(self, model: RetinaFace, recipe: DetectionRecipe, frames: list[Frame], val: list[Frame]) -> None:
        self.model, self.recipe, self.frames, self.val = speed_up(model), recipe, frames, val
        self.priors = {size: priors(size, size, model.config.min_sizes) for size in recipe.sizes}
        sure = [bool((f.scores >= recipe.sure).any()) for f in frames]
        self.with_face = np.flatnonzero(sure)
        self.scenery = np.array([i for i, f in enumerate(frames) if f.name.startswith("bsds") and not sure[i]])
        self.mean = torch.tensor(info(recipe.model).mean).view(1, 3, 1, 1)

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
        angle = np.deg2rad(rng.normal(0, 10) * (2.5 if rng.random() < 0.15 else 1))
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
        half = (boxes[:, 2:] - boxes[:, :2]) * scale / 2
        placed = np.concatenate([centres - half, centres + half], 1)
        visible = np.clip(placed, 0, size)
        share = (visible[:, 2:] - visible[:, :2]).prod(-1) / np.maximum((placed[:, 2:] - placed[:, :2]).prod(-1), 1e-9)
        doubtful = (frame.scores < self.recipe.sure) | (share < 0.55)
        doubtful |= np.sqrt((visible[:, 2:] - visible[:, :2]).prod(-1)) < self.recipe.smallest
        keep = share > 0.1
        points = transform.apply(kps)
        return Scene(target, visible[keep].astype(np.float32), points[keep].astype(np.float32), doubtful[keep])

    def _random(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Frame:
        return self.frames[int(indices[rng.integers(len(indices))])]

    def _backdrop(self, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        draw = rng.random()
        if draw < 0.25:
            return np.full((size, size, 3), rng.integers(0, 256, 3) if draw < 0.15 else 0, np.uint8)
        target = np.zeros((size, size, 3), np.uint8)
        image = self._random(self.scenery, rng).image()
        height, width = image.shape[:2]
        side = int(rng.uniform(0.35, 1.0) * min(height, width))
        y, x = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
        cv2.resize(image[y : y + side, x : x + side], (size, size), dst=target, interpolation=cv2.INTER_AREA)
        return target

    def compose(self, rng: np.random.Generator, first: int, size: int) -> Scene:
        """A training picture (size, size, 3) around frame ``first``."""
        low, high = self.recipe.faces[0], self.recipe.faces[1] * size
        image = self._backdrop(size, rng)
        if rng.random() < self.recipe.background:
            empty = np.zeros((0, 4), np.float32)
            scene = Scene(image, empty, np.zeros((0, 5, 2), np.float32), np.zeros(0, np.bool_))
        elif rng.random() < self.recipe.mosaic:
            cells = int(rng.choice([2, 2, 3, 4]))
            side = size // cells
            parts = []
            for i in range(cells * cells):
                if i and rng.random() < 0.15:
                    continue
                frame = self.frames[first] if i == 0 else self._random(self.with_face, rng)
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
            scene = self._place(self.frames[first], size, face, rng, image)
        if rng.random() < 0.5:
            scene.image = np.ascontiguousarray(scene.image[:, ::-1])
            scene.boxes = np.stack(
                [size - 1 - scene.boxes[:, i] if i % 2 == 0 else scene.boxes[:, i] for i in (2, 1, 0, 3)], 1
            )
            scene.kps = scene.kps[:, KPS_FLIP]
            scene.kps[..., 0] = size - 1 - scene.kps[..., 0]
        if rng.random() < self.recipe.text:
            write_text(scene.image, rng, scene.boxes)
        scene.image = degrade(photometric(scene.image, rng), rng, lowest=0.5)
        return scene

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
        firsts = shuffled(self.with_face, self.recipe.seed, step, batch)[: batch * self.recipe.sizes[0] ** 2 // size**2]
        scenes = [
            self.compose(np.random.default_rng([self.recipe.seed, 1, step * batch + i]), int(first), size)
            for i, first in enumerate(firsts)
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
        """Recall and false boxes of the val frames at score 0.5 and IoU 0.5, at a long side of 480."""
        assert isinstance(model, RetinaFace)
        model.eval()
        device = next(model.parameters()).device
        found = faces = false = 0
        for frame in self.val:
            image = frame.image()
            scale = 480 / max(image.shape[:2])
            image = cv2.resize(image, None, fx=scale, fy=scale)  # type: ignore[assignment]
            height, width = image.shape[:2]
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float() - self.mean
            boxes, logits, _ = (part.cpu() for part in model(x.to(device)))
            scores = logits[0].softmax(-1)[:, 1].numpy()
            decoded = decode_boxes(boxes[0], priors(height, width, model.config.min_sizes)).numpy() / scale
            likely = scores > 0.5
            xywh = np.concatenate([decoded[:, :2], decoded[:, 2:] - decoded[:, :2]], 1)[likely]
            kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores[likely].tolist(), 0.5, 0.4)
            hits = iou(decoded[likely][list(kept)][:, None], frame.boxes) >= 0.5
            sure = frame.scores >= self.recipe.sure
            faces, found = faces + int(sure.sum()), found + int(hits[:, sure].any(0).sum())
            false += int((~hits.any(1)).sum())
        recall = found / max(faces, 1)
        return {"recall": recall, "false_boxes": float(false), "missed": 1 - recall}


def train_detector(recipe: DetectionRecipe, data: Path, out: Path, device: str = "cpu") -> nn.Module:
    """Run ``recipe``. Returns the trained model."""
    frames, val = detection_frames(data, "train"), detection_frames(data, "val")
    torch.manual_seed(recipe.seed)
    model = create(recipe.model).to(device)
    assert isinstance(model, RetinaFace)
    task = DetectionTask(model, recipe, frames, val[::4])
    schedule = recipe.schedule.over(len(task.with_face))
    trained = train(task, schedule, out / "train", evaluate_every=recipe.evaluate_every, description=recipe.model)
    return trained.cpu()
