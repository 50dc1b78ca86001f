"""Detector, crops, landmarks and the way back to the picture's pixels as one traced module, and one ONNX file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import facelm_sdk
from facelm_models import heatmaps
from facelm_models.registry import Decoding
from facelm_sdk import Aligner, Detector, Landmarker, zoo
from facelm_sdk.aligner import MIN_PRESENCE
from facelm_sdk.boxes import iou
from facelm_sdk.contract import METADATA_KEY, DetectorSpec, LandmarkSpec, ModelSpec, PipelineSpec
from facelm_sdk.detector import MAX_CONTAINED
from facelm_sdk.errors import InputError, ParityError
from facelm_sdk.runtimes.base import RuntimeOptions
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.transform import CropRecipe
from facelm_sdk.types import Face, ImageArray

from .build import Built, build, fuse
from .exporter import Precision, graph_module
from .formats import prepare, write
from .job import Exported, ExportJob, Format
from .onnx_export import OPSET, to_onnx
from .ops.candidates import DetectorGraph
from .ops.crops import crops_to_picture
from .ops.nms import outside_better
from .ops.resampling import cut, fit
from .passes.int8 import quantize_within
from .report import parity
from .report.facts import command, imports, report
from .report.latency import compared
from .report.samples import portraits, read_samples
from .wrappers import SCORE_FLOOR

if TYPE_CHECKING:
    from onnx import ModelProto

DET_SIZE = 320
OPSETS = range(18, 23)
"""Reductions took their axes as an input only from 18 on."""

TOLERANCES = {
    "fp32": {"max_px": 0.5},
    "fp16": {"max_px": 2.0, "mean_px": 0.5},
    "int8": {"max_px": 3.0, "mean_px": 0.5},
}
"""Largest differences from Aligner with PyTorch's fp32 networks, in pixels of the picture, which may be as fine as an
eighth of a crop's; of int8 from Aligner with the same landmark model in int8, which is held to PyTorch's by itself.
Crops differ by one level here and there, which moves fp32's points by a thousandth of a pixel."""

SAME_FACE = 0.9
NEAR = 0.02
"""A face whose score lies this near to the threshold may be found by one side and not by the other; of two boxes of one
face whose scores lie this near to each other, either side may take the other."""
SAME_PLACE = 0.5


class FacePipeline(nn.Module):
    """A picture uint8 (H, W, 3) BGR -> its faces, best score first, in its pixels.

    ``boxes`` (k, 4) xyxy, ``scores`` (k,), ``kps`` (k, 5, 2), ``landmarks`` (k, L, 2) and, where the landmark model
    has them, their scores (k, L). What its presence, where it has one, says is no face is dropped, as Aligner does by
    default. ``det_size``: as of :class:`facelm_sdk.Detector`, not "auto".
    """

    def __init__(
        self,
        detector: nn.Module,
        landmarks: nn.Module,
        recipe: CropRecipe,
        det_size: int | tuple[int, int],
        markup: str = "ibug68",
    ) -> None:
        super().__init__()
        self.detector, self.landmarks, self.recipe, self.markup = detector, landmarks, recipe, markup
        self.padded = not isinstance(det_size, int)
        self.frame = (det_size, det_size) if isinstance(det_size, int) else det_size

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *found, crops, back = self._cut(image)
        outputs = self.landmarks(crops)
        points, *confidence = outputs if isinstance(outputs, tuple) else (outputs,)
        faces = (*found, points @ back[:, :, :2].mT + back[:, None, :, 2], *confidence[:1])
        if len(confidence) < 2:
            return faces
        present = torch.nonzero(confidence[1] >= MIN_PRESENCE).flatten()
        return tuple(part.index_select(0, present) for part in faces)

    def _cut(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The faces' boxes, scores and five points, crops (k, S, S, 3), and (k, 2, 3) from crop to picture."""
        seen, zoom = fit(image, *self.frame, self.padded)
        boxes, scores, kps = self.detector(seen.permute(0, 2, 3, 1))
        # Pixel centres lie at whole numbers, so a pixel's own half is zoomed too.
        boxes = ((boxes.unflatten(1, (2, 2)) + 0.5) / zoom - 0.5).flatten(1)
        kps = (kps + 0.5) / zoom - 0.5
        kept = torch.nonzero(outside_better(boxes, MAX_CONTAINED)).flatten()
        boxes, scores, kps = (part.index_select(0, kept) for part in (boxes, scores, kps))
        back = crops_to_picture(self.recipe, boxes, kps, self.markup)
        return boxes, scores, kps, cut(image, back, self.recipe.size).permute(0, 2, 3, 1), back


class CropPipeline(FacePipeline):
    """The part before the landmark model: the faces, their crops as uint8, and what takes points back.

    Points (k, L, 2) of crops are those of the picture after ``points @ turn + shift``.
    """

    OUTPUTS = ("found/boxes", "found/scores", "found/kps", "face_crops", "turn", "shift")

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *found, crops, back = self._cut(image)
        return *found, crops.to(torch.uint8), back[:, :, :2].mT, back[:, None, :, 2]


def export_pipeline(
    model: str = zoo.LANDMARKS,
    *,
    detector: str = zoo.DETECTOR,
    det_size: int | tuple[int, int] = DET_SIZE,
    det_thresh: float | None = None,
    precision: Precision = "fp32",
    calib: str | os.PathLike[str] | None = None,
    format: Format = "onnx",
    flip: bool = False,
    weights: str | os.PathLike[str] | None = None,
    source: str | None = None,
    mean_face: str | os.PathLike[str] | None = None,
    decoding: Decoding | None = None,
    markup: str | None = None,
    detector_weights: str | os.PathLike[str] | None = None,
    opset: int = OPSET,
    latency: bool = True,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Write one file that does what ``Aligner(det_size=...)`` does, with a report (``.json`` and ``.md``) beside it.

    One run takes ``image`` uint8 (H, W, 3) BGR and gives ``boxes`` (k, 4), ``scores`` (k,), ``kps`` (k, 5, 2),
    ``landmarks`` (k, L, 2) and, where the landmark model has them, ``landmark_scores`` (k, L), best score first, in the
    picture's pixels. All faces of a picture are one batch.

    ``model`` and ``detector`` are registered names; ``precision`` (of the landmark model; the detector stays fp32),
    ``calib``, ``flip``, ``weights``, ``source``, ``mean_face``, ``decoding`` and ``markup`` of the landmark model as in
    :func:`facelm_export.export`; ``detector_weights`` is a .safetensors file. ``det_size`` is the long side in pixels
    at which the detector sees a picture, or a (width, height) it is fitted into; it and ``det_thresh`` (default: the
    detector's own) are fixed in the file. ``opset`` is 18 to 22. ``format``: onnx, or a Triton model repository.
    ``out`` is a file or a folder; default: the working folder. ``latency=False`` leaves the timing out of the report.
    ``progress`` is told each step.

    Raises InputError and UnknownModelError, ParityError (the file would not find, on the package's portraits, the faces
    of Aligner with PyTorch's networks within half a pixel; none is left) and ModelFileError.
    """
    asked = dict(locals())
    _check(opset, precision, format)
    if calib is not None and precision != "int8":
        raise InputError("calibration pictures (calib) are for precision int8")
    name = "_".join([model, *(["flip"] * flip), precision, "pipeline"])
    path = prepare(format, out, name, (weights, mean_face, detector_weights))
    progress("building the networks")
    landmark_part = build(
        model,
        precision=precision,
        flip=flip,
        weights=weights,
        source=source,
        mean_face=mean_face,
        decoding=decoding,
        markup=markup,
    )
    detector_part = build(detector, weights=detector_weights)
    landmark_spec, detector_spec = landmark_part.spec, detector_part.spec
    if not isinstance(landmark_spec, LandmarkSpec):
        raise _other_task(landmark_spec, LandmarkSpec)
    if not isinstance(detector_spec, DetectorSpec):
        raise _other_task(detector_spec, DetectorSpec)
    found = Detector(TorchSession(fuse(detector_part), detector_spec), det_size=det_size, det_thresh=det_thresh)
    spec = _spec(landmark_spec, detector_spec, found)
    aligner = Aligner(Landmarker(_eager(landmark_part)), found, realign=False)
    reference, against = aligner, "Aligner with PyTorch fp32"
    if precision == "int8":
        progress("calibrating")
        quantized = _quantized(landmark_part, calib, opset)
        own = OrtSession(quantized.SerializeToString())
        reference = Aligner(Landmarker(own), found, realign=False)
        against = "Aligner with the landmark model in int8"
        progress("tracing the graph")
        proto = _joined(detector_part, quantized, spec, opset)
    else:
        progress("tracing the graph")
        proto = to_onnx(_module(FacePipeline, detector_part, graph_module(landmark_part), spec), spec, opset=opset)
    progress("comparing with Aligner")
    session = OrtSession(proto.SerializeToString())
    figures = compare(session, reference, pictures())
    check(figures, spec)
    spec = replace(spec, parity={"against": against, **figures})
    next(entry for entry in proto.metadata_props if entry.key == METADATA_KEY).value = spec.to_json()
    graph = ExportJob(proto.SerializeToString(), spec, path, None, 1, progress)
    facts = report(graph, proto, opset=opset, target="cpu", format=format, tolerance=TOLERANCES[precision])
    facts["nodes"] = _nodes(proto.graph)
    facts["det_size"], facts["det_thresh"] = spec.det_size, spec.det_thresh
    facts["command"] = _command(asked, imports(landmark_part.info.build))
    if latency:
        progress("measuring")
        facts["latency"] = _latency(graph.data, aligner)
    return write(replace(graph, command=facts["command"]), facts, format)


def _check(opset: int, precision: str, format: str) -> None:
    if opset not in OPSETS:
        raise InputError(f"opset of a pipeline is {OPSETS[0]} to {OPSETS[-1]}, not {opset}")
    if precision not in TOLERANCES:
        raise InputError(f"precision of a pipeline is one of {', '.join(TOLERANCES)}, not {precision!r}")
    if format not in ("onnx", "triton"):
        raise InputError(f"format of a pipeline is onnx or triton, not {format!r}")


def _other_task(spec: ModelSpec, kind: type[ModelSpec]) -> InputError:
    return InputError(f"{spec.name} is a model for {spec.task}; the pipeline needs one for {kind.task} in its place")


def _module(kind: type[FacePipeline], detector_part: Built, landmarks: nn.Module, spec: PipelineSpec) -> FacePipeline:
    """Return what is traced. Faces below the threshold are dropped before the suppression, to whom less is left."""
    assert spec.det_size != "auto"
    detector = graph_module(detector_part)
    assert isinstance(detector, DetectorGraph)
    detector.floor = min(max(spec.det_thresh, SCORE_FLOOR), 1 - 1e-6)
    return kind(detector, landmarks, spec.crop, spec.det_size, spec.markup).eval()


def _eager(part: Built) -> TorchSession:
    return TorchSession(fuse(part, decoder=heatmaps.decode), part.spec)


def _quantized(part: Built, calib: str | os.PathLike[str] | None, opset: int) -> ModelProto:
    """Return the landmark model in int8, as it would be exported alone. Raises ParityError as that does."""
    samples = read_samples(calib, part.spec)
    proto = to_onnx(graph_module(part), part.spec, opset=opset)
    reference = _eager(part).module

    def prove(proto: ModelProto) -> None:
        figures = parity.compare(reference, OrtSession(proto.SerializeToString()), samples)
        parity.check(figures, "int8", part.spec.name, parity.TOLERANCES["int8"])

    proto, _ = quantize_within(proto, part.spec, samples.calibration, "cpu", prove)
    return proto


def _joined(detector_part: Built, landmarks: ModelProto, spec: PipelineSpec, opset: int) -> ModelProto:
    """Return the pipeline of a traced :class:`CropPipeline` and a landmark model's graph, calibrated on crops."""
    from onnx import TensorProto, compose, helper, numpy_helper

    before = _module(CropPipeline, detector_part, nn.Identity(), spec)
    front = to_onnx(before, spec, opset=opset, outputs=CropPipeline.OUTPUTS)
    del landmarks.metadata_props[:]
    landmarks.ir_version = front.ir_version
    joined = compose.merge_models(front, landmarks, io_map=[("face_crops", "crops")], prefix2="landmark_part/")
    add = joined.graph.node.append
    add(helper.make_node("MatMul", ["landmark_part/landmarks", "turn"], ["turned"], "turned"))
    add(helper.make_node("Add", ["turned", "shift"], ["found/landmarks"], "found/landmarks"))
    given = {name: f"found/{name}" for name in ("boxes", "scores", "kps", "landmarks")}
    if spec.has_scores:
        given["landmark_scores"] = "landmark_part/scores"
    outputs = {output.name for output in joined.graph.output}
    if has_presence := "landmark_part/presence" in outputs:
        least = numpy_helper.from_array(np.array([MIN_PRESENCE], np.float32), "min_presence")
        joined.graph.initializer.extend([least, numpy_helper.from_array(np.array([-1], np.int64), "flat")])
        add(helper.make_node("GreaterOrEqual", ["landmark_part/presence", "min_presence"], ["is_face"], "is_face"))
        add(helper.make_node("NonZero", ["is_face"], ["faces/rows"], "faces/rows"))
        add(helper.make_node("Reshape", ["faces/rows", "flat"], ["faces"], "faces"))
    for name, source in given.items():
        node = ("Gather", [source, "faces"]) if has_presence else ("Identity", [source])
        add(helper.make_node(*node, [name], f"faces/{name}"))
    del joined.graph.output[:]
    for name, tensor in spec.tensors.outputs.items():
        shape = [side or "k" for side in tensor.shape or ()]
        joined.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    joined.metadata_props.extend(front.metadata_props)
    joined.producer_name, joined.producer_version = front.producer_name, front.producer_version
    return joined


def _spec(landmarks: LandmarkSpec, found: DetectorSpec, detector: Detector | None) -> PipelineSpec:
    assert detector is not None
    if detector.det_size == "auto":
        raise InputError("det_size of a pipeline is a long side or (width, height) in pixels; only Aligner searches")

    def both(what: str) -> str:
        one, two = getattr(landmarks, what), getattr(found, what)
        return str(one) if one == two else f"{landmarks.name}: {one}; {found.name}: {two}"

    kept = ("markup", "num_landmarks", "crop", "has_scores", "flip", "precision", "multiply_adds", "weights_sha256")
    return PipelineSpec(
        **{entry: getattr(landmarks, entry) for entry in kept},
        accuracy=landmarks.accuracy,
        name=f"{found.name}+{landmarks.name}",
        det_size=detector.det_size,
        det_thresh=detector.det_thresh,
        data=both("data"),
        licence=both("licence"),
        created_by=f"facelm-sdk {facelm_sdk.__version__}",
    )


def _command(asked: dict[str, Any], imported: list[str]) -> str:
    """The line that makes the file again, in the working folder."""
    if not isinstance(size := asked["det_size"], int):
        asked = {**asked, "det_size": "x".join(map(str, size))}
    words = ["pipeline", *imported, "--model", asked["model"]]
    return command(export_pipeline, {**asked, "model": None, "out": None}, *words)


def _nodes(graph: Any) -> int:
    bodies = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return len(graph.node) + sum(map(_nodes, bodies))


class TorchSession:
    """A fused module in the place of its file, on a device."""

    def __init__(self, module: nn.Module, spec: ModelSpec, device: str = "cpu") -> None:
        self.module, self.spec, self.device = module.eval().to(device), spec, device
        self.providers = (f"PyTorch eager, {device}",)

    @torch.inference_mode()
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs; copying them to the CPU waits for the device."""
        outputs = self.module(*(torch.from_numpy(value).to(self.device) for value in feeds.values()))
        return [part.cpu().numpy() for part in (outputs if isinstance(outputs, tuple) else (outputs,))]


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

    ``unmatched`` counts faces that only one side finds, but for those at the threshold, ``ties`` those of which the
    sides take different boxes of nearly the same score; points that are not finite differ infinitely.
    """
    assert aligner.detector is not None
    sure = aligner.detector.det_thresh + NEAR
    differences: list[NDArray[Any]] = [np.zeros(1)]
    faces = unmatched = ties = 0
    for image in images:
        expected, actual = aligner(image), session.run({"image": image})
        pairs, lone = _matched(expected, actual[0])
        for i, j in itertools.product(*lone):
            one, other = expected[i].score or 0.0, float(actual[1][j])
            if iou(expected[i].bbox, actual[0][j]) >= SAME_PLACE and abs(one - other) < NEAR:
                lone, ties = (_without(lone[0], i), _without(lone[1], j)), ties + 1
        scores = [expected[i].score or 0.0 for i in lone[0]] + [float(actual[1][j]) for j in lone[1]]
        unmatched += sum(score >= sure for score in scores)
        faces += len(pairs)
        differences += [_distances(expected[i], actual, j) for i, j in pairs]
    values = np.nan_to_num(np.concatenate(differences), nan=np.inf)
    return {
        "pictures": len(images),
        "faces": faces,
        "unmatched": unmatched,
        "ties": ties,
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


def _without(indices: list[int], one: int) -> list[int]:
    return [index for index in indices if index != one]


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


def _latency(file: bytes, aligner: Aligner) -> dict[str, Any]:
    """Return the times of a run, beside Aligner with PyTorch's networks, on a portrait."""
    picture = portraits()[-1][0]
    facts = {"input": f"image {picture.dtype} {picture.shape}, one face", "batch": 1}

    def opened(threads: int) -> dict[str, Callable[[], object]]:
        session = OrtSession(file, RuntimeOptions(threads=threads))
        return {"onnxruntime": lambda: session.run({"image": picture})}

    return facts | {"timed": compared(lambda: aligner(picture), opened)}
