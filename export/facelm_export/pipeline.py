"""Detector, crops, landmarks and the way back to the picture's pixels as one ONNX file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

import facelm_sdk
from facelm_models import default_weights, list_models
from facelm_sdk import Aligner, Detector, Landmarker, zoo
from facelm_sdk.bench import summary
from facelm_sdk.boxes import iou
from facelm_sdk.contract import METADATA_KEY, DetectorSpec, LandmarkSpec, ModelSpec, PipelineSpec
from facelm_sdk.detector import DetSize
from facelm_sdk.errors import InputError, ParityError
from facelm_sdk.runtimes.base import Session
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.runtimes.open import open_session
from facelm_sdk.types import Face, ImageArray

from .exporter import Precision, export
from .formats import prepare, write
from .graph_builder import GraphBuilder, Kind, Value
from .job import Exported, Format
from .job import ExportJob as Graph
from .onnx_export import OPSET
from .ops.looks import Found, detect
from .ops.warp import crops
from .report.facts import command, report
from .report.latency import _interleaved
from .report.samples import portraits

OPSETS = range(18, 23)
"""Reductions took their axes as an input only from 18 on."""

TOLERANCES = {"fp32": {"max_px": 0.5}, "fp16": {"max_px": 0.5}, "int8": {"max_px": 2.0, "mean_px": 0.5}}
"""Largest differences from Aligner allowed, in pixels of the picture. A few values of a crop differ by one level, which
moves the points of an int8 network by up to a pixel of the crop, those of the others by a thousandth."""

SAME_FACE = 0.9
NEAR_THRESHOLD = 0.02
"""A face whose score lies this near to the threshold may be found by one side and not by the other."""

MAX_BATCH = 64
"""Crops that the landmark network sees at a time, as in Landmarker."""


Spec = TypeVar("Spec", LandmarkSpec, DetectorSpec)


@dataclass(frozen=True)
class _Part(Generic[Spec]):
    """A detector or landmark model that goes into the pipeline."""

    graph: onnx.ModelProto
    session: Session
    spec: Spec


def export_pipeline(
    landmarks: str | os.PathLike[str] = zoo.LANDMARKS,
    detector: str | os.PathLike[str] = zoo.DETECTOR,
    *,
    det_size: DetSize = "auto",
    det_thresh: float | None = None,
    precision: Precision = "fp32",
    format: Format = "onnx",
    flip: bool = False,
    opset: int = OPSET,
    latency: bool = True,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write one file that does what :class:`facelm_sdk.Aligner` does, with a report (``.json`` and ``.md``) beside it.

    One run takes ``image`` uint8 (H, W, 3) BGR and gives ``boxes`` (k, 4), ``scores`` (k,), ``kps`` (k, 5, 2),
    ``landmarks`` (k, L, 2) and, where the landmark model has them, ``landmark_scores`` (k, L), best score first, in the
    picture's pixels.

    ``landmarks`` and ``detector`` are names of models whose weights come with the package, or paths of .onnx files of
    :func:`facelm_export.export`; ``precision`` and ``flip`` are those of a landmark model given by its name, the
    detector given by its name stays fp32. ``det_size`` and ``det_thresh`` as in Detector. ``opset`` is 18 to 22, the
    same for all parts. ``format``: onnx, or a Triton model repository. ``out`` is a file or a folder; default: the
    working folder. ``latency=False`` leaves the timing out of the report. ``progress`` is told each step.

    Raises InputError and UnknownModelError, ContractError (a file of another kind), ParityError (the file would not
    find Aligner's points within half a pixel on the package's portraits; none is left) and ModelFileError.
    """
    asked = {**locals(), "landmarks": zoo.LANDMARKS, "out": None}
    if opset not in OPSETS:
        raise InputError(f"opset of a pipeline is {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    name = Path(landmarks).stem if _is_file(landmarks) else "_".join([str(landmarks), *(["flip"] * flip), precision])
    if format not in ("onnx", "triton"):
        raise InputError(f"format of a pipeline is onnx or triton, not {format!r}")
    path = prepare(format, out, f"{name}_pipeline")
    with tempfile.TemporaryDirectory() as scratch:
        options: dict[str, Any] = {"opset": opset, "out": Path(scratch), "latency": False, "progress": progress}
        found = _part(detector, DetectorSpec, options, precision="fp32", flip=False)
        finder = Detector(found.session, det_size=det_size, det_thresh=det_thresh)
        shape = _part(landmarks, LandmarkSpec, options, precision=precision, flip=flip)
    aligner = Aligner(Landmarker(shape.session), finder)
    progress("joining the graphs")
    spec = _spec(shape.spec, found.spec, finder)
    proto = _chained(found, shape, spec)
    progress("comparing with Aligner")
    session = OrtSession(proto.SerializeToString())
    figures = compare(session, aligner, pictures())
    check(figures, spec)
    spec = replace(spec, parity={"against": "Aligner", **figures})
    _set_contract(proto, spec)
    graph = Graph(proto.SerializeToString(), spec, path, None, MAX_BATCH, progress)
    facts = report(graph, proto, opset=opset, target="cpu", format=format, tolerance=TOLERANCES[spec.precision])
    facts["nodes"] = _nodes(proto.graph)
    facts["command"] = command(export_pipeline, asked, "--pipeline", "--model", Path(landmarks).name)
    facts["parts"] = {part.spec.name: part.spec.precision for part in (found, shape)}
    if latency:
        progress("measuring")
        facts["speed"] = _speed(session, aligner)
    return write(graph, facts, format)


def _is_file(model: str | os.PathLike[str]) -> bool:
    return os.fspath(model).lower().endswith(".onnx")


def _part(
    model: str | os.PathLike[str], kind: type[Spec], options: dict[str, Any], *, precision: Precision, flip: bool
) -> _Part[Spec]:
    """A part, exported where it is given by its name. ``options``: those of export."""
    if not _is_file(model):
        name = os.fspath(model)
        if name in list_models() and default_weights(name) is None:
            raise InputError(
                f"no weights of {name} come with the package; export it with your own (facelm-export --model {name} "
                f"--weights FILE) and give the .onnx in place of the name"
            )
        model = export(name, precision=precision, flip=flip, **options).path
    session, spec = open_session(model, kind)
    graph = onnx.load(model)
    if _opset(graph) != options["opset"]:
        raise InputError(
            f"{model} has opset {_opset(graph)}, but the pipeline {options['opset']}: export both with one --opset"
        )
    if graph.functions:
        raise InputError(f"{model} has functions of its own; accepted are files of facelm-export")
    if isinstance(spec, LandmarkSpec):
        if batch := graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
            raise InputError(f"{model} is for {batch} crops at a time; export it without --batch")
        if (spec.precision, spec.flip) != (precision, flip) and (precision, flip) != ("fp32", False):
            raise InputError(
                f"{model} is {spec.precision}{' with' if spec.flip else ' without'} flip averaging: precision and flip "
                f"are of its own export; leave them out"
            )
    return _Part(graph, session, spec)


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if not entry.domain), 0)


def _spec(shape: LandmarkSpec, found: DetectorSpec, detector: Detector) -> PipelineSpec:
    def both(what: str) -> str:
        one, two = getattr(shape, what), getattr(found, what)
        return str(one) if one == two else f"{shape.name}: {one}; {found.name}: {two}"

    kept = ("markup", "num_landmarks", "crop", "has_scores", "flip", "precision", "multiply_adds", "weights_sha256")
    return PipelineSpec(
        **{entry: getattr(shape, entry) for entry in kept},
        accuracy=shape.accuracy,
        name=f"{found.name}+{shape.name}",
        det_size=detector.det_size,
        det_thresh=detector.det_thresh,
        data=both("data"),
        licence=both("licence"),
        created_by=f"facelm-sdk {facelm_sdk.__version__}",
    )


def _chained(found: _Part[DetectorSpec], shape: _Part[LandmarkSpec], spec: PipelineSpec) -> onnx.ModelProto:
    """The graph of the whole."""
    g = GraphBuilder(_opset(found.graph))
    picture = g.input("image", "uint8", ["H", "W", 3])
    faces = detect(picture, lambda seen: Found(**g.call(found.graph, image=seen)), spec.det_size, spec.det_thresh)
    outputs = [*faces.all(), *_landmarks(picture, faces, shape)]
    proto = g.model(
        {
            name: (value, "float32", ["k" if side is None else side for side in tensor.shape or ()])
            for (name, tensor), value in zip(spec.tensors.outputs.items(), outputs, strict=True)
        }
    )
    proto.producer_name, proto.producer_version = "facelm-export", spec.created_by
    _set_contract(proto, spec)
    return proto


def _landmarks(picture: Value, faces: Found, shape: _Part[LandmarkSpec]) -> list[Value]:
    """Landmarks in the picture and, where the model has them, scores. Without a face the network is not run."""
    g, spec = picture.graph, shape.spec
    whole = crops(spec.crop, faces.boxes, faces.kps)
    kinds: list[Kind] = [("float32", (None, spec.num_landmarks, 2))]
    kinds += [("float32", (None, spec.num_landmarks))] if spec.has_scores else []

    def batch(index: Value, *before: Value) -> tuple[None, Sequence[Value], Sequence[Value]]:
        start = g.op("Unsqueeze", index * MAX_BATCH, [0])
        part = whole.part(start, start + MAX_BATCH)
        outputs = g.call(shape.graph, crops=part.cut(picture))
        points = part.picture_points(outputs.pop("landmarks"))
        return (
            None,
            [g.op("Concat", *pair, axis=0) for pair in zip(before, (points, *outputs.values()), strict=True)],
            [],
        )

    nothing = [g.value(np.zeros([side or 0 for side in sides], np.float32)) for _, sides in kinds]
    return g.loop((g.op("Size", faces.scores) + (MAX_BATCH - 1)) / MAX_BATCH, nothing, batch, kinds)


def _set_contract(proto: onnx.ModelProto, spec: ModelSpec) -> None:
    onnx.helper.set_model_props(proto, {METADATA_KEY: spec.to_json()})


def _nodes(graph: onnx.GraphProto) -> int:
    bodies = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return len(graph.node) + sum(map(_nodes, bodies))


def pictures() -> list[ImageArray]:
    """The package's portraits as they are, many in one, filling the frame, four times as large, and no face at all."""
    import cv2

    plain = [picture[0] for picture in portraits()]
    first = plain[0]
    height, width = first.shape[:2]
    tiles = [np.asarray(cv2.resize(one, (width // 2, height // 2), interpolation=cv2.INTER_AREA)) for one in plain]
    many = np.concatenate([np.concatenate([one, one[:, ::-1]], 1) for one in tiles])
    close = first[: height // 2, width // 4 : 3 * width // 4]
    large = np.asarray(cv2.resize(first, (4 * width, 4 * height), interpolation=cv2.INTER_CUBIC))
    return [*plain, many, np.ascontiguousarray(close), large, np.zeros_like(first)]


def compare(session: OrtSession, aligner: Aligner, images: Sequence[ImageArray]) -> dict[str, Any]:
    """Differences in pixels between the file's boxes, five points and landmarks and those of ``aligner``.

    ``unmatched`` counts faces that only one side finds, but for those at the threshold; points that are not finite
    differ infinitely.
    """
    assert aligner.detector is not None
    sure = aligner.detector.det_thresh + NEAR_THRESHOLD
    differences: list[NDArray[Any]] = [np.zeros(1)]
    faces = unmatched = 0
    for image in images:
        expected, actual = aligner(image), session.run({"image": image})
        pairs, lone = _matched(expected, actual[0])
        scores = [expected[i].score or 0.0 for i in lone[0]] + [float(actual[1][j]) for j in lone[1]]
        unmatched += sum(score >= sure for score in scores)
        faces += len(pairs)
        differences += [_distances(expected[i], actual, j) for i, j in pairs]
    values = np.nan_to_num(np.concatenate(differences), nan=np.inf)
    return {
        "pictures": len(images),
        "faces": faces,
        "unmatched": unmatched,
        "max_px": round(float(values.max()), 6),
        "p99_px": round(float(np.percentile(values, 99)), 6),
        "mean_px": round(float(values.mean()), 6),
    }


def _matched(
    expected: list[Face], boxes: NDArray[np.float32]
) -> tuple[list[tuple[int, int]], tuple[list[int], list[int]]]:
    """Pairs of indices of the same face, and the indices of either side that have no other."""
    overlaps = np.array([iou(face.bbox, boxes) for face in expected]).reshape(len(expected), len(boxes))
    rows, columns = np.nonzero(overlaps >= SAME_FACE)
    lone = np.nonzero(~(overlaps >= SAME_FACE).any(1))[0], np.nonzero(~(overlaps >= SAME_FACE).any(0))[0]
    return list(zip(rows.tolist(), columns.tolist(), strict=True)), (lone[0].tolist(), lone[1].tolist())


def _distances(face: Face, actual: list[NDArray[Any]], index: int) -> NDArray[Any]:
    boxes, _, kps, landmarks = actual[:4]
    pairs = ((face.bbox.reshape(2, 2), boxes[index].reshape(2, 2)), (face.kps, kps[index]))
    both = (*pairs, (face.landmarks, landmarks[index]))
    return np.concatenate([np.linalg.norm(one - two, axis=-1) for one, two in both])


def check(figures: dict[str, Any], spec: ModelSpec) -> None:
    """Raise ParityError, with the figures, unless they are within the tolerance of the precision."""
    tolerance = TOLERANCES[spec.precision]
    if figures["unmatched"] or any(not figures[key] <= limit for key, limit in tolerance.items()):
        limits = ", ".join(f"{key} {figures[key]:.4f} (allowed {limit})" for key, limit in tolerance.items())
        raise ParityError(
            f"{spec.name} in one file differs too much from Aligner: {limits}, {figures['unmatched']} faces that only "
            f"one of them finds; no file was written"
        )


def _speed(session: OrtSession, aligner: Aligner) -> dict[str, Any]:
    """Milliseconds of a run and of Aligner, taking turns, on a 640x480 portrait."""
    picture = portraits()[-1][0]
    pipeline, composed = _interleaved(lambda: session.run({"image": picture}), lambda: aligner(picture))
    one, two = summary(pipeline)["median"], summary(composed)["median"]
    return {"picture": "640x480, one face", "pipeline_ms": one, "aligner_ms": two, "ratio": round(one / two, 2)}
