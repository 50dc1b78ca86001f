"""Detector, crops, landmarks and the way back to the picture's pixels as one traced module, and one ONNX file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import facelm_sdk
from facelm_models import heatmaps
from facelm_models.registry import Decoding
from facelm_sdk import Aligner, Detector, Landmarker, zoo
from facelm_sdk.boxes import iou
from facelm_sdk.contract import METADATA_KEY, DetectorSpec, LandmarkSpec, ModelSpec, PipelineSpec
from facelm_sdk.detector import MAX_CONTAINED
from facelm_sdk.errors import InputError, ParityError
from facelm_sdk.runtimes.base import RuntimeOptions
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.transform import CropRecipe
from facelm_sdk.types import Face, ImageArray

from .build import Built, build, fuse
from .exporter import graph_module
from .formats import prepare, write
from .job import Exported, ExportJob, Format
from .onnx_export import OPSET, to_onnx
from .ops.candidates import DetectorGraph
from .ops.crops import crops_to_picture
from .ops.nms import outside_better
from .ops.resampling import cut, fit
from .report.facts import command, imports, report
from .report.latency import compared
from .report.samples import portraits
from .wrappers import SCORE_FLOOR

DET_SIZE = 320
OPSETS = range(18, 23)
"""Reductions took their axes as an input only from 18 on."""

Precision = Literal["fp32", "fp16"]
TOLERANCES = {"fp32": {"max_px": 0.5}, "fp16": {"max_px": 2.0, "mean_px": 0.5}}
"""Largest differences from Aligner with PyTorch's fp32 networks, in pixels of the picture, which may be as fine as an
eighth of a crop's. Crops differ by one level here and there, which moves fp32's points by a thousandth of a pixel."""

SAME_FACE = 0.9
NEAR_THRESHOLD = 0.02
"""A face whose score lies this near to the threshold may be found by one side and not by the other."""


class FacePipeline(nn.Module):
    """A picture uint8 (H, W, 3) BGR -> its faces, best score first, in its pixels.

    ``boxes`` (k, 4) xyxy, ``scores`` (k,), ``kps`` (k, 5, 2), ``landmarks`` (k, L, 2) and, where the landmark model
    has them, their scores (k, L), but not its presence. ``det_size``: as of :class:`facelm_sdk.Detector`, not "auto".
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
        seen, zoom = fit(image, *self.frame, self.padded)
        boxes, scores, kps = self.detector(seen.permute(0, 2, 3, 1))
        # Pixel centres lie at whole numbers, so a pixel's own half is zoomed too.
        boxes = ((boxes.unflatten(1, (2, 2)) + 0.5) / zoom - 0.5).flatten(1)
        kps = (kps + 0.5) / zoom - 0.5
        kept = torch.nonzero(outside_better(boxes, MAX_CONTAINED)).flatten()
        boxes, scores, kps = (part.index_select(0, kept) for part in (boxes, scores, kps))
        back = crops_to_picture(self.recipe, boxes, kps, self.markup)
        outputs = self.landmarks(cut(image, back, self.recipe.size).permute(0, 2, 3, 1))
        points, *confidence = outputs if isinstance(outputs, tuple) else (outputs,)
        return boxes, scores, kps, points @ back[:, :, :2].mT + back[:, None, :, 2], *confidence[:1]


def export_pipeline(
    model: str = zoo.LANDMARKS,
    *,
    detector: str = zoo.DETECTOR,
    det_size: int | tuple[int, int] = DET_SIZE,
    det_thresh: float | None = None,
    precision: Precision = "fp32",
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
    ``flip``, ``weights``, ``source``, ``mean_face``, ``decoding`` and ``markup`` of the landmark model as in
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
    aligner = Aligner(
        Landmarker(TorchSession(fuse(landmark_part, decoder=heatmaps.decode), landmark_spec)),
        Detector(TorchSession(fuse(detector_part), detector_spec), det_size=det_size, det_thresh=det_thresh),
        min_presence=0,
    )
    spec = _spec(landmark_spec, detector_spec, aligner.detector)
    progress("tracing the graph")
    proto = to_onnx(_module(detector_part, landmark_part, spec), spec, opset=opset)
    progress("comparing with Aligner")
    session = OrtSession(proto.SerializeToString())
    figures = compare(session, aligner, pictures())
    check(figures, spec)
    spec = replace(spec, parity={"against": "Aligner with PyTorch fp32", **figures})
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
    if precision not in get_args(Precision):
        raise InputError(f"precision of a pipeline is {' or '.join(get_args(Precision))}, not {precision!r}")
    if format not in ("onnx", "triton"):
        raise InputError(f"format of a pipeline is onnx or triton, not {format!r}")


def _other_task(spec: ModelSpec, kind: type[ModelSpec]) -> InputError:
    return InputError(f"{spec.name} is a model for {spec.task}; the pipeline needs one for {kind.task} in its place")


def _module(detector_part: Built, landmark_part: Built, spec: PipelineSpec) -> FacePipeline:
    """Return what is traced. Faces below the threshold are dropped before the suppression, to whom less is left."""
    assert spec.det_size != "auto"
    detector = graph_module(detector_part)
    assert isinstance(detector, DetectorGraph)
    detector.floor = min(max(spec.det_thresh, SCORE_FLOOR), 1 - 1e-6)
    return FacePipeline(detector, graph_module(landmark_part), spec.crop, spec.det_size, spec.markup).eval()


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


def _latency(file: bytes, aligner: Aligner) -> dict[str, Any]:
    """Return the times of a run, beside Aligner with PyTorch's networks, on a portrait."""
    picture = portraits()[-1][0]
    facts = {"input": f"image {picture.dtype} {picture.shape}, one face", "batch": 1}

    def opened(threads: int) -> dict[str, Callable[[], object]]:
        session = OrtSession(file, RuntimeOptions(threads=threads))
        return {"onnxruntime": lambda: session.run({"image": picture})}

    return facts | {"timed": compared(lambda: aligner(picture), opened)}
