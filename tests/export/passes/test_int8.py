"""Half precision and int8: what is rounded, what is not, and that the contract survives."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from facelm_export import export, exporter
from facelm_export.passes import int8
from facelm_export.passes.half import InFloat32, to_half
from facelm_export.passes.int8 import quantizable, quantize
from facelm_export.report import parity
from facelm_export.report.samples import portrait_crops, varied_crops
from facelm_models import create, info
from facelm_sdk import Landmarker
from facelm_sdk.errors import InputError, ParityError
from facelm_sdk.runtimes.onnxruntime import OrtSession

from ..conftest import SMALL


def small_network(name):
    torch.manual_seed(0)
    described = info(name)
    network = create(name, **SMALL[name]).eval()
    return network, dataclasses.replace(described, config=network.config, input_size=64)


@pytest.mark.parametrize("name", ["hourglass4", "fan2", "hrnet18", "pyramid_m"])
def test_heatmaps_are_not_rounded(name):
    """The convolutions that give them compute in fp32, all others in fp16."""
    network, described = small_network(name)
    to_half(network, described)
    single = {name for name, module in network.named_modules() if isinstance(module, InFloat32)}
    assert single
    for key, parameter in network.named_parameters():
        inside = any(key.startswith(f"{head}.") for head in single)
        assert parameter.dtype == (torch.float32 if inside else torch.float16), key
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64).half()).dtype == torch.float32


def test_of_a_coordinate_network_buffers_and_what_sees_pixels_stay(weights):
    network, described = small_network("lotr_m_plus")
    to_half(network, described)
    single = {name for name, parameter in network.named_parameters() if parameter.dtype == torch.float32}
    assert single and all(name.startswith("backbone.layers.0.") for name in single)
    assert network.mean_shape.dtype == torch.float32


@pytest.mark.parametrize("name", ["lotr_m", "lotr_m_128", "pyramid_m"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_weights_of_the_package_pass_in_every_precision(name, precision, tmp_path):
    """facelm-export --model lotr_m --fp16 is promised: new weights must not break it."""
    done = export(name, precision=precision, latency=False, out=tmp_path)
    assert done.path.is_file() and done.spec.parity["p99_px"] > 0


def test_int8_says_what_fp32_says_of_its_confidence():
    """On views of the portrait of the package."""
    exact, rounded = (Landmarker(variant=variant) for variant in ("fp32", "int8"))
    crops = portrait_crops(exact.spec)
    for one, other, least in zip(exact.run(crops)[1:], rounded.run(crops)[1:], (0.2, 0.0), strict=True):
        assert np.ptp(one) > least and np.abs(one - other).mean() < 0.05


@pytest.fixture(scope="module")
def quantized(exported):
    """LOTR-M in int8 for each target, and what it was."""
    done = exported("lotr_m")
    proto, spec = onnx.load(done.path), dataclasses.replace(done.spec, precision="int8")
    crops = [varied_crops(spec, 8)]
    return proto, {target: quantize(proto, spec, crops, target) for target in ("cpu", "tensorrt")}


def test_the_body_is_quantized_and_the_rest_is_not(quantized):
    proto, by_target = quantized
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    chosen = [node.name for node in quantizable(proto) if node.op_type == "Conv"]
    assert convolutions[0].name not in chosen and convolutions[-1].name not in chosen
    assert len(chosen) == len(convolutions) - 2
    sizes = {tensor.name: np.prod(tensor.dims) for tensor in proto.graph.initializer}
    products = {node.name for node in quantizable(proto) if node.op_type == "Gemm"}
    sides = {512 * 512, 512 * 64}  # the head's large layer, and the one before it
    assert products == {n.name for n in proto.graph.node if n.op_type == "Gemm" and sizes[n.input[1]] in sides}
    assert len(products) == 2
    last = [node.name for node in proto.graph.node if node.op_type == "Gemm"][
        -1
    ]  # whose input, not weights, is rounded
    for target, graph in by_target.items():
        rounded = chosen if target == "tensorrt" else [convolutions[0].name, *chosen]
        produced = {name: node for node in graph.graph.node for name in node.output}
        for node in graph.graph.node:
            parts = [produced[name].op_type for name in node.input if name in produced]
            if node.op_type == "Conv":  # its picture and its weights; pictures of others may come from 8 bits
                assert (parts[:2] == ["DequantizeLinear"] * 2) == (node.name in rounded), node.name
            if node.op_type in ("MatMul", "Gemm", "LayerNormalization", "Softmax") and node.name not in {
                *products,
                last,
            }:
                assert "DequantizeLinear" not in parts, node.name
            if node.name in products:
                assert parts[:2] == ["DequantizeLinear"] * 2, node.name


def test_the_contract_is_kept(quantized):
    proto, by_target = quantized
    for graph in by_target.values():
        assert list(graph.metadata_props) == list(proto.metadata_props)
        assert list(graph.graph.input) == list(proto.graph.input)
        assert [value.name for value in graph.graph.output] == [value.name for value in proto.graph.output]
        assert {entry.domain for entry in graph.opset_import} <= {"", "ai.onnx"}


def test_each_target_gets_the_form_it_takes(quantized):
    """TensorRT rejects zero points other than 0 and int32 biases; unsigned activations are fastest on a CPU."""
    _, by_target = quantized
    zeros = {}
    for target, proto in by_target.items():
        tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        nodes = [node for node in proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        zeros[target] = [numpy_helper.to_array(tensors[node.input[2]]) for node in nodes]
    assert {zero.dtype for zero in zeros["tensorrt"]} == {np.dtype(np.int8)}
    assert not any(zero.any() for zero in zeros["tensorrt"])
    assert {zero.dtype for zero in zeros["cpu"]} == {np.dtype(dtype) for dtype in (np.uint8, np.int8, np.int32)}


def test_weights_are_a_quarter_and_points_nearly_the_same(quantized, exported):
    proto, by_target = quantized
    spec = exported("lotr_m").spec
    crops = portrait_crops(spec, 6)
    (expected,) = OrtSession(proto.SerializeToString()).run({"crops": crops})
    for graph in by_target.values():
        data = graph.SerializeToString()
        (actual,) = OrtSession(data).run({"crops": crops})
        distances = np.linalg.norm(actual - expected, axis=-1)
        assert 0 < distances.mean() < 2.0  # disturbed weights, 8 crops: near, not the same
        assert len(data) < 0.5 * len(proto.SerializeToString())


def test_an_int8_that_misses_leaves_no_file(quantized, weights, tmp_path, monkeypatch):
    proto, by_target = quantized
    monkeypatch.setattr(exporter, "to_onnx", lambda *arguments, **options: proto)
    monkeypatch.setattr(int8, "quantize", lambda *_, **__: by_target["cpu"])
    monkeypatch.setitem(parity.TOLERANCES, "int8", {"mean_percent": 0.0})
    with pytest.raises(ParityError, match=r"lotr_m in int8 differs too much.*mean_percent 0\.\d+ \(allowed 0\.0\)"):
        export("lotr_m", precision="int8", weights=weights("lotr_m"), latency=False, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_without_convolutions_is_refused(exported):
    spec = exported("lotr_m").spec
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["crops"], ["landmarks"])
    args = [value("crops", 1, [1, 3])], [value("landmarks", 1, [1, 3])]
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "g", *args))
    with pytest.raises(InputError, match="has no convolution that could be quantized"):
        quantize(proto, spec, [np.zeros((1, 3), np.uint8)], "cpu")


def test_the_last_convolutions_stay_fp32_where_all_of_them_miss_parity(quantized, monkeypatch):
    """First the whole body is proven, then a third less of it; the last refusal is the caller's."""
    proto, _ = quantized
    chosen = [node.name for node in quantizable(proto) if "Conv" in node.op_type]
    tails, most = [], [0]

    def quantize_only(proto, spec, calibration, target, *, tail):
        tails.append(tail)
        kept = {node.name for node in int8._without_tail(quantizable(proto), tail)}
        return [name for name in chosen if name in kept]

    def prove(convolutions):
        if len(convolutions) > most[0]:
            raise ParityError("too far")
        return len(convolutions)

    monkeypatch.setattr(int8, "quantize", quantize_only)
    for most[0] in (len(chosen), len(chosen) - 1):
        convolutions, proof = int8.quantize_within(proto, None, [], "cpu", prove)
        assert proof == len(convolutions) and convolutions == chosen[:proof]
    assert proof == round(2 / 3 * len(chosen)) and tails == [0.0, 0.0, 1 / 3]
    most[0] = 0
    with pytest.raises(ParityError, match="too far"):
        int8.quantize_within(proto, None, [], "cpu", prove)
    products = [node.name for node in quantizable(proto) if node.op_type == "Gemm"]
    assert [node.name for node in int8._without_tail(quantizable(proto), 1 / 3) if node.op_type == "Gemm"] == products
