"""Landmarks on a GPU: eager, onnxruntime's CUDA and TensorRT providers and the native engine, CUDA graphs on and off.

A run ends when the landmarks are back in the CPU's memory, or, with onnxruntime's bound memory, when the device has
finished: every time includes waiting for the device.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from facelm_export.report.samples import portrait_crops
from facelm_sdk import Landmarker

from .measure.interleaved import Variant
from .measure.models import billions, chosen

BACKENDS = ("eager_cuda", "cuda", "cuda_graph", "ort_tensorrt", "ort_tensorrt_graph", "tensorrt")
PROVIDERS = {"cuda": "CUDAExecutionProvider", "ort_tensorrt": "TensorrtExecutionProvider"}


def bound(path, provider, crops, outputs, *, graph):
    """Runs of an onnxruntime session whose input and outputs lie on the GPU, as CUDA graphs need."""
    options = {"enable_cuda_graph" if provider.startswith("CUDA") else "trt_cuda_graph_enable": "1"} if graph else {}
    session = onnxruntime.InferenceSession(path, providers=[(provider, options)], enable_fallback=0)
    if session.get_providers()[0] != provider:
        pytest.skip(f"{provider} is listed, but its libraries cannot be loaded")
    binding = session.io_binding()
    binding.bind_ortvalue_input("crops", onnxruntime.OrtValue.ortvalue_from_numpy(crops, "cuda", 0))
    for name, shape in outputs.items():
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
        binding.bind_ortvalue_output(name, value)

    def run():
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    run()
    return run


@pytest.mark.parametrize(("backend", "precision"), [(b, p) for b in BACKENDS for p in ("fp32", "fp16")])
@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("batch", [1, 8, 16, 64, 256], ids="batch{}".format)
@pytest.mark.parametrize("model", chosen())
def test_gpu(interleaved, models, model, batch, flip, backend, precision):
    def make(backend, precision):
        if backend == "eager_cuda" and precision == "fp16":
            pytest.skip("PyTorch eager is the baseline, in fp32")
        kind = backend.removesuffix("_graph")
        if kind in PROVIDERS:
            provider = PROVIDERS[kind]
            if provider not in onnxruntime.get_available_providers():
                pytest.skip(f"{provider} is not in this onnxruntime")
            spec = models.spec(model, precision)
            crops = portrait_crops(spec, batch)
            crops = np.concatenate([crops, crops[:, :, ::-1]]) if flip else crops
            outputs = {"landmarks": (len(crops), 68, 2), **({"scores": (len(crops), 68)} if spec.has_scores else {})}
            run = bound(models.onnx(model, precision), provider, crops, outputs, graph=kind != backend)
        else:
            landmarker = Landmarker(models.session(model, backend, precision), flip=flip or None, max_batch=2 * batch)
            crops = portrait_crops(landmarker.spec, batch)
            run = lambda: landmarker(crops)  # noqa: E731
        work = (2 if flip else 1) * batch * billions(model)
        return Variant(run, info={"weights": models.weights(model), "crops_in_a_run": batch}, multiply_adds=work)

    interleaved(("backend", "precision"), make)
