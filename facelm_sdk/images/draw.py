"""Drawing faces onto a picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import markup as markups
from .._optional import load_cv2
from ..errors import InputError, MarkupError
from ..types import Face, ImageArray

Colour = tuple[int, int, int]

_PARTS: dict[str, Colour] = {  # BGR
    "jaw": (255, 196, 64),
    "brows": (80, 220, 120),
    "eyes": (64, 220, 255),
    "nose": (200, 120, 255),
    "mouth": (110, 110, 255),
}
_BOX: Colour = (255, 255, 255)
_KPS: Colour = (40, 40, 255)
_AXES: tuple[Colour, ...] = ((64, 64, 255), (64, 220, 64), (255, 96, 64))
"""Of the head: to the picture's right, down, and out of the face."""

_SMALL = 90.0
"""Pixels of face size below which dots would hide the face, and lines are drawn fainter."""
_FAINT = 0.55
_UNSURE = 0.5
"""Score of a point below which it, and the lines it ends, are drawn fainter."""
_FAINTER = 0.35
_BITS = 4
"""Bits of sub-pixel precision that OpenCV is given."""


def draw(
    image: ImageArray,
    faces: Iterable[Face],
    *,
    boxes: bool = True,
    kps: bool = False,
    pose: bool = False,
    thickness: int | None = None,
) -> ImageArray:
    """A copy of ``image`` (H, W, 3) uint8 BGR with the faces on it: lines along each part, dots, boxes.

    ``pose`` adds, where the landmarks give a pose, the head's axes from the nose tip: red to its left (the picture's
    right), green down, blue out of the face; and below all but small faces yaw, pitch and roll in degrees, and the
    aspect ratios of image-left eye, image-right eye and mouth. Where a face has scores, points below 0.5 are fainter,
    and so are the lines that end in them. ``thickness`` of the lines is in pixels; by default it follows each face's
    size.
    """
    canvas: Any = image.copy()
    sizes = [(face, float(np.ptp(face.landmarks, axis=0).max())) for face in faces]
    unsure = [(face, size) for face, size in sizes if _is_unsure(face).any()]
    small = [(face, size) for face, size in sizes if size < _SMALL]
    if unsure:
        layer = canvas.copy()
        for face, size in unsure:
            _draw_parts(layer, face, size, thickness, unsure=True)
        canvas = _blended(layer, canvas, _FAINTER)
    for face, size in sizes:
        if size >= _SMALL:
            _draw_face(canvas, face, size, boxes, kps, thickness)
    if small:
        layer = canvas.copy()
        for face, size in small:
            _draw_face(layer, face, size, boxes, kps, thickness)
        canvas = _blended(layer, canvas, _FAINT)
    for face, size in sizes if pose else ():
        with suppress(MarkupError, InputError):
            _draw_axes(canvas, face, size, thickness)
            if size >= _SMALL:
                _draw_numbers(canvas, face, size)
    return np.asarray(canvas, np.uint8)


def _is_unsure(face: Face) -> NDArray[np.bool_]:
    """Which points (L,) are not to be relied on; none where nothing is known of it."""
    return np.zeros(len(face.landmarks), np.bool_) if face.scores is None else np.asarray(face.scores < _UNSURE)


def _blended(layer: ImageArray, canvas: ImageArray, opacity: float) -> ImageArray:
    return np.asarray(load_cv2().addWeighted(layer, opacity, canvas, 1 - opacity, 0), np.uint8)


def _draw_face(canvas: ImageArray, face: Face, size: float, boxes: bool, kps: bool, thickness: int | None) -> None:
    """A face but for its unsure points."""
    width = _width(size, thickness)
    if boxes:
        x1, y1, x2, y2 = face.bbox
        _line(canvas, np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]), _BOX, width)
    _draw_parts(canvas, face, size, thickness)
    if kps:
        _dots(canvas, face.kps, _KPS, max(1.2, size / 70))


def _draw_parts(canvas: ImageArray, face: Face, size: float, thickness: int | None, *, unsure: bool = False) -> None:
    """The points that are sure and the lines between them, or the others."""
    markup, doubtful = markups.get(face.markup), _is_unsure(face)
    for name, colour in _PARTS.items():
        part = markup.groups.get(name, ())
        for run in markup.polylines:
            if run[0] in part:
                for piece in _pieces(run, doubtful, unsure=unsure):
                    _line(canvas, face.landmarks[piece], colour, _width(size, thickness))
        if size >= _SMALL or not markup.polylines:
            _dots(canvas, face.landmarks[[i for i in part if doubtful[i] == unsure]], colour, max(1.0, size / 110))


def _draw_axes(canvas: ImageArray, face: Face, size: float, thickness: int | None) -> None:
    axes = face.pose.rotation * (1, 1, -1)  # the head's z runs away from the camera
    start = face.to("kps5")[2]
    ends = start + 0.6 * size * axes.T[:, :2]
    for colour, end in zip(_AXES, ends, strict=True):
        _line(canvas, np.array([start, end]), colour, 2 * _width(size, thickness))


def _draw_numbers(canvas: ImageArray, face: Face, size: float) -> None:
    """Pose and openness as two lines of text below the face, white with a dark shadow."""
    cv2 = load_cv2()
    left, right = face.eye_openness
    angles = "  ".join(f"{name} {round(angle)}" for name, angle in face.pose._asdict().items())
    x, y = (round(float(value)) for value in (face.bbox[0], max(face.bbox[3], face.landmarks[:, 1].max())))
    scale = max(0.4, size / 400)
    for row, text in enumerate((angles, f"eyes {left:.2f} {right:.2f}  mouth {face.mouth_openness:.2f}"), start=1):
        for colour, shift in (((0, 0, 0), 1), ((255, 255, 255), 0)):
            place = x + shift, y + round(row * 32 * scale) + shift
            cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _pieces(run: Sequence[int], doubtful: NDArray[np.bool_], *, unsure: bool) -> list[list[int]]:
    """The pieces of a polyline whose segments end in a doubtful point, ``unsure``, or in none."""
    parts: list[list[int]] = []
    for start, end in itertools.pairwise(run):
        if (doubtful[start] or doubtful[end]) != unsure:
            continue
        if parts and parts[-1][-1] == start:
            parts[-1].append(end)
        else:
            parts.append([start, end])
    return parts


def _width(size: float, thickness: int | None) -> int:
    return max(1, round(size / 300)) if thickness is None else thickness


def _line(canvas: ImageArray, points: NDArray[Any], colour: Colour, width: int) -> None:
    cv2 = load_cv2()
    cv2.polylines(canvas, [_fixed(points)], False, colour, width, cv2.LINE_AA, _BITS)


def _dots(canvas: ImageArray, points: NDArray[Any], colour: Colour, radius: float) -> None:
    cv2 = load_cv2()
    for x, y in _fixed(points).tolist():
        cv2.circle(canvas, (x, y), round(radius * 2**_BITS), colour, cv2.FILLED, cv2.LINE_AA, _BITS)


def _fixed(points: NDArray[Any]) -> NDArray[np.int32]:
    return np.asarray(np.rint(points * 2**_BITS), np.int32)
