"""Drawing followed faces: their numbers, and the way that each has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._checks import is_whole
from .._optional import load_cv2
from ..errors import InputError
from ..images.draw import draw
from ..types import Face, ImageArray

TAIL = 30
"""Frames that a tail is long, unless told otherwise."""
COLOURS = ((64, 220, 255), (255, 160, 64), (110, 110, 255), (120, 230, 90), (240, 110, 230), (230, 220, 60))
"""BGR, one after the other as faces come."""
_BITS = 4


class Trails:
    """Draws the faces of each frame of a video, their ``track_id`` and the way of their centres over ``tail`` frames.

    A face that is lost for as many frames has no tail any more.
    """

    def __init__(self, tail: int = TAIL) -> None:
        if not is_whole(tail, 0, 100_000):
            raise InputError(f"tail is a whole number of frames, 0 or more, not {tail!r}")
        self.tail = int(tail)
        self._centres: dict[int, deque[tuple[int, NDArray[Any]]]] = {}
        self._frame = 0

    def __call__(self, frame: ImageArray, faces: Sequence[Face]) -> ImageArray:
        """A copy of ``frame`` (H, W, 3) uint8 BGR with the faces, numbers and tails on it."""
        self._frame += 1
        canvas = draw(frame, faces)
        for face in faces:
            if face.track_id is not None:
                centre = (face.bbox[:2] + face.bbox[2:]) / 2
                self._centres.setdefault(face.track_id, deque(maxlen=self.tail + 1)).append((self._frame, centre))
        for number, centres in list(self._centres.items()):
            while centres and centres[0][0] < self._frame - self.tail:
                centres.popleft()
            if not centres:
                del self._centres[number]
            self._draw_tail(canvas, number, centres)
        for face in faces:
            if face.track_id is not None:
                _write_number(canvas, face)
        return canvas

    def _draw_tail(self, canvas: ImageArray, number: int, centres: deque[tuple[int, NDArray[Any]]]) -> None:
        points = np.rint([point * 2**_BITS for _, point in centres]).astype(np.int32)
        width = max(1, round(max(canvas.shape[:2]) / 400))
        load_cv2().polylines(canvas, [points], False, _colour(number), width, load_cv2().LINE_AA, _BITS)


def _colour(number: int) -> tuple[int, int, int]:
    return COLOURS[(number - 1) % len(COLOURS)]


def _write_number(canvas: ImageArray, face: Face) -> None:
    """Above the box, or in it where there is no room."""
    cv2, text, number = load_cv2(), str(face.track_id), face.track_id or 1
    side = float(np.ptp(face.landmarks, axis=0).max())
    scale = float(np.clip(side / 200, 0.4, 2))
    x, y = round(float(face.bbox[0])), round(float(face.bbox[1]) - 5 * scale)
    if y < 20 * scale:
        y = round(float(face.bbox[1]) + 24 * scale)
    for colour, width in (((0, 0, 0), 4), (_colour(number), 2)):
        thickness = max(1, round(width * scale))
        cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
