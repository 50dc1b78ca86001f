"""The curves of a face that join landmarks: jaw, brows, nose, eyes and lips of each markup."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Curve = tuple[int, ...]
"""Indices of landmarks in drawing order; a closed curve ends with its first landmark."""


def _open(first: int, last: int) -> Curve:
    return tuple(range(first, last + 1))


def _closed(*indices: int) -> Curve:
    return (*indices, indices[0])


def _ring(first: int, last: int) -> Curve:
    return _closed(*_open(first, last))


CURVES: Mapping[int, tuple[Curve, ...]] = MappingProxyType(
    {
        19: (  # aflw19: brows, eyes, nose, mouth; the chin has no curve
            _open(0, 2),
            _open(3, 5),
            _open(6, 8),
            _open(9, 11),
            _open(12, 14),
            _open(15, 17),
        ),
        29: (  # cofw29: brows, eyes, nose, lower and upper lip; pupils and chin have none
            _closed(0, 4, 2, 5),
            _closed(1, 6, 3, 7),
            _closed(8, 12, 10, 13),
            _closed(9, 14, 11, 15),
            _closed(18, 20, 19, 21),
            _closed(22, 26, 23, 27),
            _closed(22, 24, 23, 25),
        ),
        68: (  # ibug68: jaw, brows, nose bridge and base, eyes, outer and inner lips
            _open(0, 16),
            _open(17, 21),
            _open(22, 26),
            _open(27, 30),
            _open(31, 35),
            _ring(36, 41),
            _ring(42, 47),
            _ring(48, 59),
            _ring(60, 67),
        ),
        98: (  # wflw98: the same; the pupils have none
            _open(0, 32),
            _ring(33, 41),
            _ring(42, 50),
            _open(51, 54),
            _open(55, 59),
            _ring(60, 67),
            _ring(68, 75),
            _ring(76, 87),
            _ring(88, 95),
        ),
        106: (  # jd106: the same; the centres of the eyes have none
            _open(0, 32),
            _ring(33, 41),
            _ring(42, 50),
            _open(51, 54),
            _open(55, 65),
            _ring(66, 73),
            _ring(75, 82),
            _ring(84, 95),
            _ring(96, 103),
        ),
    }
)
"""Number of landmarks -> its markup's curves."""
