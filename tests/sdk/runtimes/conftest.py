"""A model that keeps its contract only now and then."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest


@pytest.fixture
def unsteady(tmp_path, landmark_spec):
    """A landmark model whose number of points is the brightest pixel less 100."""
    graph = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]>
        unsteady (uint8[1, 32, 32, 3] crops) => (float[1, L, 2] landmarks)
            <int64[1] one = {1}, int64[1] two = {2}, int64[1] least = {100}, int64[1] flat = {-1}>
        {
            level = Cast<to=7>(crops)
            most = ReduceMax<keepdims=0>(level)
            row = Reshape(most, flat)
            count = Sub(row, least)
            shape = Concat<axis=0>(one, count, two)
            landmarks = ConstantOfShape(shape)
        }"""
    )
    onnx.helper.set_model_props(graph, {"facelm": landmark_spec().to_json()})
    onnx.save(graph, tmp_path / "unsteady.onnx")
    return tmp_path / "unsteady.onnx"
