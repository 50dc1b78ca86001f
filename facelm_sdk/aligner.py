"""Aligner: the whole way from a picture to faces with landmarks."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import boxes as box_math
from . import markup as markups
from . import profile as profiling
from . import zoo
from ._checks import is_number, is_whole
from .contract import DetectorSpec, LandmarkSpec, PipelineSpec
from .detector import Detections, Detector, DetSize
from .errors import FacelmError, ImageError, InputError
from .images.picture import Picture, View
from .images.read import checked_max_pixels
from .landmarker import Landmarker
from .parallel import checked_workers, map_in_order
from .pipeline import Pipeline
from .runtimes.base import Provider, RuntimeOptions, Session
from .runtimes.open import Variant, open_file, open_session, renamed
from .transform import CropTransform, similarity
from .types import Face, ImageArray

logger = logging.getLogger(__name__)

MEAN_KPS = np.array([(0.31, 0.42), (0.69, 0.42), (0.50, 0.62), (0.35, 0.80), (0.65, 0.80)])
"""Where the five points lie in a face's box on average, as fractions of its width and height."""

SURROUNDINGS = 2.0
MATCHING_IOU = 0.3
MIN_PRESENCE = 0.5
"""Probability, by the landmark model, that a detection is a face, below which it is dropped."""
REALIGN = 0.16
"""Mean distance of the detector's five points from those of the landmarks, as part of the latter's eye distance, from
which a face is aligned again: one in ten upright faces, and four in five of those turned by a right angle or more."""
REALIGN_FINER = 1.5
"""Times that an aligned face's second crop may be finer than the picture was decoded for the first."""
FARTHEST = 2**20
"""Pixels; the largest side of a picture that OpenCV reads, and how far out boxes and points that are given may lie."""

Color = Literal["bgr", "rgb"]

_END = object()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A face before its landmarks: what the detector or the caller knows of it."""

    bbox: NDArray[np.float32] | None
    kps: NDArray[np.float32] | None
    score: float | None = None


class Aligner:
    """Picture in, faces out: detection, crops, landmarks, and back to the picture's pixels.

    ``landmarks`` is an embedded model's name, a path to an .onnx, a Session or a Landmarker; ``detector`` likewise, or
    None where boxes or points are always given; files of insightface's pack will do too, see
    :mod:`facelm_sdk.runtimes.foreign`. ``max_faces`` keeps the detections with the best scores.
    ``min_presence`` drops detections that the landmark model, where it gives ``Face.presence``, takes for no face
    (default: below 0.5; 0 keeps all); faces whose boxes or points are given are never dropped. ``realign``: where the
    landmarks show that the detector's five points were off, the face is aligned by theirs and run again. The other
    options apply to the models opened here: ``flip`` as in Landmarker, ``det_size`` and ``det_thresh`` as in Detector,
    ``device``, ``providers``, ``strict``, ``threads``, ``session_options`` and ``licence_notice`` as in RuntimeOptions.
    ``variant="auto"`` takes the embedded landmark model in int8 on a CPU that is fast at it, ``"fp32"`` never,
    ``"int8"`` always; ``precision`` is its old name.

    ``engine`` runs the landmark model, a name or an .onnx, as the TensorRT engine of that path: where it is missing, or
    of another TensorRT, GPU or ONNX file, it is built once, with a line in the log and a progress bar (see
    :func:`facelm_sdk.runtimes.tensorrt.open.open_engine`). onnxruntime's own TensorRT provider is the other way, for
    both models::

        cached = {"trt_engine_cache_enable": True, "trt_engine_cache_path": "engines", "trt_timing_cache_enable": True}
        Aligner(providers=[("TensorrtExecutionProvider", cached), "CUDAExecutionProvider"])

    Without ``trt_engine_cache_enable`` it builds its engines at every start.

    Where ``landmarks`` is a whole pipeline (facelm-export pipeline), that one file runs alone: ``pipeline`` is the
    :class:`facelm_sdk.pipeline.Pipeline`, ``detector`` is None, and detection is never skipped. Else it is None.

    ``max_pixels`` is that of :func:`facelm_sdk.read_image`: picture files of more are refused.

    Aligners, Detectors and Landmarkers can be pickled, for workers that are processes: models are opened anew there.

    ``profile=True`` measures where the time of each call goes: ``print(aligner.profile)``. Else ``profile`` is None.
    """

    def __init__(
        self,
        landmarks: str | os.PathLike[str] | Session | Landmarker = zoo.LANDMARKS,
        detector: str | os.PathLike[str] | Session | Detector | None = zoo.DETECTOR,
        *,
        flip: bool | None = None,
        variant: Variant = "auto",
        device: str = "cpu",
        providers: Sequence[Provider] | None = None,
        strict: bool = False,
        det_size: DetSize = "auto",
        det_thresh: float | None = None,
        threads: int | None = None,
        session_options: Any = None,
        max_faces: int | None = None,
        min_presence: float | None = None,
        realign: bool = True,
        engine: str | os.PathLike[str] | None = None,
        profile: bool = False,
        max_pixels: int | None = None,
        licence_notice: bool = True,
        precision: Variant | None = None,
    ) -> None:
        if max_faces is not None and not is_whole(max_faces, 1):
            raise InputError(f"max_faces is a whole number of at least 1, or None, not {max_faces!r}")
        for name, value in (("profile", profile), ("realign", realign)):
            if not isinstance(value, bool):
                raise InputError(f"{name} is True or False, not {value!r}")
        if min_presence is not None and not is_number(min_presence, 0, 1):
            raise InputError(f"min_presence is a probability from 0 to 1, or None, not {min_presence!r}")
        options = RuntimeOptions(
            device=device,
            providers=providers,
            strict=strict,
            threads=threads,
            session_options=session_options,
            licence_notice=licence_notice,
        )
        variant = renamed(variant, precision)
        self.max_faces = max_faces
        checked_max_pixels(max_pixels)
        self.max_pixels = max_pixels
        self.min_presence = MIN_PRESENCE if min_presence is None else float(min_presence)
        self.realign = realign
        self.profile = profiling.Profile() if profile else None
        self.pipeline: Pipeline | None = None
        self.detector: Detector | None = None
        self._landmarker: Landmarker | None = None
        if engine is not None:
            landmarks = _engine_session(landmarks, engine, device)
        elif isinstance(landmarks, (str, os.PathLike)):
            landmarks = open_file(landmarks, options, variant=variant)
        if isinstance(landmarks, Session) and isinstance(landmarks.spec, PipelineSpec):
            _check_alone(landmarks, detector, min_presence)
            self.pipeline = Pipeline(landmarks, flip=flip, det_size=det_size, det_thresh=det_thresh)
            return
        if not isinstance(landmarks, Landmarker):
            landmarks = Landmarker(open_session(landmarks, LandmarkSpec, options, variant=variant)[0], flip=flip)
        if min_presence and not landmarks.spec.has_presence:
            raise InputError(f"{landmarks.spec.name} does not say whether there is a face: leave min_presence out")
        if detector is not None and not isinstance(detector, Detector):
            # The embedded detector stays fp32, in which it is faster and finds more.
            of_detector: Variant = "auto" if variant == "int8" else variant
            session, _ = open_session(detector, DetectorSpec, options, variant=of_detector)
            detector = Detector(session, det_size=det_size, det_thresh=det_thresh)
        self._landmarker, self.detector = landmarks, detector

    @property
    def landmarker(self) -> Landmarker:
        """What finds the landmarks in crops. Raises InputError where a pipeline does it all."""
        if self._landmarker is None:
            assert self.pipeline is not None
            raise InputError(f"{self.pipeline.spec.name} is one file, in which the landmark model is not by itself")
        return self._landmarker

    def __call__(
        self, image: Any, *, boxes: ArrayLike | None = None, kps: ArrayLike | None = None, color: Color = "bgr"
    ) -> list[Face]:
        """The faces of one picture, best score first; [] when there is none.

        ``image`` is anything :func:`facelm_sdk.read_image` takes: (H, W, 3) uint8 BGR, a path, bytes, a PIL image.
        Detection is skipped where ``boxes`` (k, 4) xyxy or ``kps`` (k, 5, 2) are given (one face: (4,) or (5, 2)), and
        their order is kept. Where a model crops by five points and only boxes are given, the detector looks for the
        points around each box; where it finds none, their mean place in the box is taken. Where it crops by the
        landmarks' box, boxes alone are taken as a detector's, from which that box differs by constants (see
        :meth:`CropRecipe.of_detection`); the five points say it better. A JPEG file far larger than
        detection and crops need is decoded at 1/2, 1/4 or 1/8; all coordinates are those of the full picture.

        Raises ImageError for the picture, InputError for boxes and points.
        """
        with profiling.call(self.profile):
            return self._align(image, boxes, kps, color)

    @overload
    def batch(
        self,
        images: Iterable[Any],
        *,
        boxes: Iterable[ArrayLike | None] | None = None,
        kps: Iterable[ArrayLike | None] | None = None,
        color: Color = "bgr",
        errors: Literal["raise"] = "raise",
        workers: int | None = None,
    ) -> list[list[Face]]: ...

    @overload
    def batch(
        self,
        images: Iterable[Any],
        *,
        boxes: Iterable[ArrayLike | None] | None = None,
        kps: Iterable[ArrayLike | None] | None = None,
        color: Color = "bgr",
        errors: Literal["skip"],
        workers: int | None = None,
    ) -> list[list[Face] | FacelmError]: ...

    def batch(
        self,
        images: Iterable[Any],
        *,
        boxes: Iterable[ArrayLike | None] | None = None,
        kps: Iterable[ArrayLike | None] | None = None,
        color: Color = "bgr",
        errors: Literal["raise", "skip"] = "raise",
        workers: int | None = None,
    ) -> list[list[Face]] | list[list[Face] | FacelmError]:
        """Return the faces of each picture, in order; ``workers`` pictures are aligned side by side, in threads.

        ``workers`` is by default the number of cores, at most 8; 1 is a plain loop. Two pictures a worker are held in
        memory at a time. ``boxes`` and ``kps`` hold one entry, or None, a picture; see :meth:`__call__`.

        ``errors="raise"``: the first picture that cannot be read, or whose boxes or points are no such, ends the batch
        with its ImageError or InputError. ``errors="skip"``: that error stands in the picture's place, and the others
        are done; ``isinstance(faces, list)`` tells them apart. Other errors are raised in any case.
        """
        if isinstance(images, (str, bytes, os.PathLike)):
            raise InputError(f"a batch is of many pictures, such as a list of paths, not of {images!r:.80}")
        if errors not in ("raise", "skip"):
            raise InputError(f"errors is 'raise' or 'skip', not {errors!r}")
        skipped = (ImageError, InputError) if errors == "skip" else ()

        def align(row: tuple[Any, ArrayLike | None, ArrayLike | None]) -> list[Face] | FacelmError:
            image, own_boxes, own_kps = row
            try:
                return self(image, boxes=own_boxes, kps=own_kps, color=color)
            except skipped as error:
                return error

        return list(map_in_order(align, _rows(images, boxes, kps), checked_workers(workers)))

    def _align(self, image: Any, boxes: ArrayLike | None, kps: ArrayLike | None, color: Color) -> list[Face]:
        if self.pipeline is not None:
            return self._whole(self.pipeline, image, boxes, kps, color)
        with profiling.stage(profiling.READ):
            picture = image if isinstance(image, Picture) else Picture(image, color, max_pixels=self.max_pixels)
        candidates = self._candidates(picture, boxes, kps)
        if boxes is not None or kps is not None:
            return self._landmarks(picture, candidates)
        faces: list[Face] = []
        wanted = len(candidates) if self.max_faces is None else self.max_faces
        while candidates and len(faces) < wanted:  # the next best take the places of those that are no faces
            count = wanted - len(faces)
            found = self._landmarks_of_detections(picture, candidates[:count])
            faces += [face for face in found if self.is_present(face)]
            candidates = candidates[count:]
        return faces

    def is_present(self, face: Face) -> bool:
        """Whether the landmark model takes a face for one; True where it does not say."""
        return face.presence is None or face.presence >= self.min_presence

    def _landmarks_of_detections(self, picture: Picture, candidates: Sequence[_Candidate]) -> list[Face]:
        """The faces of the candidates, those aligned anew whose five points were off."""
        faces = self._landmarks(picture, candidates)
        if not self.realign or self.landmarker.recipe.kind != "kps5":
            return faces
        five = [markups.convert(face.landmarks, face.markup, "kps5").astype(np.float32) for face in faces]
        off = [index for index, face in enumerate(faces) if _is_off(face.kps, five[index])]
        moved = [replace(candidates[index], kps=five[index]) for index in off]
        again = self._landmarks(picture, moved, finer=REALIGN_FINER) if moved else []
        for index, face in zip(off, again, strict=True):
            faces[index] = face
        return faces

    def _landmarks(self, picture: Picture, candidates: Sequence[_Candidate], *, finer: float = 1.0) -> list[Face]:
        """The faces of the candidates, all of them; crops may magnify what was decoded by ``finer``."""
        transforms = [self._transform(candidate, index) for index, candidate in enumerate(candidates)]
        # The picture is as fine as the crops: no crop magnifies it, unless it magnifies the full one.
        coarsest = finer / max((transform.scale for transform in transforms), default=1.0)
        size = self.landmarker.size
        crops = np.empty((len(candidates), size, size, 3), np.uint8)
        for crop, transform in zip(crops, transforms, strict=True):
            view = self._view(picture, coarsest)
            with profiling.stage(profiling.WARP):
                view.warp(transform, out=crop)
        with profiling.stage(profiling.BATCH):
            landmarks, scores, presence = self.landmarker.run(crops)
        with profiling.stage(profiling.MAP_BACK):
            return [
                self._face(
                    candidate,
                    transform,
                    transform.invert(landmarks[index]).astype(np.float32),
                    None if scores is None else scores[index].copy(),
                    None if presence is None else float(presence[index]),
                )
                for index, (candidate, transform) in enumerate(zip(candidates, transforms, strict=True))
            ]

    def _whole(
        self, pipeline: Pipeline, image: Any, boxes: ArrayLike | None, kps: ArrayLike | None, color: Color
    ) -> list[Face]:
        """The faces of a picture by the one file."""
        if boxes is not None or kps is not None:
            raise InputError(
                f"{pipeline.spec.name} is one file that finds faces itself: leave boxes and kps out, or take an "
                f"Aligner of a landmark model and a detector"
            )
        with profiling.stage(profiling.READ):
            picture = image if isinstance(image, Picture) else Picture(image, color, max_pixels=self.max_pixels)
            pixels = picture.view().image
        return pipeline(pixels, self.max_faces)

    def _view(self, picture: Picture, coarsest: float) -> View:
        """The picture at 1/``coarsest`` of its size or finer; decoding it is time of reading."""
        if (view := picture.decoded(coarsest)) is not None:
            return view
        with profiling.stage(profiling.READ):
            return picture.view(coarsest)

    def _face(
        self,
        candidate: _Candidate,
        transform: CropTransform,
        points: NDArray[np.float32],
        scores: NDArray[np.float32] | None,
        presence: float | None,
    ) -> Face:
        markup = self.landmarker.spec.markup
        bbox, kps = candidate.bbox, candidate.kps
        return Face(
            bbox=np.concatenate([points.min(axis=0), points.max(axis=0)]) if bbox is None else bbox,
            score=candidate.score,
            kps=markups.convert(points, markup, "kps5").astype(np.float32) if kps is None else kps,
            landmarks=points,
            scores=scores,
            markup=markup,
            transform=transform,
            presence=presence,
        )

    def _transform(self, candidate: _Candidate, index: int) -> CropTransform:
        recipe = self.landmarker.recipe
        box = candidate.bbox
        if recipe.kind == "box" and recipe.box == "detector" and box is None:
            assert candidate.kps is not None
            box = _box_around(candidate.kps)
        try:
            return recipe.of_detection(self.landmarker.spec.markup, box, candidate.kps)
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
        view = self._view(picture, self.detector.coarsest(picture.width, picture.height))
        found = self._detect(view.image)
        boxes = view.to_picture(found.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return [
            _Candidate(box, points, float(score))
            for box, points, score in zip(boxes, view.to_picture(found.kps), found.scores, strict=True)
        ]

    def _detect(self, picture: ImageArray) -> Detections:
        assert self.detector is not None
        with profiling.stage(profiling.RESIZE, after=profiling.MERGE):
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
            best = box_math.most_overlapping(box, found.boxes + np.tile(offset, 2), MATCHING_IOU)
            if best is not None:
                return np.asarray(found.kps[best] + offset)
        logger.warning("no five points found in the box %s; their mean place in it is taken", box.tolist())
        return np.asarray(box[:2] + MEAN_KPS * (box[2:] - box[:2]), np.float32)


def _engine_session(
    landmarks: str | os.PathLike[str] | Session | Landmarker, engine: str | os.PathLike[str], device: str
) -> Session:
    from .runtimes.tensorrt.open import open_engine

    if not isinstance(landmarks, (str, os.PathLike)):
        raise InputError(f"engine goes with landmarks as a name or a path to an .onnx, not {type(landmarks).__name__}")
    return open_engine(landmarks, engine, device=device)


def _is_off(kps: NDArray[np.float32], five: NDArray[np.float32]) -> bool:
    """Whether the detector's five points (5, 2) are far from those of the landmarks."""
    eyes = float(np.linalg.norm(five[1] - five[0]))
    return float(np.linalg.norm(kps - five, axis=1).mean()) > REALIGN * eyes


def _check_alone(whole: Session, detector: object, min_presence: float | None) -> None:
    if min_presence:
        raise InputError(f"{whole.spec.name} is one file, which gives no presence: leave min_presence out")
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
        with np.errstate(over="ignore"):  # what float32 does not hold is infinite, and refused as such
            array = np.asarray(values)
            if array.dtype.kind == "c":
                raise TypeError("they are complex")
            array = np.asarray(array, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
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
    if (np.abs(points) > FARTHEST).any():
        raise InputError(f"{what} reaches farther than {FARTHEST:,} pixels, the largest side of a picture")
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
