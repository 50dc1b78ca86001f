"""Model name -> torch module -> fused module -> ONNX -> parity -> file and report."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import facelm_sdk
from facelm_models import ModelInfo, create, default_weights, info, load
from facelm_models.registry import UnknownModel
from facelm_models.retinaface import RetinaFace
from facelm_models.weights import WeightsError, read, read_card
from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError, ModelFileError, OutputError, UnknownModelError
from facelm_sdk.files import write_bytes
from facelm_sdk.session import OrtSession
from facelm_sdk.spec import METADATA_KEY, ModelSpec
from facelm_sdk.transform import CropRecipe, kps5_recipe

from . import parity
from .onnx_export import OPSET, OPSETS, to_onnx
from .wrappers import FusedDetector, FusedLandmarks, to_half, without_batch_norm

Precision = Literal["fp32", "fp16"]
DET_THRESH = 0.88  # true faces score above 0.95 with few exceptions; letters and logos lie between


@dataclass(frozen=True)
class Exported:
    """Where the file and its report lie, and what the report says."""

    path: Path
    report_path: Path
    spec: ModelSpec
    report: dict[str, Any]


def export(
    model: str,
    *,
    precision: Precision = "fp32",
    flip: bool = False,
    batch: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    random: bool = False,
    markup: str = "ibug68",
    opset: int = OPSET,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write ``model`` as one self-describing ONNX file with a parity report (``.json`` and ``.md``) beside it.

    ``weights`` is a .safetensors file; default: the ones that come with the package. ``random=True`` takes untrained
    weights instead, for latency work. ``flip`` puts flip averaging into the graph, ``batch`` fixes the number of crops.
    ``out`` is a file or a folder; default: the working folder. ``progress`` is told each step.

    Raises UnknownModelError, InputError (weights or options do not fit), ParityError (the file would not compute
    PyTorch's landmarks within the tolerance; none is left) and ModelFileError (the place cannot be written).
    """
    described = _info(model)
    if precision not in parity.TOLERANCES:
        raise InputError(f"precision is one of {', '.join(parity.TOLERANCES)}, not {precision!r}")
    if batch is not None and batch < 1:
        raise InputError(f"a fixed batch is at least 1, not {batch}")
    if opset not in OPSETS:
        raise InputError(f"opset is {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    if flip and described.task != "landmarks":
        raise InputError(f"flip averaging is for landmark models; {model} is a detector")
    target = _target(out, model, precision, flip=flip, batch=batch)
    progress("building the network")
    network, source = _network(described, weights, markup, random=random)
    spec = _spec(described, precision, markup, source, flip=flip)
    reference = _fuse(without_batch_norm(network), described, spec)
    halved = to_half(without_batch_norm(network)) if precision == "fp16" else None
    fused = _fuse(halved, described, spec) if halved is not None else reference
    progress("tracing the graph")
    proto = to_onnx(fused, spec, batch=batch, opset=opset)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "draft.onnx"
        draft.write_bytes(proto.SerializeToString())
        progress("comparing with PyTorch")
        figures = _compare(reference, OrtSession(draft), spec)
    if not random:  # untrained points are no points to measure, and nobody will use them
        parity.check(figures, precision, model)
    spec = _with_parity(spec, figures)
    _set_contract(proto, spec)
    data = proto.SerializeToString()
    report = _report(spec, target.name, data, proto, opset, batch)
    progress("writing")
    report_path = target.with_suffix(".report.json")
    _write(
        {
            report_path: json.dumps(report, indent=2).encode(),
            target.with_suffix(".report.md"): _markdown(report).encode(),
            target: data,
        }
    )
    return Exported(target, report_path, spec, report)


def _info(model: str) -> ModelInfo:
    try:
        return info(model)
    except UnknownModel as error:
        raise UnknownModelError(str(error)) from error


def _target(out: str | os.PathLike[str] | None, model: str, precision: str, *, flip: bool, batch: int | None) -> Path:
    name = "_".join([model, *(["flip"] if flip else []), *([f"b{batch}"] if batch else []), precision]) + ".onnx"
    path = Path(out) if out is not None else Path(name)
    if path.is_dir() or (out is not None and str(out).endswith(os.sep)):
        path = path / name
    if path.suffix != ".onnx":
        raise InputError(f"the output is a folder or a file ending in .onnx, not {path}")
    return path


def _network(
    described: ModelInfo, weights: str | os.PathLike[str] | None, markup: str, *, random: bool
) -> tuple[nn.Module, Path | None]:
    if random and weights is not None:
        raise InputError("give weights or random, not both")
    options = {"num_landmarks": markups.get(markup).num_points} if described.task == "landmarks" else {}
    torch.manual_seed(0)
    network = create(described.name, **options).eval()
    source = Path(weights) if weights is not None else default_weights(described.name)
    if random:
        return network, None
    if source is None:
        raise InputError(
            f"no weights of {described.name} come with the package; give a .safetensors file (--weights FILE), "
            f"or take untrained ones for latency work (--random)"
        )
    try:
        return load(network, read(source)), source
    except WeightsError as error:
        raise InputError(str(error)) from error


def _crop(described: ModelInfo) -> CropRecipe | None:
    if described.task == "detection":
        return None
    options = {key: value for key, value in described.crop.items() if key != "kind"}
    if described.crop["kind"] == "kps5":
        return kps5_recipe(described.input_size, **options)
    return CropRecipe(size=described.input_size, kind="box", **options)


def _spec(described: ModelInfo, precision: str, markup: str, source: Path | None, *, flip: bool) -> ModelSpec:
    card = read_card(source) if source is not None else {}
    detection = described.task == "detection"
    untrained = "none: untrained weights, for latency work only"
    return ModelSpec(
        task=described.task,
        name=described.name,
        markup="kps5" if detection else markup,
        num_landmarks=5 if detection else markups.get(markup).num_points,
        crop=_crop(described),
        flip=flip,
        precision=precision,
        det_thresh=DET_THRESH if detection else None,
        data=card.get("data", "not stated" if source else untrained),
        licence=card.get("licence", "not stated"),
        weights_sha256=hashlib.sha256(source.read_bytes()).hexdigest() if source else None,
        accuracy=card.get("accuracy", {}),
        created_by=f"facelm-sdk {facelm_sdk.__version__}",
    )


def _fuse(network: nn.Module, described: ModelInfo, spec: ModelSpec) -> nn.Module:
    if isinstance(network, RetinaFace):
        return FusedDetector(network, described).eval()
    assert spec.crop is not None
    return FusedLandmarks(network, described, spec.crop.size, markups.get(spec.markup), flip=spec.flip).eval()


def _compare(reference: nn.Module, session: OrtSession, spec: ModelSpec) -> dict[str, Any]:
    if spec.task == "detection":
        assert spec.det_thresh is not None
        return parity.detection_parity(reference, session, spec.det_thresh)
    return parity.landmark_parity(reference, session)


def _with_parity(spec: ModelSpec, figures: dict[str, Any]) -> ModelSpec:
    return replace(spec, parity={"against": "PyTorch fp32", **figures})


def _set_contract(proto: Any, spec: ModelSpec) -> None:
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = spec.to_json()


def _report(spec: ModelSpec, file: str, data: bytes, proto: Any, opset: int, batch: int | None) -> dict[str, Any]:
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


def _markdown(report: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)

    rows = "\n".join(f"| {key} | {text(value)} |" for key, value in report.items())
    return f"# {report['file']}\n\n| | |\n|---|---|\n{rows}\n"


def _write(files: dict[Path, bytes]) -> None:
    """All of the files or, where one cannot be written, none."""
    written: list[Path] = []
    try:
        for path, data in files.items():
            write_bytes(path, data)
            written.append(path)
    except OutputError as error:
        for path in written:
            path.unlink()
        raise ModelFileError(str(error)) from error
