"""Smoothing of points over the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

from .._checks import is_number
from ..errors import InputError


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Parameters of the One-Euro filter (Casiez, Roussel, Vogel 2012), speeds in face sizes a second.

    A point at rest is low-passed at ``min_cutoff`` Hz: lower is steadier. The cutoff rises by ``beta`` Hz for each face
    size a second that the point moves: higher lags less. The speed itself is low-passed at ``speed_cutoff`` Hz. ``fps``
    is the video's frames a second.
    """

    min_cutoff: float = 1.0
    beta: float = 100.0
    speed_cutoff: float = 3.0
    fps: float = 30.0

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "speed_cutoff", "fps"):
            if not is_number(value := getattr(self, name), 0) or value == 0:
                raise InputError(f"{name} is a number above 0, not {value!r}")
        if not is_number(self.beta, 0):
            raise InputError(f"beta is a number of at least 0, not {self.beta!r}")


class OneEuro:
    """The filter of one face's points; each has its own speed, and so its own cutoff."""

    def __init__(self, parameters: Smoothing) -> None:
        self._parameters = parameters
        self.reset()

    def reset(self) -> None:
        """Take the next points as they are."""
        self._points: NDArray[np.float64] | None = None

    def __call__(self, points: NDArray[np.float32], size: float) -> NDArray[np.float32]:
        """The filtered points (L, 2), given those of the next frame and the face's size in pixels."""
        values = points.astype(np.float64)
        if self._points is None:
            self._points, self._velocity = values, np.zeros_like(values)
            return points
        of = self._parameters
        velocity = (values - self._points) * of.fps / size
        self._velocity += self._weight(np.float64(of.speed_cutoff)) * (velocity - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=1, keepdims=True)
        self._points = self._points + self._weight(of.min_cutoff + of.beta * speed) * (values - self._points)
        return self._points.astype(np.float32)

    def _weight(self, cutoff: NDArray[np.float64] | np.float64) -> NDArray[np.float64] | np.float64:
        """The newest value's weight in a first-order low-pass at a cutoff in Hz."""
        return 1 / (1 + self._parameters.fps / (2 * pi * cutoff))
