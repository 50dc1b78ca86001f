"""What the SDK returns: one frozen record a face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import markup as markups
from ._checks import is_number, is_whole
from .errors import ImageError, InputError, MarkupError
from .expression import EyeOpenness, eye_openness, mouth_openness
from .pose import HeadPose, head_pose
from .transform import ARCFACE_112, CropTransform, finite
from .transform import ImageArray as ImageArray

T = TypeVar("T")

MAX_CROP = 4096
"""Pixels; the largest side of a crop."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Face:
    """One face of a picture. All coordinates are (x, y) pixels of that picture, pixel centres at whole numbers.

    ``bbox`` (4,) float32 xyxy; ``score`` the detector's, None where the caller gave the box or the points;
    ``kps`` (5, 2) float32: image-left eye, image-right eye, nose tip, image-left and image-right mouth corner;
    ``landmarks`` (L, 2) float32 in the order of ``markup``; ``scores`` (L,) float32 in [0, 1] or None where the network
    has no confidence: of pyramid_m the probability that a point is within 5% of the eye distance; ``transform`` the
    crop the landmarks were found in; ``track_id`` the number a Tracker gave this face, None in single pictures;
    ``presence`` the probability, by the landmark network, that the crop shows a face, or None where it gives none.
    """

    bbox: NDArray[np.float32]
    score: float | None
    kps: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    markup: str
    transform: CropTransform
    track_id: int | None = None
    presence: float | None = None

    @classmethod
    def of_landmarks(
        cls,
        landmarks: ArrayLike,
        markup: str = "ibug68",
        *,
        bbox: ArrayLike | None = None,
        score: float | None = None,
        kps: ArrayLike | None = None,
        scores: ArrayLike | None = None,
        track_id: int | None = None,
        presence: float | None = None,
    ) -> Face:
        """A face of landmarks (L, 2) from elsewhere: another library, a file of annotations.

        ``bbox`` is by default the box around the landmarks, ``kps`` the five points that they give; ``transform`` is
        the ArcFace crop by these. Raises InputError for what is not finite or of another shape, MarkupError.
        """
        count = markups.get(markup).num_points
        points = _float32(landmarks, (count, 2), f"{markup} landmarks")
        if kps is None:
            kps = markups.convert(points, markup, "kps5")
        if bbox is None:
            bbox = np.concatenate([points.min(0), points.max(0)])
        five = _float32(kps, (5, 2), "five points (kps)")
        if track_id is not None and not is_whole(track_id, 0):
            raise InputError(f"track_id is a whole number or None, not {track_id!r}")
        for name, value in (("score", score), ("presence", presence)):
            if value is not None and not is_number(value, 0, 1):
                raise InputError(f"{name} is a number from 0 to 1, or None, not {value!r}")
        return cls(
            bbox=_float32(bbox, (4,), "a box"),
            score=None if score is None else float(score),
            kps=five,
            landmarks=points,
            scores=None if scores is None else _float32(scores, (count,), "scores"),
            markup=markup,
            transform=CropTransform.from_kps5(five, ARCFACE_112, 112),
            track_id=None if track_id is None else int(track_id),
            presence=None if presence is None else float(presence),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Face:
        """The face that :meth:`to_dict` described, but for its ``transform``: see :meth:`of_landmarks`.

        Entries that are derived, such as ``pose``, or of others, are not read. Raises InputError and MarkupError.
        """
        try:
            landmarks, markup = values["landmarks"], values["markup"]
        except (KeyError, TypeError) as error:
            raise InputError("a face is a JSON object with landmarks and markup, as Face.to_dict gives it") from error
        given = {name: values.get(name) for name in ("bbox", "score", "kps", "scores", "track_id", "presence")}
        return cls.of_landmarks(landmarks, markup, **given)

    @property
    def pose(self) -> HeadPose:
        """Yaw, pitch and roll in degrees, to the line from the camera to the face: see :func:`pose.head_pose`.

        Found by PnP when it is asked for. Raises MarkupError where the markup does not mark the 68 points, InputError
        where the landmarks are those of no face.
        """
        return head_pose(self.landmarks, self.markup)

    @property
    def eye_openness(self) -> EyeOpenness:
        """The eye aspect ratios (image-left, image-right), about 0.3 open: see :func:`expression.eye_openness`.

        Raises as :attr:`pose` does.
        """
        return eye_openness(self.landmarks, self.markup)

    @property
    def mouth_openness(self) -> float:
        """The mouth aspect ratio, 0 where the lips touch: see :func:`expression.mouth_openness`.

        Raises as :attr:`pose` does.
        """
        return mouth_openness(self.landmarks, self.markup)

    def crop(
        self,
        image: ImageArray,
        size: int = 112,
        *,
        by: Literal["kps", "landmarks"] = "kps",
        antialias: bool = False,
    ) -> ImageArray:
        """The ArcFace 5-point crop of ``image`` (H, W, 3) uint8: (size, size, 3), colour order as given.

        It is cut by ``kps``, the detector's five points, or by the five that the landmarks give, which are more exact.
        The template is the 112 pixel one times ``size / 112``. As in insightface's ``norm_crop``, a size that is a
        multiple of 128 and not of 112 uses the template moved right by 8 pixels, times ``size / 128``. Pixels are those
        of ``norm_crop`` within half a grey level, bilinear also where a face is far larger than its crop; ``antialias``
        averages such a face's pixels.

        Raises ImageError for another image, InputError for another size or another ``by``.
        """
        if by not in ("kps", "landmarks"):
            raise InputError(f"a crop is cut by 'kps' or 'landmarks', not {by!r}")
        if not is_whole(size, 1, MAX_CROP):
            raise InputError(f"a crop's size is a whole number from 1 to {MAX_CROP} pixels, not {size!r}")
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or not image.size:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ImageError(f"a crop is cut from uint8 (H, W, 3), as read_image gives it, not from {found}")
        template = np.asarray(ARCFACE_112)
        if size % 128 == 0 and size % 112 != 0:
            template = (template + np.array([8.0, 0.0])) * (size / 128)
        else:
            template = template * (size / 112)
        kps = self.kps if by == "kps" else self.to("kps5")
        return CropTransform.from_kps5(kps, template, size).warp(image, antialias=antialias)

    def to(self, markup: str, *, missing: Literal["error", "nan"] = "error") -> NDArray[np.float32]:
        """The landmarks in another markup, (L', 2) float32, some interpolated: see :func:`markup.convert`.

        Raises MarkupError where no conversion exists, or, unless ``missing="nan"``, gives only some of the points.
        """
        return markups.convert(self.landmarks, self.markup, markup, missing=missing).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, coordinates rounded to a thousandth of a pixel; ``track_id`` only where there is one.

        ``pose`` and the two of openness are None where the landmarks do not give them.
        """
        pose, eyes = _where_known(lambda: self.pose), _where_known(lambda: self.eye_openness)
        mouth = _where_known(lambda: self.mouth_openness)
        return {
            **({} if self.track_id is None else {"track_id": self.track_id}),
            "bbox": rounded(self.bbox),
            "score": None if self.score is None else round(float(self.score), 3),
            "kps": rounded(self.kps),
            "markup": self.markup,
            "landmarks": rounded(self.landmarks),
            "scores": None if self.scores is None else rounded(self.scores),
            "presence": None if self.presence is None else round(self.presence, 3),
            "pose": None if pose is None else {name: round(angle, 2) for name, angle in pose._asdict().items()},
            "eye_openness": None if eyes is None else {name: round(ratio, 3) for name, ratio in eyes._asdict().items()},
            "mouth_openness": None if mouth is None else round(mouth, 3),
        }

    def __repr__(self) -> str:
        box = ", ".join(f"{value:.1f}" for value in self.bbox)
        score = "given" if self.score is None else f"{self.score:.3f}"
        track = "" if self.track_id is None else f"track_id={self.track_id}, "
        return f"Face({track}bbox=[{box}], score={score}, landmarks={self.markup} {self.landmarks.shape})"


def rounded(values: NDArray[np.float32]) -> Any:
    """Nested lists of an array's values to a thousandth."""
    return np.round(values.astype(np.float64), 3).tolist()


def _float32(values: ArrayLike, shape: tuple[int, ...], what: str) -> NDArray[np.float32]:
    array = finite(values, shape, what)
    if (np.abs(array) > np.finfo(np.float32).max).any():
        raise InputError(f"{what} are beyond what float32 holds")
    return array.astype(np.float32)


def _where_known(value: Callable[[], T]) -> T | None:
    try:
        return value()
    except (MarkupError, InputError):
        return None
