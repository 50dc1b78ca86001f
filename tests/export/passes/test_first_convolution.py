"""The convolution of pixels in 8 bits against the one that it replaces."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

from facelm_export.passes.first_convolution import filters_of_two, quantize_first_convolution

SIDE, OUTPUTS = 32, 16
LARGEST = 6.0


def crops(count: int = 2) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def graph(mean=(104.0, 116.0, 124.0), **geometry) -> onnx.ModelProto:
    """Crops to the rounded map of one convolution and its activation, and back to fp32."""
    rng = np.random.default_rng(4)
    tensors = {
        "mean": np.array(mean, np.float32).reshape(1, 3, 1, 1),
        "weight": rng.normal(0, 0.02, (OUTPUTS, 3, 3, 3)).astype(np.float32),
        "bias": rng.normal(1, 1, OUTPUTS).astype(np.float32),
        "low": np.float32(0),
        "high": np.float32(LARGEST),
        "scale": np.float32(LARGEST / 255),
        "zero": np.uint8(0),
    }
    options = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 1], **geometry}
    nodes = [
        helper.make_node("Cast", ["crops"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "mean"], ["centred"]),
        helper.make_node("Conv", ["centred", "weight", "bias"], ["made"], name="first", **options),
        helper.make_node("Clip", ["made", "low", "high"], ["clipped"]),
        helper.make_node("QuantizeLinear", ["clipped", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["map"]),
    ]
    inputs = [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", SIDE, SIDE, 3])]
    outputs = [helper.make_tensor_value_info("map", TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, constants), opset_imports=opset, ir_version=9
    )


def run(proto: onnx.ModelProto, options=None) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"crops": crops()})[0]


def test_two_positions_of_units_are_two_of_pixels():
    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3))
    pixels = torch.from_numpy(crops().astype(np.float64))
    expected = F.conv2d(pixels.permute(0, 3, 1, 2), torch.from_numpy(weight), stride=2, padding=1)
    units = pixels.reshape(-1, SIDE, SIDE * 3 // 4, 4).permute(0, 3, 1, 2)
    found = F.conv2d(F.pad(units, (1, 0, 1, 0)), torch.from_numpy(filters_of_two(weight)), stride=(2, 3))
    torch.testing.assert_close(
        found.permute(0, 2, 3, 1).reshape(2, SIDE // 2, SIDE // 2, 5), expected.permute(0, 2, 3, 1)
    )


def test_only_weights_are_rounded():
    """Inside the picture the map differs by what half a step of each weight makes of its pixel; no tensor is moved."""
    proto = graph()
    expected = run(proto)
    quantize_first_convolution(proto)
    found = run(proto)
    assert found.shape == expected.shape == (2, OUTPUTS, SIDE // 2, SIDE // 2)
    assert (expected > 0).mean() > 0.5 and (expected < LARGEST).mean() > 0.5
    differences = np.abs(found - expected)[:, :, 1:, 1:]
    assert 0 < differences.mean() < 0.02 and differences.max() < 0.2


def test_a_channels_own_mean_beyond_the_edge_hardly_matters():
    proto = graph()
    expected = run(proto)
    quantize_first_convolution(proto)
    edge = np.abs(run(proto) - expected)[:, :, 0]
    assert edge.max() < 27 * 0.02 * 12  # taps, a weight's size, the largest distance between two of the means


@pytest.mark.parametrize(
    "geometry", [{"strides": [1, 1]}, {"pads": [0, 0, 0, 0]}, {"pads": [2, 2, 2, 2], "dilations": [2, 2]}]
)
def test_another_convolution_stays(geometry):
    proto = graph(**geometry)
    before = proto.SerializeToString()
    quantize_first_convolution(proto)
    assert proto.SerializeToString() == before
