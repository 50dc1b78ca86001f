"""roboflow's supervision: KeyPoints and Detections, whose annotators, zones and trackers then take faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import markup as markups
from .._optional import load
from ..errors import InputError
from ..types import Face

if TYPE_CHECKING:
    import supervision

_CLASS = "face"


def to_keypoints(faces: Sequence[Face]) -> supervision.KeyPoints:
    """The landmarks as KeyPoints: ``xy`` (n, L, 2), the points' scores, the detector's as ``detection_confidence``.

    ``data`` has the boxes, the five points and the markup. Raises InputError for faces of several markups,
    MissingDependencyError without supervision.
    """
    sv = load("supervision", "supervision")
    if not faces:
        empty: supervision.KeyPoints = sv.KeyPoints.empty()
        return empty
    if len({face.markup for face in faces}) > 1:
        raise InputError("KeyPoints are of one markup; these faces are of several")
    keypoints: supervision.KeyPoints = sv.KeyPoints(
        xy=np.stack([face.landmarks for face in faces]),
        class_id=np.zeros(len(faces), int),
        keypoint_confidence=_all_or_none([face.scores for face in faces]),
        detection_confidence=_all_or_none([face.score for face in faces]),
        data=_data(faces) | {"bbox": np.stack([face.bbox for face in faces])},
    )
    return keypoints


def to_detections(faces: Sequence[Face]) -> supervision.Detections:
    """The boxes as Detections, ``tracker_id`` where all have a track_id; ``data`` has five points and landmarks.

    Raises InputError for faces of several markups, MissingDependencyError without supervision.
    """
    sv = load("supervision", "supervision")
    if not faces:
        empty: supervision.Detections = sv.Detections.empty()
        return empty
    if len({face.markup for face in faces}) > 1:
        raise InputError("Detections hold landmarks of one markup; these faces are of several")
    scores = _all_or_none([face.scores for face in faces])
    detections: supervision.Detections = sv.Detections(
        xyxy=np.stack([face.bbox for face in faces]),
        confidence=_all_or_none([face.score for face in faces]),
        class_id=np.zeros(len(faces), int),
        tracker_id=_all_or_none([face.track_id for face in faces], int),
        data=_data(faces)
        | {"landmarks": np.stack([face.landmarks for face in faces])}
        | ({} if scores is None else {"landmark_scores": scores}),
    )
    return detections


def from_keypoints(keypoints: supervision.KeyPoints, markup: str | None = None) -> list[Face]:
    """The faces of KeyPoints; ``markup`` is by default that of :func:`to_keypoints`, else told by the points' number.

    Raises InputError and MarkupError.
    """
    data: Mapping[str, Any] = keypoints.data
    return [
        Face.of_landmarks(
            points,
            _markup(data, index, len(points), markup),
            bbox=_at(data.get("bbox"), index),
            score=_at(keypoints.detection_confidence, index),
            kps=_at(data.get("kps"), index),
            scores=_at(keypoints.keypoint_confidence, index),
        )
        for index, points in enumerate(keypoints.xy)
    ]


def from_detections(detections: supervision.Detections) -> list[Face]:
    """The faces of Detections that :func:`to_detections` made, filtered or tracked since.

    Raises InputError where they hold no landmarks: ``Aligner()(image, boxes=detections.xyxy)`` finds them.
    """
    data: Mapping[str, Any] = detections.data
    if "landmarks" not in data:
        if not len(detections):
            return []
        raise InputError(
            "these Detections hold no landmarks; Aligner()(image, boxes=detections.xyxy) finds those of other people's"
        )
    return [
        Face.of_landmarks(
            data["landmarks"][index],
            _markup(data, index, len(data["landmarks"][index]), None),
            bbox=box,
            score=_at(detections.confidence, index),
            kps=_at(data.get("kps"), index),
            scores=_at(data.get("landmark_scores"), index),
            track_id=_at(detections.tracker_id, index),
        )
        for index, box in enumerate(detections.xyxy)
    ]


def _data(faces: Sequence[Face]) -> dict[str, Any]:
    count = len(faces)
    return {
        "class_name": np.array([_CLASS] * count),
        "kps": np.stack([face.kps for face in faces]),
        "markup": np.array([face.markup for face in faces]),
    }


def _markup(data: Mapping[str, Any], index: int, points: int, given: str | None) -> str:
    if given is not None:
        return given
    return str(data["markup"][index]) if "markup" in data else markups.with_points(points).name


def _all_or_none(values: Sequence[Any], kind: type = np.float32) -> NDArray[Any] | None:
    return None if any(value is None for value in values) else np.array(values, kind)


def _at(values: Any, index: int) -> Any:
    return None if values is None else values[index]
