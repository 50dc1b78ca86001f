"""Real inputs of a model, to calibrate and to compare on: crops or pictures with faces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm_sdk import Aligner
from facelm_sdk import markup as markups
from facelm_sdk.contract import LandmarkSpec, ModelSpec
from facelm_sdk.detector import Detections
from facelm_sdk.errors import InputError
from facelm_sdk.files import is_folder
from facelm_sdk.images.folder import expand, told_of_none
from facelm_sdk.images.read import read_image
from facelm_sdk.interop import pts
from facelm_sdk.transform import CropTransform
from facelm_sdk.types import ImageArray

ASSETS = Path(__file__).parents[1] / "assets"
PICTURE = ASSETS / "collins.jpg"
"""NASA's portrait of Eileen Collins (public domain)."""
PICTURE_KPS = np.array([[200.0, 101.0], [247.0, 103.0], [225.0, 124.0], [206.0, 144.0], [242.0, 143.0]])
PICTURE_BOX = np.array([171.0, 66.0, 274.0, 187.0])
SECOND = ASSETS / "hopper.jpg"
"""The US Navy's portrait of Grace Hopper by James S. Davis (public domain)."""
SECOND_KPS = np.array([[222.0, 197.0], [303.0, 193.0], [262.0, 242.0], [232.0, 283.0], [300.0, 282.0]])
SECOND_BOX = np.array([179.0, 115.0, 355.0, 340.0])

MOST = 128
"""Inputs taken of a folder for each purpose."""
VARIED = 96
"""Crops to calibrate on that are made of the two portraits."""


@dataclass(frozen=True)
class Samples:
    """``inputs``: what one run is fed with each, crops uint8 (n, S, S, 3) or a picture (1, H, W, 3), BGR.

    ``calibration``: the same of other crops or pictures, for int8. ``labels``: the true points of all crops of
    ``inputs``, in order, float (n, L, 2) in crop pixels, where they are known.
    """

    inputs: list[NDArray[np.uint8]]
    calibration: list[NDArray[np.uint8]] = field(default_factory=list)
    labels: NDArray[Any] | None = None


def read_samples(folder: str | os.PathLike[str] | None, spec: ModelSpec) -> Samples:
    """The samples of a folder's pictures, or those that come with the package.

    Every other face or picture of a folder is to calibrate on, the rest to compare on, at most MOST each. Faces are
    found by the embedded detector; where ``NAME.pts`` (iBUG's format: (x, y) counted from 1) lies beside every picture
    ``NAME.jpg``, with as many points as the markup has, its face is the one cut, and the points are its labels.

    Raises InputError where there is no folder, no picture, or no face in any.
    """
    if folder is not None:
        return _crops_of(folder, spec) if isinstance(spec, LandmarkSpec) else _pictures_of(folder)
    if isinstance(spec, LandmarkSpec):
        return Samples([portrait_crops(spec)], [varied_crops(spec)] if spec.precision == "int8" else [])
    return Samples(portraits(), varied_portraits() if spec.precision == "int8" else [])


def portrait_crops(spec: LandmarkSpec, count: int = 24) -> NDArray[np.uint8]:
    """Crops (count, S, S, 3) uint8 BGR of the portrait, its five points or box moved as a detector's noise would."""
    rng = np.random.default_rng(0)
    image = read_image(PICTURE)
    crops = []
    for i in range(count):
        kps = PICTURE_KPS + rng.normal(0, 2.0, (5, 2))
        box = PICTURE_BOX + rng.normal(0, 4.0, 4)
        crop = spec.crop.of_detection(spec.markup, box, kps).warp(image)
        crops.append(np.ascontiguousarray(crop[:, ::-1]) if i % 2 else crop)
    return np.stack(crops)


def portraits() -> list[NDArray[np.uint8]]:
    """The portrait at three sizes, each (1, H, W, 3) uint8 BGR."""
    import cv2

    image = read_image(PICTURE)
    return [np.asarray(cv2.resize(image, size), np.uint8)[None] for size in ((512, 512), (333, 251), (640, 480))]


def varied_crops(spec: LandmarkSpec, count: int = VARIED) -> NDArray[np.uint8]:
    """Crops (count, S, S, 3) uint8 BGR of two portraits, turned, scaled, lit, blurred and covered as in use."""
    rng = np.random.default_rng(1)
    faces = [(read_image(PICTURE), PICTURE_KPS, PICTURE_BOX), (read_image(SECOND), SECOND_KPS, SECOND_BOX)]
    crops = []
    for i in range(count):
        image, kps, box = faces[i % 2]
        unit = (box[2] - box[0]) / 100
        transform = spec.crop.of_detection(
            spec.markup, box + rng.normal(0, 4.0 * unit, 4), kps + rng.normal(0, 2.0 * unit, (5, 2))
        )
        crops.append(_varied(_turned(transform, rng).warp(image), rng))
    return np.stack(crops)


def varied_portraits(count: int = 24) -> list[NDArray[np.uint8]]:
    """The two portraits in many sizes and lights, each (1, H, W, 3) uint8 BGR."""
    import cv2

    rng = np.random.default_rng(1)
    images = [read_image(PICTURE), read_image(SECOND)]
    pictures = []
    for i in range(count):
        image = images[i % 2]
        scale = rng.uniform(160, 640) / max(image.shape[:2])
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        pictures.append(_varied(np.asarray(resized, np.uint8), rng)[None])
    return pictures


def _turned(transform: CropTransform, rng: np.random.Generator) -> CropTransform:
    """Turned by up to 30 degrees and scaled by up to 15% around the crop's centre."""
    angle, zoom = np.deg2rad(rng.uniform(-30, 30)), rng.uniform(0.87, 1.15)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.full(2, (transform.size - 1) / 2)
    matrix = turn @ transform.matrix
    matrix[:, 2] += centre - turn @ centre
    return CropTransform(matrix, transform.size)


def _varied(image: ImageArray, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another light, and by chance a mirror image, grey, blurred, noisy or partly covered."""
    import cv2

    values: NDArray[Any] = image.astype(np.float32)
    if rng.random() < 0.5:
        values = values[:, ::-1]
    if rng.random() < 0.2:
        values = np.repeat(values.mean(-1, keepdims=True), 3, -1)
    values = (values - 127) * rng.uniform(0.5, 1.3) + 127 + rng.uniform(-70, 60)
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(np.ascontiguousarray(values), (0, 0), float(rng.uniform(0.5, 3)))
    if rng.random() < 0.3:
        values = values + rng.normal(0, rng.uniform(2, 15), values.shape)
    if rng.random() < 0.3:
        height, width = values.shape[:2]
        top, left = int(rng.integers(height)), int(rng.integers(width))
        values[top : top + height // 3, left : left + width // 3] = rng.uniform(0, 255, 3)
    return np.ascontiguousarray(values.clip(0, 255).astype(np.uint8))


def _pictures(folder: str | os.PathLike[str]) -> list[Path]:
    if not is_folder(folder):
        raise InputError(f"there is no folder {os.fspath(folder)} with pictures to calibrate on")
    paths = [item.path for item in expand([os.fspath(folder)])[0]]
    if not paths:
        raise InputError(told_of_none([os.fspath(folder)]))
    if len(paths) < 2:
        raise InputError(f"{os.fspath(folder)} holds one picture; calibrating needs at least 2")
    return paths


def _pictures_of(folder: str | os.PathLike[str]) -> Samples:
    found = [_fitted(read_image(path))[None] for path in _pictures(folder)[: 2 * MOST]]
    return Samples(found[1::2], found[::2])


def _fitted(image: ImageArray, longest: int = 640) -> ImageArray:
    """The picture at a detector's usual size."""
    import cv2

    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _crops_of(folder: str | os.PathLike[str], spec: LandmarkSpec) -> Samples:
    paths = _pictures(folder)
    labelled = all(path.with_suffix(".pts").is_file() for path in paths)
    crops, labels = [], []
    for crop, points in _faces(paths, spec, labelled=labelled):
        crops.append(crop)
        labels.append(points)
        if len(crops) == 2 * MOST:
            break
    if len(crops) < 2:
        raise InputError(f"{os.fspath(folder)} shows {len(crops)} faces; calibrating needs at least 2")
    compared = np.stack([points for points in labels[1::2] if points is not None]) if labelled else None
    return Samples([np.stack(crops[1::2])], [np.stack(crops[::2])], compared)


def _faces(
    paths: list[Path], spec: LandmarkSpec, *, labelled: bool
) -> Iterator[tuple[ImageArray, NDArray[Any] | None]]:
    """Of every face a crop and its points, (L, 2) in crop pixels."""
    aligner = Aligner()
    for path in paths:
        picture = read_image(path)
        found = Detections.of_faces(aligner(picture))
        points = read_pts(path.with_suffix(".pts"), spec) if labelled else None
        if points is not None:
            found = _inside(found, points)
        for box, kps in zip(found.boxes, found.kps, strict=True):
            transform = spec.crop.of_detection(spec.markup, box, kps)
            yield transform.warp(picture), None if points is None else transform.apply(points)


def _inside(found: Detections, points: NDArray[np.float64]) -> Detections:
    """The detection with most of the labelled points inside, if it holds half of them."""
    inside = (points >= found.boxes[:, None, :2]) & (points <= found.boxes[:, None, 2:])
    share = inside.all(-1).mean(-1) if len(found) else np.zeros(0)
    return found.select([int(share.argmax())] if share.max(initial=0) >= 0.5 else [])


def read_pts(path: Path, spec: LandmarkSpec) -> NDArray[np.float64]:
    """The points of an iBUG .pts file, (L, 2) with pixel centres at whole numbers. Raises InputError."""
    count = markups.get(spec.markup).num_points
    points = pts.read_points(path)
    if len(points) != count:
        raise InputError(f"{path} has {len(points)} points, but the markup {spec.markup} has {count}")
    return points
