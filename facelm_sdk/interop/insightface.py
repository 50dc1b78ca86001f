"""insightface's Face, and the order of its 106 points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._optional import load
from ..errors import InputError
from ..types import Face

# fmt: off
FROM_JD106 = (
    *(1, 9, 10, 11, 12, 13, 14, 15, 16, 2, 3, 4, 5, 6, 7, 8, 0),
    *(24, 23, 22, 21, 20, 19, 18, 32, 31, 30, 29, 28, 27, 26, 25, 17),
    *(43, 48, 49, 51, 50, 46, 47, 45, 44), *(102, 103, 104, 105, 101, 100, 99, 98, 97),
    *(72, 73, 74, 86), *(75, 76, 77, 78, 79, 80, 85, 84, 83, 82, 81),
    *(35, 41, 40, 42, 39, 37, 33, 36, 34), *(89, 95, 94, 96, 93, 91, 87, 90, 92),
    *(52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55), *(65, 66, 62, 70, 69, 57, 60, 54), *(38, 88),
)
# fmt: on
"""Where ``2d106det`` has each point of jd106: the same points in another order, as its markup's picture shows it."""


def to_insightface(face: Face) -> Any:
    """An ``insightface.app.common.Face``: bbox, kps, det_score, and the landmarks under its name for them.

    68 points are ``landmark_2d_68``, 106 ``landmark_2d_106`` in insightface's order, others stay away. Its recognition
    models take it as one that its own detector found.

    Raises MissingDependencyError without insightface.
    """
    kind = load("insightface.app.common", "insightface").Face
    fields: dict[str, Any] = {"bbox": face.bbox, "kps": face.kps, "det_score": face.score}
    if face.markup == "jd106":
        fields["landmark_2d_106"] = to_insightface_106(face.landmarks)
    elif face.markup == "ibug68":
        fields["landmark_2d_68"] = face.landmarks
    return kind(fields)


def from_insightface(face: Mapping[str, Any]) -> Face:
    """A Face of theirs, which is a dict: its landmark_2d_106 (as jd106), else its 68 points, else its five.

    Raises InputError where it has none of them.
    """
    if not isinstance(face, Mapping):
        raise InputError(f"insightface's Face is a dict, not {type(face).__name__}")
    given = {"bbox": face.get("bbox"), "score": face.get("det_score"), "kps": face.get("kps")}
    if (points := face.get("landmark_2d_106")) is not None:
        return Face.of_landmarks(from_insightface_106(points), "jd106", **given)
    for name in ("landmark_2d_68", "landmark_3d_68"):
        if (points := face.get(name)) is not None:
            return Face.of_landmarks(_array(points, 68)[:, :2], "ibug68", **given)
    if given["kps"] is None:
        raise InputError("this face has no landmark_2d_106, landmark_3d_68 or kps")
    return Face.of_landmarks(given["kps"], "kps5", **given)


def from_insightface_106(points: Any) -> NDArray[np.float32]:
    """Points (..., 106, 2) in the order of ``2d106det`` as those of the markup jd106."""
    return np.asarray(_array(points, 106)[..., list(FROM_JD106), :2])


def to_insightface_106(points: Any) -> NDArray[np.float32]:
    """The inverse of :func:`from_insightface_106`."""
    values = _array(points, 106)
    result = np.empty_like(values)
    result[..., list(FROM_JD106), :] = values
    return result


def _array(points: Any, count: int) -> NDArray[np.float32]:
    """Points (..., count, 2 or 3) as float32."""
    try:
        values = np.asarray(points, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"insightface's points are not numbers ({error})") from error
    if values.ndim < 2 or values.shape[-2] != count or values.shape[-1] not in (2, 3):
        raise InputError(f"insightface's points have shape (..., {count}, 2), not {values.shape}")
    return values
