"""How far eyes and mouth are open: ratios of distances between landmarks, free of the face's size, place and roll."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import markup as markups
from .errors import InputError


class EyeOpenness(NamedTuple):
    """The eye aspect ratio of the image-left and of the image-right eye."""

    left: float
    right: float


def eye_openness(points: ArrayLike, markup: str = "ibug68") -> EyeOpenness:
    """The eye aspect ratio (EAR) of each eye from landmarks (L, 2), in a markup that has the 68.

    Of an eye's points p1 to p6 in iBUG order (36-41, 42-47; p1 and p4 are its corners) it is
    (|p2 - p6| + |p3 - p5|) / (2 |p1 - p4|): Soukupova and Cech 2016, "Real-Time Eye Blink Detection using Facial
    Landmarks", equation 1. About 0.3 for an open eye, 0.2 and less for a closed one, different between people. A face
    that is turned aside has narrower eyes, so a larger ratio.

    Raises InputError for points that are not finite or whose corners coincide, MarkupError for other markups.
    """
    values = _points_68(points, markup)
    left, right = (_ratio(values, *eye) for eye in EYES)
    return EyeOpenness(left, right)


def mouth_openness(points: ArrayLike, markup: str = "ibug68") -> float:
    """The mouth aspect ratio (MAR) of the inner lips from landmarks (L, 2), in a markup that has the 68.

    The mean of the three distances between the lips (61-67, 62-66, 63-65) over that of the inner corners (60-64): 0
    where the lips touch. Raises as :func:`eye_openness` does.
    """
    return _ratio(_points_68(points, markup), *MOUTH)


EYES = ((((37, 41), (38, 40)), (36, 39)), (((43, 47), (44, 46)), (42, 45)))
"""Of the image-left and the image-right eye: the pairs whose distances are averaged, and the pair of the divisor."""
MOUTH = (((61, 67), (62, 66), (63, 65)), (60, 64))
"""The same of the inner lips."""


def _points_68(points: ArrayLike, markup: str) -> NDArray[np.float64]:
    values = markups.convert(np.asarray(points, np.float64), markup, "ibug68").astype(np.float64)
    if values.shape != (68, 2) or not np.isfinite(values).all():
        raise InputError(f"openness is of the finite points (L, 2) of one face; got shape {np.shape(points)}")
    return values


def _ratio(points: NDArray[np.float64], pairs: tuple[tuple[int, int], ...], width: tuple[int, int]) -> float:
    """The mean distance of pairs of points over that of the pair ``width``."""
    with np.errstate(over="ignore"):
        distances = np.array([np.linalg.norm(points[a] - points[b]) for a, b in (*pairs, width)])
    if not distances[-1] > 0 or not np.isfinite(distances).all():
        raise InputError(f"the corners {width[0]} and {width[1]} coincide or are too far apart for a ratio")
    return float(distances[:-1].mean() / distances[-1])
