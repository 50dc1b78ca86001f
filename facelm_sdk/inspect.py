"""What a model file says of itself: its contract, its inputs and outputs, its size and checksum. Nothing is run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from . import zoo
from ._checks import is_whole
from ._json import parse
from ._optional import load_onnxruntime
from .contract import METADATA_KEY, ModelSpec, Tensor, check
from .errors import ContractError, FacelmError, InputError, ModelFileError
from .files import expand_user
from .runtimes.base import first_line
from .runtimes.foreign import adapter_of
from .runtimes.onnxruntime import metadata_of, tensors_of

NO_CONTRACT = (
    f"no {METADATA_KEY!r} contract inside: facelm-export did not make this file, and Aligner, Detector and Landmarker "
    f"do not take it; its inputs and outputs are the graph's own"
)


MAX_SIZE = 1 << 48
MAX_RANK = 64
"""No tensor has a longer side, an end farther in its file, or more sides."""


def inspect_model(model: str | os.PathLike[str]) -> dict[str, Any]:
    """The facts of an exported file, a weights file, a Triton repository's folder, or an embedded model's name.

    JSON-ready: ``file``, ``kind``, ``bytes``, ``sha256``, ``inputs`` and ``outputs`` (name, dtype, shape with None or a
    name where it is open), ``contract`` (None where there is none, and ``note`` says why) and ``details`` of the kind.
    A repository has ``models``, the facts of each.

    Raises InputError (not such a file) and ModelFileError (missing, truncated).
    """
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(f"a model is a name or a path to a model file, not {type(model).__name__}")
    try:
        return _facts(model)
    except FacelmError:
        raise
    except OSError as error:
        raise ModelFileError(f"{os.fspath(model)} cannot be read: {error.strerror or error}") from error


def _facts(model: str | os.PathLike[str]) -> dict[str, Any]:
    path = _path(model)
    if path.is_dir():
        return {"file": os.fspath(model), **_triton(path)}
    if not path.is_file():
        raise ModelFileError(f"no file {path}")
    if path.suffix.lower() not in _READERS:
        raise InputError(
            f"{path} cannot be inspected; accepted are {', '.join(_READERS)}, the folder of a Triton repository "
            f"and the names that facelm models lists"
        )
    size, digest = _checksum(path)
    facts = {"contract": None, **_READERS[path.suffix.lower()](path)}
    return {"file": os.fspath(model), "kind": facts.pop("kind"), "bytes": size, "sha256": digest, **facts}


def _path(model: str | os.PathLike[str]) -> Path:
    path = expand_user(model)
    embedded = {entry.name for entry in zoo.list_models()}
    return zoo.resolve(model).path if os.fspath(model) in embedded and not path.exists() else path


def _checksum(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def _contract(text: str | None) -> dict[str, Any]:
    """``contract`` and, of a contract that can be read, what it says of inputs and outputs; else ``note``."""
    if text is None:
        return {"contract": None, "note": NO_CONTRACT}
    try:
        spec = ModelSpec.from_json(text)
    except ContractError as error:
        return {"contract": None, "note": str(error)}
    tensors = spec.tensors
    return {"contract": spec.to_dict(), "inputs": _listed(tensors.inputs), "outputs": _listed(tensors.outputs)}


def _listed(tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": one.dtype, "shape": list(one.shape or ())} for name, one in tensors.items()]


def _onnx(path: Path) -> dict[str, Any]:
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # nothing will be run
    try:
        session = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelFileError(
            f"{path} cannot be opened; it is truncated or not an ONNX model ({first_line(error)})"
        ) from error
    found = tensors_of(session, path.name)
    facts = _contract(metadata_of(session, path.name).get(METADATA_KEY))
    meta = session.get_modelmeta()
    if facts["contract"] is not None:
        try:
            check(found, ModelSpec.from_json(json.dumps(facts["contract"])), path.name)
        except ContractError as error:
            facts["note"] = str(error)
    if facts["contract"] is None and (adapter := adapter_of(found, path.stem, path.read_bytes())) is not None:
        facts["note"] = (
            f"no {METADATA_KEY!r} contract inside, but a graph as {adapter.spec.created_by} is, which Aligner runs for "
            f"{adapter.spec.task}; its inputs and outputs are the graph's own"
        )
    made_by = {"made by": meta.producer_name} if facts["contract"] is None and meta.producer_name else {}
    return {
        **facts,
        "kind": "ONNX model",
        "inputs": _listed(found.inputs),
        "outputs": _listed(found.outputs),
        "details": {**made_by, **_report(path)},
    }


def _report(path: Path) -> dict[str, str]:
    named = path.with_suffix("") if path.suffix == ".onnx" else path
    report = Path(f"{named}.report.md")
    return {"report": report.name} if report.is_file() else {}


def _engine(path: Path) -> dict[str, Any]:
    """An engine is opaque without the GPU it is for; its contract stands in the file beside it."""
    sidecar = path.with_name(f"{path.name}.json")
    if not sidecar.is_file():
        return {
            "kind": "TensorRT engine",
            "note": f"no {sidecar.name} beside it, which holds its contract: copy both files",
        }
    details = _json_object(sidecar.read_bytes(), sidecar)
    contract = details.pop("spec", None)
    text = contract if isinstance(contract, str) or contract is None else json.dumps(contract)
    return {**_contract(text), "kind": "TensorRT engine", "details": {**details, **_report(path)}}


def _openvino(path: Path) -> dict[str, Any]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ModelFileError(f"{path} is truncated or not OpenVINO's XML ({error})") from error
    entry = root.find(f"rt_info/{METADATA_KEY}")
    weights = path.with_suffix(".bin")
    there = f"{weights.name}, {weights.stat().st_size} bytes" if weights.is_file() else f"{weights.name} is missing"
    facts = _contract(None if entry is None else entry.get("value"))
    return {**facts, "kind": "OpenVINO IR", "details": {"weights": there, **_report(path)}}


def _safetensors(path: Path) -> dict[str, Any]:
    """The header: its length in eight bytes, then JSON."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= path.stat().st_size - 8:
            raise ModelFileError(f"{path} is truncated or not a safetensors file")
        header = _json_object(file.read(length), path)
    metadata = header.pop("__metadata__", {})
    text = metadata.get(METADATA_KEY, "{}") if isinstance(metadata, dict) else None
    if not isinstance(text, str) or not all(map(_is_entry, header.values())):
        raise ModelFileError(f"{path} is damaged: its header is not that of a safetensors file")
    card = _json_object(text.encode(), path)
    size = path.stat().st_size - 8 - length
    if any(entry["data_offsets"][1] > size for entry in header.values()):
        raise ModelFileError(f"{path} is truncated: tensors that its header names are missing")
    counts = {"tensors": len(header), "parameters": sum(math.prod(entry["shape"]) for entry in header.values())}
    note = {} if card else {"note": f"no {METADATA_KEY!r} card inside: the file does not say which network it is of"}
    return {"kind": "weights (safetensors)", "details": {**card, **counts}, **note}


def _is_entry(entry: Any) -> bool:
    """Return whether a value of the header says of a tensor its shape and where it lies."""
    shape, place = (entry.get(key) if isinstance(entry, dict) else None for key in ("shape", "data_offsets"))
    if not isinstance(shape, list) or not isinstance(place, list):
        return False
    return all(is_whole(x, 0, MAX_SIZE) for x in shape + place) and len(place) == 2 and len(shape) <= MAX_RANK


def _json_object(data: bytes, path: Path) -> dict[str, Any]:
    try:
        values = parse(data)
    except ValueError as error:
        raise ModelFileError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ModelFileError(f"{path} is damaged: a JSON object is expected")
    return values


def _triton(folder: Path) -> dict[str, Any]:
    own = folder / "config.pbtxt"
    configs = [own] if own.is_file() else sorted(path for path in folder.glob("*/config.pbtxt") if path.is_file())
    if not configs:
        raise InputError(f"{folder} is not the folder of a Triton repository: there is no */config.pbtxt in it")
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return {"kind": "Triton model repository", "bytes": size, "sha256": None, "models": [_served(c) for c in configs]}


def _served(config: Path) -> dict[str, Any]:
    """The facts of a served model: those of its newest version's file, and what its configuration says."""
    folder = config.parent
    try:
        text = config.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{config} is damaged: it is not UTF-8 ({error})") from error
    said = {
        key: match[1].strip('"')
        for key in ("backend", "platform", "max_batch_size")
        if (match := re.search(rf"^{key}\s*:\s*(\S+)", text, re.MULTILINE))
    }
    versions = sorted(
        (path for path in folder.iterdir() if path.name.isascii() and path.name.isdecimal()), key=_version
    )
    found = sorted(versions[-1].glob("model.*")) if versions else []
    facts: dict[str, Any] = next((inspect_model(p) for p in found if p.suffix in _READERS), {"kind": "served model"})
    details = {**facts.get("details", {}), **said, "versions": [path.name for path in versions]}
    return {**facts, "file": folder.name, "details": details}


def _version(folder: Path) -> tuple[int, str]:
    digits = folder.name.lstrip("0")
    return len(digits), digits  # a number, however long


_READERS = {".onnx": _onnx, ".engine": _engine, ".xml": _openvino, ".safetensors": _safetensors}
