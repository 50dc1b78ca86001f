"""Aligner: the whole way from a picture to faces with landmarks."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import boxes as box_math
from . import markup as markups
from . import profile as profiling
from . import zoo
from .detector import BASE_LONG_SIDE, BASE_SHORT_SIDE, ZOOM, ZOOMS, Detections, Detector, DetSize
from .errors import InputError
from .landmarker import Landmarker
from .picture import Picture, View
from .pipeline import Pipeline
from .session import Precision, Provider, Session, open_file
from .transform import CropTransform, similarity
from .types import Face, ImageArray

logger = logging.getLogger(__name__)

MEAN_KPS = np.array([(0.31, 0.42), (0.69, 0.42), (0.50, 0.62), (0.35, 0.80), (0.65, 0.80)])
"""Where the five points lie in a face's box on average, as fractions of its width and height."""

SURROUNDINGS = 2.0
MATCHING_IOU = 0.3

Color = Literal["bgr", "rgb"]

_Part = TypeVar("_Part", Landmarker, Detector, Pipeline)

_END = object()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A face before its landmarks: what the detector or the caller knows of it."""

    bbox: NDArray[np.float32] | None
    kps: NDArray[np.float32] | None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    """A crop waiting for its batch, and the list its face goes to."""

    faces: list[Face]
    candidate: _Candidate
    transform: CropTransform


class Aligner:
    """Picture in, faces out: detection, crops, landmarks, and back to the picture's pixels.

    ``landmarks`` is an embedded model's name, a path to an .onnx, a Session or a Landmarker; ``detector`` likewise, or
    None where boxes or points are always given. ``max_faces`` keeps the detections with the best scores. The other
    options apply to the models opened here: ``flip`` as in Landmarker, ``det_size`` and ``det_thresh`` as in Detector,
    ``device``, ``providers``, ``strict``, ``threads`` and ``session_options`` as in OrtSession. ``precision="auto"``
    takes the embedded landmark model in int8 on a CPU that is fast at it, ``"fp32"`` never, ``"int8"`` always.

    ``engine`` runs the landmark model, a name or an .onnx, as the TensorRT engine of that path: where it is missing, or
    of another TensorRT, GPU or ONNX file, it is built once, with a line in the log and a progress bar (see
    :func:`facelm_sdk.trt_open.open_engine`). onnxruntime's own TensorRT provider is the other way, for both models::

        cached = {"trt_engine_cache_enable": True, "trt_engine_cache_path": "engines", "trt_timing_cache_enable": True}
        Aligner(providers=[("TensorrtExecutionProvider", cached), "CUDAExecutionProvider"])

    Without ``trt_engine_cache_enable`` it builds its engines at every start.

    Where ``landmarks`` is a whole pipeline (facelm-export pipeline), that one file runs alone: ``pipeline`` is the
    :class:`facelm_sdk.pipeline.Pipeline`, ``detector`` is None, and detection is never skipped. Else it is None.

    ``profile=True`` measures where the time of each call goes: ``print(aligner.profile)``. Else ``profile`` is None.
    """

    def __init__(
        self,
        landmarks: str | os.PathLike[str] | Session | Landmarker = zoo.LANDMARKS,
        detector: str | os.PathLike[str] | Session | Detector | None = zoo.DETECTOR,
        *,
        flip: bool | None = None,
        precision: Precision = "auto",
        device: str = "cpu",
        providers: Sequence[Provider] | None = None,
        strict: bool = False,
        det_size: DetSize = "auto",
        det_thresh: float | None = None,
        threads: int | None = None,
        session_options: Any = None,
        max_faces: int | None = None,
        engine: str | os.PathLike[str] | None = None,
        profile: bool = False,
    ) -> None:
        if max_faces is not None and max_faces < 1:
            raise InputError(f"max_faces is at least 1 or None, not {max_faces}")
        options: dict[str, Any] = {
            "precision": precision,
            "device": device,
            "providers": providers,
            "strict": strict,
            "threads": threads,
            "session_options": session_options,
        }
        self.max_faces = max_faces
        self.profile = profiling.Profile() if profile else None
        self.timing = profiling.NoProfile() if self.profile is None else self.profile
        self.pipeline: Pipeline | None = None
        self.detector: Detector | None = None
        self._landmarker: Landmarker | None = None
        if engine is not None:
            landmarks = _engine_session(landmarks, engine, device)
        elif isinstance(landmarks, (str, os.PathLike)):
            landmarks = open_file(landmarks, **options)
        if isinstance(landmarks, Session) and landmarks.spec.task == "pipeline":
            _check_alone(landmarks, detector)
            whole = Pipeline(landmarks, flip=flip, det_size=det_size, det_thresh=det_thresh)
            self.pipeline = self._timed(whole, profiling.PIPELINE)
            return
        self._landmarker = self._timed(
            landmarks if isinstance(landmarks, Landmarker) else Landmarker(landmarks, flip=flip), profiling.LANDMARKER
        )
        if detector is not None:
            if not isinstance(detector, Detector):
                options |= _detector_precision(precision)
                detector = Detector(detector, det_size=det_size, det_thresh=det_thresh, **options)
            self.detector = self._timed(detector, profiling.DETECTOR)

    @property
    def landmarker(self) -> Landmarker:
        """What finds the landmarks in crops. Raises InputError where a pipeline does it all."""
        if self._landmarker is None:
            assert self.pipeline is not None
            raise InputError(f"{self.pipeline.spec.name} is one file, in which the landmark model is not by itself")
        return self._landmarker

    def _timed(self, part: _Part, stage: str) -> _Part:
        """A copy of a part whose network's runs are a stage of the profile; without a profile, the part itself."""
        if self.profile is None:
            return part
        timed = copy.copy(part)
        timed.session = profiling.TimedSession(part.session, self.profile, stage)
        return timed

    def __call__(
        self, image: Any, *, boxes: ArrayLike | None = None, kps: ArrayLike | None = None, color: Color = "bgr"
    ) -> list[Face]:
        """The faces of one picture, best score first; [] when there is none.

        ``image`` is anything :func:`facelm_sdk.read_image` takes: (H, W, 3) uint8 BGR, a path, bytes, a PIL image.
        Detection is skipped where ``boxes`` (k, 4) xyxy or ``kps`` (k, 5, 2) are given (one face: (4,) or (5, 2)), and
        their order is kept. Where a model crops by five points and only boxes are given, the detector looks for the
        points around each box; where it finds none, their mean place in the box is taken. A JPEG file far larger than
        detection and crops need is decoded at 1/2, 1/4 or 1/8; all coordinates are those of the full picture.

        Raises ImageError for the picture, InputError for boxes and points.
        """
        return self._align([(image, boxes, kps)], color)[0]

    def batch(
        self,
        images: Iterable[Any],
        *,
        boxes: Iterable[ArrayLike | None] | None = None,
        kps: Iterable[ArrayLike | None] | None = None,
        color: Color = "bgr",
    ) -> list[list[Face]]:
        """The faces of each picture. Faces of all pictures share batches; one picture at a time is held in memory.

        ``boxes`` and ``kps`` hold one entry, or None, a picture; see :meth:`__call__`.
        """
        return self._align(_rows(images, boxes, kps), color)

    def _align(self, rows: Iterable[tuple[Any, ArrayLike | None, ArrayLike | None]], color: Color) -> list[list[Face]]:
        with self.timing.call():
            return self._align_rows(rows, color)

    def _align_rows(
        self, rows: Iterable[tuple[Any, ArrayLike | None, ArrayLike | None]], color: Color
    ) -> list[list[Face]]:
        if self.pipeline is not None:
            return [self._whole(self.pipeline, *row, color) for row in rows]
        size = self.landmarker.size
        crops = np.empty((self.landmarker.max_batch, size, size, 3), np.uint8)
        pending: list[_Pending] = []
        results: list[list[Face]] = []
        for image, boxes, kps in rows:
            with self.timing.stage(profiling.READ):
                picture = image if isinstance(image, Picture) else Picture(image, color)
            results.append([])
            candidates = self._candidates(picture, boxes, kps)
            transforms = [self._transform(candidate, index) for index, candidate in enumerate(candidates)]
            # The picture is as fine as the crops: no crop magnifies it, unless it magnifies the full one.
            coarsest = 1 / max((transform.scale for transform in transforms), default=1.0)
            for candidate, transform in zip(candidates, transforms, strict=True):
                view = self._view(picture, coarsest)
                with self.timing.stage(profiling.WARP):
                    view.warp(transform, out=crops[len(pending)])
                pending.append(_Pending(results[-1], candidate, transform))
                if len(pending) == len(crops):
                    self._finish(crops, pending)
        self._finish(crops, pending)
        return results

    def _whole(
        self, pipeline: Pipeline, image: Any, boxes: ArrayLike | None, kps: ArrayLike | None, color: Color
    ) -> list[Face]:
        """The faces of a picture by the one file."""
        if boxes is not None or kps is not None:
            raise InputError(
                f"{pipeline.spec.name} is one file that finds faces itself: leave boxes and kps out, or take an "
                f"Aligner of a landmark model and a detector"
            )
        with self.timing.stage(profiling.READ):
            picture = image if isinstance(image, Picture) else Picture(image, color)
            pixels = picture.view().image
        return pipeline(pixels, self.max_faces)

    def _view(self, picture: Picture, coarsest: float) -> View:
        """The picture at 1/``coarsest`` of its size or finer; decoding it is time of reading."""
        if (view := picture.decoded(coarsest)) is not None:
            return view
        with self.timing.stage(profiling.READ):
            return picture.view(coarsest)

    def _finish(self, crops: ImageArray, pending: list[_Pending]) -> None:
        """Run the crops that wait and hand their faces out."""
        with self.timing.stage(profiling.BATCH):
            landmarks, scores = self.landmarker.run(crops[: len(pending)])
        with self.timing.stage(profiling.MAP_BACK):
            for index, one in enumerate(pending):
                points = one.transform.invert(landmarks[index]).astype(np.float32)
                one.faces.append(self._face(one, points, None if scores is None else scores[index].copy()))
        pending.clear()

    def _face(self, one: _Pending, points: NDArray[np.float32], scores: NDArray[np.float32] | None) -> Face:
        markup = self.landmarker.spec.markup
        bbox, kps = one.candidate.bbox, one.candidate.kps
        return Face(
            bbox=np.concatenate([points.min(axis=0), points.max(axis=0)]) if bbox is None else bbox,
            score=one.candidate.score,
            kps=markups.convert(points, markup, "kps5").astype(np.float32) if kps is None else kps,
            landmarks=points,
            scores=scores,
            markup=markup,
            transform=one.transform,
        )

    def _transform(self, candidate: _Candidate, index: int) -> CropTransform:
        recipe = self.landmarker.recipe
        box = candidate.bbox
        if recipe.kind == "box" and box is None:
            assert candidate.kps is not None
            box = _box_around(candidate.kps)
        try:
            return recipe.transform(box, candidate.kps)
        except InputError as error:
            raise InputError(f"face {index}: {error}") from error

    def _candidates(self, picture: Picture, boxes: ArrayLike | None, kps: ArrayLike | None) -> list[_Candidate]:
        if boxes is None and kps is None:
            return self._detected(picture)
        box_list = None if boxes is None else list(_checked(boxes, (4,), "boxes", picture))
        kps_list = None if kps is None else list(_checked(kps, (5, 2), "kps", picture))
        if box_list is not None and kps_list is not None and len(box_list) != len(kps_list):
            raise InputError(f"boxes and kps must be of as many faces; got {len(box_list)} and {len(kps_list)}")
        if kps_list is not None:
            return [_Candidate(box, points) for box, points in zip(box_list or repeat(None), kps_list, strict=False)]
        assert box_list is not None
        if self.landmarker.recipe.kind == "box":
            return [_Candidate(box, None) for box in box_list]
        return [_Candidate(box, self._kps_in(picture, box)) for box in box_list]

    def _detected(self, picture: Picture) -> list[_Candidate]:
        if self.detector is None:
            raise InputError("this Aligner has no detector; give boxes or kps")
        long, short = _finest_look(self.detector.det_size)
        sides = picture.width, picture.height
        view = self._view(picture, min(max(sides) / long, min(sides) / short))
        found = self._detect(view.image).select(slice(0, self.max_faces))
        boxes = view.to_picture(found.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return [
            _Candidate(box, points, float(score))
            for box, points, score in zip(boxes, view.to_picture(found.kps), found.scores, strict=True)
        ]

    def _detect(self, picture: ImageArray) -> Detections:
        assert self.detector is not None
        with self.timing.stage(profiling.RESIZE, after=profiling.MERGE):
            return self.detector(picture)

    def _kps_in(self, picture: Picture, box: NDArray[np.float32]) -> NDArray[np.float32]:
        """The five points of the face in a given box: the detector's around it, else their mean place in it."""
        if self.detector is not None:
            width, height = picture.width, picture.height
            centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * SURROUNDINGS
            x1, y1 = np.floor(np.clip(centre - half, 0, None)).astype(int)
            x2, y2 = np.ceil(np.minimum(centre + half + 1, (width, height))).astype(int)
            found = self._detect(self._view(picture, 1.0).image[y1:y2, x1:x2])
            offset = np.array([x1, y1], np.float32)
            overlaps = box_math.iou(box, found.boxes + np.tile(offset, 2))
            if len(found) and overlaps.max() >= MATCHING_IOU:
                return np.asarray(found.kps[int(overlaps.argmax())] + offset)
        logger.warning("no five points found in the box %s; their mean place in it is taken", box.tolist())
        return np.asarray(box[:2] + MEAN_KPS * (box[2:] - box[:2]), np.float32)


def _detector_precision(precision: Precision) -> dict[str, Precision]:
    """The embedded detector stays fp32, in which it is faster and finds more."""
    return {"precision": "auto" if precision == "int8" else precision}


def _finest_look(det_size: DetSize) -> tuple[float, float]:
    """The long and short side in pixels below which a picture would be too coarse for the detector's closest look."""
    if det_size == "auto":
        closest = ZOOM**ZOOMS
        return BASE_LONG_SIDE * closest, BASE_SHORT_SIDE * closest
    return (det_size, 1) if isinstance(det_size, int) else (max(det_size), 1)


def _engine_session(
    landmarks: str | os.PathLike[str] | Session | Landmarker, engine: str | os.PathLike[str], device: str
) -> Session:
    from .trt_open import open_engine

    if not isinstance(landmarks, (str, os.PathLike)):
        raise InputError(f"engine goes with landmarks as a name or a path to an .onnx, not {type(landmarks).__name__}")
    return open_engine(landmarks, engine, device=device)


def _check_alone(whole: Session, detector: object) -> None:
    if detector is not None and detector != zoo.DETECTOR:
        raise InputError(f"{whole.spec.name} is one file that finds faces itself: leave detector out")


def _rows(
    images: Iterable[Any], boxes: Iterable[ArrayLike | None] | None, kps: Iterable[ArrayLike | None] | None
) -> Iterator[tuple[Any, ArrayLike | None, ArrayLike | None]]:
    """Each picture with its boxes and points; as many of them as there are pictures."""
    given = {name: iter(values) for name, values in (("boxes", boxes), ("kps", kps)) if values is not None}
    count = 0
    for count, image in enumerate(images, start=1):
        row: dict[str, Any] = {}
        for name, values in given.items():
            try:
                row[name] = next(values)
            except StopIteration:
                raise InputError(
                    f"{name} end before picture {count}; they hold one entry, or None, a picture"
                ) from None
        yield image, row.get("boxes"), row.get("kps")
    for name, values in given.items():
        if next(values, _END) is not _END:
            raise InputError(f"{name} hold more entries than the {count} pictures")


def _checked(values: ArrayLike, shape: tuple[int, ...], what: str, picture: Picture) -> NDArray[np.float32]:
    """Boxes (k, 4) or points (k, 5, 2) of a picture as float32; one face without its axis is one of them."""
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are not an array of numbers ({error})") from error
    if array.shape == shape:
        array = array[None]
    if array.size == 0 and array.ndim <= 1 + len(shape):
        return np.empty((0, *shape), np.float32)
    if array.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise InputError(f"{what} have shape (k, {wanted}) or ({wanted}); got {array.shape}")
    for index, one in enumerate(array):
        name = f"{what}[{index}] = {one.tolist()}"
        _check_place(one.reshape(-1, 2), name, picture.width, picture.height, is_box=shape == (4,))
    return array


def _check_place(points: NDArray[np.float32], what: str, width: int, height: int, *, is_box: bool) -> None:
    if not np.isfinite(points).all():
        raise InputError(f"{what} is not finite")
    if is_box and not (points[1] > points[0]).all():
        raise InputError(f"{what} has no area; a box is (x1, y1, x2, y2) with x2 > x1 and y2 > y1")
    if (points.max(axis=0) < -0.5).any() or (points.min(axis=0) > (width - 0.5, height - 0.5)).any():
        raise InputError(f"{what} lies outside the picture, which is {width} wide and {height} high")


def _box_around(kps: NDArray[np.float32]) -> NDArray[np.float32]:
    """The upright box of a face of which only the five points are known."""
    matrix = similarity(MEAN_KPS, kps)
    centre = matrix[:, :2] @ (0.5, 0.5) + matrix[:, 2]
    side = float(np.hypot(*matrix[:, 0]))
    return np.concatenate([centre - side / 2, centre + side / 2]).astype(np.float32)
