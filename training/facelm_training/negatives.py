"""Pictures without a face, and what a detector takes for one in them: the crops that a landmarker must not believe.

A folder of pictures, split by their names: ``train``, ``calibration`` and, never trained or calibrated on, ``test``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facelm_sdk import Detector
from facelm_sdk.errors import InputError
from facelm_sdk.images.header import SUFFIXES
from facelm_sdk.transform import CropRecipe
from facelm_sdk.types import ImageArray

from .archives import read_zipped
from .augment import any_square
from .data import Frame, labelled_frames
from .datasets.base import read_stored

Part = Literal["test", "calibration", "train"]
SHARES: Mapping[Part, float] = {"test": 0.3, "calibration": 0.2, "train": 0.5}
LOW = 0.1
"""Score from which a detection is a false face to learn from, far below any threshold that is used."""
PIECES = 4
"""Pieces of a picture that are searched as pictures of their own: each shows the detector other false faces."""


def part_of(name: str) -> Part:
    """The part that a picture is in, by its name alone."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    for part, share in SHARES.items():
        place -= share
        if place < 0:
            return part
    return "train"


def read_negatives(folder: Path, part: Part) -> dict[str, ImageArray]:
    """The pictures (H, W, 3) uint8 BGR of a part by name. Raises InputError where the folder has none, ImageError."""
    return {path.name: read_stored(path) for path in _paths(folder, part)}


def _paths(folder: Path, part: Part) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not any(part_of(path.name) == part for path in paths):
        raise InputError(f"{folder} has no pictures without a face for {part} (of {len(paths)} in all)")
    return [path for path in paths if part_of(path.name) == part]


def empty_frames(folder: Path, part: Part) -> list[Frame]:
    """The pictures of a part as frames without a face. Raises InputError where the folder has none."""
    none = np.zeros((0, 4), np.float32)
    return [
        Frame(path.name, path.read_bytes(), none, none[:, 0], none.reshape(0, 5, 2)) for path in _paths(folder, part)
    ]


def read_scenes(archive: Path) -> list[ImageArray]:
    """The scenes of the training frames in which no face is labelled; [] without that file."""
    if not archive.is_file():
        return []
    frames = labelled_frames(archive, "train")
    return list(
        read_zipped(archive, [one.name for one in frames if one.name.startswith("bsds") and not len(one.boxes)])
    )


def false_faces(image: ImageArray, detector: Detector, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Five points (5, 2) of all that ``detector`` takes for a face, in the picture and in pieces of it."""
    found = list(detector(image).kps)
    height, width = image.shape[:2]
    for _ in range(PIECES):
        part = rng.uniform(0.35, 0.8)
        w, h = max(32, round(part * width)), max(32, round(part * height))
        x, y = int(rng.integers(0, max(1, width - w))), int(rng.integers(0, max(1, height - h)))
        offset = np.array([x, y], np.float32)
        found += [kps + offset for kps in detector(np.ascontiguousarray(image[y : y + h, x : x + w])).kps]
    return found


@dataclass(frozen=True)
class Negatives:
    """Where crops without a face come from: ``images``, and ``false`` (index of the picture, five points) in them.

    ``scenes`` give random crops only: an unlabelled face may stand small in them.
    """

    images: Sequence[ImageArray]
    false: Sequence[tuple[int, NDArray[np.float32]]]
    scenes: Sequence[ImageArray] = ()

    @classmethod
    def of(cls, images: Sequence[ImageArray], detector: Detector, scenes: Sequence[ImageArray] = ()) -> Negatives:
        """Search ``images`` for false faces; ``detector`` should have a low threshold."""
        rng = np.random.default_rng(0)
        false = [(i, kps) for i, image in enumerate(images) for kps in false_faces(image, detector, rng)]
        return cls(images, false, scenes)

    def false_face(self, index: int, recipe: CropRecipe, rng: np.random.Generator, noise: float) -> ImageArray:
        """The crop of a false face, its five points moved by ``noise`` of their eye distance."""
        where, kps = self.false[index]
        eyes = float(np.linalg.norm(kps[0] - kps[1]))
        moved = kps + rng.normal(0, noise * max(eyes, 1.0), kps.shape)
        transform = recipe.transform(kps=moved, box=np.concatenate([moved.min(0) - eyes, moved.max(0) + eyes]))
        return transform.warp(self.images[where])

    def anything(self, size: int, rng: np.random.Generator) -> ImageArray:
        """A crop of any place, scale and angle."""
        every = len(self.images) + len(self.scenes)
        index = int(rng.integers(every))
        image = self.images[index] if index < len(self.images) else self.scenes[index - len(self.images)]
        return any_square(image, size, rng, rng.normal(0, np.deg2rad(20)), (0.12, 1.1), 0.15)


def misplaced(matrix: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The matrix (2, 3) of a crop that misses the face of ``matrix``: moved away, or off in scale by more than 2.2.

    What lies between this and a well-placed crop is neither a face nor none.
    """
    zoom, shift = 1.0, np.zeros(2)
    draw, angle = rng.random(), rng.uniform(0, 2 * np.pi)
    away = np.array([np.cos(angle), np.sin(angle)])
    if draw < 0.45:
        shift = away * rng.uniform(0.6, 1.0) * size
    elif draw < 0.75:
        zoom = float(np.exp(rng.uniform(np.log(2.2), np.log(4.0))))
        shift = away * rng.uniform(0, 0.35) * zoom * size
    else:
        zoom = float(np.exp(-rng.uniform(np.log(2.2), np.log(4.0))))
        shift = away * rng.uniform(0, 0.3) * size
    centre = (size - 1) / 2
    return np.concatenate([zoom * matrix[:, :2], (zoom * (matrix[:, 2] - centre) + centre + shift)[:, None]], 1)
