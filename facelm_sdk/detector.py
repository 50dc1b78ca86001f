"""Detector: a picture -> boxes, scores and five points, at the scales that the picture needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import boxes as box_math
from . import profile as profiling
from . import zoo
from ._checks import is_number, is_whole
from ._optional import load_cv2
from .contract import DetectorSpec
from .errors import InputError
from .images.read import read_image
from .runtimes.base import Provider, RuntimeOptions, Session
from .runtimes.open import Variant, open_session, renamed
from .types import Face, ImageArray

DetSize = int | tuple[int, int] | Literal["auto"]
"""How large the detector sees a picture: its long side, a (width, height) it is fitted into, or "auto"."""

BASE_LONG_SIDE = 320
BASE_SHORT_SIDE = 160
MAX_UPSCALE = 2.0
MAX_PIXELS = 4_000_000
MIN_SIDE = 64
MAX_SIDE = 4096
"""The largest det_size: a pass at 4096x4096 takes about a gigabyte."""

ZOOM = 2.0
ZOOMS = 2
SMALL_FACE = 32.0
"""Detector pixels of the longer side below which a face, certain or not, asks for a closer pass."""
LOW_SCORE = 0.2
"""Score from which something might be a face for that."""

CONTEXT = 0.5
FILLS_FRAME = 0.5
"""Part of the picture's area above which a face is looked at again with a border around the picture."""
BORDER = 0.01
"""Part of a side within which a box counts as touching it."""

FAR = 8
"""Times a picture's sides are those of a pass from which it is thinned before it is halved: halving reads every pixel,
which takes longer than the network. Of 383 faces in 300-W's training pictures, with noise and without, as many are
found within two, and their boxes agree as well with those of a finer pass."""
THINNED = 4
"""Pixels along a side of the square whose inner four are averaged in thinning."""

MAX_IOU = 0.4
MAX_CONTAINED = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Faces of one picture, best score first: ``boxes`` (k, 4) xyxy, ``scores`` (k,), ``kps`` (k, 5, 2), all float32.

    Coordinates are picture pixels; a box may reach a little beyond the picture.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    kps: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of_faces(cls, faces: Sequence[Face]) -> Detections:
        """The boxes, scores and five points of faces that an Aligner found."""
        boxes, scores, kps = (
            np.array([getattr(face, name) for face in faces], np.float32) for name in ("bbox", "score", "kps")
        )
        return cls(boxes.reshape(-1, 4), scores, kps.reshape(-1, 5, 2))

    def select(self, index: Sequence[int] | slice | NDArray[Any]) -> Detections:
        """The detections of these indices, in this order."""
        return Detections(self.boxes[index], self.scores[index], self.kps[index])


class Detector:
    """Finds faces. ``model`` is an embedded model's name, a path to an .onnx, or a Session.

    ``det_size="auto"`` looks at the picture at a long side of 320 pixels, enough for faces of a twentieth of it. Where
    it sees something small that is or might be a face it looks closer, at 640 and then 1280 pixels, and where a face
    may fill the frame once more with a border around the picture. An int is the long side, a (width, height) the frame
    the picture is fitted into, both in one pass. ``det_thresh`` is the score threshold (default: the model's own).
    ``variant`` chooses among an embedded model's files: see open_file; ``device``, ``providers``, ``strict``,
    ``threads``, ``session_options``, ``licence_notice``: see RuntimeOptions. ``precision`` is ``variant``'s old name.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Session = zoo.DETECTOR,
        *,
        det_size: DetSize = "auto",
        det_thresh: float | None = None,
        variant: Variant = "auto",
        device: str = "cpu",
        providers: Sequence[Provider] | None = None,
        strict: bool = False,
        threads: int | None = None,
        session_options: Any = None,
        licence_notice: bool = True,
        precision: Variant | None = None,
    ) -> None:
        self.det_size = _checked_size(det_size)
        if det_thresh is not None and not is_number(det_thresh, 0, 1):
            raise InputError(f"det_thresh is a score from 0 to 1, not {det_thresh!r}")
        options = RuntimeOptions(
            device=device,
            providers=providers,
            strict=strict,
            threads=threads,
            session_options=session_options,
            licence_notice=licence_notice,
        )
        self.session, self._spec = open_session(model, DetectorSpec, options, variant=renamed(variant, precision))
        self.det_thresh = self.spec.det_thresh if det_thresh is None else float(det_thresh)

    @property
    def spec(self) -> DetectorSpec:
        """The model's contract."""
        return self._spec

    def coarsest(self, width: int, height: int) -> float:
        """Return how many times smaller than (width, height) a picture may be for this detector to see as much of it.

        Its closest look at the picture then still does not magnify it; below 1 it would magnify the full one.
        """
        long, short = max(width, height), min(width, height)
        if self.det_size == "auto":
            closest = ZOOM**ZOOMS
            return min(long / (BASE_LONG_SIDE * closest), short / (BASE_SHORT_SIDE * closest))
        return long / (self.det_size if isinstance(self.det_size, int) else max(self.det_size))

    def __call__(self, image: Any, *, color: Literal["bgr", "rgb"] = "bgr") -> Detections:
        """The faces of a picture: (H, W, 3) uint8 BGR, or whatever :func:`facelm_sdk.read_image` takes."""
        picture = read_image(image, color)
        height, width = picture.shape[:2]
        if self.det_size == "auto":
            return self._auto(picture)
        if isinstance(self.det_size, int):
            return _merged(self._detect_at_scale(picture, self.det_size / max(width, height)))
        frame = self.det_size
        return _merged(self._detect_at_scale(picture, min(frame[0] / width, frame[1] / height), frame=frame))

    def _auto(self, picture: ImageArray) -> Detections:
        height, width = picture.shape[:2]
        scale = base = _base_scale(width, height)
        least = min(LOW_SCORE, self.det_thresh)
        passes = [self._detect_at_scale(picture, base, least=least)]
        for _ in range(ZOOMS):
            closer = min(ZOOM * scale, 1.0, _max_scale(width, height))
            if closer <= scale or not (_sides(passes[-1]) * scale < SMALL_FACE).any():
                break
            scale = closer
            passes.append(self._detect_at_scale(picture, scale, least=least))
        if _fills_frame(passes[0], width, height):
            border = ((1 - CONTEXT) / 2 * base * np.array([width, height])).astype(int)
            frame = (round(width * base), round(height * base))
            offset = (int(border[0]), int(border[1]))
            passes.append(self._detect_at_scale(picture, CONTEXT * base, frame=frame, offset=offset))
        return _merged(*(one.select(one.scores >= self.det_thresh) for one in passes))

    def _detect_at_scale(
        self,
        picture: ImageArray,
        scale: float,
        *,
        least: float | None = None,
        frame: tuple[int, int] | None = None,
        offset: tuple[int, int] = (0, 0),
    ) -> Detections:
        """One pass: the picture times ``scale``, at ``offset`` (x, y) in a black (width, height) ``frame``.

        What scores below ``least`` (default: ``det_thresh``) is left out.
        """
        cv2 = load_cv2()
        height, width = picture.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized, seen = _resized(picture, size)
        left, top = offset
        right = max((frame or size)[0], MIN_SIDE) - left - size[0]
        bottom = max((frame or size)[1], MIN_SIDE) - top - size[1]
        if (left, top, right, bottom) != (0, 0, 0, 0):
            resized = cv2.copyMakeBorder(resized, top, max(0, bottom), left, max(0, right), cv2.BORDER_CONSTANT)
        image = np.ascontiguousarray(resized)[None]
        with profiling.stage(profiling.DETECTOR):
            found = Detections(*self.session.run({"image": image}))
        found = found.select(found.scores >= (self.det_thresh if least is None else least))
        # Pixel centres lie at whole numbers, so a pixel's own half is scaled too. Sides are rounded one by one.
        zoom = np.array([size[0] / seen[0], size[1] / seen[1]], np.float32)
        shift = np.array(offset, np.float32)
        kps = (found.kps - shift + 0.5) / zoom - 0.5
        boxes = (found.boxes.reshape(-1, 2, 2) - shift + 0.5) / zoom - 0.5
        return Detections(boxes.reshape(-1, 4), found.scores, kps)


def _resized(picture: ImageArray, size: tuple[int, int]) -> tuple[ImageArray, tuple[int, int]]:
    """The picture in a (width, height), and how much of the picture's own (width, height) that shows.

    Shrunk by areas, halved as often as it can be first: OpenCV halves many times faster than it averages otherwise. A
    picture FAR times as large is thinned before, to the means of the inner 2 by 2 of 4 by 4 pixels.
    """
    cv2 = load_cv2()
    (height, width), whole = picture.shape[:2], 1
    for step, least in ((THINNED, FAR), (2, 2)):
        while width // least >= size[0] and height // least >= size[1]:
            width, height, whole = width // step, height // step, step * whole
            even = picture[: step * height, : step * width]
            picture = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    if (width, height) != size:
        shrinks = width > size[0] or height > size[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)
    return picture, (whole * width, whole * height)


def _base_scale(width: int, height: int) -> float:
    """The scale of the first pass: 320 on the long side, more where the short side would fall below 160."""
    wanted = max(BASE_LONG_SIDE / max(width, height), BASE_SHORT_SIDE / min(width, height))
    return min(wanted, MAX_UPSCALE, _max_scale(width, height))


def _max_scale(width: int, height: int) -> float:
    """The scale at which a pass would have MAX_PIXELS, a side below MIN_SIDE counted as MIN_SIDE."""
    return min(float(np.sqrt(MAX_PIXELS / (width * height))), MAX_PIXELS / MIN_SIDE / max(width, height))


def _sides(found: Detections) -> NDArray[np.float32]:
    return np.asarray((found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1))


def _fills_frame(found: Detections, width: int, height: int) -> bool:
    """Whether a box touches two opposite borders or covers most of the picture."""
    right, bottom = (1 - BORDER) * width - 1, (1 - BORDER) * height - 1
    return any(
        (x1 <= BORDER * width and x2 >= right)
        or (y1 <= BORDER * height and y2 >= bottom)
        or max(0.0, x2 - x1) * max(0.0, y2 - y1) > FILLS_FRAME * width * height
        for x1, y1, x2, y2 in found.boxes.tolist()
    )


def _merged(*passes: Detections) -> Detections:
    if len(passes) == 1 and len(passes[0]) < 2:
        return passes[0]
    found = Detections(
        np.concatenate([one.boxes for one in passes]),
        np.concatenate([one.scores for one in passes]),
        np.concatenate([one.kps for one in passes]),
    )
    return found.select(box_math.merge(found.boxes, found.scores, max_iou=MAX_IOU, max_contained=MAX_CONTAINED))


def _checked_size(det_size: Any) -> DetSize:
    if isinstance(det_size, str) and det_size == "auto":
        return "auto"
    sides = det_size if isinstance(det_size, (tuple, list)) and len(det_size) == 2 else (det_size,)
    if not all(is_whole(side, MIN_SIDE, MAX_SIDE) for side in sides):
        raise InputError(
            f"det_size is 'auto', a long side or (width, height) of {MIN_SIDE} to {MAX_SIDE} pixels; got {det_size!r}"
        )
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))
