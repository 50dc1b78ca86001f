"""iBUG's .pts files: one face's points, (x, y) counted from 1, so those of a Face plus 1."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import markup as markups
from ..errors import InputError
from ..files import write_bytes
from ..types import Face


def to_pts(face: Face) -> str:
    """The text of a .pts file, coordinates to a thousandth of a pixel."""
    lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in face.landmarks.astype(np.float64) + 1)
    return f"version: 1\nn_points: {len(face.landmarks)}\n{{\n{lines}}}\n"


def from_pts(text: str) -> Face:
    """The face of a .pts file's text; its number of points says the markup. Raises InputError and MarkupError."""
    points = _points(text, "the text")
    return Face.of_landmarks(points, markups.with_points(len(points)).name)


def write_pts(path: str | os.PathLike[str], face: Face) -> None:
    """Write a .pts file. Raises OutputError."""
    write_bytes(Path(path), to_pts(face).encode())


def read_pts(path: str | os.PathLike[str]) -> Face:
    """The face of a .pts file. Raises InputError and MarkupError."""
    points = read_points(path)
    return Face.of_landmarks(points, markups.with_points(len(points)).name)


def read_points(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """The points (L, 2) of a .pts file, pixel centres at whole numbers. Raises InputError."""
    try:
        return _points(Path(path).read_text("utf-8"), os.fspath(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{os.fspath(path)} cannot be read as a .pts file ({error})") from error


def _points(text: str, name: str) -> NDArray[np.float64]:
    try:
        words = text.split("{", 1)[1].split("}", 1)[0].split()
        return np.array([float(word) for word in words]).reshape(-1, 2) - 1
    except (IndexError, ValueError) as error:
        raise InputError(f"{name} is not a .pts file: version, n_points, and (x, y) lines between braces") from error
