"""Readers of the project's training data (its README describes the files)."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError

from .archives import check_folder, decoded
from .datasets import Dataset, Sample

Split = Literal["train", "val"]
DRAWN_ON = "lfw_"  # pictures with a green box and landmark dots drawn into them
SAME_FACE = 0.15  # of the longer side of the landmarks' box: how far a detector's points may be from the annotation's
REACH = 1.3  # of the longer side of the landmarks' box: half the side of what is kept of a picture


@dataclass(slots=True)
class LandmarkFaces:
    """Faces with landmarks: pictures (H, W, 3) uint8 BGR, five points as the detector reports them, the landmarks.

    ``known``: points whose places are labels and not guesses. ``weights`` say how often a face is drawn, against the
    others. Coordinates are pixels of the pictures.
    """

    images: Sequence[NDArray[np.uint8]]
    names: list[str]
    kps: NDArray[np.float32]  # (n, 5, 2)
    points: NDArray[np.float32]  # (n, L, 2)
    known: NDArray[np.bool_]  # (n, L)
    weights: NDArray[np.float64]  # (n,)

    def __len__(self) -> int:
        return len(self.images)


class _Pictures(Sequence[NDArray[np.uint8]]):
    """The pictures of a data set, each read when asked for."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Any:
        return self.samples[index].image()


def hold_out(dataset: Dataset, part: float) -> tuple[Dataset, Dataset]:
    """Split a data set by picture: the faces to train on, and those of ``part`` of the pictures, at least one.

    Which pictures these are hangs on the names alone. Raises InputError where none is left to train on.
    """
    pictures = [sample.name.rpartition("#")[0] or sample.name for sample in dataset.samples]  # PICTURE#FACE
    order = sorted(set(pictures), key=lambda name: hashlib.sha256(name.encode()).digest())
    count = max(1, round(part * len(order)))
    if count >= len(order):
        raise InputError(f"{dataset.title} has {len(order)} pictures, too few to hold {part:g} of them out")
    held = np.isin(pictures, order[:count])
    return dataset.part(np.flatnonzero(~held)), dataset.part(np.flatnonzero(held))


def faces_of(dataset: Dataset, limit: int | None = None) -> LandmarkFaces:
    """Read a data set for training; five points that it does not have are taken from its landmarks.

    Raises InputError naming the first face that has a point which is not finite.
    """
    samples = dataset.samples[:limit]
    points = np.stack([sample.points for sample in samples])
    derived = markups.convert(points, dataset.info.markup, "kps5")
    own = [five if sample.kps5 is None else sample.kps5 for sample, five in zip(samples, derived, strict=True)]
    for sample, five in zip(samples, own, strict=True):
        if not (np.isfinite(sample.points).all() and np.isfinite(five).all()):
            raise InputError(f"{dataset.title}: a point of {sample.name} is not finite")
    every = np.ones(points.shape[1], bool)
    return LandmarkFaces(
        _Pictures(samples),
        [sample.name for sample in samples],
        np.stack(own).astype(np.float32),
        points,
        np.stack([every if sample.known is None else sample.known for sample in samples]),
        np.ones(len(samples)),
    )


class _Joined(Sequence[NDArray[np.uint8]]):
    """The pictures of several data sets, one after the other."""

    def __init__(self, parts: Sequence[Sequence[NDArray[np.uint8]]]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: Any) -> Any:
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part][index - (int(self.ends[part - 1]) if part else 0)]


def joined(parts: Sequence[LandmarkFaces]) -> LandmarkFaces:
    """The faces of data sets of the same points, one after the other, each as often drawn as any other."""
    if len(parts) == 1:
        return parts[0]
    return LandmarkFaces(
        _Joined([part.images for part in parts]),
        [name for part in parts for name in part.names],
        *(np.concatenate([getattr(part, key) for part in parts]) for key in ("kps", "points", "known", "weights")),
    )


def mixed(parts: Sequence[tuple[LandmarkFaces, float]]) -> LandmarkFaces:
    """The faces of several data sets with the weight of each, what surrounds each face held in memory."""
    images, names, kps, points, known, weights = [], [], [], [], [], []
    for faces, weight in parts:
        for index in range(len(faces)):
            image, corner = _surroundings(faces.images[index], faces.points[index])
            images.append(image)
            names.append(faces.names[index])
            kps.append(faces.kps[index] - corner)
            points.append(faces.points[index] - corner)
            known.append(faces.known[index])
            weights.append(weight)
    return LandmarkFaces(images, names, np.stack(kps), np.stack(points), np.stack(known), np.array(weights))


def _surroundings(
    image: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The part of a picture that a crop of the face may show, and its top-left corner (2,)."""
    low, high = points.min(0), points.max(0)
    half = REACH * (high - low).max()
    start = np.maximum(np.floor((low + high) / 2 - half), 0).astype(int)
    end = np.ceil((low + high) / 2 + half).astype(int) + 1
    return np.ascontiguousarray(image[start[1] : end[1], start[0] : end[0]]), start.astype(np.float32)


@dataclass(slots=True)
class Frame:
    """A picture's JPEG bytes and the faces in it, pixels of the stored picture."""

    name: str
    jpeg: bytes = field(repr=False)
    boxes: NDArray[np.float32]  # (k, 4) xyxy
    scores: NDArray[np.float32]  # (k,)
    kps: NDArray[np.float32]  # (k, 5, 2)

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR."""
        return decoded(self.jpeg, self.name)


def without_drawing(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``image`` with pure green lines painted over: a detector must not take the box for the face."""
    blue, green, red = cv2.split(image.astype(np.int16))
    mask = (green - np.maximum(blue, red) > 10).astype(np.uint8)
    return cv2.inpaint(image, cv2.dilate(mask, np.ones((3, 3), np.uint8)), 3, cv2.INPAINT_TELEA)  # type: ignore[return-value]


def same_face(
    kps: NDArray[np.float32],  # (..., 5, 2)
    points: NDArray[np.float32],  # (..., L, 2)
    markup: str,
) -> NDArray[np.bool_]:  # (...,)
    """Whether five points belong to the landmarks; in a few pictures the detector took another face."""
    distance = np.linalg.norm(markups.convert(points, markup, "kps5") - kps, axis=-1).mean(-1)
    return np.asarray(distance < SAME_FACE * np.ptp(points, axis=-2).max(-1))


def detection_frames(folder: str | Path, split: Split) -> list[Frame]:
    """The whole pictures of ``split`` with every detection of the teacher, doubtful ones included.

    Raises InputError naming the line of labels.jsonl that is not of a frame.
    """
    archive = check_folder(folder, ("frames.zip",)) / "frames.zip"
    frames = labelled_frames(archive, split)
    for frame, jpeg in zip(frames, _records(archive, [frame.name for frame in frames]), strict=True):
        frame.jpeg = jpeg
    for frame in frames:
        if frame.name.startswith(DRAWN_ON):
            frame.jpeg = cv2.imencode(".jpg", without_drawing(frame.image()))[1].tobytes()
    return frames


def labelled_frames(archive: Path, split: Split) -> list[Frame]:
    """The labels of :func:`detection_frames`, without the pictures. Raises InputError."""
    lines = _records(archive, ["labels.jsonl"])[0].splitlines()
    found = [
        _frame(line, f"{archive}: labels.jsonl, line {number}", split) for number, line in enumerate(lines, start=1)
    ]
    return [frame for frame in found if frame is not None]


def _records(archive: Path, names: Sequence[str]) -> list[bytes]:
    """Files of a zip. Raises InputError where it is damaged or lacks one."""
    try:
        with zipfile.ZipFile(archive) as file:
            return [file.read(name) for name in names]
    except Exception as error:  # as in archives.read_zipped
        raise InputError(f"{archive} cannot be read; it is damaged or lacks a file ({error})") from error


def _frame(line: bytes, where: str, split: str) -> Frame | None:
    """The frame of a line of labels, without its picture; None where it is of another split. Raises InputError."""
    try:
        entry = json.loads(line)
        name, of_split = entry["image"], entry["split"]
        with np.errstate(over="ignore"):  # infinite then
            boxes, scores, kps = (np.array(entry[key], np.float32) for key in ("boxes", "scores", "kps5"))
        frame = Frame(name, b"", boxes.reshape(-1, 4), scores.reshape(-1), kps.reshape(-1, 5, 2))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{where}: not a frame with image, split, boxes, scores and kps5 ({error!r})") from error
    numbers = (frame.boxes, frame.scores, frame.kps)
    if not isinstance(name, str) or not all(
        len(one) == len(frame.scores) and np.isfinite(one).all() for one in numbers
    ):
        raise InputError(f"{where}: not a name, and as many boxes, scores and five points of finite numbers")
    return frame if of_split == split else None


def shuffled(items: NDArray[np.int64], seed: int, step: int, batch: int) -> NDArray[np.int64]:
    """The ``batch`` items of a step when each epoch is one shuffled pass: a function of its arguments alone."""
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // len(items)
    orders = {int(e): np.random.default_rng([seed, int(e)]).permutation(items) for e in np.unique(epochs)}
    return np.array([orders[int(e)][p % len(items)] for e, p in zip(epochs, positions, strict=True)])


def drawn(weights: NDArray[np.float64], seed: int, step: int, batch: int) -> NDArray[np.int64]:
    """The ``batch`` items of a step, drawn in proportion to ``weights``: a function of its arguments alone."""
    rng = np.random.default_rng([seed, step])
    return np.asarray(rng.choice(len(weights), batch, p=weights / weights.sum()), np.int64)
