"""Head pose from landmarks: Perspective-n-Point (PnP) against one 3D model of the 68 points."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import markup as markups
from ._optional import load_cv2
from .errors import InputError

# fmt: off
HEAD_68 = np.array([
    (-7.36, -3.94, 5.78), (-7.28, -1.75, 5.51), (-6.94, 0.2, 4.9), (-6.56, 2.1, 4.26),
    (-5.72, 4.23, 3.31), (-4.3, 5.95, 2.09), (-3.05, 6.65, 0.66), (-1.54, 7, -0.84),
    (0, 7.31, -1), (1.54, 7, -0.84), (3.05, 6.65, 0.66), (4.3, 5.95, 2.09),
    (5.72, 4.23, 3.31), (6.56, 2.1, 4.26), (6.94, 0.2, 4.9), (7.28, -1.75, 5.51),
    (7.36, -3.94, 5.78), (-5.82, -5.46, 1.53), (-4.93, -6.24, 0.45), (-3.79, -6.52, -0.39),
    (-2.41, -6.45, -1.05), (-1.17, -6.17, -1.29), (1.17, -6.17, -1.29), (2.41, -6.45, -1.05),
    (3.79, -6.52, -0.39), (4.93, -6.24, 0.45), (5.82, -5.46, 1.53), (0, -4, -1.3),
    (0, -2.89, -2.08), (0, -1.87, -2.87), (0, -0.67, -3.63), (-1.25, 0.88, -1.44),
    (-0.6, 0.88, -1.98), (0, 0.94, -2.13), (0.6, 0.88, -1.98), (1.25, 0.88, -1.44),
    (-4.46, -3.69, 0.83), (-3.87, -4.13, 0.07), (-2.78, -4.2, -0.1), (-1.84, -3.51, 0.24),
    (-2.73, -3.34, 0.02), (-3.86, -3.33, 0.21), (1.84, -3.51, 0.24), (2.78, -4.2, -0.1),
    (3.87, -4.13, 0.07), (4.46, -3.69, 0.83), (3.86, -3.33, 0.21), (2.73, -3.34, 0.02),
    (-2.53, 3.26, -0.75), (-1.7, 2.52, -1.79), (-0.73, 2.16, -2.29), (0, 2.22, -2.4),
    (0.73, 2.16, -2.29), (1.7, 2.52, -1.79), (2.53, 3.26, -0.75), (1.8, 3.8, -1.46),
    (1.03, 4.04, -1.95), (0, 4.12, -2.11), (-1.03, 4.04, -1.95), (-1.8, 3.8, -1.46),
    (-2.21, 3.23, -0.69), (-1, 3.04, -1.65), (0, 3.06, -1.85), (1, 3.04, -1.65),
    (2.21, 3.23, -0.69), (1.07, 3.12, -1.6), (0, 3.14, -1.82), (-1.07, 3.12, -1.6),
])
# fmt: on
"""The 68 points of a mean head (68, 3), centimetres about their mean: x to the picture's right, y down, z away.

They are vertices of the neutral head of ICT-FaceKit (https://github.com/ICT-VGL/ICT-FaceKit, MIT licence, copyright
2020 USC Institute for Creative Technologies), made even, to a tenth of a millimetre.
"""

SOLID = (8, *range(17, 48), 48, 54)
"""What pose is found by: chin, brows, nose, eyes, mouth corners. The jaw's points slide over a turned head's skin."""

DISTANCE = 17.0
"""How far the camera is taken to be where the picture's size is not given: about a metre, in root mean square distances
of the points from their mean."""


class HeadPose(NamedTuple):
    """Where a face looks and how it is tilted, degrees; all 0 where it looks into the camera upright.

    ``yaw`` is positive where the face looks to the picture's right (the person's left), -180 to 180; ``pitch`` where it
    looks up, -90 to 90; ``roll`` where it is tilted clockwise in the picture, -180 to 180. Turning the picture changes
    ``roll`` alone: the head is turned by yaw about its own vertical axis, then by pitch about the picture's horizontal
    one, then by roll about the line of sight.
    """

    yaw: float
    pitch: float
    roll: float

    @classmethod
    def of_rotation(cls, rotation: NDArray[np.float64]) -> HeadPose:
        """The inverse of :attr:`rotation`: the angles of R_z(roll) R_x(-pitch) R_y(-yaw)."""
        yaw = math.atan2(rotation[2, 0], rotation[2, 2])
        pitch = -math.asin(min(1.0, max(-1.0, float(rotation[2, 1]))))
        roll = math.atan2(-rotation[0, 1], rotation[1, 1])
        return cls(*(math.degrees(angle) for angle in (yaw, pitch, roll)))

    @property
    def rotation(self) -> NDArray[np.float64]:
        """The rotation (3, 3) from the head's axes to the camera's, both x to the picture's right, y down, z away."""
        yaw, pitch, roll = (math.radians(angle) for angle in self)
        about_y = [[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]]
        about_x = [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
        about_z = [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
        return np.asarray(np.array(about_z) @ about_x @ about_y)


def head_pose(points: ArrayLike, markup: str = "ibug68", size: tuple[int, int] | None = None) -> HeadPose:
    """The pose of a head from its landmarks (L, 2) in pixels of the picture, in one of the markups that have the 68.

    ``size`` (width, height) of the whole picture gives the pose to the axis of a camera that looks at its centre and
    whose focal length is the longer side. Without it the pose is as seen: to the line from the camera to the face.

    Mean errors of yaw, pitch and roll (training/results/pose.json): 1.8, 2.3 and 1.1 degrees on ICT-FaceKit's heads of
    random shapes and expressions, turned by up to 60 degrees, by exact points; 3.8, 5.0 and 1.5 by the annotated points
    of 300-W's test faces, turned with a fitted head whose pose counts as the truth; 4.9, 5.1 and 1.8 by those that
    ``Aligner`` finds in them.

    Raises InputError for points that are not finite, MarkupError for a markup that does not mark the 68.
    """
    values = markups.convert(np.asarray(points, np.float64), markup, "ibug68").astype(np.float64)
    if values.shape != (68, 2) or not np.isfinite(values).all():
        raise InputError(f"a pose is of the finite points (L, 2) of one face; got shape {np.shape(points)}")
    if size is not None and not (len(size) == 2 and min(size) > 0):
        raise InputError(f"size is the picture's (width, height) in pixels, not {size!r}")
    mean = values.mean(0)
    with np.errstate(over="ignore"):
        spread = float(np.sqrt(((values - mean) ** 2).sum(1).mean()))
    if not 0 < spread < math.inf:
        raise InputError("the points coincide or are too far apart, which leaves a pose open")
    focal, centre = (DISTANCE * spread, mean) if size is None else (max(size), (np.array(size) - 1) / 2)
    return HeadPose.of_rotation(_rotation(values, float(focal), centre))


def _rotation(points: NDArray[np.float64], focal: float, centre: NDArray[Any]) -> NDArray[np.float64]:
    """The rotation (3, 3) from the head's axes to the camera's: x right, y down, z away."""
    cv2 = load_cv2()
    model, seen = HEAD_68[list(SOLID)], points[list(SOLID)]
    camera = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    try:
        found, turn, shift = cv2.solvePnP(model, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:  # it refuses faces that fill too small an angle
        found, turn, shift = cv2.solvePnP(model, seen, camera, None, flags=cv2.SOLVEPNP_EPNP)
    if not found:
        raise InputError("the points are not those of a face: no pose puts a head there")
    turn, _ = cv2.solvePnPRefineLM(model, seen, camera, None, turn, shift)
    return np.asarray(cv2.Rodrigues(turn)[0], np.float64)
