"""Readers of the project's training data (its README describes the files)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm_sdk import markup as markups
from facelm_sdk.errors import ImageError, InputError

if TYPE_CHECKING:
    from .datasets import Dataset, Sample

Split = Literal["train", "val"]
DRAWN_ON = "lfw_"  # pictures with a green box and landmark dots drawn into them
FILES = ("landmarks68.npz", "landmarks68.zip", "landmarks68_clean.npz", "mesh478.npz", "frames.zip")


def check_folder(folder: str | Path) -> Path:
    """``folder`` as a Path. Raises InputError naming the files it lacks."""
    path = Path(folder)
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise InputError(f"{path} is not the training data folder; it lacks {', '.join(missing)}")
    return path


@dataclass(slots=True)
class LandmarkFaces:
    """Faces with landmarks: pictures (H, W, 3) uint8 BGR, five points as the detector reports them, 68 points.

    ``points`` is the cleaned label, ``original`` the annotator's own (NaN where there is none). ``disagreement`` is the
    distance between the two in percent of the eye distance (NaN where there is one only).
    """

    images: Sequence[NDArray[np.uint8]]
    names: list[str]
    kps: NDArray[np.float32]  # (n, 5, 2)
    points: NDArray[np.float32]  # (n, 68, 2)
    original: NDArray[np.float32]  # (n, 68, 2)
    disagreement: NDArray[np.float32]  # (n,)

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


def faces_of(dataset: Dataset, limit: int | None = None) -> LandmarkFaces:
    """A public data set for training; five points that it does not have are taken from its landmarks."""
    samples = dataset.samples[:limit]
    points = np.stack([sample.points for sample in samples])
    derived = markups.convert(points, dataset.info.markup, "kps5")
    own = [five if sample.kps5 is None else sample.kps5 for sample, five in zip(samples, derived, strict=True)]
    return LandmarkFaces(
        _Pictures(samples),
        [sample.name for sample in samples],
        np.stack(own).astype(np.float32),
        points,
        points,
        np.zeros(len(samples), np.float32),
    )


def _read(archive: Path, names: list[str]) -> list[NDArray[np.uint8]]:
    with zipfile.ZipFile(archive) as file:
        blobs = [file.read(name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda blob: cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR), blobs))
    for name, image in zip(names, images, strict=True):
        if image is None:
            raise ImageError(f"{archive.name}: {name} is not a readable picture")
    return images  # type: ignore[return-value]


def landmark_faces(folder: str | Path, split: Split, *, frames: bool = True, limit: int | None = None) -> LandmarkFaces:
    """The faces of ``split`` that have a cleaned label: landmarks68 and, with ``frames``, the web pictures.

    The lfw pictures have an annotator's 68 dots drawn into their pixels, which a network would learn to find instead of
    faces, so they serve detection only.
    """
    path = check_folder(folder)
    crops, clean, mesh = (np.load(path / name) for name in ("landmarks68.npz", "landmarks68_clean.npz", "mesh478.npz"))
    keep = (crops["split"] == split) & np.isfinite(clean["crop_points"]).all((1, 2))
    chosen = np.flatnonzero(keep)[:limit]
    names = crops["name"][chosen].tolist()
    faces = LandmarkFaces(
        _read(path / "landmarks68.zip", names),
        names,
        crops["kps5"][chosen],
        clean["crop_points"][chosen],
        crops["points"][chosen],
        clean["crop_disagreement"][chosen],
    )
    if frames:
        keep = (mesh["frame_split"] == split) & np.isfinite(clean["frame_points"]).all((1, 2))
        chosen = np.flatnonzero(keep & ~np.char.startswith(clean["frame_name"], DRAWN_ON))[:limit]
        names = clean["frame_name"][chosen].tolist()
        points = clean["frame_points"][chosen].astype(np.float32)
        faces.images = [*faces.images, *_read(path / "frames.zip", names)]
        faces.names += names
        faces.kps = np.concatenate([faces.kps, mesh["frame_kps5"][chosen]]).astype(np.float32)
        faces.points = np.concatenate([faces.points, points])
        faces.original = np.concatenate([faces.original, np.full_like(points, np.nan)])
        faces.disagreement = np.concatenate([faces.disagreement, np.full(len(names), np.nan, np.float32)])
    return faces


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
        decoded = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise ImageError(f"{self.name} is not a readable picture")
        return decoded  # type: ignore[return-value]


def without_drawing(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``image`` with pure green lines painted over: a detector must not take the box for the face."""
    blue, green, red = cv2.split(image.astype(np.int16))
    mask = (green - np.maximum(blue, red) > 10).astype(np.uint8)
    return cv2.inpaint(image, cv2.dilate(mask, np.ones((3, 3), np.uint8)), 3, cv2.INPAINT_TELEA)  # type: ignore[return-value]


def detection_frames(folder: str | Path, split: Split) -> list[Frame]:
    """The whole pictures of ``split`` with every detection of the teacher, doubtful ones included."""
    with zipfile.ZipFile(check_folder(folder) / "frames.zip") as file:
        entries = [json.loads(line) for line in file.read("labels.jsonl").splitlines()]
        frames = [
            Frame(
                entry["image"],
                file.read(entry["image"]),
                np.array(entry["boxes"], np.float32).reshape(-1, 4),
                np.array(entry["scores"], np.float32).reshape(-1),
                np.array(entry["kps5"], np.float32).reshape(-1, 5, 2),
            )
            for entry in entries
            if entry["split"] == split
        ]
    for frame in frames:
        if frame.name.startswith(DRAWN_ON):
            frame.jpeg = cv2.imencode(".jpg", without_drawing(frame.image()))[1].tobytes()
    return frames


def shuffled(items: NDArray[np.int64], seed: int, step: int, batch: int) -> NDArray[np.int64]:
    """The ``batch`` items of a step when each epoch is one shuffled pass: a function of its arguments alone."""
    positions = np.arange(step * batch, (step + 1) * batch)
    epochs = positions // len(items)
    orders = {int(e): np.random.default_rng([seed, int(e)]).permutation(items) for e in np.unique(epochs)}
    return np.array([orders[int(e)][p % len(items)] for e, p in zip(epochs, positions, strict=True)])
