"""ONNX graphs written node by node, and other models' graphs set into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import compose, helper, numpy_helper

TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "bool": 9, "float64": 11}
"""The element types used here, as ONNX numbers them."""


class Value:
    """A value in a graph. Arithmetic, comparisons and indexing of the first axis by a value become nodes.

    Numbers beside it are constants: Python's floats are float32, its ints int64; a numpy scalar keeps its type.
    """

    __array_ufunc__ = None  # numpy's scalars leave the operators to this class

    def __init__(self, graph: GraphBuilder, name: str) -> None:
        self.graph, self.name = graph, name

    def to(self, dtype: str) -> Value:
        return self.graph.op("Cast", self, to=TYPES[dtype])

    def __add__(self, other: Operand) -> Value:
        return self.graph.op("Add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.graph.op("Add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return self.graph.op("Sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.graph.op("Sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.graph.op("Mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.graph.op("Mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self.graph.op("Div", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self.graph.op("Div", other, self)

    def __neg__(self) -> Value:
        return self.graph.op("Neg", self)

    def __lt__(self, other: Operand) -> Value:
        return self.graph.op("Less", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.graph.op("LessOrEqual", self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.graph.op("Greater", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.graph.op("GreaterOrEqual", self, other)

    def __and__(self, other: Operand) -> Value:
        return self.graph.op("And", self, other)

    def __or__(self, other: Operand) -> Value:
        return self.graph.op("Or", self, other)

    def __invert__(self) -> Value:
        return self.graph.op("Not", self)


Operand = Value | ArrayLike
Kind = tuple[str, tuple[int | None, ...]]
"""Element type and shape of a value, None where a side is open."""


class GraphBuilder:
    """A graph in the making. Nodes go to the innermost body being written; values of the outer ones stay in reach."""

    def __init__(self, opset: int) -> None:
        self._bodies: list[onnx.GraphProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._count = 0
        self.opset = opset
        self._opsets = {"": opset}
        self._ir_version = 8
        self._open("pipeline")

    def op(self, kind: str, *inputs: Operand | None, **attributes: Any) -> Value:
        """A node with one output. None stands for an optional input left out."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: Operand | None, **attributes: Any) -> list[Value]:
        """A node with several outputs."""
        names = ["" if one is None else self.value(one).name for one in inputs]
        results = [self._name() for _ in range(outputs)]
        self._bodies[-1].node.append(helper.make_node(kind, names, results, **attributes))
        return [Value(self, name) for name in results]

    def value(self, operand: Operand) -> Value:
        """The operand itself, or a constant."""
        if isinstance(operand, Value):
            return operand
        array = np.asarray(operand)
        if not isinstance(operand, (np.generic, np.ndarray)):
            array = array.astype({"f": np.float32, "i": np.int64}[array.dtype.kind])
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = Value(self, self._name())
            self._bodies[0].initializer.append(numpy_helper.from_array(array, self._constants[key].name))
        return self._constants[key]

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> Value:
        self._bodies[-1].input.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        return Value(self, name)

    def loop(
        self,
        trips: Operand | None,
        state: Sequence[Value],
        body: Callable[..., tuple[Value | None, Sequence[Value], Sequence[Value]]],
        kinds: Sequence[Kind],
    ) -> list[Value]:
        """Run ``body(index, *state)``, which gives whether to go on (None: yes), the next state and rows to stack.

        At most ``trips`` times. Returns the last state, then the stacks. ``kinds`` are theirs, of rows without the axis
        they are stacked along.
        """
        inner = self._open("body")
        index, going = self.input(self._name(), "int64", []), self.input(self._name(), "bool", [])
        carried = [
            self.input(self._name(), dtype, self._sides(shape)) for (dtype, shape), _ in zip(kinds, state, strict=False)
        ]
        more, after, rows = body(index, *carried)
        results = [self.op("Identity", going if more is None else more)]
        results += [self.op("Identity", one) for one in (*after, *rows)]
        self._close(inner, results, [("bool", ()), *kinds])
        return self.ops("Loop", len(kinds), trips, np.array(True), *state, body=inner)

    def where(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value], kind: Kind) -> Value:
        """The value of one of two branches, of which the other is not computed."""
        branches = []
        for branch in (then, otherwise):
            body = self._open("branch")
            self._close(body, [self.op("Identity", branch())], [kind])
            branches.append(body)
        return self.op("If", condition, then_branch=branches[0], else_branch=branches[1])

    def call(self, model: onnx.ModelProto, **inputs: Value) -> dict[str, Value]:
        """Set a model's graph, of the same opset, here, its inputs joined to values. Returns its outputs by name."""
        prefix = self._name() + "/"
        part = compose.add_prefix(model, prefix)
        for opset in part.opset_import:
            self._opsets[opset.domain] = opset.version
        self._ir_version = max(self._ir_version, part.ir_version)
        for one in part.graph.input:
            source = inputs[one.name.removeprefix(prefix)]
            self._bodies[-1].node.add(op_type="Identity", input=[source.name], output=[one.name])
        self._bodies[-1].node.extend(part.graph.node)
        self._bodies[-1].initializer.extend(part.graph.initializer)
        return {one.name.removeprefix(prefix): Value(self, one.name) for one in part.graph.output}

    def model(self, outputs: Mapping[str, tuple[Value, str, Sequence[int | str]]]) -> onnx.ModelProto:
        """The whole as a model. ``outputs``: values, element types and shapes by name."""
        (graph,) = self._bodies
        for name, (value, dtype, shape) in outputs.items():
            graph.node.add(op_type="Identity", input=[value.name], output=[name])
            graph.output.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self._ir_version)

    def _sides(self, shape: Sequence[int | None]) -> list[int | str]:
        return [self._name() if side is None else side for side in shape]

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _open(self, name: str) -> onnx.GraphProto:
        self._bodies.append(onnx.GraphProto(name=name))
        return self._bodies[-1]

    def _close(self, body: onnx.GraphProto, results: Sequence[Value], kinds: Sequence[Kind]) -> None:
        for value, (dtype, shape) in zip(results, kinds, strict=True):
            body.output.append(helper.make_tensor_value_info(value.name, TYPES[dtype], self._sides(shape)))
        assert self._bodies.pop() is body
