"""Drawing faces onto a picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import markup as markups
from .._optional import load_cv2
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

_SMALL = 90.0
"""Pixels of face size below which dots would hide the face, and lines are drawn fainter."""
_FAINT = 0.55
_BITS = 4
"""Bits of sub-pixel precision that OpenCV is given."""


def draw(
    image: ImageArray, faces: Iterable[Face], *, boxes: bool = True, kps: bool = False, thickness: int | None = None
) -> ImageArray:
    """A copy of ``image`` (H, W, 3) uint8 BGR with the faces on it: lines along each part, dots, boxes.

    ``thickness`` of the lines is in pixels; by default it follows each face's size.
    """
    canvas: Any = image.copy()
    sizes = [(face, float(np.ptp(face.landmarks, axis=0).max())) for face in faces]
    for face, size in sizes:
        if size >= _SMALL:
            _draw_face(canvas, face, size, boxes, kps, thickness)
    small = [(face, size) for face, size in sizes if size < _SMALL]
    if small:
        layer = canvas.copy()
        for face, size in small:
            _draw_face(layer, face, size, boxes, kps, thickness)
        canvas = load_cv2().addWeighted(layer, _FAINT, canvas, 1 - _FAINT, 0)
    return np.asarray(canvas, np.uint8)


def _draw_face(canvas: ImageArray, face: Face, size: float, boxes: bool, kps: bool, thickness: int | None) -> None:
    markup = markups.get(face.markup)
    width = max(1, round(size / 300)) if thickness is None else thickness
    if boxes:
        x1, y1, x2, y2 = face.bbox
        _line(canvas, np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]), _BOX, width)
    for name, colour in _PARTS.items():
        part = markup.groups.get(name, ())
        for run in markup.polylines:
            if run[0] in part:
                _line(canvas, face.landmarks[list(run)], colour, width)
        if size >= _SMALL or not markup.polylines:
            _dots(canvas, face.landmarks[list(part)], colour, max(1.0, size / 110))
    if kps:
        _dots(canvas, face.kps, _KPS, max(1.2, size / 70))


def _line(canvas: ImageArray, points: NDArray[Any], colour: Colour, width: int) -> None:
    cv2 = load_cv2()
    cv2.polylines(canvas, [_fixed(points)], False, colour, width, cv2.LINE_AA, _BITS)


def _dots(canvas: ImageArray, points: NDArray[Any], colour: Colour, radius: float) -> None:
    cv2 = load_cv2()
    for x, y in _fixed(points).tolist():
        cv2.circle(canvas, (x, y), round(radius * 2**_BITS), colour, cv2.FILLED, cv2.LINE_AA, _BITS)


def _fixed(points: NDArray[Any]) -> NDArray[np.int32]:
    return np.asarray(np.rint(points * 2**_BITS), np.int32)
