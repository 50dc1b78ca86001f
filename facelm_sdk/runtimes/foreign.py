"""Other people's ONNX files, which have no contract inside: recognised by the signature of their graph.

insightface's SCRFD detectors and ``2d106det`` landmarks, and RetinaFace as Pytorch_Retinaface exports it. Each adapter
says what the contract would, and does what an exported graph of ours does inside: pixels, decoding, suppression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._optional import load_cv2
from ..boxes import merge
from ..contract import DetectorSpec, LandmarkSpec, ModelSpec, Tensors
from ..interop.insightface import from_insightface_106
from ..transform import CropRecipe

Floats = NDArray[np.float32]
Infer = Callable[[Floats], list[Floats]]
"""The graph: its one input to its outputs, in the file's order."""

ACCEPTED = "insightface's SCRFD detectors and 2d106det, and RetinaFace with outputs for boxes, scores and points"

SCORE_FLOOR = 0.05
MAX_IOU = 0.4
DET_THRESH = 0.5
LICENCE = "not stated in the file: its publisher's"
RETINAFACE_SIDES = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
"""The stride of each level of RetinaFace and the sides of its priors, pixels."""


class Adapter(Protocol):
    """A graph of others as a model of ours."""

    @property
    def spec(self) -> ModelSpec:
        """What its contract would be."""

    def run(self, infer: Infer, feeds: Mapping[str, NDArray[Any]]) -> list[Floats]:
        """The outputs of the contract, for its inputs."""


def adapter_of(found: Tensors, name: str, model: bytes) -> Adapter | None:
    """The adapter for a graph of these inputs and outputs, None where it is none that is known.

    ``model``, the file, tells whether the graph normalises pixels itself, as insightface finds out too.
    """
    images = list(found.inputs.values())
    if len(images) != 1 or images[0].dtype != "float32" or len(images[0].shape or ()) != 4:
        return None
    batch, channels, *sides = images[0].shape or ()
    lasts = tuple(tensor.shape[-1] if tensor.shape else None for tensor in found.outputs.values())
    if isinstance(channels, int) and channels != 3:
        return None
    frame = _frame(sides)
    levels = len(lasts) // 3
    if levels in (3, 5) and lasts == (1,) * levels + (4,) * levels + (10,) * levels:
        return Scrfd(name, levels, frame, normalises=_normalises(model))
    if sorted(map(str, lasts)) == ["10", "2", "4"]:
        order = [lasts.index(size) for size in (4, 2, 10)]
        return RetinaFace(name, order, frame)
    if lasts == (212,) and frame == (192, 192):
        return Landmarks106(name, one_by_one=batch == 1, normalises=_normalises(model))
    return None


class Scrfd:
    """insightface's SCRFD and RetinaFace graphs: a score, a box and five points an anchor, at 3 or 5 strides.

    Guo et al. 2021, "Sample and Computation Redistribution for Efficient Face Detection". A box is the distances to its
    sides and a point the offset from the anchor's centre, both in strides.
    """

    def __init__(self, name: str, levels: int, frame: tuple[int, int] | None, *, normalises: bool) -> None:
        self.spec = DetectorSpec(name=name, det_thresh=DET_THRESH, licence=LICENCE, created_by="insightface's SCRFD")
        self.strides = tuple(8 << level for level in range(levels))
        self.anchors = 2 if levels == 3 else 1
        self.frame, self.normalises = frame, normalises

    def run(self, infer: Infer, feeds: Mapping[str, NDArray[Any]]) -> list[Floats]:
        """``boxes``, ``scores`` and ``kps`` of an ``image`` (1, H, W, 3) uint8 BGR."""
        image, scale = _framed(feeds["image"][0], self.frame, self.strides[-1])
        outputs = infer(_planes(image[None, ..., ::-1], 127.5, 128.0, self.normalises))
        height, width = image.shape[:2]
        found: list[tuple[NDArray[Any], ...]] = []
        for level, stride in enumerate(self.strides):
            score, distances, offsets = (
                output.reshape(-1, size)
                for output, size in zip(outputs[level :: len(self.strides)], (1, 4, 10), strict=True)
            )
            y, x = np.mgrid[: height // stride, : width // stride]
            centres = np.repeat(np.stack([x, y], -1).reshape(-1, 2) * stride, self.anchors, axis=0)
            sides = np.concatenate([centres, centres], 1) + distances * stride * (-1, -1, 1, 1)
            found.append((sides, score[:, 0], centres[:, None] + offsets.reshape(-1, 5, 2) * stride))
        boxes, scores, kps = (np.concatenate(part) for part in zip(*found, strict=True))
        return _suppressed(boxes, scores, kps, scale)


class RetinaFace:
    """RetinaFace as github.com/biubug6/Pytorch_Retinaface exports it: encoded boxes, scores and points of all priors.

    Deng et al. 2019. Variances are 0.1 and 0.2; ``order`` is where boxes, scores and points stand among the outputs.
    """

    def __init__(self, name: str, order: list[int], frame: tuple[int, int] | None) -> None:
        self.spec = DetectorSpec(name=name, det_thresh=DET_THRESH, licence=LICENCE, created_by="Pytorch_Retinaface")
        self.order, self.frame = order, frame

    def run(self, infer: Infer, feeds: Mapping[str, NDArray[Any]]) -> list[Floats]:
        """``boxes``, ``scores`` and ``kps`` of an ``image`` (1, H, W, 3) uint8 BGR."""
        image, scale = _framed(feeds["image"][0], self.frame, 32)
        outputs = infer(_planes(image[None], np.array([104, 117, 123], np.float32), 1.0, normalises=False))
        boxes, classes, points = (
            outputs[index].reshape(-1, size) for index, size in zip(self.order, (4, 2, 10), strict=True)
        )
        if np.abs(classes.sum(1) - 1).max(initial=0) > 1e-2:  # exported without its softmax
            classes = np.exp(classes - classes.max(1, keepdims=True))
            classes /= classes.sum(1, keepdims=True)
        priors = np.concatenate(list(_priors(*image.shape[:2])))
        centres, sides = priors[:, :2], priors[:, 2:]
        middle = centres + boxes[:, :2] * 0.1 * sides
        half = sides * np.exp(np.minimum(boxes[:, 2:] * 0.2, 10)) / 2
        kps = centres[:, None] + points.reshape(-1, 5, 2) * 0.1 * sides[:, None]
        return _suppressed(np.concatenate([middle - half, middle + half], 1), classes[:, 1], kps, scale)


class Landmarks106:
    """insightface's ``2d106det``: 106 points of a square of 1.5 times the longer side of the detector's box.

    The points are those of jd106 in another order, in which they are put.
    """

    def __init__(self, name: str, *, one_by_one: bool, normalises: bool) -> None:
        recipe = CropRecipe(size=192, kind="box", side="max", scale=1.5)
        by = "insightface's 2d106det"
        self.spec = LandmarkSpec(
            name=name, markup="jd106", num_landmarks=106, crop=recipe, licence=LICENCE, created_by=by
        )
        self.one_by_one, self.normalises = one_by_one, normalises

    def run(self, infer: Infer, feeds: Mapping[str, NDArray[Any]]) -> list[Floats]:
        """``landmarks`` of ``crops`` (n, 192, 192, 3) uint8 BGR."""
        pixels = _planes(feeds["crops"][..., ::-1], 127.5, 128.0, self.normalises)
        batches = np.split(pixels, len(pixels)) if self.one_by_one and len(pixels) else [pixels]
        points = np.concatenate([infer(batch)[0] for batch in batches]) if len(pixels) else np.empty((0, 212))
        return [from_insightface_106((points.reshape(-1, 106, 2) + 1) * (192 // 2))]


def _frame(sides: list[Any]) -> tuple[int, int] | None:
    """The (width, height) that a graph takes, None where it is open."""
    height, width = sides
    return (width, height) if isinstance(height, int) and isinstance(width, int) else None


def _framed(
    image: NDArray[np.uint8], frame: tuple[int, int] | None, stride: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A picture (H, W, 3) with black at its right and lower side, and what its sides (2,) were multiplied by to fit.

    Open graphs take whole strides, others their frame.
    """
    height, width = image.shape[:2]
    size = width, height
    if frame is not None and (width > frame[0] or height > frame[1]):
        scale = min(frame[0] / width, frame[1] / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        cv2 = load_cv2()
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    right, bottom = frame or tuple(math.ceil(side / stride) * stride for side in size)
    canvas = np.zeros((bottom, right, 3), np.uint8)
    canvas[: size[1], : size[0]] = image
    return canvas, np.array([size[0] / width, size[1] / height])


def _planes(images: NDArray[Any], mean: Any, std: float, normalises: bool) -> Floats:
    """Pictures (n, H, W, 3) as (n, 3, H, W), normalised where the graph does not do it."""
    pixels = images.astype(np.float32)
    if not normalises:
        pixels = (pixels - mean) / std
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)


def _priors(height: int, width: int) -> Iterator[NDArray[np.float64]]:
    """The priors (p, 4) of each level: centre x and y, width and height, pixels."""
    for stride, sides in RETINAFACE_SIDES:
        y, x = (np.mgrid[: math.ceil(height / stride), : math.ceil(width / stride)] + 0.5) * stride
        centres = np.repeat(np.stack([x, y], -1).reshape(-1, 2), len(sides), axis=0)
        yield np.concatenate([centres, np.tile(np.repeat(sides, 2).reshape(-1, 2), (x.size, 1))], 1)


def _suppressed(boxes: NDArray[Any], scores: NDArray[Any], kps: NDArray[Any], scale: NDArray[Any]) -> list[Floats]:
    """The best of overlapping boxes (k, 4), their scores (k,) and points (k, 5, 2), in pixels of the picture."""
    likely = np.flatnonzero(scores > SCORE_FLOOR)
    kept = likely[merge(boxes[likely], scores[likely], max_iou=MAX_IOU, max_contained=1.0)]

    def pixels(values: NDArray[Any]) -> Floats:
        return np.asarray(((values + 0.5) / scale - 0.5), np.float32)

    return [pixels(boxes[kept].reshape(-1, 2, 2)).reshape(-1, 4), scores[kept].astype(np.float32), pixels(kps[kept])]


def _normalises(model: bytes) -> bool:
    """Whether a graph begins with the normalisation of its pixels: a subtraction and a multiplication, or bn_data."""
    names = [name for _, name in zip(range(8), _nodes(memoryview(model)), strict=False)]
    subtracts, multiplies = (
        any(name.startswith(start) for name in names) for start in (("Sub", "_minus"), ("Mul", "_mul"))
    )
    return (subtracts and multiplies) or "bn_data" in names[:3]


def _nodes(model: memoryview) -> Iterator[str]:
    """The names of a graph's nodes, in order."""
    for graph in _entries(model, 7):
        for node in _entries(graph, 1):
            yield b"".join(_entries(node, 3)).decode("utf-8", "replace")


def _entries(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The texts and messages of a protobuf message that have one number; nothing more where it is damaged."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind, size = key & 7, 0
        if kind == 0:
            _, place = _varint(message, place)
        elif kind == 2:
            size, place = _varint(message, place)
            if key >> 3 == wanted:
                yield message[place : place + size]
        else:
            size = {1: 8, 5: 4}.get(kind, len(message))
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value, shift = 0, 0
    while place < len(message):
        byte = message[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            break
    return value, place
