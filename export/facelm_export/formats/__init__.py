"""From a proven ONNX graph to the files of a format, beside their report."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from facelm_sdk.contract import ModelSpec
from facelm_sdk.errors import InputError, ModelFileError, OutputError
from facelm_sdk.files import check_outputs, check_place, write_files
from facelm_sdk.runtimes.base import RuntimeOptions, Session
from facelm_sdk.runtimes.onnxruntime import OrtSession

from ..job import Exported, ExportJob
from ..report.facts import file_facts
from ..report.markdown import markdown

SUFFIXES: dict[str, str] = {"onnx": ".onnx", "engine": ".engine", "openvino": ".xml", "triton": "", "web": ""}
"""Formats, and how the name of their main file ends; Triton's model repository and a site are folders."""

_MODULES = {"engine": "tensorrt", "openvino": "openvino", "triton": "triton", "web": "web"}


def prepare(
    format: str,
    out: str | os.PathLike[str] | None,
    name: str,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> Path:
    """Where the output goes. Raises, before any work is done, what would keep it from being written.

    ``inputs``: files that the export reads, which it does not write over.
    """
    suffix = SUFFIXES[format]
    path = Path(out) if out is not None else Path(name + suffix)
    if suffix and (path.is_dir() or (out is not None and str(out).endswith((os.sep, "/")))):
        path = path / (name + suffix)
    if suffix and path.suffix != suffix:
        raise InputError(f"the output is a folder or a file ending in {suffix}, not {path}")
    try:
        if suffix:
            report = _report_path(path, format, {})
            outputs = {"the output": path, "the report": report, "the page": report.with_suffix(".md")}
            check_outputs(outputs, [Path(file) for file in inputs if file is not None])
        else:
            check_place(path)
            _hook(format, "check_folder")(path)
    except OutputError as error:
        raise ModelFileError(str(error)) from error
    _hook(format, "require")()
    return path


def check(format: str, spec: ModelSpec) -> None:
    """Raise InputError where the format cannot hold such a model."""
    _hook(format, "check")(spec)


def runtimes(job: ExportJob, format: str) -> dict[str, Callable[[RuntimeOptions], Session]]:
    """Return by name what opens the job's graph on a CPU: ONNX Runtime, and before it the format's own runtime."""
    own = {"openvino": partial(_module(format).opened, job)} if format == "openvino" else {}
    return {**own, "onnxruntime": partial(OrtSession, job.data)}


def _hook(format: str, name: str) -> Callable[..., object]:
    """A function that the format's module may have: ``require()`` its package, ``check(spec)``, and of a
    folder ``check_folder(path)``."""
    if format not in _MODULES:
        return lambda *arguments: None
    return getattr(_module(format), name, lambda *arguments: None)


def _module(format: str) -> Any:
    return importlib.import_module(f"{__package__}.{_MODULES[format]}")


def write(job: ExportJob, facts: dict[str, Any], format: str) -> Exported:
    """Write the files and their report, all or none. ``facts``: what the report says of the graph."""
    job.progress("writing")
    made, about = _module(format).files(job) if format in _MODULES else ({job.path: job.data}, {})
    facts = facts | file_facts(job.path, made) | about
    report_path = _report_path(job.path, format, about)
    texts = {
        report_path: json.dumps(facts, indent=2).encode(),
        report_path.with_suffix(".md"): markdown(facts).encode(),
    }
    try:
        write_files({**texts, **made})
    except OutputError as error:
        raise ModelFileError(str(error)) from error
    return Exported(job.path, report_path, job.spec, facts)


def _report_path(path: Path, format: str, about: dict[str, Any]) -> Path:
    if format == "triton":  # a repository holds many models
        return path / str(about["triton"]["model"]) / "report.json"
    if format == "web":
        return path / "report.json"
    # An engine and an .xml may lie beside the .onnx of their name.
    return path.with_suffix(".report.json") if format == "onnx" else Path(f"{path}.report.json")
