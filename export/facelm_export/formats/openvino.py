"""Format ``openvino``: IR (.xml and .bin) of a proven ONNX graph, compared with that graph before it is written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from facelm_sdk.contract import METADATA_KEY, ModelSpec
from facelm_sdk.errors import ParityError
from facelm_sdk.runtimes.base import RuntimeOptions, Session
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.runtimes.openvino import OpenVinoSession, load_openvino

from ..report import parity
from ..report.samples import read_samples

if TYPE_CHECKING:
    from ..job import ExportJob

TOLERANCES = {**parity.TOLERANCES, "int8": {"p99_px": 1.0}}
"""Largest differences from the ONNX graph in pixels; in int8 each runtime rounds where it likes."""


def require() -> None:
    """Raise MissingDependencyError, with the line to type, unless OpenVINO can be imported."""
    load_openvino()


def files(job: ExportJob) -> tuple[dict[Path, bytes], dict[str, Any]]:
    """The .xml and the .bin, and how far their outputs are from the ONNX graph's, in pixels.

    Raises MissingDependencyError without OpenVINO and ParityError where the two differ too much.
    """
    openvino = load_openvino()
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "draft.xml"
        _convert(openvino, job.data, job.spec, draft)
        figures = _compared(job, OpenVinoSession(draft))
        made = {job.path.with_suffix(kind): draft.with_suffix(kind).read_bytes() for kind in (".bin", ".xml")}
    return made, {"openvino": {"version": openvino.__version__, "parity": {"against": "ONNX Runtime", **figures}}}


def opened(job: ExportJob, options: RuntimeOptions) -> OpenVinoSession:
    """Return a session on the IR of the job's graph, as :func:`files` will write it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        draft = Path(scratch) / "draft.xml"
        _convert(load_openvino(), job.data, job.spec, draft)
        return OpenVinoSession(draft, options)


def _convert(openvino: Any, data: bytes, spec: ModelSpec, path: Path) -> None:
    """Write the IR. Precision is the graph's own: what it keeps in fp32 (coordinates) is not to be halved."""
    network = openvino.Core().read_model(data)
    del network.rt_info["framework"]  # the ONNX metadata, the contract among them, once more
    network.set_rt_info(spec.to_json(), [METADATA_KEY])
    openvino.save_model(network, path, compress_to_fp16=False)


def _compared(job: ExportJob, session: Session) -> dict[str, Any]:
    spec = job.spec
    figures = parity.compare(_Reference(OrtSession(job.data)), session, read_samples(None, spec))
    limits = {"unmatched": 0.0, **TOLERANCES[spec.precision]}
    missed = [
        f"{key} {figures[key]} (allowed {most})" for key, most in limits.items() if not figures.get(key, 0) <= most
    ]
    if missed and spec.weights_sha256 is not None:  # untrained points are no points to measure
        raise ParityError(
            f"OpenVINO computes {spec.name} in {spec.precision} otherwise than ONNX Runtime does: {', '.join(missed)}; "
            f"no file was written"
        )
    return figures


class _Reference(nn.Module):
    """The ONNX graph in the place of the fused module."""

    def __init__(self, session: OrtSession) -> None:
        super().__init__()
        self.session = session

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        name = "crops" if self.session.spec.task == "landmarks" else "image"
        outputs = tuple(map(torch.from_numpy, self.session.run({name: pixels.numpy()})))
        return outputs if len(outputs) > 1 else outputs[0]
