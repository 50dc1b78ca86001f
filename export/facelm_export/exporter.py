"""Model name -> fused module -> ONNX -> precision -> parity -> the files of a format, and the report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from facelm_models import heatmaps
from facelm_models.registry import Decoding
from facelm_sdk.contract import METADATA_KEY, LandmarkSpec, ModelSpec
from facelm_sdk.errors import InputError
from facelm_sdk.runtimes.onnxruntime import OrtSession

from .build import Built, build, fuse
from .formats import SUFFIXES, check, prepare, runtimes, write
from .job import Exported, ExportJob, Format
from .onnx_export import OPSET, OPSETS, to_onnx
from .passes.attention import join_attention
from .passes.batch_norm import without_batch_norm
from .passes.half import to_half
from .passes.int8 import quantize_within
from .passes.patches import swap_patch_crops
from .passes.pixels import absorb_pixels
from .passes.rows import perceptrons_over_rows
from .report import parity
from .report.facts import command, imports, report
from .report.latency import measured
from .report.samples import Samples, read_samples

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["cpu", "tensorrt"]
"""Which runtime the file is for; each wants another int8."""


def export(
    model: str,
    *,
    precision: Precision = "fp32",
    format: Format = "onnx",
    target: Target | None = None,
    flip: bool = False,
    batch: int | None = None,
    max_batch: int = 16,
    calib: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    source: str | None = None,
    mean_face: str | os.PathLike[str] | None = None,
    random: bool = False,
    decoding: Decoding | None = None,
    markup: str | None = None,
    opset: int = OPSET,
    imgsz: int | None = None,
    atol: float | None = None,
    latency: bool = True,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write ``model`` as one self-describing file with a report of its parity (``.json`` and ``.md``) beside it.

    ``precision``: fp16 has weights and activations in half, decoding and coordinates in single precision; int8 is
    calibrated on the pictures of the folder ``calib`` (default: those that come with the package). ``format``: an ONNX
    file, a TensorRT engine, OpenVINO's IR, a Triton model repository or a site for the browser (``web``). ``target``
    is the runtime an ONNX file is for, cpu (default) or tensorrt, which want another int8. ``max_batch`` is what an
    engine or a server is built for where ``batch`` is open. ``latency=False`` leaves the timing out of the report.

    ``weights`` is a .safetensors file; default: those of facelm-weights. ``source`` says that it is a
    checkpoint of that public code instead (``slpt``, ``star``, ``hrnet``, ``fan``, ``retinaface``, ...), with its crop,
    decoding and options; ``mean_face`` is the (L, 2) fractions of the crop that SLPT's own checkpoints lack, as .npy,
    .npz or text. ``random=True`` takes untrained weights, for latency work. ``decoding`` replaces the model's own
    heatmap decoder. ``markup``: default, what the weights were trained on, else ibug68. ``flip`` puts flip averaging
    into the graph, ``batch`` fixes the number of crops. ``out`` is a file or a folder; default: the working folder.
    ``imgsz`` only checks: an export for another crop size than the model's is refused. ``atol`` is the largest
    difference from PyTorch allowed, in pixels, in place of the precision's own limits. ``progress`` is told each step.

    Raises UnknownModelError, InputError (weights or options do not fit), ParityError (the file would not compute
    PyTorch's landmarks within the tolerance; none is left) and ModelFileError (the place cannot be written).
    """
    asked = dict(locals())
    _check_choice("precision", precision, parity.TOLERANCES)
    _check_choice("format", format, SUFFIXES)
    target = target or ("tensorrt" if format == "engine" else "cpu")
    _check_choice("target", target, ("cpu", "tensorrt"))
    if calib is not None and precision != "int8":
        raise InputError("calibration pictures (calib) are for precision int8")
    if batch is not None and batch < 1:
        raise InputError(f"a fixed batch is at least 1, not {batch}")
    if max_batch < 1:
        raise InputError(f"max_batch is at least 1, not {max_batch}")
    if opset not in OPSETS:
        raise InputError(f"opset is {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    parts = [model, *(["flip"] if flip else []), *([f"b{batch}"] if batch else []), precision]
    if target == "tensorrt" and format != "engine":
        parts.append("trt")
    if atol is not None and not atol > 0:
        raise InputError(f"atol is a number of pixels above 0, not {atol}")
    path = prepare(format, out, "_".join(parts), (weights, mean_face))
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
    if batch is not None and built.spec.task == "detection":
        raise InputError(f"batch is for landmark models; {model} is a detector, which takes one picture")
    _check_size(built.spec, imgsz)
    check(format, built.spec)
    samples = read_samples(calib, built.spec)
    progress("tracing the graph")
    proto = _traced(built, batch=batch, opset=opset)
    reference = fuse(built, decoder=heatmaps.decode)
    tolerance = parity.TOLERANCES[precision] if atol is None else {"max_px": atol}

    def proven(proto: ModelProto) -> ModelSpec:
        progress("comparing with PyTorch")
        return _proven(built.spec, reference, proto, samples, None if random else tolerance)

    if precision == "int8":
        progress("calibrating")
        proto, spec = quantize_within(proto, built.spec, samples.calibration, target, proven)
    else:
        spec = proven(proto)
    job = ExportJob(proto.SerializeToString(), spec, path, batch, max_batch, progress)
    facts = report(job, proto, opset=opset, target=target, format=format, tolerance=tolerance)
    named = path.name if out is not None and Path(out) == path else None
    ambiguous = precision == "int8" and format == "onnx"  # without a target, the command line writes a file for each
    asked = {**asked, "out": named, "target": target if ambiguous else asked["target"]}
    facts["command"] = command(export, asked, *imports(built.info.build))
    if latency:
        progress("measuring")
        facts["latency"] = measured(reference, job, runtimes(job, format))
    return write(replace(job, command=facts["command"]), facts, format)


def _check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise InputError(f"{what} is one of {', '.join(choices)}, not {value!r}")


def _check_size(spec: ModelSpec, size: int | None) -> None:
    if size is None:
        return
    if not isinstance(spec, LandmarkSpec):
        raise InputError(f"{spec.name} takes pictures of any size: leave out imgsz (--imgsz)")
    if size != spec.crop.size:
        raise InputError(
            f"{spec.name} takes crops of {spec.crop.size} pixels, not {size}: its weights are of that size"
        )


def _traced(built: Built, *, batch: int | None, opset: int) -> ModelProto:
    """The fused network as ONNX, in floating point."""
    return to_onnx(graph_module(built), built.spec, batch=batch, opset=opset)


def graph_module(built: Built) -> nn.Module:
    """The fused network in the form that is traced, in floating point."""
    network = without_batch_norm(built.network, built.info.input_size)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]  # tracing takes a third longer to undo it
    swap_patch_crops(network)
    join_attention(network)
    perceptrons_over_rows(network)
    if built.spec.precision == "fp16":
        network = to_half(network, built.info)  # gains would take small weights below half precision's range
    else:
        built = replace(built, info=absorb_pixels(network, built.info))
    return fuse(built, network)


def _proven(
    spec: ModelSpec, reference: nn.Module, proto: ModelProto, samples: Samples, tolerance: Mapping[str, float] | None
) -> ModelSpec:
    """The contract with its parity figures, put into ``proto``. Raises ParityError where they miss ``tolerance``."""
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / "draft.onnx"
        draft.write_bytes(proto.SerializeToString())
        figures = parity.compare(reference, OrtSession(draft), samples)
    if tolerance is not None:  # untrained points are no points to measure, and nobody will use them
        parity.check(figures, spec.precision, spec.name, tolerance)
    spec = replace(spec, parity={"against": "PyTorch fp32", **figures})
    for entry in proto.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = spec.to_json()
    return spec
