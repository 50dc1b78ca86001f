"""The report beside every file: what it is, how it was made, how near it comes to PyTorch and how fast it is."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import facelm_sdk
from facelm_sdk.machine import cpu_model

from . import parity

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..job import ExportJob


def report(
    job: ExportJob,
    proto: ModelProto,
    *,
    opset: int,
    target: str,
    format: str,
    tolerance: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What there is to say of a proven graph, ready for JSON. ``tolerance``: default, its precision's."""
    import onnx
    import onnxruntime

    spec = job.spec
    contract = spec.to_dict()
    return {
        "file": job.path.name,
        "name": spec.name,
        "task": spec.task,
        "markup": contract["markup"],
        "num_landmarks": contract["num_landmarks"],
        "precision": spec.precision,
        "flip": contract["flip"],
        "batch": job.batch or "dynamic",
        "data": spec.data,
        "licence": spec.licence,
        "accuracy": dict(spec.accuracy),
        "weights_sha256": spec.weights_sha256,
        "format": format,
        "target": target,
        "opset": opset,
        "nodes": len(proto.graph.node),
        "bytes": len(job.data),
        "sha256": hashlib.sha256(job.data).hexdigest(),
        "parity": dict(spec.parity),
        "tolerance": dict(parity.TOLERANCES[spec.precision] if tolerance is None else tolerance),
        "machine": machine(),
        "versions": {
            "facelm-sdk": facelm_sdk.__version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        },
    }


def file_facts(path: Path, files: Mapping[Path, bytes]) -> dict[str, Any]:
    """``bytes`` and ``sha256`` of the file at ``path`` and, where a format has more than that one, ``files`` with both.

    A folder has the bytes of all that is in it, and no sha256.
    """
    found = {
        name.relative_to(path if path not in files else path.parent).as_posix(): {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, data in files.items()
    }
    if path in files:
        return {**found[path.name], **({"files": found} if len(found) > 1 else {})}
    return {"bytes": sum(map(len, files.values())), "sha256": None, "files": found}


def machine() -> dict[str, Any]:
    """What timings depend on; nothing that names the machine or its user."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "os": platform.system(),
        "architecture": platform.machine(),
    }


_FLAGS = {"source": "--from"}
_FILES = ("weights", "detector_weights", "mean_face", "calib", "out")  # told by their names, not by their folders
_SHORT = {("precision", "fp16"): ["--fp16"], ("precision", "int8"): ["--int8"], ("latency", False): ["--no-latency"]}


def command(function: Callable[..., Any], arguments: Mapping[str, Any], *first: str) -> str:
    """The ``facelm-export`` line that does what ``function`` did with these arguments; its defaults are left out.

    ``first``: words that come before the others, such as ``--import my_model.py``.
    """
    words = ["facelm-export", *first]
    for name, parameter in inspect.signature(function).parameters.items():
        value = arguments.get(name, parameter.default)
        if name == "progress" or value is None or value == parameter.default:
            continue
        if name in _FILES:
            value = Path(value).name
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        words += _SHORT.get((name, value), [flag] if value is True else [flag, str(value)])
    return shlex.join(words)


def imports(build: Callable[..., Any]) -> list[str]:
    """``--import FILE`` for the module that a model of somebody else's comes from."""
    module = sys.modules.get(build.__module__)
    file = getattr(module, "__file__", None)
    if build.__module__.startswith("facelm_models.") or file is None:
        return []
    return ["--import", build.__module__ if "." in build.__module__ else Path(file).name]
