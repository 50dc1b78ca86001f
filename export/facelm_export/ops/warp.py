"""Crops cut from a picture as nodes: the graph's twin of :mod:`facelm_sdk.transform`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facelm_sdk.transform import CropRecipe

from ..graph_builder import Value
from .looks import rounded

TINY = 1e-12
"""What a length that is not positive counts as: points that coincide give finite nonsense."""


def _f32(values: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Crops:
    """Where ``k`` crops lie: ``back`` (k, 4) is what takes a crop's pixels to the picture's.

    (a, b, u, v): the crop's (x, y), counted from ``anchor``, lies at (a x + b y + u, a y - b x + v).
    """

    back: Value
    anchor: tuple[float, float]
    size: int

    def picture_points(self, points: Value) -> Value:  # (k, L, 2) -> (k, L, 2)
        return _mapped(self.back, points - _f32(self.anchor))

    def part(self, start: Value, end: Value) -> Crops:
        g = self.back.graph
        return Crops(g.op("Slice", self.back, start, end, [0]), self.anchor, self.size)

    def cut(self, picture: Value) -> Value:  # (H, W, 3) uint8 -> (k, size, size, 3) uint8
        """``CropTransform.warp`` of each, one after the other: a crop shows a small part of the picture."""
        g = picture.graph
        count = g.op("Gather", g.op("Shape", self.back), 0)

        def one(index: Value) -> tuple[None, Sequence[Value], Sequence[Value]]:
            back = g.op("Gather", self.back, g.op("Unsqueeze", index, [0]), axis=0)  # (1, 4)
            return None, [], [_warped(picture, back, self.anchor, self.size)]

        return g.loop(count, [], one, [("uint8", (self.size, self.size, 3))])[0]


def crops(recipe: CropRecipe, boxes: Value, kps: Value) -> Crops:
    """``recipe.transform`` of each of ``boxes`` (k, 4) and ``kps`` (k, 5, 2)."""
    return _by_kps(recipe, kps) if recipe.kind == "kps5" else _by_box(recipe, boxes)


def _by_kps(recipe: CropRecipe, kps: Value) -> Crops:
    """:func:`facelm_sdk.transform.similarity`, turned round: its inverse is a / (a a + b b)."""
    g = kps.graph
    template = np.array(recipe.template)
    anchor = template.mean(0)
    b = (template - anchor).astype(np.float32)
    mean = g.op("ReduceMean", kps, [1])  # (k, 1, 2)
    a = kps - mean
    p = g.op("ReduceSum", a * b, [1, 2], keepdims=0)
    q = g.op("ReduceSum", a * (b[:, ::-1] * _f32([1, -1])), [1, 2], keepdims=0)  # a.x b.y - a.y b.x
    norm = g.op("ReduceSum", a * a, [1, 2], keepdims=0)
    shrink = norm / g.op("Max", p * p + q * q, TINY)
    linear = g.op("Concat", *(g.op("Unsqueeze", one * shrink, [1]) for one in (p, q)), axis=1)
    back = g.op("Concat", linear, g.op("Squeeze", mean, [1]), axis=1)
    return Crops(back, (float(anchor[0]), float(anchor[1])), recipe.size)


def _by_box(recipe: CropRecipe, boxes: Value) -> Crops:
    g = boxes.graph
    first, last = g.ops("Split", 2, boxes, axis=1, num_outputs=2)
    sides = last - first  # (k, 2)
    side = g.op({"max": "ReduceMax", "min": "ReduceMin", "mean": "ReduceMean"}[recipe.side], sides, [1])
    centre = (first + last) * 0.5 + sides * _f32(recipe.shift)
    step = g.op("Max", side, TINY) * float(recipe.scale / recipe.size)  # (k, 1)
    middle = (recipe.size - 1) / 2
    return Crops(g.op("Concat", step, step * 0.0, centre, axis=1), (middle, middle), recipe.size)


def _mapped(back: Value, points: Value) -> Value:
    """Points (k, L, 2) of crops, counted from the anchor, in the picture."""
    g = back.graph
    a, b, shift = (g.op("Unsqueeze", one, [1]) for one in g.ops("Split", 3, back, [1, 1, 2], axis=1))
    turned = g.op("Gather", points, [1, 0], axis=2) * _f32([1, -1])  # (y, -x)
    return a * points + b * turned + shift


def _warped(picture: Value, back: Value, anchor: tuple[float, float], size: int) -> Value:
    """One crop (size, size, 3) uint8: the part of the picture it shows, shrunk by areas where it is far finer."""
    g = picture.graph
    ends = _f32([[[0, 0], [size, 0], [0, size], [size, size]]]) - _f32(anchor)
    corners = g.op("Squeeze", _mapped(back, g.value(ends)), [0])  # (4, 2)
    a_b = g.op("Slice", back, [0], [2], [1])
    factor = g.op("Max", g.op("ReduceL2", a_b, keepdims=0).to("int64"), 1)
    sides = g.op("Gather", g.op("Shape", picture), [1, 0])
    low = g.op("Floor", g.op("ReduceMin", corners, [0], keepdims=0)).to("int64") - factor * 2
    high = g.op("Ceil", g.op("ReduceMax", corners, [0], keepdims=0)).to("int64") + factor * 2
    low = g.op("Clip", low, np.int64(0))  # (2,) x, y
    cells = g.op("Max", (g.op("Min", high, sides) - low) / factor, 0)
    part = g.op("Slice", picture, g.op("Gather", low, [1, 0]), g.op("Gather", low + cells * factor, [1, 0]), [0, 1])
    small = g.where(
        factor > 1, lambda: _shrunk(part, cells, factor), lambda: _planes(part), ("float32", (3, None, None))
    )
    return _sampled(small, _grid_transform(back, low, cells, factor), anchor, size)


def _grid_transform(back: Value, low: Value, cells: Value, factor: Value) -> Value:
    """(3, 2): from a crop's (x, y, 1), counted from the anchor, to GridSample's -1 to 1 across the shrunk part."""
    g = back.graph
    a, b, u, v = g.ops("Split", 4, back, axis=1, num_outputs=4)
    linear = g.op("Concat", g.op("Concat", a, -b, axis=1), g.op("Concat", b, a, axis=1), axis=0)
    first = low.to("float32") - 0.5  # the outer edge of the part's first pixel
    matrix = g.op("Concat", linear, g.op("Concat", u, v, axis=1) - first, axis=0)
    return matrix * (2.0 / (cells * factor).to("float32")) - _f32([[0, 0], [0, 0], [1, 1]])


def _planes(part: Value) -> Value:  # (rows, columns, 3) uint8 -> (3, rows, columns) single precision
    return part.graph.op("Transpose", part.to("float32"), perm=[2, 0, 1])


def _shrunk(part: Value, cells: Value, factor: Value) -> Value:
    """Means of squares of ``factor`` pixels, in whole levels: (3, rows, columns) single precision."""
    g = part.graph
    columns, rows = (g.op("Gather", cells, [i]) for i in (0, 1))
    each = g.op("Unsqueeze", factor, [0])
    by_rows = g.op("Reshape", part.to("float32"), g.op("Concat", rows, each, [-1], axis=0))
    means = g.op("ReduceMean", by_rows, [1], keepdims=0)  # (rows, 3 * columns * factor)
    planes = g.op("Transpose", g.op("Reshape", means, [-1, 3]), perm=[1, 0])
    by_columns = g.op("Reshape", planes, g.op("Concat", [3], rows, columns, each, axis=0))
    return rounded(g.op("ReduceMean", by_columns, [3], keepdims=0), g.op("Equal", factor, 2))


def _sampled(planes: Value, transform: Value, anchor: tuple[float, float], size: int) -> Value:
    """Bilinear samples (size, size, 3) uint8 of (3, rows, columns), black outside."""
    g = planes.graph
    y, x = np.mgrid[:size, :size].astype(np.float32)
    crop = np.stack([x - anchor[0], y - anchor[1], np.ones_like(x)], -1).reshape(-1, 3).astype(np.float32)
    grid = g.op("Reshape", g.op("MatMul", crop, transform), [1, size, size, 2])
    image = g.op("Unsqueeze", planes, [0])
    mode = "linear" if g.opset >= 20 else "bilinear"  # its name from then on
    levels = g.op("GridSample", image, grid, mode=mode, padding_mode="zeros", align_corners=0)
    levels = (g.op("Squeeze", levels, [0]) + 0.5).to("uint8")
    return g.op("Transpose", levels, perm=[1, 2, 0])
