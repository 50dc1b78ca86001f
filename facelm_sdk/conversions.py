"""From which points of one markup those of another are made: the same place, or one on the same curve.

Tables of indices alone; :func:`facelm_sdk.markup.convert` applies them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

Row = Mapping[int, int]
"""The source points a target point is the weighted mean of, with whole weights; empty where there are none."""

Table = tuple[Row, ...]


def _on(curve: Sequence[int], position: Fraction | int) -> Row:
    """The point at a ``position`` along the points of a curve, counted in points: Lagrange's cubic through its four
    neighbours, or a lower degree where the curve has fewer.
    """
    position = Fraction(position)
    if position.denominator == 1:
        return {curve[int(position)]: 1}
    count = min(4, len(curve))
    first = min(max(math.floor(position) - 1, 0), len(curve) - count)
    nodes = range(first, first + count)
    weights = [math.prod(((position - j) / (i - j) for j in nodes if j != i), start=Fraction(1)) for i in nodes]
    scale = math.lcm(*(weight.denominator for weight in weights))
    return {curve[i]: int(weight * scale) for i, weight in zip(nodes, weights, strict=True)}


def _along(curve: Sequence[int], targets: Sequence[int], positions: Sequence[Fraction | int]) -> dict[int, Row]:
    return {target: _on(curve, position) for target, position in zip(targets, positions, strict=True)}


def _evenly(curve: Sequence[int], targets: Sequence[int]) -> dict[int, Row]:
    """Targets that are spread evenly over a curve, from its first to its last point."""
    step = Fraction(len(curve) - 1, len(targets) - 1)
    return _along(curve, targets, [index * step for index in range(len(targets))])


def _same(targets: Sequence[int], sources: Sequence[int]) -> dict[int, Row]:
    return {target: {source: 1} for target, source in zip(targets, sources, strict=True)}


def _mean(*sources: int) -> Row:
    return dict.fromkeys(sources, 1)


def _table(count: int, *parts: Mapping[int, Row]) -> Table:
    rows: dict[int, Row] = {}
    for part in parts:
        rows.update(part)
    return tuple(rows.get(index, {}) for index in range(count))


def _each(*sources: int) -> Table:
    return _table(len(sources), _same(range(len(sources)), sources))


_HALF = Fraction(1, 2)
_LEFT_EYE, _RIGHT_EYE = range(36, 42), range(42, 48)
_LEFT_LIDS = (36, 37, 38, 39), (39, 40, 41, 36)
_RIGHT_LIDS = (42, 43, 44, 45), (45, 46, 47, 42)
_BROWS_68 = (*range(17, 22), *range(22, 27))
_BROWS = (*range(33, 38), *range(42, 47))
"""The upper edge of the brows in the markups of 98 and 106 points, which are those of the 68."""


def _dense_eye(lids: tuple[Sequence[int], Sequence[int]], start: int) -> dict[int, Row]:
    """The eight points of an eye's contour in the markups of 98 and 106 points: the six, and the middle of each lid."""
    upper, lower = lids
    return _along(upper, range(start, start + 4), (0, 1, 3 * _HALF, 2)) | _along(
        lower, range(start + 4, start + 8), (0, 1, 3 * _HALF, 2)
    )


_WFLW98_FROM_68 = _table(
    98,
    _evenly(range(17), range(33)),
    _same(_BROWS, _BROWS_68),
    _same(range(51, 60), range(27, 36)),
    _dense_eye(_LEFT_LIDS, 60),
    _dense_eye(_RIGHT_LIDS, 68),
    _same(range(76, 96), range(48, 68)),
    {96: _mean(*_LEFT_EYE), 97: _mean(*_RIGHT_EYE)},
)
_JD106_FROM_68 = _table(
    106,
    _evenly(range(17), range(33)),
    _same(_BROWS, _BROWS_68),
    _same(range(51, 55), range(27, 31)),
    _along(range(31, 36), range(57, 64), (0, 1, 3 * _HALF, 2, 5 * _HALF, 3, 4)),
    _dense_eye(_LEFT_LIDS, 66),
    _dense_eye(_RIGHT_LIDS, 75),
    dict.fromkeys((74, 104), _mean(*_LEFT_EYE)),
    dict.fromkeys((83, 105), _mean(*_RIGHT_EYE)),
    _same(range(84, 104), range(48, 68)),
)
_COFW29_FROM_68 = _table(
    29,
    _same((0, 4, 2, 3, 6, 1), (17, 19, 21, 22, 24, 26)),
    _same((8, 10, 11, 9), (36, 39, 42, 45)),
    {12: _on(_LEFT_LIDS[0], 3 * _HALF), 13: _on(_LEFT_LIDS[1], 3 * _HALF), 16: _mean(*_LEFT_EYE)},
    {14: _on(_RIGHT_LIDS[0], 3 * _HALF), 15: _on(_RIGHT_LIDS[1], 3 * _HALF), 17: _mean(*_RIGHT_EYE)},
    _same((20, 18, 21, 19), (30, 31, 33, 35)),
    _same((22, 24, 23, 27, 25, 26, 28), (48, 51, 54, 57, 62, 66, 8)),
)
_AFLW19_FROM_68 = _table(
    19,
    _same(range(6), (17, 19, 21, 22, 24, 26)),
    _same((6, 8, 9, 11), (36, 39, 42, 45)),
    {7: _mean(*_LEFT_EYE), 10: _mean(*_RIGHT_EYE)},
    _same((12, 13, 14), (31, 30, 35)),
    {15: {48: 1}, 16: _mean(62, 66), 17: {54: 1}, 18: {8: 1}},
)
_68_FROM_COFW29 = _table(
    68,
    {8: {28: 1}},
    _evenly((0, 4, 2), range(17, 22)),
    _evenly((3, 6, 1), range(22, 27)),
    {30: {20: 1}},
    _evenly((18, 21, 19), range(31, 36)),
    _evenly((8, 12, 10), range(36, 40)),
    _evenly((10, 13, 8), (39, 40, 41, 36)),
    _evenly((11, 14, 9), range(42, 46)),
    _evenly((9, 15, 11), (45, 46, 47, 42)),
    _evenly((22, 24, 23), range(48, 55)),
    _evenly((23, 27, 22), (*range(54, 60), 48)),
    {62: {25: 1}, 66: {26: 1}},
)
_68_FROM_AFLW19 = _table(
    68,
    {8: {18: 1}},
    _evenly((0, 1, 2), range(17, 22)),
    _evenly((3, 4, 5), range(22, 27)),
    _same((31, 30, 35), (12, 13, 14)),
    _same((36, 39, 42, 45), (6, 8, 9, 11)),
    _same((48, 54), (15, 17)),
)
_WFLW98_EYES = (60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75)
_JD106_EYES = (66, 67, 69, 70, 71, 73, 75, 76, 78, 79, 80, 82)
_JD106_NOSE = (51, 52, 53, 54, 57, 58, 60, 62, 63)

TABLES: Mapping[tuple[str, str], Table] = {
    ("aflw19", "kps5"): _each(7, 10, 13, 15, 17),
    ("cofw29", "kps5"): _each(16, 17, 20, 22, 23),
    ("ibug68", "kps5"): (_mean(*_LEFT_EYE), _mean(*_RIGHT_EYE), *_each(30, 48, 54)),
    ("wflw98", "kps5"): _each(96, 97, 54, 76, 82),
    ("jd106", "kps5"): _each(104, 105, 54, 84, 90),
    ("wflw98", "ibug68"): _each(*range(0, 33, 2), *_BROWS, *range(51, 60), *_WFLW98_EYES, *range(76, 96)),
    ("jd106", "ibug68"): _each(*range(0, 33, 2), *_BROWS, *_JD106_NOSE, *_JD106_EYES, *range(84, 104)),
    ("ibug68", "wflw98"): _WFLW98_FROM_68,
    ("ibug68", "jd106"): _JD106_FROM_68,
    ("ibug68", "cofw29"): _COFW29_FROM_68,
    ("ibug68", "aflw19"): _AFLW19_FROM_68,
    ("cofw29", "ibug68"): _68_FROM_COFW29,
    ("aflw19", "ibug68"): _68_FROM_AFLW19,
}
"""Of (source, target): a row a target point."""
