"""Crop geometry: from five points or a box to a square crop, and its exact inverse.

Everywhere in this project points are (x, y) and pixel centres lie at whole numbers, as in OpenCV: the picture's
top-left pixel covers [-0.5, 0.5] x [-0.5, 0.5].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._optional import load_cv2
from .boxes import landmarks_box, mean_kps
from .errors import ContractError, InputError

ImageArray = NDArray[np.uint8]
"""A picture or crops, (..., H, W, 3) uint8, BGR unless something else is said."""

FloatArray = NDArray[np.floating[Any]]

ARCFACE_112 = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""The five template points of the 112x112 ArcFace crop (image-left eye, image-right eye, nose tip, mouth corners)."""

_LEAST_SCALE = 1e-6
"""Crop pixels per picture pixel: no crop shows a million pixels as one."""


@dataclass(frozen=True, slots=True)
class CropRecipe:
    """How a network wants its crop cut. Part of every exported model, so that the runtime never guesses.

    ``kind="kps5"``: the least-squares similarity that maps the five points onto ``template`` (5 (x, y) pixels of the
    crop). ``kind="box"``: an upright square around the box, centred on the box centre moved by ``shift`` (fractions of
    the box's width and height), with side ``scale`` times the box's ``max`` side, ``min`` side or ``mean`` side; that
    centre falls ``offset`` (x, y) pixels of the crop from the crop's own centre, (size - 1) / 2.
    ``box`` says what box the network was trained on: ``"detector"``, which is also meant where a contract does not say,
    or ``"landmarks"``, the tight box of the annotated points; see :meth:`of_detection`.
    """

    size: int
    kind: Literal["kps5", "box"] = "kps5"
    template: tuple[tuple[float, float], ...] | None = None
    side: Literal["max", "min", "mean"] = "max"
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    box: Literal["detector", "landmarks"] = "detector"
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise ContractError(f"a crop recipe needs a size of at least 1 pixel, not {self.size!r}")
        if self.kind == "kps5":
            if self.template is None or np.shape(self.template) != (5, 2) or not np.isfinite(self.template).all():
                raise ContractError("a kps5 crop recipe needs a template of 5 (x, y) points")
        elif (
            self.kind != "box"
            or self.side not in ("max", "min", "mean")
            or not 0 < self.scale < math.inf
            or not np.isfinite((*self.shift, *self.offset)).all()
            or self.box not in ("detector", "landmarks")
        ):
            raise ContractError(
                f"not a crop recipe: {self!r}; kind is kps5 or box, side max, min or mean, scale > 0, box detector or "
                "landmarks"
            )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready values, only those its kind uses; ``box`` and ``offset`` if not the usual ones."""
        if self.kind == "kps5":
            return {"size": self.size, "kind": "kps5", "template": [list(p) for p in self.template or ()]}
        values = {"size": self.size, "kind": "box", "side": self.side, "scale": self.scale, "shift": list(self.shift)}
        if self.box != "detector":
            values["box"] = self.box
        return values if self.offset == (0.0, 0.0) else {**values, "offset": list(self.offset)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CropRecipe:
        """The inverse of :meth:`to_dict`. Raises ContractError on unknown or missing entries."""
        values = dict(data)
        try:
            if values.get("template") is not None:
                values["template"] = tuple((float(x), float(y)) for x, y in values["template"])
            if "scale" in values:
                values["scale"] = float(values["scale"])
            for name in ("shift", "offset"):
                if name in values:
                    x, y = values[name]
                    values[name] = (float(x), float(y))
            return cls(**values)
        except (TypeError, ValueError, OverflowError) as error:
            raise ContractError(f"not a crop recipe: {dict(data)!r} ({error})") from error

    def transform(self, box: ArrayLike | None = None, kps: ArrayLike | None = None) -> CropTransform:
        """The transform for one face: ``kps`` (5, 2) for a kps5 recipe, ``box`` (4,) xyxy for a box recipe.

        ``box`` is of the kind that the recipe was trained on; :meth:`of_detection` makes it from a detection.
        """
        if self.kind == "kps5":
            if kps is None:
                raise InputError("this model's crop is cut by five points (kps), and none were given")
            assert self.template is not None
            return CropTransform.from_kps5(kps, self.template, self.size)
        if box is None:
            raise InputError("this model's crop is cut by a box, and none was given")
        options = {"side": self.side, "scale": self.scale, "shift": self.shift, "offset": self.offset}
        return CropTransform.from_box(box, self.size, **options)  # type: ignore[arg-type]

    def of_detection(self, markup: str, box: ArrayLike | None = None, kps: ArrayLike | None = None) -> CropTransform:
        """The transform for a face that a detector found, whose landmarks are wanted in ``markup``.

        As :meth:`transform`, but for ``box="landmarks"``, whose box is made of ``kps`` (5, 2). Where only a detector's
        ``box`` (4,) is known, the five points are taken at their mean place in it: the landmarks' box of 68 points is
        then 1.02 times as wide and 0.77 times as high, with its centre 0.15 of the height lower.
        """
        if self.kind == "box" and self.box == "landmarks":
            if kps is not None:
                box = landmarks_box(finite(kps, (5, 2), "five points (kps)"), markup)
            elif box is not None:
                box = landmarks_box(mean_kps(finite(box, (4,), "a box")), markup)
        return self.transform(box, kps)


def kps5_recipe(size: int, *, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> CropRecipe:
    """The ArcFace template in a larger field of view, as a recipe.

    The crop shows a ``112 / zoom`` wide square of the ArcFace frame, centred on its centre plus ``shift`` (ArcFace
    pixels), resampled to ``size`` pixels. ``zoom=1, shift=(0, 0), size=112`` is the ArcFace crop itself.
    """
    scale = size * zoom / 112.0
    centre = np.array([55.5 + shift[0], 55.5 + shift[1]])
    points = (np.asarray(ARCFACE_112) - centre) * scale + (size - 1) / 2
    return CropRecipe(size=size, template=tuple((float(round(x, 4)), float(round(y, 4))) for x, y in points))


def similarity(source: FloatArray, target: FloatArray) -> NDArray[np.float64]:
    """Least-squares similarity (rotation, uniform scale, shift; no mirror) that maps ``source`` to ``target``.

    Both (n, 2), n >= 2. Returns (2, 3) float64. Umeyama 1991 restricted to two dimensions, where it has a closed form.
    """
    # With points as complex numbers the map is one product and one shift.
    a, b = (np.ascontiguousarray(points, np.float64).view(np.complex128)[:, 0] for points in (source, target))
    mean_a, mean_b = a.sum() / len(a), b.sum() / len(b)
    a, b = a - mean_a, b - mean_b
    norm = np.vdot(a, a).real
    if not norm > 0:
        raise InputError("the points coincide, so no crop can be cut by them")
    linear = np.vdot(a, b) / norm
    shift = mean_b - linear * mean_a
    return np.array([[linear.real, -linear.imag, shift.real], [linear.imag, linear.real, shift.imag]])


def finite(values: ArrayLike, shape: tuple[int, ...], what: str) -> NDArray[np.float64]:
    """``values`` as float64 of that shape. Raises InputError, which calls them ``what``, for others or not finite."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biufO":
            raise TypeError(f"dtype {array.dtype}")
        array = np.asarray(array, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{what} must be numbers of shape {shape} ({error})") from error
    if array.shape != shape:
        raise InputError(f"{what} must have shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{what} must be finite; got {array.tolist()}")
    return array


@dataclass(frozen=True, slots=True, eq=False)
class CropTransform:
    """An affine map between a picture and a square crop of it; owns pixels and points alike, so they cannot disagree.

    ``matrix`` (2, 3) float64 takes picture pixels to crop pixels; ``size`` is the crop's side in pixels.
    """

    matrix: NDArray[np.float64]
    size: int

    @classmethod
    def from_kps5(cls, kps: ArrayLike, template: ArrayLike, size: int) -> CropTransform:
        """The similarity that maps five points (5, 2) of a picture onto ``template`` (5, 2) pixels of the crop."""
        source = finite(kps, (5, 2), "five points (kps)")
        matrix = similarity(source, finite(template, (5, 2), "a template"))
        transform = cls(matrix, int(size))
        if transform.scale < _LEAST_SCALE:
            raise InputError("the five points determine no crop (they are mirrored or degenerate)")
        return transform

    @classmethod
    def from_box(
        cls,
        box: ArrayLike,
        size: int,
        *,
        side: Literal["max", "min", "mean"] = "max",
        scale: float = 1.0,
        shift: tuple[float, float] = (0.0, 0.0),
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> CropTransform:
        """The upright square around an xyxy ``box`` (4,); see :class:`CropRecipe` for the options."""
        x1, y1, x2, y2 = finite(box, (4,), "a box").tolist()
        width, height = x2 - x1, y2 - y1
        if not (width > 0 and height > 0):
            raise InputError(f"a box is (x1, y1, x2, y2) with x2 > x1 and y2 > y1; got {[x1, y1, x2, y2]}")
        length = {"max": max(width, height), "min": min(width, height), "mean": (width + height) / 2}[side] * scale
        if not 0 < length <= size / _LEAST_SCALE:
            raise InputError(f"the box {[x1, y1, x2, y2]} determines no crop (it is too large or too small)")
        zoom = size / length
        x, y = (x1 + x2) / 2 + shift[0] * width, (y1 + y2) / 2 + shift[1] * height
        u, v = ((size - 1) / 2 + one for one in offset)
        return cls(np.array([[zoom, 0.0, u - zoom * x], [0.0, zoom, v - zoom * y]]), int(size))

    @property
    def scale(self) -> float:
        """Crop pixels per picture pixel."""
        (a, b), (c, d) = self.matrix[:, :2].tolist()
        return math.sqrt(abs(a * d - b * c))

    @property
    def inverse(self) -> NDArray[np.float64]:
        """(2, 3) float64: crop pixels to picture pixels."""
        (a, b, x), (c, d, y) = self.matrix.tolist()
        area = a * d - b * c
        return np.asarray(np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / area)

    def apply(self, points: FloatArray) -> FloatArray:
        """Picture points (..., 2) to crop pixels, in the dtype given (at least float32)."""
        return _affine(self.matrix, points)

    def invert(self, points: FloatArray) -> FloatArray:
        """Crop pixels (..., 2) back to picture points, in the dtype given (at least float32)."""
        return _affine(self.inverse, points)

    def warp(self, image: ImageArray, out: ImageArray | None = None, *, antialias: bool = True) -> ImageArray:
        """Cut the crop: (H, W, 3) uint8 to (size, size, 3), bilinear, black outside the picture; ``out`` is filled.

        ``antialias``: a picture that is more than twice as fine as the crop is averaged first.
        """
        cv2 = load_cv2()
        # Bilinear alone would alias where the picture is far finer than the crop; warpAffine takes sides below 2^15.
        if (antialias and self.scale < 0.5) or max(image.shape[:2]) >= 32767:
            image, matrix = _shrunk(image, self.matrix, self.inverse, self.size)
        else:
            matrix = self.matrix
        size = (self.size, self.size)
        warped: Any = cv2.warpAffine(image, matrix, size, dst=out, flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))
        if out is not None and warped is not out:
            np.copyto(out, warped)
            return out
        return warped  # type: ignore[no-any-return]


def _affine(matrix: NDArray[np.float64], points: FloatArray) -> FloatArray:
    points = np.asarray(points)
    dtype = points.dtype if points.dtype in (np.float32, np.float64) else np.dtype(np.float32)
    return np.asarray(points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2], dtype)


def _shrunk(
    image: ImageArray, matrix: NDArray[np.float64], inverse: NDArray[np.float64], size: int
) -> tuple[ImageArray, NDArray[np.float64]]:
    """The part of the picture the crop shows, area-averaged to about crop resolution, and the matrix that fits it."""
    cv2 = load_cv2()
    height, width = image.shape[:2]
    factor = max(1, int(np.sqrt(abs(np.linalg.det(inverse[:, :2])))))
    corners = _affine(inverse, np.array([[0, 0], [size, 0], [0, size], [size, size]], np.float64))
    x1, y1 = (max(0, int(v) - 2 * factor) for v in np.floor(corners.min(0)))
    x2, y2 = (int(v) + 2 * factor for v in np.ceil(corners.max(0)))
    columns, rows = (min(x2, width) - x1) // factor, (min(y2, height) - y1) // factor
    if columns < 1 or rows < 1:
        return image, matrix
    part = image[y1 : y1 + rows * factor, x1 : x1 + columns * factor]
    small: Any = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    centre = np.array([x1, y1]) + (factor - 1) / 2
    linear = matrix[:, :2]
    return small, np.concatenate([linear * factor, (linear @ centre + matrix[:, 2])[:, None]], axis=1)
