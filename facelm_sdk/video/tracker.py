"""Tracker: the faces of a video, frame by frame; a frame's crops come from the landmarks of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import boxes as box_math
from .. import markup as markups
from .. import profile as profiling
from .._checks import is_whole
from ..aligner import MATCHING_IOU, MEAN_KPS, Aligner, Color
from ..detector import MAX_CONTAINED, MAX_IOU, Detections, Detector
from ..errors import InputError
from ..images.read import read_image
from ..transform import CropTransform, similarity
from ..types import Face, ImageArray
from .one_euro import OneEuro, Smoothing

Points = NDArray[np.float32]

LOOK_SIZE = 64
"""Side in pixels of the upright picture of a face that the detector confirms it in."""
LOOK_SCALE = 1.5
"""Side of that picture in sides of the face's box."""
LOOK_KPS = (MEAN_KPS - 0.5) * LOOK_SIZE / LOOK_SCALE + (LOOK_SIZE - 1) / 2
"""Where the five points lie in it."""
MAX_OFFSET = 0.12
"""Sides of a face that the detector's five points may lie from the landmarks', on average."""
MOVED = 0.1
"""Sides of a face it may move in a frame before its crop is cut again where the landmarks were found."""
FOUND_AGAIN_IOU = 0.1
"""Overlap of a lost face's last box with a detection from which they are one; less than for faces that are followed."""
MIN_INSIDE = 0.6
"""Part of the landmarks that must lie in the picture."""
MIN_SIDE = 8.0
"""Pixels; a face's size below which it is not followed."""
REMEMBERED_FRAMES = 15
"""Frames that a lost face keeps its number for the case that it is found again in its place."""


@dataclass(slots=True, eq=False)
class _Track:
    """A face that is followed: where it was in the last frame, and where the detector last saw it."""

    id: int
    score: float
    bbox: Points  # (4,)
    kps: Points  # (5, 2), the landmarks'
    anchor_bbox: Points  # (4,), the detector's
    anchor_kps: Points  # (5, 2), the landmarks' in the same frame
    filter: OneEuro | None
    side: float  # of the face, in pixels
    anchor_side: float
    face: Face | None = None
    lost: int = 0  # frames ago; 0 while it is followed


class Tracker:
    """Frames of a video in, faces out: detection only where a face is lost, or is looked for.

    ``aligner`` finds the landmarks; without one it is built from the other keywords, those of Aligner. ``max_faces``
    (default: the Aligner's) faces are followed. While fewer are, the detector looks for more in every
    ``redetect_every``-th frame, in each frame while there is none; None: only then. With ``max_faces=1`` it never runs
    while that face is followed. ``smoothing`` steadies the landmarks with a One-Euro filter: True, or its parameters.

    A face is lost where most of it leaves the picture, and where the landmark model takes it for none (the Aligner's
    ``min_presence``). Where that model does not say, or ``min_presence`` is 0, the detector does, in each frame on a 64
    pixel picture of the face. A face found again in its place within 15 frames keeps its ``track_id``. That number
    tells places apart, not people.

    Frames of another size start anew. The results depend on nothing but the frames. For one video and thread at a time.
    """

    def __init__(
        self,
        aligner: Aligner | None = None,
        *,
        max_faces: int | None = None,
        redetect_every: int | None = 10,
        smoothing: bool | Smoothing = False,
        **options: Any,
    ) -> None:
        if aligner is not None and options:
            raise InputError(f"{', '.join(options)}: give options to the Aligner, or no Aligner")
        if redetect_every is not None and not is_whole(redetect_every, 1):
            raise InputError(f"redetect_every is a number of frames, at least 1, or None, not {redetect_every!r}")
        if max_faces is not None and not is_whole(max_faces, 1):
            raise InputError(f"max_faces is a whole number of at least 1, or None, not {max_faces!r}")
        if not isinstance(smoothing, (bool, Smoothing)):
            raise InputError(f"smoothing is True, False or a Smoothing, not {smoothing!r}")
        self.aligner = Aligner(**options) if aligner is None else aligner
        if self.aligner.detector is None:
            raise InputError("a Tracker needs an Aligner with a detector, to find the faces it follows")
        self._detector: Detector = self.aligner.detector
        self.max_faces = self.aligner.max_faces if max_faces is None else max_faces
        self.redetect_every = redetect_every
        self.smoothing = (Smoothing() if smoothing else None) if isinstance(smoothing, bool) else smoothing
        self._look = np.empty((LOOK_SIZE, LOOK_SIZE, 3), np.uint8)
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Forget every face, as between two videos. Numbers go on: none is given twice."""
        self._tracks: list[_Track] = []
        self._since_detection = 0
        self._shape: tuple[int, ...] | None = None

    def __call__(self, frame: Any, *, color: Color = "bgr") -> list[Face]:
        """The faces of the next frame, longest followed first, each with its ``track_id``; [] when there is none.

        ``frame`` is (H, W, 3) uint8 BGR, or whatever :func:`facelm_sdk.read_image` takes. ``score`` is the detector's
        when it last saw the face, ``bbox`` its box, which follows the landmarks, and ``kps`` are made from these.

        Raises ImageError.
        """
        with profiling.call(self.aligner.profile):
            with profiling.stage(profiling.READ):
                picture = read_image(frame, color)
            if picture.shape != self._shape:
                self.reset()
                self._shape = picture.shape
            lost = self._follow(picture)
            self._since_detection += 1
            if self._must_detect(lost):
                self._detect(picture)
        return [track.face for track in self._followed() if track.face is not None]

    def _followed(self) -> list[_Track]:
        return [track for track in self._tracks if not track.lost]

    def _must_detect(self, lost: bool) -> bool:
        followed = len(self._followed())
        if lost or not followed:
            return True
        full = self.max_faces is not None and followed >= self.max_faces
        return not full and self.redetect_every is not None and self._since_detection >= self.redetect_every

    def _follow(self, picture: ImageArray) -> bool:
        """Find the landmarks of the tracks in a new frame; True where one was lost."""
        tracks = self._followed()
        for track in self._tracks:
            track.lost += track.lost > 0
        self._tracks = [track for track in self._tracks if track.lost <= REMEMBERED_FRAMES]
        if not tracks:
            return False
        before = [(track.kps, track.bbox, track.side) for track in tracks]
        self._align(picture, tracks)
        moved = [
            track
            for track, (kps, _, side) in zip(tracks, before, strict=True)
            if not track.lost and _distance(track.kps, kps) > MOVED * side
        ]
        self._align(picture, moved)
        with profiling.stage(profiling.CONFIRM):
            for track, (kps, bbox, side) in zip(tracks, before, strict=True):
                if track.lost or not self._is_face(picture, track):
                    track.lost, track.kps, track.bbox, track.side = 1, kps, bbox, side
            self._drop_doubles()
        for track in self._followed():
            self._show(track)
        return any(track.lost for track in tracks)

    def _align(self, picture: ImageArray, tracks: Sequence[_Track]) -> None:
        """Find the landmarks of tracks from where they were; those that leave the picture are lost."""
        if not tracks:
            return
        faces = self.aligner(picture, boxes=[one.bbox for one in tracks], kps=[one.kps for one in tracks])
        for track, face in zip(tracks, faces, strict=True):
            kps = markups.convert(face.landmarks, face.markup, "kps5").astype(np.float32)
            matrix = similarity(track.anchor_kps, kps)
            side = track.anchor_side * float(np.hypot(*matrix[:, 0]))
            if not _is_inside(face.landmarks, picture) or side < MIN_SIDE:
                track.lost = 1
                continue
            track.face, track.kps, track.side = face, kps, side
            track.bbox = _moved(track.anchor_bbox, matrix)

    def _is_face(self, picture: ImageArray, track: _Track) -> bool:
        """Whether a track still holds a face, by the landmark model, or by the detector where that does not say."""
        if track.face is not None and track.face.presence is not None and self.aligner.min_presence > 0:
            return self.aligner.is_present(track.face)
        CropTransform.from_kps5(track.kps, LOOK_KPS, LOOK_SIZE).warp(picture, out=self._look)
        with profiling.stage(profiling.DETECTOR):
            _, scores, kps = self._detector.session.run({"image": self._look[None]})
        offsets = np.linalg.norm(kps - LOOK_KPS, axis=2).mean(axis=1) * (LOOK_SCALE / LOOK_SIZE)
        scores = np.where(offsets <= MAX_OFFSET, scores, 0)
        if not len(scores) or scores.max() < self._detector.det_thresh:
            return False
        track.score = float(scores.max())
        return True

    def _drop_doubles(self) -> None:
        """Of tracks that have come to follow one face, the longest followed stays."""
        tracks = self._followed()
        if len(tracks) < 2:
            return
        boxes = np.stack([track.bbox for track in tracks])
        kept = box_math.merge(boxes, -np.arange(float(len(tracks))), max_iou=MAX_IOU, max_contained=MAX_CONTAINED)
        for index in set(range(len(tracks))).difference(kept):
            self._tracks.remove(tracks[index])

    def _detect(self, picture: ImageArray) -> None:
        """Look for faces: those known are confirmed, those lost are found again, others are new."""
        self._since_detection = 0
        with profiling.stage(profiling.RESIZE, after=profiling.MERGE):
            found = self._detector(picture)
        tracks = self._matched(found)
        room = len(found) if self.max_faces is None else self.max_faces - len(self._followed())
        wanted = [index for index, track in enumerate(tracks) if track is None or track.lost]
        while wanted and room > 0:  # the next best take the places of those that are no faces
            some, wanted = wanted[:room], wanted[room:]
            faces = self.aligner(picture, boxes=found.boxes[some], kps=found.kps[some])
            for index, face in zip(some, faces, strict=True):
                if self.aligner.is_present(face):
                    self._start(picture, face, float(found.scores[index]), tracks[index])
                    room -= 1

    def _matched(self, found: Detections) -> list[_Track | None]:
        """The track of each detection; those followed take theirs first and are confirmed by it."""
        matched: list[_Track | None] = [None] * len(found)
        for track in sorted(self._tracks, key=lambda track: track.lost > 0):
            overlaps = box_math.iou(track.bbox, found.boxes)
            overlaps[[index for index, other in enumerate(matched) if other is not None]] = 0
            if not len(found) or overlaps.max() < (FOUND_AGAIN_IOU if track.lost else MATCHING_IOU):
                continue
            index = int(overlaps.argmax())
            matched[index] = track
            if not track.lost:
                track.anchor_bbox, track.anchor_kps, track.anchor_side = found.boxes[index], track.kps, track.side
                track.score = float(found.scores[index])
        return matched

    def _start(self, picture: ImageArray, face: Face, score: float, track: _Track | None) -> None:
        """Follow a face from this frame on, as the lost ``track`` that it was or as a new one."""
        kps = markups.convert(face.landmarks, face.markup, "kps5").astype(np.float32)
        side = _side(kps)
        if not _is_inside(face.landmarks, picture) or side < MIN_SIDE:
            return
        if track is None:
            number, smoother = self._next_id, None if self.smoothing is None else OneEuro(self.smoothing)
            self._next_id += 1
        else:
            number, smoother = track.id, track.filter
            if smoother is not None and track.lost > 1:
                smoother.reset()
            self._tracks.remove(track)
        started = _Track(number, score, face.bbox, kps, face.bbox, kps, smoother, side, side, face)
        self._tracks.append(started)
        self._tracks.sort(key=lambda track: track.id)
        self._show(started)

    def _show(self, track: _Track) -> None:
        """Bring a track's face into the form that is handed out."""
        assert track.face is not None
        face, kps = track.face, track.kps
        landmarks = face.landmarks
        if track.filter is not None:
            landmarks = track.filter(landmarks, track.side)
            kps = markups.convert(landmarks, face.markup, "kps5").astype(np.float32)
        track.face = replace(face, bbox=track.bbox, score=track.score, kps=kps, landmarks=landmarks, track_id=track.id)


def _side(kps: Points) -> float:
    """The side of the face's box, in pixels, as the five points show it."""
    return float(np.hypot(*similarity(MEAN_KPS, kps)[:, 0]))


def _distance(one: Points, other: Points) -> float:
    return float(np.linalg.norm(one - other, axis=1).mean())


def _moved(box: Points, matrix: NDArray[np.float64]) -> Points:
    """An upright box (4,) whose centre and size, not its angle, follow a similarity (2, 3)."""
    centre = matrix[:, :2] @ (box[:2] + box[2:]) / 2 + matrix[:, 2]
    half = (box[2:] - box[:2]) / 2 * np.hypot(*matrix[:, 0])
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def _is_inside(points: Points, picture: ImageArray) -> bool:
    """Whether enough of the points (L, 2) lie in the picture; points that are not finite do not."""
    inside = ((points >= 0) & (points < (picture.shape[1], picture.shape[0]))).all(axis=1)
    return float(inside.mean()) >= MIN_INSIDE
