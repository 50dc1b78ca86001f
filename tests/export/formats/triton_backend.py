"""A Python backend in the place of Triton's ONNX Runtime backend, which no package of PyPI has. Runs in Triton."""

import json
import sys
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """The model.onnx of a version, with the inputs and outputs that the configuration names."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.inputs, self.outputs = ([one["name"] for one in config[kind]] for kind in ("input", "output"))
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def execute(self, requests):
        sys.stdout.write(f"requests together: {len(requests)}\n")
        sys.stdout.flush()
        return [self._response(request) for request in requests]

    def _response(self, request):
        feeds = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        found = self.session.run(self.outputs, feeds)
        return triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(self.outputs, found, strict=True)])
