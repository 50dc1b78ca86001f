"""A detector's passes over a picture as nodes: the graph's twin of :mod:`facelm_sdk.detector`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from facelm_sdk import detector as sdk
from facelm_sdk.detector import DetSize

from ..graph_builder import GraphBuilder, Kind, Value

BLOCK = 16
"""Rows and columns resampled at a time, as one matrix product each; a large picture never lies in single precision."""

KINDS: list[Kind] = [("float32", (None, 4)), ("float32", (None,)), ("float32", (None, 5, 2))]
"""Of the parts of :class:`Found`."""

MOST_HALVINGS = 16

f64 = np.float64


@dataclass(frozen=True)
class Found:
    """Detections: ``boxes`` (k, 4), ``scores`` (k,), ``kps`` (k, 5, 2), as in :class:`facelm_sdk.Detections`."""

    boxes: Value
    scores: Value
    kps: Value

    def all(self) -> list[Value]:
        return [self.boxes, self.scores, self.kps]

    def where(self, kept: Value) -> Found:  # (k,) bool
        return Found(*(kept.graph.op("Compress", one, kept, axis=0) for one in self.all()))

    def take(self, index: Value) -> Found:  # (m,) int64
        return Found(*(index.graph.op("Gather", one, index, axis=0) for one in self.all()))

    def joined(self, other: Found) -> Found:
        pairs = zip(self.all(), other.all(), strict=True)
        return Found(*(one.graph.op("Concat", one, two, axis=0) for one, two in pairs))


def detect(
    picture: Value,  # (H, W, 3) uint8
    detector: Callable[[Value], Found],  # sees (1, h, w, 3) uint8
    det_size: DetSize,
    det_thresh: float,
) -> Found:
    """:class:`facelm_sdk.Detector` called with a picture."""
    look = _Looker(picture, detector, det_thresh)
    if det_size == "auto":
        return merged(_auto(look))
    if isinstance(det_size, int):
        return merged(look(f64(det_size) / look.long_side))
    frame = np.array(det_size, np.int64)
    scale = look.graph.op("ReduceMin", frame.astype(f64) / look.sides, keepdims=0)
    return merged(look(scale, frame=look.graph.value(frame)))


class _Looker:
    """What the passes over one picture share. Scales are in double precision, as sides are rounded from them."""

    def __init__(self, picture: Value, detector: Callable[[Value], Found], det_thresh: float) -> None:
        self.graph, self.picture = picture.graph, picture
        self.detector, self.det_thresh = detector, det_thresh
        self.sides = self.graph.op("Gather", self.graph.op("Shape", picture), [1, 0]).to("float64")  # width, height
        self.long_side = self.graph.op("ReduceMax", self.sides, keepdims=0)
        self.short_side = self.graph.op("ReduceMin", self.sides, keepdims=0)
        self.pixels = self.graph.op("ReduceProd", self.sides, keepdims=0)

    def __call__(
        self,
        scale: Value,
        *,
        least: Value | None = None,
        quick: Value | None = None,
        frame: Value | None = None,
        offset: Value | None = None,
    ) -> Found:
        """One pass: the picture times ``scale``, at ``offset`` (2,) in a black ``frame`` (2,), (x, y) int64.

        What scores below ``least`` (default: ``det_thresh``) is left out; ``quick``: see resized.
        """
        g = self.graph
        size = g.op("Max", g.op("Round", self.sides * scale), f64(1)).to("int64")
        seen, shown = resized(self.picture, size, g.value(np.array(False)) if quick is None else quick)
        before = g.value(np.zeros(2, np.int64)) if offset is None else offset
        room = [np.int64(sdk.MIN_SIDE), *([] if frame is None else [frame])]
        after = g.op("Max", size, *room) - before - size
        # (2,) x, y -> top, left, channel; bottom, right, channel
        pads = g.op("Gather", g.op("Concat", before, after, [0], axis=0), [1, 0, 4, 3, 2, 4])
        found = self.detector(g.op("Unsqueeze", g.op("Pad", seen, pads), [0]))
        found = found.where(found.scores >= (np.float32(self.det_thresh) if least is None else least))
        zoom = (size.to("float64") / shown.to("float64")).to("float32")
        shift = before.to("float32")

        def back(points: Value) -> Value:
            return (points - shift + 0.5) / zoom - 0.5

        boxes = g.op("Reshape", back(g.op("Reshape", found.boxes, [-1, 2, 2], allowzero=1)), [-1, 4])
        return Found(boxes, found.scores, back(found.kps))


def _auto(look: _Looker) -> Found:
    """``Detector._auto``: its passes as the turns of one loop, so that the network stands in the graph once."""
    g = look.graph
    by_pixels = g.op("Sqrt", f64(sdk.MAX_PIXELS) / look.pixels)
    most = g.op("Min", by_pixels, f64(sdk.MAX_PIXELS / sdk.MIN_SIDE) / look.long_side)
    wanted = g.op("Max", f64(sdk.BASE_LONG_SIDE) / look.long_side, f64(sdk.BASE_SHORT_SIDE) / look.short_side)
    base = g.op("Min", wanted, f64(sdk.MAX_UPSCALE), most)
    border = (f64((1 - sdk.CONTEXT) / 2) * base * look.sides).to("int64")
    base_frame = g.op("Round", look.sides * base).to("int64")

    nothing = g.value(np.zeros(2, np.int64))
    first_scale = base * f64(sdk.GLANCE_LONG_SIDE / sdk.BASE_LONG_SIDE)
    glances = look.short_side * first_scale >= f64(sdk.MIN_SIDE)

    def turn(
        index: Value, scale: Value, bordered: Value, fills: Value, *found: Value
    ) -> tuple[Value, Sequence[Value], Sequence[Value]]:
        level = index - glances.to("int64")
        glancing = level < 0
        seen = look(
            scale,
            least=g.op("Where", glancing, np.float32(sdk.MAYBE), np.float32(min(sdk.MAYBE_SMALL, look.det_thresh))),
            quick=glancing,
            frame=g.op("Where", bordered, base_frame, nothing),
            offset=g.op("Where", bordered, border, nothing),
        )
        sure = seen.scores >= np.float32(look.det_thresh)
        sides = _sides(seen) * scale.to("float32")
        filled = _fills_frame(seen.where(sure), look.sides)
        one = g.op("Equal", g.op("Size", seen.scores), 1)
        enough = glancing & ~filled & one & ~_any(~sure | (sides < np.float32(sdk.GLANCE_FACE)))
        closer_look = (g.op("Size", found[1]) > 0) & ~bordered
        largest = g.op("Where", closer_look, np.float32(sdk.LARGE_FACE), np.float32(np.inf))
        together = Found(*found).joined(seen.where(sure & (sides <= largest) & (enough | ~glancing)))
        none = g.op("Equal", g.op("Size", together.scores), 0)
        fills = fills | (g.op("Equal", level, 0) & filled)
        closer = g.op("Min", scale * f64(sdk.ZOOM), f64(1), most)
        medium = sides < np.float32(sdk.MEDIUM_FACE)
        more = _any(sure & (sides < np.float32(sdk.SMALL_FACE))) | (_any(medium & sure) & _any(medium & ~sure))
        zooms = ~bordered & ~glancing & (level < sdk.ZOOMS) & (closer > scale) & (none | more)
        borders = ~bordered & ~glancing & ~zooms & (none | fills)
        scale = g.op("Where", glancing, base, g.op("Where", zooms, closer, base * f64(sdk.CONTEXT)))
        goes_on = (glancing & ~enough) | zooms | borders
        return goes_on, [scale, borders, fills, *together.all()], []

    no = g.value(np.array(False))
    kinds: list[Kind] = [("float64", ()), ("bool", ()), ("bool", ()), *KINDS]
    start = [g.op("Where", glances, first_scale, base), no, no, *_none(g).all()]
    return Found(*g.loop(sdk.ZOOMS + 3, start, turn, kinds)[3:])


def _none(g: GraphBuilder) -> Found:
    return Found(*(g.value(np.zeros(shape, np.float32)) for shape in ((0, 4), (0,), (0, 5, 2))))


def _corners(found: Found) -> tuple[Value, Value]:
    """(k, 2) x1 y1 and (k, 2) x2 y2."""
    first, last = found.boxes.graph.ops("Split", 2, found.boxes, axis=1, num_outputs=2)
    return first, last


def _sides(found: Found) -> Value:  # (k,)
    first, last = _corners(found)
    return first.graph.op("ReduceMax", last - first, [1], keepdims=0)


def _area(first: Value, last: Value) -> Value:
    """The areas (...) of boxes from ``first`` (..., 2) to ``last`` (..., 2), zero where a side is negative."""
    return first.graph.op("ReduceProd", first.graph.op("Max", last - first, 0.0), [-1], keepdims=0)


def _any(flags: Value) -> Value:
    """Whether any of them is true; not so for none at all."""
    g = flags.graph
    flat = g.op("Concat", g.op("Reshape", flags.to("int64"), [-1]), [0], axis=0)
    return g.op("ReduceMax", flat, keepdims=0) > 0


def _fills_frame(found: Found, sides: Value) -> Value:
    first, last = _corners(found)
    size = sides.to("float32")
    touches = (first <= sdk.BORDER * size) & (last >= (1 - sdk.BORDER) * size - 1.0)
    pixels = size.graph.op("ReduceProd", size, keepdims=0)
    return _any(touches) | _any(_area(first, last) > sdk.FILLS_FRAME * pixels)


def merged(found: Found) -> Found:
    """``facelm_sdk.boxes.merge``: best score first, without those that a better one overlaps or contains."""
    g = found.boxes.graph
    count = g.op("Shape", found.scores)
    found = found.take(g.ops("TopK", 2, found.scores, count, axis=0)[1])
    first, last = _corners(found)
    areas = _area(first, last)  # (k,)
    both = _area(
        g.op("Max", g.op("Unsqueeze", first, [1]), first), g.op("Min", g.op("Unsqueeze", last, [1]), last)
    )  # (k, k): what the better box, a row, shares with the other, a column
    union = g.op("Unsqueeze", areas, [1]) + areas - both
    iou, contained = both / g.op("Max", union, 1e-9), both / g.op("Max", areas, 1e-9)
    beats = ((iou > sdk.MAX_IOU) | (contained > sdk.MAX_CONTAINED)).to("float32")
    beats = g.op("Trilu", beats, np.int64(1), upper=1)  # only a better box beats another

    def turn(index: Value, kept: Value) -> tuple[Value, Sequence[Value], Sequence[Value]]:
        """Boxes that no kept one beats; the first i are final after i turns."""
        after = 1.0 - g.op("Min", g.op("MatMul", kept, beats), 1.0)
        return _any(~g.op("Equal", after, kept)), [after], []

    (kept,) = g.loop(g.op("Size", found.scores), [g.op("Expand", 1.0, count)], turn, [("float32", (None,))])
    return found.where(kept > 0.5)


def resized(
    picture: Value,  # (H, W, 3) uint8
    size: Value,  # (2,) int64 width, height
    quick: Value,  # bool
) -> tuple[Value, Value]:  # (height, width, 3) uint8, (2,) int64
    """``facelm_sdk.detector._resized``."""
    g = picture.graph
    kind: Kind = ("uint8", (None, None, 3))
    factors = 2 ** np.arange(MOST_HALVINGS + 1, dtype=np.int64)
    enough = g.op("ReduceMin", (_sides_of(picture) / factors[1:, None] >= size).to("int64"), [1], keepdims=0)
    times = g.op("ReduceSum", enough, keepdims=0)

    def halve(index: Value, picture: Value) -> tuple[None, Sequence[Value], Sequence[Value]]:
        half = _sides_of(picture) / 2
        even = g.op("Slice", picture, [0, 0], g.op("Gather", half * 2, [1, 0]), [0, 1])
        return None, [_averaged(even, half * 2, half)], []

    (halved,) = g.loop(times, [picture], halve, [kind])
    sides = _sides_of(halved)
    shown = sides * g.op("Gather", factors, times)

    def scaled() -> Value:
        larger = _any(sides > size) & ~quick
        return g.where(larger, lambda: _averaged(halved, sides, size), lambda: _interpolated(halved, sides, size), kind)

    return g.where(_any(~g.op("Equal", sides, size)), scaled, lambda: halved, kind), shown


def _sides_of(picture: Value) -> Value:  # (2,) int64 width, height
    return picture.graph.op("Gather", picture.graph.op("Shape", picture), [1, 0])


def _averaged(picture: Value, sides: Value, size: Value) -> Value:
    """By areas, a band of rows at a time: its rows, then its columns. Transpositions of two axes are the fast ones."""
    g = picture.graph
    (width, height), (new_width, new_height) = _xy(sides), _xy(size)
    rows = g.op("Reshape", picture, [0, -1])  # (H, 3 W)
    row_cells, row_shares = _blocks(height, new_height)
    cells, shares = _blocks(width, new_width)
    exact_half = ~_any(~g.op("Equal", sides, size * 2))

    def band(index: Value) -> tuple[None, Sequence[Value], Sequence[Value]]:
        taken = g.op("Gather", rows, g.op("Gather", row_cells, index, axis=0), axis=0).to("float32")
        part = g.op("MatMul", g.op("Gather", row_shares, index, axis=0), taken)  # (BLOCK, 3 W)
        part = g.op("Transpose", g.op("Reshape", part, [-1, 3]), perm=[1, 0])  # (3, BLOCK W)
        part = g.op("Transpose", g.op("Reshape", part, [3 * BLOCK, -1]), perm=[1, 0])  # (W, 3 BLOCK)
        part = g.op("MatMul", shares, g.op("Gather", part, cells, axis=0))  # (blocks, BLOCK, 3 BLOCK)
        levels = rounded(g.op("Reshape", part, [-1, 3 * BLOCK]), exact_half).to("uint8")
        return None, [], [g.op("Reshape", g.op("Transpose", levels, perm=[1, 0]), [3, BLOCK, -1])]

    count = g.op("Gather", g.op("Shape", row_cells), 0)
    (bands,) = g.loop(count, [], band, [("uint8", (3, BLOCK, None))])
    bands = g.op("Slice", bands, [0], g.op("Unsqueeze", new_width, [0]), [3])  # the last block is filled up
    whole = g.op("Transpose", bands, perm=[0, 2, 3, 1])
    whole = g.op("Reshape", whole, g.op("Concat", [-1], g.op("Unsqueeze", new_width, [0]), [3], axis=0))
    return g.op("Slice", whole, [0], g.op("Unsqueeze", new_height, [0]), [0])


def _xy(pair: Value) -> tuple[Value, Value]:
    return pair.graph.op("Gather", pair, 0), pair.graph.op("Gather", pair, 1)


def _blocks(old: Value, new: Value) -> tuple[Value, Value]:
    """The ``old`` cells of a side that each BLOCK of the ``new`` ones covers, and what part of each new one they are.

    Returns (blocks, T) int64 and (blocks, BLOCK, T) single precision.
    """
    g = old.graph
    step = old.to("float64") / new.to("float64")
    index = g.op("Range", f64(0), g.op("Ceil", new.to("float64") / f64(BLOCK)) * f64(BLOCK), f64(1))
    start = g.op("Reshape", index, [-1, BLOCK, 1]) * step
    first = g.op("Floor", g.op("Slice", start, [0], [1], [1]))  # (blocks, 1, 1)
    cells = first + g.op("Range", f64(0), g.op("Ceil", step * f64(BLOCK)) + f64(1), f64(1))
    covered = g.op("Min", start + step, cells + f64(1)) - g.op("Max", start, cells)
    shares = (g.op("Max", covered, f64(0)) / step).to("float32")
    return g.op("Clip", g.op("Squeeze", cells, [1]).to("int64"), np.int64(0), old - 1), shares


def _interpolated(picture: Value, sides: Value, size: Value) -> Value:
    """Linear, in OpenCV's whole numbers: near levels decide which of two good boxes of a face is the better."""
    g = picture.graph
    (width, height), (new_width, new_height) = _xy(sides), _xy(size)
    by_rows = g.op("Concat", g.op("Unsqueeze", height, [0]), [-1], axis=0)

    def columns(cells: Value, shares: Value) -> Value:
        taken = g.op("Reshape", g.op("Gather", picture, cells, axis=1), by_rows).to("int32")  # (H, 3 w)
        each = g.op("Unsqueeze", shares, [1]) * np.ones((1, 3), np.int32)
        return taken * g.op("Reshape", each, [1, -1])

    left, right = (columns(*one) for one in _neighbours(width, new_width))
    part = (left + right) / np.int32(16)
    upper, lower = (
        g.op("Gather", part, cells, axis=0) * g.op("Unsqueeze", shares, [1]) / np.int32(1 << 16)
        for cells, shares in _neighbours(height, new_height)
    )
    levels = ((upper + lower + np.int32(2)) / np.int32(4)).to("uint8")
    return g.op("Reshape", levels, g.op("Concat", g.op("Gather", size, [1, 0]), [3], axis=0))


def _neighbours(old: Value, new: Value) -> list[tuple[Value, Value]]:
    """The two old cells nearest to each new one, (new,) int64, and their shares of 2048, (new,) int32."""
    g = old.graph
    step = old.to("float64") / new.to("float64")
    at = ((g.op("Range", f64(0), new.to("float64"), f64(1)) + f64(0.5)) * step - f64(0.5)).to("float32")
    at = g.op("Clip", at, 0.0, (old - 1).to("float32"))
    first = g.op("Floor", at)
    second = g.op("Min", first.to("int64") + 1, old - 1)
    share = at - first
    pairs = ((first.to("int64"), 1.0 - share), (second, share))
    return [(cells, g.op("Round", part * 2048.0).to("int32")) for cells, part in pairs]


def rounded(
    means: Value,  # single precision
    halved: Value,  # bool: they are means of 2 by 2 pixels
) -> Value:
    """Whole levels, as OpenCV rounds means of areas: halves go to the even level, but of 2 by 2 pixels up."""
    g = means.graph
    return g.op("Round", means + g.op("Where", halved, 1e-3, 0.0))
