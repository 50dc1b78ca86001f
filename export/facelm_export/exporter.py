"""Model name -> fused module -> ONNX -> precision -> parity -> the files of a format, and the report."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facelm_models import heatmaps
from facelm_models.registry import Decoding
from facelm_sdk.errors import InputError, ModelFileError, OutputError
from facelm_sdk.files import write_bytes
from facelm_sdk.session import OrtSession
from facelm_sdk.spec import METADATA_KEY, ModelSpec

from . import parity
from .build import Built, build, fuse
from .onnx_export import OPSET, OPSETS, to_onnx
from .ops.patches import swap_patch_crops
from .report import markdown, report
from .wrappers import to_half, without_batch_norm

if TYPE_CHECKING:
    from onnx import ModelProto

Precision = Literal["fp32", "fp16"]


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
    source: str | None = None,
    mean_face: str | os.PathLike[str] | None = None,
    random: bool = False,
    decoding: Decoding | None = None,
    markup: str | None = None,
    opset: int = OPSET,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write ``model`` as one self-describing ONNX file with a parity report (``.json`` and ``.md``) beside it.

    ``weights`` is a .safetensors file; default: the ones that come with the package. ``source`` says that it is a
    checkpoint of that public code instead (``slpt``, ``star``, ``hrnet``, ``fan``, ``retinaface``, ...), with its crop,
    decoding and options; ``mean_face`` is the (L, 2) fractions of the crop that SLPT's own checkpoints lack, as .npy,
    .npz or text. ``random=True`` takes untrained weights, for latency work. ``decoding`` replaces the model's own
    heatmap decoder. ``markup``: default, what the weights were trained on, else ibug68. ``flip`` puts flip averaging
    into the graph, ``batch`` fixes the number of crops. ``out`` is a file or a folder; default: the working folder.
    ``progress`` is told each step.

    Raises UnknownModelError, InputError (weights or options do not fit), ParityError (the file would not compute
    PyTorch's landmarks within the tolerance; none is left) and ModelFileError (the place cannot be written).
    """
    if precision not in parity.TOLERANCES:
        raise InputError(f"precision is one of {', '.join(parity.TOLERANCES)}, not {precision!r}")
    if batch is not None and batch < 1:
        raise InputError(f"a fixed batch is at least 1, not {batch}")
    if opset not in OPSETS:
        raise InputError(f"opset is {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    target = _target(out, model, precision, flip=flip, batch=batch)
    progress("building the network")
    built = build(
        model,
        precision=precision,
        flip=flip,
        weights=weights,
        source=source,
        mean_face=mean_face,
        random=random,
        decoding=decoding,
        markup=markup,
    )
    progress("tracing the graph")
    proto = _graph(built, batch=batch, opset=opset)
    progress("comparing with PyTorch")
    spec = _proven(built, proto, required=not random)
    data = proto.SerializeToString()
    facts = report(spec, target.name, data, proto, opset, batch)
    progress("writing")
    report_path = target.with_suffix(".report.json")
    _write(
        {
            report_path: json.dumps(facts, indent=2).encode(),
            target.with_suffix(".report.md"): markdown(facts).encode(),
            target: data,
        }
    )
    return Exported(target, report_path, spec, facts)


def _target(out: str | os.PathLike[str] | None, model: str, precision: str, *, flip: bool, batch: int | None) -> Path:
    name = "_".join([model, *(["flip"] if flip else []), *([f"b{batch}"] if batch else []), precision]) + ".onnx"
    path = Path(out) if out is not None else Path(name)
    if path.is_dir() or (out is not None and str(out).endswith(os.sep)):
        path = path / name
    if path.suffix != ".onnx":
        raise InputError(f"the output is a folder or a file ending in .onnx, not {path}")
    return path


def _graph(built: Built, *, batch: int | None, opset: int) -> ModelProto:
    """The fused network as ONNX, in the precision of its contract."""
    network = without_batch_norm(built.network, built.info.input_size)
    swap_patch_crops(network)
    if built.spec.precision == "fp16":
        network = to_half(network)
    return to_onnx(fuse(built, network), built.spec, batch=batch, opset=opset)


def _proven(built: Built, proto: ModelProto, *, required: bool) -> ModelSpec:
    """The contract with its parity figures, put into ``proto``. Raises ParityError where they miss and must not."""
    reference = fuse(built, decoder=heatmaps.decode)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "draft.onnx"
        draft.write_bytes(proto.SerializeToString())
        session = OrtSession(draft)
        if built.spec.task == "detection":
            assert built.spec.det_thresh is not None
            figures = parity.detection_parity(reference, session, built.spec.det_thresh)
        else:
            figures = parity.landmark_parity(reference, session)
    if required:  # untrained points are no points to measure, and nobody will use them
        parity.check(figures, built.spec.precision, built.spec.name)
    spec = replace(built.spec, parity={"against": "PyTorch fp32", **figures})
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = spec.to_json()
    return spec


def _write(files: Mapping[Path, bytes]) -> None:
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
