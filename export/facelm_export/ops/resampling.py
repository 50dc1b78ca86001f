"""A picture fitted to the detector and crops cut from it: by OpenCV in PyTorch, by ONNX functions in the graph.

The runtime's own code is the readable twin, so that a pipeline in PyTorch is Aligner; a test holds the graph to it.
Both give levels as planes in single precision, which is what networks begin with; what is larger stays in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from onnx import numpy_helper
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.traversal import RecursiveGraphIterator
from onnxscript import FLOAT, INT8, INT64, UINT8, opset18, script

from facelm_sdk.detector import MIN_SIDE, _resized
from facelm_sdk.transform import CropTransform

if TYPE_CHECKING:
    from typing import TypeAlias

    Uint8: TypeAlias = Any
    Int8: TypeAlias = Any
    Int64: TypeAlias = Any
    Float: TypeAlias = Any
else:  # of any shape, as onnxscript writes it
    Uint8, Int8, Int64, Float = UINT8[...], INT8[...], INT64[...], FLOAT[...]

op: Any = opset18
CELL = 8
"""Pixels beside each other that come out of one step of a convolution: 24 channels are enough for its fast kernels."""

LEVEL, NONE, ONE = (numpy_helper.from_array(np.asarray(*value)) for value in ((0, "u1"), (0, "i1"), (1, "u1")))
UPWARDS = numpy_helper.from_array(np.ones(3 * CELL, np.int32))

FLOAT32, BYTES, INTEGERS, DOUBLE = 1, 2, 7, 11
"""Element types as ONNX numbers them. Sides are rounded from scales in double precision, as in Python."""


@torch.library.custom_op("facelm::fit", mutates_args=())
def fit(
    picture: torch.Tensor,  # (H, W, 3) uint8
    width: int,
    height: int,
    padded: bool,
) -> tuple[torch.Tensor, torch.Tensor]:  # (1, 3, h, w), (2,)
    """The picture as Detector sees it, fitted into ``width`` by ``height``, and how far it was zoomed along x and y.

    The rest of the frame, where ``padded``, and of MIN_SIDE is black.
    """
    sides = picture.shape[1], picture.shape[0]
    scale = min(width / sides[0], height / sides[1])
    size = max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))
    resized, seen = _resized(picture.numpy(), size)
    right, bottom = (max(0, least - side) for least, side in zip(_least(width, height, padded), size, strict=True))
    planes = torch.from_numpy(resized).permute(2, 0, 1)[None].float()
    zoom = torch.tensor([size[0] / seen[0], size[1] / seen[1]], dtype=torch.float32)
    return torch.nn.functional.pad(planes, (0, right, 0, bottom)), zoom


def _least(width: int, height: int, padded: bool) -> tuple[int, int]:
    """What the detector sees at least."""
    return (max(width, MIN_SIDE), max(height, MIN_SIDE)) if padded else (MIN_SIDE, MIN_SIDE)


@fit.register_fake
def _(picture: torch.Tensor, width: int, height: int, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    sides = (torch.library.get_ctx().new_dynamic_size(min=MIN_SIDE) for _ in range(2))
    return picture.new_empty(1, 3, *sides, dtype=torch.float32), picture.new_empty(2, dtype=torch.float32)


@torch.library.custom_op("facelm::cut", mutates_args=())
def cut(
    picture: torch.Tensor,  # (H, W, 3) uint8
    back: torch.Tensor,  # (k, 2, 3): crop pixels to picture pixels
    size: int,
) -> torch.Tensor:  # (k, 3, size, size)
    """``CropTransform.warp`` of each of the similarities whose inverses are ``back``."""
    crops = np.zeros((len(back), size, size, 3), np.uint8)
    for crop, inverse in zip(crops, back.double().numpy(), strict=True):
        CropTransform(CropTransform(inverse, size).inverse, size).warp(picture.numpy(), out=crop)
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float()


@cut.register_fake
def _(picture: torch.Tensor, back: torch.Tensor, size: int) -> torch.Tensor:
    # For tracing alone, in which some operators ask; a run may have no crop.
    torch._check(back.shape[0] > 0)  # type: ignore[no-untyped-call]
    return back.new_empty(back.shape[0], 3, size, size)


@script()
def _sizes(picture: Uint8, frame: Int64) -> tuple[Int64, Int64, Int64, Int64]:
    """(H, W, 3) and a frame's height, width -> the picture's in it, how often it is thinned and then halved first.

    The last is the power of two by which its sides are divided so.
    """
    sides = op.Shape(picture, start=0, end=2)
    scale = op.ReduceMin(op.Cast(frame, to=DOUBLE) / op.Cast(sides, to=DOUBLE))
    size = op.Max(op.Cast(op.Round(op.Cast(sides, to=DOUBLE) * scale), to=INTEGERS), 1)
    far = op.Unsqueeze(op.Constant(value_ints=[8, 32, 128, 512, 2048, 8192]), [1])
    thinnings = op.ReduceSum(op.ReduceMin(op.Clip(sides / far / size, 0, 1), [1], keepdims=0), keepdims=0)
    powers = op.Constant(value_ints=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192])
    left = sides / op.Gather(powers, thinnings * 2)
    two = op.Unsqueeze(op.Constant(value_ints=[2, 4]), [1])
    halvings = op.ReduceSum(op.ReduceMin(op.Clip(left / two / size, 0, 1), [1], keepdims=0), keepdims=0)
    return size, thinnings, halvings, op.Gather(powers, thinnings * 2 + halvings)


@script()
def _shrunk(picture: Uint8, thinnings: Int64, halvings: Int64, inner: Int8, all: Int8) -> Uint8:
    """(H, W, 3) -> (h, w, 3), or wider and higher by what no pixel of it needs: means by two weights in 256ths.

    Cells of pixels that lie beside each other are convolved, whose many channels onnxruntime takes as they lie; a
    picture that is no whole number of cells wide is widened first. No large value may leave a branch as it came: it
    would be copied.
    """
    unit, parts = op.Constant(value_float=1.0), op.Constant(value_float=1 / 256)
    level, none, upwards = op.Constant(value=LEVEL), op.Constant(value=NONE), op.Constant(value=UPWARDS)
    more = thinnings + halvings > 0
    while more:
        thins = thinnings > 0
        inside = op.Where(thins, op.Shape(inner, start=1, end=2), op.Shape(all, start=1, end=2))
        missing = op.Mod(op.Shape(picture, start=1, end=2) * -3, inside) / 3
        height = op.Gather(op.Shape(picture), [0])  # of a known length, else onnxruntime knows no rank of x
        if op.Squeeze(missing) > 0:
            shrunk = op.Pad(picture, op.Concat([0, 0, 0, 0], missing, [0], axis=0))
        elif thins:
            shape = op.Concat([1], height, [-1], op.Shape(inner, start=1, end=2), axis=0)
            x = op.Transpose(op.Reshape(picture, shape), perm=[0, 3, 1, 2])
            y = op.QLinearConv(
                x, unit, level, inner, parts, none, unit, level, upwards, strides=[4, 1], pads=[3, 0, 0, 0]
            )
            # The inner rows begin with the second, so the first of the result is of padding alone.
            cells = op.Slice(op.Transpose(y, perm=[0, 2, 3, 1]), [1], op.Shape(picture, start=0, end=1), [1])
            shrunk = op.Reshape(cells, op.Concat(op.Shape(cells, start=1, end=2), [-1, 3], axis=0))
        else:
            shape = op.Concat([1], height, [-1], op.Shape(all, start=1, end=2), axis=0)
            x = op.Transpose(op.Reshape(picture, shape), perm=[0, 3, 1, 2])
            y = op.QLinearConv(x, unit, level, all, parts, none, unit, level, upwards, strides=[2, 1])
            cells = op.Transpose(y, perm=[0, 2, 3, 1])
            shrunk = op.Reshape(cells, op.Concat(op.Shape(cells, start=1, end=2), [-1, 3], axis=0))
        done = op.Cast(op.Squeeze(missing) == 0, to=INTEGERS)
        halvings = halvings - done * op.Cast(thinnings == 0, to=INTEGERS)
        thinnings = op.Max(thinnings - done, 0)
        picture = shrunk
        more = thinnings + halvings > 0
    return picture


@script()
def _resampled(picture: Uint8, size: Int64, least: Int64) -> Float:
    """(h, w, 3), (2,) new height, width -> (1, 3, height, width), by areas where it shrinks, else linearly.

    Black up to ``least`` (2,) height, width.
    """
    sides = op.Shape(picture, start=0, end=2)
    pads = op.Concat([0, 0, 0, 0], op.Max(least - size, 0), axis=0)
    if op.ReduceMax(op.Abs(sides - size), keepdims=0) == 0:
        resampled = op.Pad(op.Transpose(picture, perm=[2, 0, 1]), pads)
    else:
        shrinks = op.ReduceMax(sides - size, keepdims=0) > 0
        by_columns = op.Reshape(op.Transpose(picture, perm=[1, 2, 0]), op.Concat(op.Gather(sides, [1]), [-1], axis=0))
        turned = op.Cast(by_columns, to=FLOAT32)  # (w, 3 h)
        for turn in range(2):  # the columns of all planes at once; then, turned, the rows of each
            axis = op.Unsqueeze(1 - turn, [0])
            new, old = op.Gather(size, axis), op.Gather(sides, axis)
            step = op.Cast(old, to=DOUBLE) / op.Cast(new, to=DOUBLE)
            index = op.Cast(op.Unsqueeze(op.Range(0, op.Squeeze(new), 1), [1]), to=DOUBLE)
            centre = op.Cast(op.Cast((index + 0.5) * step - 0.5, to=FLOAT32), to=DOUBLE)
            last = op.Cast(op.Squeeze(old - 1), to=DOUBLE)
            start = op.Where(shrinks, index * step, op.Clip(centre, op.CastLike(0.0, step), last))  # (new, 1)
            taps = op.Cast(op.Squeeze(op.Ceil(step)), to=INTEGERS) + 1
            cells = op.Floor(start) + op.Cast(op.Range(0, taps, 1), to=DOUBLE)  # (new, taps)
            covered = (op.Min(start + step, cells + 1.0) - op.Max(start, cells)) / step
            share = op.Relu(op.Cast(op.Where(shrinks, covered, 1.0 - op.Abs(cells - start)), to=FLOAT32))
            inside = op.Min(op.Max(op.Cast(cells, to=INTEGERS), 0), old - 1)
            groups = op.Unsqueeze(op.Range(0, 1 + 2 * turn, 1), [1, 2]) * old
            levels = op.Gather(turned, groups + inside, axis=0)  # (groups, new, taps, m)
            if shrinks:
                means = op.MatMul(op.Unsqueeze(share, [1]), levels)
            else:  # in OpenCV's whole numbers: near levels decide which of two good boxes of a face is the better
                parts = levels * op.Unsqueeze(op.Round(share * 2048.0), [2]) / op.Gather([1.0, 65536.0], turn)
                total = op.ReduceSum(op.Floor(parts), [2]) + op.Gather([0.0, 2.0], turn)
                means = op.Floor(total / op.Gather([16.0, 4.0], turn))
            turned = op.Transpose(op.Flatten(means, axis=2))  # (m, groups new)
        planes = op.Reshape(op.Cast(turned + 0.5, to=BYTES), op.Concat(op.Gather(size, [1]), [3, -1], axis=0))
        resampled = op.Pad(op.Transpose(planes, perm=[1, 2, 0]), pads)
    return op.Unsqueeze(op.Cast(resampled, to=FLOAT32), [0])


@script()
def _cut(
    picture: Uint8,  # (H, W, 3)
    back: Float,  # (k, 2, 3)
    corners: Float,  # (4, 3): x, y, 1 of a crop's ends, which tell what part of the picture it shows
    pixels: Float,  # (size * size, 3): those of its pixels
    shape: Int64,  # (4,): 1, size, size, 2
) -> Float:  # (k, 3, size, size)
    sides = op.Gather(op.Shape(picture), [1, 0])
    none = op.Expand(0.0, op.Concat([0, 3], op.Slice(shape, [1], [3], [0]), axis=0))
    crops = op.SequenceInsert(op.SequenceEmpty(dtype=FLOAT32), none)
    count = op.Squeeze(op.Shape(back, start=0, end=1))
    for i in range(count):
        inverse = op.Transpose(op.Gather(back, i))  # (3, 2)
        zoom = op.Reshape(op.ReduceL2(op.Slice(inverse, [0], [1], [0])), [1])
        # A picture far finer than the crop is averaged first.
        factor = op.Min(op.Max(op.Cast(zoom, to=INTEGERS), 1), op.ReduceMin(sides))
        ends = op.MatMul(corners, inverse)
        low = op.Cast(op.Floor(op.ReduceMin(ends, [0], keepdims=0)), to=INTEGERS) - 2 * factor
        low = op.Min(op.Max(low, 0), sides - factor)
        high = op.Min(op.Cast(op.Ceil(op.ReduceMax(ends, [0], keepdims=0)), to=INTEGERS) + 2 * factor, sides)
        cells = op.Max((high - low) / factor, 1)  # (2,) x, y
        shown = cells * factor
        part = op.Slice(picture, op.Gather(low, [1, 0]), op.Gather(low + shown, [1, 0]), [0, 1])
        if op.Squeeze(factor) == 1:
            planes = op.Cast(op.Transpose(op.Unsqueeze(part, [0]), perm=[0, 3, 1, 2]), to=FLOAT32)
        else:
            by_rows = op.Reshape(part, op.Concat(op.Gather(cells, [1]), factor, [-1], axis=0))
            sums = op.MatMulInteger(op.Expand(op.Constant(value=ONE), op.Concat([1], factor, axis=0)), by_rows)
            rows = op.Reshape(op.Cast(sums, to=FLOAT32), op.Concat([-1], factor * 3, axis=0))
            share = op.Tile(op.EyeLike(op.Expand(0.0, [3, 3])), op.Concat([1], factor, axis=0))
            means = op.MatMul(share / op.Cast(factor * factor, to=FLOAT32), op.Transpose(rows))
            planes = op.Reshape(means, op.Concat([1, 3], op.Gather(cells, [1, 0]), axis=0))
        # GridSample's coordinates go from -1 to 1 across the part, from edge to edge.
        unit = 2.0 / op.Cast(shown, to=FLOAT32)
        first = op.Unsqueeze((op.Cast(low, to=FLOAT32) - 0.5) * unit + 1.0, [0])
        grid = op.MatMul(pixels, inverse * unit - op.Concat([[0.0, 0.0], [0.0, 0.0]], first, axis=0))
        crop = op.GridSample(planes, op.Reshape(grid, shape), mode="bilinear", padding_mode="zeros", align_corners=0)
        crops = op.SequenceInsert(crops, crop)
    return op.ConcatFromSequence(crops, axis=0)


def _table(values: Any, dtype: Any = np.float32) -> Any:
    return op.Constant(value=numpy_helper.from_array(np.asarray(values, dtype)))


def _means(step: int) -> Any:
    """Weights (3 CELL, 3 CELL step, 2, 1), in 256ths: means of the inner 2 by 2 of ``step`` by ``step`` pixels."""
    inner = np.zeros((1, step))
    inner[0, step // 2 - 1 : step // 2 + 1] = 64  # two of the largest products are all that AVX2 adds in 16 bits
    return _table(np.kron(np.kron(np.eye(CELL), inner), np.eye(3))[..., None, None].repeat(2, 2), np.int8)


def constants_beside(model: ir.Model) -> None:
    """Repeat what is constant of the convolutions here beside each: onnxruntime packs none from outside a branch."""
    for node in RecursiveGraphIterator(model.graph):
        for index, value in enumerate(node.inputs if node.op_type == "QLinearConv" else ()):
            if value is not None and value.is_initializer():
                assert value.const_value is not None and node.graph is not None
                beside = ir.Value(name=f"{node.outputs[0].name}_{index}")
                node.graph.insert_before(node, ir.node("Constant", [], {"value": value.const_value}, outputs=[beside]))
                node.replace_input_with(index, beside)
    RemoveUnusedNodesPass()(model)


def translations() -> dict[Any, Callable[..., Any]]:
    """What torch.onnx.export needs to know of the operators here."""

    def onnx_fit(picture: Any, width: int, height: int, padded: bool) -> Any:
        size, thinnings, halvings, whole = _sizes(picture, op.Constant(value_ints=[height, width]))
        seen = op.Div(op.Shape(picture, start=0, end=2), whole)
        shrunk = _shrunk(picture, thinnings, halvings, _means(4), _means(2))
        exact = op.Slice(shrunk, op.Constant(value_ints=[0, 0]), seen, op.Constant(value_ints=[0, 1]))
        image = _resampled(exact, size, op.Constant(value_ints=_least(width, height, padded)[::-1]))
        shown = op.Mul(seen, whole)
        zoom = op.Div(op.Cast(size, to=FLOAT32), op.Cast(shown, to=FLOAT32))
        return image, op.Gather(zoom, op.Constant(value_ints=[1, 0]))

    def onnx_cut(picture: Any, back: Any, size: int) -> Any:
        y, x = np.mgrid[:size, :size].reshape(2, -1)
        corners = _table([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]])
        pixels = _table(np.stack([x, y, np.ones_like(x)], 1))
        graph: Any = _cut  # its type knows of fewer inputs
        return graph(picture, back, corners, pixels, op.Constant(value_ints=[1, size, size, 2]))

    return {torch.ops.facelm.fit.default: onnx_fit, torch.ops.facelm.cut.default: onnx_cut}
