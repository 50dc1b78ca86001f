"""The report beside every file: what it is, how it was made, and how near it comes to PyTorch."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict
from typing import Any

import torch

import facelm_sdk
from facelm_sdk.spec import ModelSpec

from . import parity


def report(spec: ModelSpec, file: str, data: bytes, proto: Any, opset: int, batch: int | None) -> dict[str, Any]:
    import onnx
    import onnxruntime

    values = asdict(spec)
    parameters = {key: values[key] for key in ("name", "task", "markup", "flip", "precision", "weights_sha256")}
    return {
        "file": file,
        **parameters,
        "batch": batch or "dynamic",
        "opset": opset,
        "nodes": len(proto.graph.node),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parity": dict(spec.parity),
        "tolerance": parity.TOLERANCES[spec.precision],
        "versions": {
            "facelm-sdk": facelm_sdk.__version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }


def markdown(report: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)

    rows = "\n".join(f"| {key} | {text(value)} |" for key, value in report.items())
    return f"# {report['file']}\n\n| | |\n|---|---|\n{rows}\n"
