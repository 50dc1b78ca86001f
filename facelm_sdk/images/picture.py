"""Pictures decoded as finely as they are needed: large JPEG files at 1/2, 1/4 or 1/8 of their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..transform import CropTransform
from ..types import ImageArray
from . import jpeg
from .read import decode, load_file, read_image

REDUCTIONS = (8, 4, 2)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture at 1/``reduction`` of its size: ``image`` (h, w, 3) uint8 BGR, each pixel a square of the picture's."""

    image: ImageArray
    reduction: int = 1

    def to_picture(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pixels (..., 2) of the view as the picture's. Pixel centres lie at whole numbers in both."""
        return points if self.reduction == 1 else (points * self.reduction + self._first).astype(np.float32)

    def warp(self, transform: CropTransform, out: ImageArray | None = None) -> ImageArray:
        """Cut the crop of a ``transform`` of the picture's pixels: (S, S, 3) uint8; ``out`` is filled."""
        if self.reduction > 1:
            linear = transform.matrix[:, :2]
            shift = linear @ (self._first, self._first) + transform.matrix[:, 2]
            matrix = np.concatenate([linear * self.reduction, shift[:, None]], axis=1)
            transform = CropTransform(matrix, transform.size)
        return transform.warp(self.image, out=out)

    @property
    def _first(self) -> float:
        """x and y of the picture where the centre of the view's first pixel lies."""
        return (self.reduction - 1) / 2


class Picture:
    """Anything :func:`facelm_sdk.read_image` takes, in a known size, decoded when it is asked for.

    Sequential JPEG files can be decoded at a reduced scale that divides both sides, which takes a fraction of the time.
    Everything else is read in full at once; progressive JPEG too, which takes long at any scale. ``width`` and
    ``height`` are those of the full, upright picture in pixels.

    Raises ImageError, here or when it is decoded.
    """

    def __init__(self, source: Any, color: Literal["bgr", "rgb"] = "bgr", *, max_pixels: int | None = None) -> None:
        self._view: View | None = None
        self._file = load_file(source, color, max_pixels)
        header = None if self._file is None else jpeg.header(self._file[0])
        if header is None:
            image = read_image(source, color) if self._file is None else decode(*self._file)
            self._view = View(image)
            self.height, self.width = image.shape[:2]
        else:
            self.width, self.height = header.upright

    def decoded(self, coarsest: float = 1.0) -> View | None:
        """What was decoded before, if it is not coarser than 1/``coarsest`` of the picture."""
        return self._view if self._view is not None and self._view.reduction <= max(coarsest, 1.0) else None

    def view(self, coarsest: float = 1.0) -> View:
        """The picture at 1/``coarsest`` of its size or finer; the finest decoded so far is kept."""
        if (view := self.decoded(coarsest)) is None:
            view = self._view = self._decode(next((one for one in REDUCTIONS if self._divides(one, coarsest)), 1))
        return view

    def _divides(self, reduction: int, coarsest: float) -> bool:
        return reduction <= coarsest and self.width % reduction == self.height % reduction == 0

    def _decode(self, reduction: int) -> View:
        assert self._file is not None
        image = decode(*self._file, reduction)
        if image.shape[:2] == (self.height // reduction, self.width // reduction):
            return View(image, reduction)
        image = decode(*self._file)  # OpenCV reads this header in another way
        self.height, self.width = image.shape[:2]
        return View(image)
