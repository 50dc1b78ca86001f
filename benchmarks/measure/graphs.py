"""Small modules as graphs of their own, to time an operation in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxruntime
import torch
from torch import nn

from .machine import THREADS


class Call(nn.Module):
    """A function as a module; ``options`` follow the tensors."""

    def __init__(self, function: Callable[..., Any], *options: Any) -> None:
        super().__init__()
        self.function, self.options = function, options

    def forward(self, *inputs: torch.Tensor) -> Any:
        result = self.function(*inputs, *self.options)
        return tuple(part for part in result if part is not None) if isinstance(result, tuple) else result


def session_of(module: nn.Module, *inputs: torch.Tensor) -> onnxruntime.InferenceSession:
    """The module in onnxruntime; its inputs are x0, x1, ..."""
    names = [f"x{index}" for index in range(len(inputs))]
    program = torch.onnx.export(module.eval(), inputs, dynamo=True, input_names=names, opset_version=18, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    data = program.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
