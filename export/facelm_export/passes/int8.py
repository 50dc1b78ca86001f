"""int8 of an ONNX graph."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from facelm_sdk.contract import ModelSpec
from facelm_sdk.errors import InputError, ParityError

from .first_convolution import quantize_first_convolution

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Proof = TypeVar("Proof")

BODY = frozenset(
    {
        "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "GlobalAveragePool",
        "LeakyRelu", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid",
    }
)  # fmt: skip
"""Operators of a convolutional network; what comes after the first other one, tokens or points, stays fp32."""
QUANTIZED = ("Conv", "ConvTranspose", "Clip", "Relu", "LeakyRelu", "MaxPool", "Add")
"""Those of them that take 8 bits, where all of their inputs do."""
PRODUCTS = ("MatMul", "Gemm")
LARGE_PRODUCT = 1 << 18
"""Weights of a linear layer from which 8 bits save more than rounding its input costs."""
TAILS = (0.0, 1 / 3)
"""Parts of the convolutions that stay fp32, tried one after the other: the deepest have the widest ranges."""
FEW_CHANNELS = 4
"""A convolution of pixels gains nothing from 8 bits as the others get them and loses accuracy."""


def quantize_within(
    proto: ModelProto,
    spec: ModelSpec,
    calibration: Sequence[NDArray[np.uint8]],
    target: str,
    prove: Callable[[ModelProto], Proof],
) -> tuple[ModelProto, Proof]:
    """The graph of :func:`quantize` that ``prove`` takes, with its result: with more of it in fp32 where it must.

    Raises the ParityError that ``prove`` raises of the last of TAILS.
    """
    for tail in TAILS[:-1]:
        with suppress(ParityError):
            quantized = quantize(proto, spec, calibration, target, tail=tail)
            return quantized, prove(quantized)
    quantized = quantize(proto, spec, calibration, target, tail=TAILS[-1])
    return quantized, prove(quantized)


def quantize(
    proto: ModelProto, spec: ModelSpec, calibration: Sequence[NDArray[np.uint8]], target: str, *, tail: float = 0.0
) -> ModelProto:
    """The graph with its convolutional body in int8, as Q/DQ pairs, calibrated on real inputs of the model.

    Those convolutions that give the body's output and all that follows stay fp32, but for large linear layers and the
    one before each of them; ``tail`` is a part of the body's convolutions, the last ones, that stays fp32 as well. The
    first convolution, which sees pixels, has its own pass for the CPU, see :mod:`.first_convolution`, and stays fp32
    for TensorRT.
    ``target="cpu"``: unsigned activations with a zero point, signed weights per output channel, int32 biases, which
    onnxruntime fuses to integer kernels. ``"tensorrt"``: all symmetric with zero points of 0 and biases in fp32, the
    only form its parser takes. Raises InputError where there is nothing to quantize.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    chosen = _without_tail(quantizable(proto), tail)
    if not chosen:
        raise InputError(f"{spec.name} has no convolution that could be quantized; int8 is for convolutional networks")
    symmetric = target == "tensorrt"
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        source, result = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(proto, source)
        quantize_static(
            source,
            result,
            _reader(proto.graph.input[0].name, calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*QUANTIZED, *PRODUCTS],
            nodes_to_quantize=[node.name for node in chosen],
            per_channel=True,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not symmetric,
            },
        )
        quantized = onnx.load(result)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(proto.metadata_props)
    if not symmetric:
        quantize_first_convolution(quantized)
    quantized.producer_name, quantized.producer_version = proto.producer_name, proto.producer_version
    return quantized


def quantizable(proto: ModelProto) -> list[NodeProto]:
    """The nodes of the convolutional body that take 8 bits, and large linear layers anywhere."""
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    body = _body(graph.node, constants)
    followed = _before_a_convolution(graph.node, producers)
    chosen = []
    for node in graph.node:
        name = node.output[0]
        if node.op_type in PRODUCTS and node.input[1] in constants:
            if int(np.prod(constants[node.input[1]].dims)) >= LARGE_PRODUCT:
                chosen += _with_neighbours(node, graph.node, producers)
            continue
        if node.op_type not in QUANTIZED or name not in body or name not in followed:
            continue
        if "Conv" in node.op_type and constants[node.input[1]].dims[1] <= FEW_CHANNELS and not _is_depthwise(node):
            continue
        chosen.append(node)
    return chosen


def _without_tail(chosen: list[NodeProto], tail: float) -> list[NodeProto]:
    """All but the last part of the convolutions and what stands between them; linear layers stay."""
    convolutions = [index for index, node in enumerate(chosen) if "Conv" in node.op_type]
    first = round((1 - tail) * len(convolutions))
    if first == len(convolutions):
        return chosen
    begin = convolutions[first]
    return [node for index, node in enumerate(chosen) if index < begin or node.op_type in PRODUCTS]


def _with_neighbours(product: NodeProto, nodes: Sequence[NodeProto], producers: Any) -> list[NodeProto]:
    """Return a linear layer, its activation, and those of the layer before it, whose output it needs in 8 bits."""
    found = [product, *(node for node in nodes if node.op_type == "Relu" and node.input[0] == product.output[0])]
    activation = producers.get(product.input[0])
    if activation is not None and activation.op_type == "Relu":
        before = producers.get(activation.input[0])
        if before is not None and before.op_type in PRODUCTS:
            found += [before, activation]
    return found


def _body(nodes: Sequence[NodeProto], constants: Any) -> set[str]:
    """Return what is computed from a convolution by operators of BODY alone."""
    body: set[str] = set()
    for node in nodes:
        dynamic = [name for name in node.input if name and name not in constants]
        starts = node.op_type == "Conv" and node.input[1] in constants
        if node.op_type in BODY and (starts or (dynamic and all(name in body for name in dynamic))):
            body.update(node.output)
    return body


def _before_a_convolution(nodes: Sequence[NodeProto], producers: Any) -> set[str]:
    """Tensors that some later convolution depends on: all of the body but what gives its output."""
    needed: set[str] = set()
    for node in reversed(nodes):
        if "Conv" in node.op_type or needed.intersection(node.output):
            needed.update(name for name in node.input if name)
    return needed


def _is_depthwise(node: NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def _reader(name: str, inputs: Sequence[NDArray[np.uint8]]) -> Any:
    """onnxruntime's calibration reader over single crops or pictures."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = self._feeds()

        def _feeds(self) -> Iterator[dict[str, NDArray[np.uint8]]]:
            for part in inputs:
                for one in part:
                    yield {name: np.ascontiguousarray(one[None])}

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            return next(self.feeds, None)

    return Reader()


class _quiet:
    """The quantizer logs advice through the root logger."""

    def __enter__(self) -> None:
        self.level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *exception: object) -> None:
        logging.getLogger().setLevel(self.level)
