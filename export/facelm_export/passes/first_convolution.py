"""The convolution that sees pixels, in 8 bits: pixels are such numbers already, so only its weights are rounded.

onnxruntime's integer convolution gathers its input per filter tap, four channels at a time, and pixels have three. A
row of a crop is contiguous bytes, though, BGRBGR...: seen as units of four channels, twelve bytes are four pixels and
three units. A filter of 3 x 3 with stride 2 at two neighbouring positions reads 15 of the 16 bytes of four units, so
both positions together are one filter of 3 x 4 units, stride 2 x 3, with twice the outputs; they end up side by side
in memory as (n, h, w / 2, 2 * outputs), which is (n, h, w, outputs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

UNIT = 4
"""Channels that onnxruntime multiplies at a time."""


def quantize_first_convolution(proto: ModelProto) -> None:
    """Put the first convolution of a quantized graph in 8 bits, as onnxruntime on a CPU computes it fastest.

    Changes ``proto`` where its crops, uint8 (n, S, S, 3), only lose a mean on the way to one convolution of 3 x 3 with
    stride 2, an activation and a rounding; any other stays as it is. Beyond a crop's edge stands one mean of the three
    channels in place of one for each.
    """
    from onnx import helper, numpy_helper

    graph = proto.graph
    found = _find(graph)
    if found is None:
        return
    cast, transpose, subtract, conv, _, rounding = found
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weight, bias = (tensors[name].astype(np.float64) for name in conv.input[1:])
    mean = tensors[subtract.input[1]].astype(np.float64).reshape(1, 3, 1, 1)
    zero = round(float(mean.mean()))
    bias = np.tile(bias + (weight * (zero - mean)).sum((1, 2, 3)), 2)
    weight = filters_of_two(weight)
    scale = np.abs(weight).reshape(len(weight), -1).max(1).clip(1e-8) / 127
    crops, side, outputs = graph.input[0].name, graph.input[0].type.tensor_type.shape.dim[1].dim_value, len(scale) // 2

    def constant(name: str, value: NDArray[Any]) -> str:
        name = f"{conv.name}_{name}"
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
        output = f"{conv.name}_{output}"
        return helper.make_node(kind, inputs, [output], name=output, **attributes)

    def dequantized(name: str, value: NDArray[Any], steps: NDArray[Any], **attributes: Any) -> NodeProto:
        zeros = np.zeros(steps.shape, value.dtype)
        parts = [
            constant(f"{name}_quantized", value),
            constant(f"{name}_scale", steps),
            constant(f"{name}_zero", zeros),
        ]
        return node("DequantizeLinear", parts, name, **attributes)

    steps = scale.astype(np.float32)
    before = [
        node("Reshape", [crops, constant("units_shape", np.array([-1, side, side * 3 // UNIT, UNIT]))], "units"),
        node("Transpose", [f"{conv.name}_units"], "planes", perm=[0, 3, 1, 2]),
        node(
            "DequantizeLinear",
            [f"{conv.name}_planes", constant("one", np.float32(1)), constant("zero", np.uint8(zero))],
            "pixels",
        ),
        dequantized("weight", np.rint(weight / scale[:, None, None, None]).astype(np.int8), steps, axis=0),
        dequantized("bias", np.rint(bias / scale).astype(np.int32), steps, axis=0),
    ]
    conv.input[:] = [f"{conv.name}_{name}" for name in ("pixels", "weight", "bias")]
    for attribute, value in (("kernel_shape", [3, 4]), ("strides", [2, 3]), ("pads", [1, 1, 0, 0])):
        next(entry for entry in conv.attribute if entry.name == attribute).ints[:] = value
    rounded, rounding.output[0] = rounding.output[0], f"{conv.name}_two"
    shape = constant("shape", np.array([-1, side // 2, side // 2, outputs]))
    after = [
        node("Transpose", [f"{conv.name}_two"], "rows", perm=[0, 2, 3, 1]),
        node("Reshape", [f"{conv.name}_rows", shape], "apart"),
        helper.make_node("Transpose", [f"{conv.name}_apart"], [rounded], name=f"{conv.name}_map", perm=[0, 3, 1, 2]),
    ]
    nodes = [entry for entry in graph.node if entry not in (cast, transpose, subtract)]
    at = nodes.index(rounding) + 1
    nodes = [*before, *nodes[:at], *after, *nodes[at:]]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    used = {name for entry in nodes for name in entry.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def filters_of_two(
    weight: NDArray[Any],  # (outputs, 3, 3, 3), of pixels
) -> NDArray[Any]:  # (2 * outputs, 4, 3, 4), of units, from one unit to the left of the first position's pixels
    """Return the filters of two neighbouring positions, those of the left one first."""
    outputs = len(weight)
    rows: NDArray[Any] = np.zeros((2, outputs, 3, 4 * UNIT))
    taps = weight.transpose(0, 2, 3, 1).reshape(outputs, 3, 9)
    for position in range(2):
        first = UNIT - 3 + 6 * position  # the left position's first pixel is the last one before its units
        rows[position, :, :, first : first + 9] = taps
    filters: NDArray[Any] = rows.reshape(2 * outputs, 3, 4, UNIT).transpose(0, 3, 1, 2)
    return filters


def _find(graph: GraphProto) -> list[NodeProto] | None:
    """Return the nodes from the crops to the first rounding, if they are the ones that can be replaced."""
    name, nodes = graph.input[0].name, []
    for kinds in (("Cast",), ("Transpose",), ("Sub",), ("Conv",), ("Clip", "Relu"), ("QuantizeLinear",)):
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1 or users[0].op_type not in kinds or users[0].input[0] != name:
            return None
        nodes.append(users[0])
        name = users[0].output[0]
    conv = nodes[3]
    dims = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shape = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    geometry = {entry.name: list(entry.ints) for entry in conv.attribute}
    fits = (
        dims.get(nodes[2].input[1]) == [1, 3, 1, 1]
        and len(conv.input) == 3
        and dims.get(conv.input[1], [])[1:] == [3, 3, 3]
        and (geometry["strides"], geometry["pads"], geometry["dilations"]) == ([2, 2], [1, 1, 1, 1], [1, 1])
        and shape[1] == shape[2] > 0
        and shape[1] % UNIT == 0
    )
    return nodes if fits else None
