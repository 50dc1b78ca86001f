"""Scores of an exported landmark model on a data set, through the runtime, as the papers' tables have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm_sdk import Aligner, Detector, Landmarker, metrics
from facelm_sdk import markup as markups
from facelm_sdk.aligner import MATCHING_IOU
from facelm_sdk.boxes import most_overlapping
from facelm_sdk.detector import Detections
from facelm_sdk.errors import InputError, MarkupError
from facelm_sdk.pose import head_pose
from facelm_sdk.transform import CropRecipe, CropTransform
from facelm_sdk.types import ImageArray

from .datasets import Dataset, Metric, Sample

BOXES = {
    "detector": "the box of the detection that overlaps the annotated landmarks most",
    "landmarks": "the box of the annotated landmarks, as in the papers: no user has it",
    "dataset": "the data set's own face box",
}
MADE_BOX = "the landmarks' box made of the five points of the detection that overlaps the annotated landmarks most"
POINTS = {
    "detector": "the five points of the detection that overlaps the annotated landmarks most",
    "dataset": "the data set's own five points",
    "truth": "five points of the annotation: an oracle, better than any detector",
}

YAWS = (0, 15, 30, 45, 90)
"""Bounds of the absolute yaw, in degrees, between which errors are told apart."""

Track = Callable[[Iterable[Sample]], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Cut:
    """What a model's crops are cut by: its recipe, and where the box or the five points come from."""

    recipe: CropRecipe
    source: str

    @classmethod
    def of(cls, recipe: CropRecipe, box: str | None = None, points: str | None = None) -> Cut:
        """``box``: detector (default), landmarks or dataset; ``points``: detector (default), dataset or truth.

        The default is what users run: the detection's five points, its box, or the landmarks' box made of the points,
        as the recipe says. ``box="landmarks"`` is the papers' protocol. Raises InputError for another, and for one that
        the recipe has no use for.
        """
        name, value, other, sources = ("--box", box, points, BOXES)
        if recipe.kind == "kps5":
            name, value, other, sources = ("--points", points, box, POINTS)
        if other is not None:
            raise InputError(f"this model's crop is cut by {_BY[recipe.kind]}: {name} is {', '.join(sources)}")
        if value is not None and value not in sources:
            raise InputError(f"{name} is {', '.join(sources)}; got {value!r}")
        return cls(recipe, value or next(iter(sources)))

    @property
    def needs_detector(self) -> bool:
        """Whether pictures are searched for faces."""
        return self.source == "detector"

    @property
    def description(self) -> str:
        """For people."""
        if self.needs_detector and self.recipe.box == "landmarks":
            return MADE_BOX
        return (POINTS if self.recipe.kind == "kps5" else BOXES)[self.source]

    def transform(self, sample: Sample, found: Detections | None, markup: str) -> CropTransform | None:
        """The crop of a face among the detections for a model of ``markup``; None where it is not found.

        Raises InputError where the data set has not what the crop is cut by.
        """
        if self.source == "detector":
            return None if found is None else self._matched(sample, found, markup)
        box, kps = sample.box, sample.kps5
        if self.source == "landmarks":
            box = sample.landmark_box
        elif self.source == "truth":
            kps = markups.convert(sample.points, sample.markup, "kps5").astype(np.float32)
        if (box if self.recipe.kind == "box" else kps) is None:
            raise InputError(f"{sample.name} has no {_BY[self.recipe.kind]} of the data set's own")
        return self.recipe.transform(box, kps)

    def _matched(self, sample: Sample, found: Detections, markup: str) -> CropTransform | None:
        best = most_overlapping(sample.landmark_box, found.boxes, MATCHING_IOU)
        if best is None:
            return None
        try:
            return self.recipe.of_detection(markup, found.boxes[best], found.kps[best])
        except InputError:  # points that determine no crop are as good as none
            return None


_BY = {"box": "box", "kps5": "five points"}


class _Finder:
    """Detections of a sample's picture; those of a file are kept for its other faces."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._known: dict[Path, Detections] = {}

    def __call__(self, sample: Sample, picture: ImageArray) -> Detections:
        if not isinstance(sample.source, Path):
            return self._detector(picture)
        if sample.source not in self._known:
            self._known[sample.source] = self._detector(picture)
        return self._known[sample.source]


def crops_of(
    samples: Iterable[Sample], markup: str, cut: Cut, detector: Detector | None, track: Track = iter
) -> Iterator[tuple[Sample, ImageArray, CropTransform | None]]:
    """Each face with its picture and the crop for a model of ``markup``, None where it is not found.

    Raises InputError where the cut is by detections and there is no ``detector``.
    """
    if cut.needs_detector and detector is None:
        raise InputError("crops cut by detections need a detector")
    finder = None if detector is None or not cut.needs_detector else _Finder(detector)
    for sample in track(samples):
        picture = sample.image()
        found = None if finder is None else finder(sample, picture)
        yield sample, picture, cut.transform(sample, found, markup)


def predict(
    samples: Iterable[Sample],
    landmarker: Landmarker,
    cut: Cut,
    detector: Detector | None = None,
    *,
    batch: int = 16,
    track: Track = iter,
) -> NDArray[np.float64]:
    """Landmarks (n, L, 2) in pixels of each face's picture, NaN where the face was not found.

    ``detector`` is needed where the cut is by detections. ``batch`` crops wait for a run; ``track`` wraps the faces,
    for a progress bar.
    """
    faces = crops_of(samples, landmarker.spec.markup, cut, detector, track)
    cuts = ((picture, transform) for _, picture, transform in faces)
    return predict_cuts(cuts, landmarker, landmarker.size, landmarker.spec.num_landmarks, batch=batch)


def predict_whole(samples: Iterable[Sample], aligner: Aligner) -> NDArray[np.float64]:
    """Landmarks (n, L, 2) as users get them of whole pictures, NaN where no face of the aligner's overlaps enough."""
    results = []
    for sample in samples:
        faces = aligner(sample.image())
        boxes = np.array([face.bbox for face in faces], np.float32).reshape(-1, 4)
        best = most_overlapping(sample.landmark_box, boxes, MATCHING_IOU)
        shape = (aligner.landmarker.spec.num_landmarks, 2)
        results.append(np.full(shape, np.nan) if best is None else faces[best].landmarks.astype(np.float64))
    return np.stack(results)


def predict_cuts(
    faces: Iterable[tuple[ImageArray, CropTransform | None]],
    run: Callable[[ImageArray], NDArray[np.floating[Any]]],
    size: int,
    num_landmarks: int,
    *,
    batch: int,
) -> NDArray[np.float64]:
    """Landmarks (n, L, 2) in pixels of each picture, NaN where there is no crop.

    ``run``: crops (k, S, S, 3) uint8 BGR of side ``size``, at most ``batch``, to landmarks (k, L, 2) in their pixels.
    """
    crops = np.empty((batch, size, size, 3), np.uint8)
    waiting: list[tuple[int, CropTransform]] = []
    results: list[NDArray[np.float64]] = []

    def finish() -> None:
        for (index, transform), points in zip(waiting, run(crops[: len(waiting)]), strict=True):
            results[index][:] = transform.invert(points.astype(np.float64))
        waiting.clear()

    for index, (picture, transform) in enumerate(faces):
        results.append(np.full((num_landmarks, 2), np.nan))
        if transform is None:
            continue
        transform.warp(picture, out=crops[len(waiting)])
        waiting.append((index, transform))
        if len(waiting) == batch:
            finish()
    if waiting:
        finish()
    return np.stack(results)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Errors of the faces of a data set, and the rows of its tables.

    ``errors`` (n,) by normaliser, fractions; ``points`` (n, L), the errors of each point by the first normaliser, NaN
    where its place is not known; ``markup`` the points they are of.
    """

    dataset: Dataset
    markup: markups.Markup
    errors: dict[str, NDArray[np.float64]]
    points: NDArray[np.float64]

    def rows(self, metric: Metric) -> dict[str, dict[str, Any]]:
        """A row a subset: faces, missed, NME, median, FR and AUC, percent."""
        errors = self.errors[metric.norm]
        return {
            name: _with_missed(metrics.summary(errors[mask], metric.threshold), errors[mask])
            for name, mask in self.dataset.subsets().items()
        }

    def regions(self) -> dict[str, dict[str, float]]:
        """The error of each part of the face in each subset, percent of the first normaliser.

        ``inner`` is all but the jaw.
        """
        parts = dict(self.markup.groups)
        if "jaw" in parts:
            parts["inner"] = self.markup.inner
        return {
            name: {part: 100 * error for part, error in metrics.region_errors(self.points[mask], parts).items()}
            for name, mask in self.dataset.subsets().items()
        }

    def by_yaw(self) -> dict[str, dict[str, Any]]:
        """A row a range of the absolute yaw of the annotated points: faces, missed, and NME in percent.

        The NME is by the first normaliser and by ``box``, the size of the annotated points' box, as the distance
        between the eyes shrinks with the yaw and lets any error seem large. Empty where the data set has not the 68
        points that a pose is found by; faces without a pose are in no row.
        """
        samples, first = self.dataset.samples, self.dataset.metrics[0].norm
        try:
            yaws = np.array([_yaw(sample) for sample in samples])
        except MarkupError:
            return {}
        errors = self.errors[first]
        sizes = metrics.box_size(np.stack([sample.landmark_box for sample in samples]))
        by_box = errors * np.array([sample.norms[first] for sample in samples]) / sizes
        rows = {}
        for low, high in pairwise(YAWS):
            chosen = (yaws >= low) & ((yaws < high) | (high == YAWS[-1]))
            found = chosen & ~np.isnan(errors)
            rows[f"{low}-{high}"] = {
                "faces": int(chosen.sum()),
                "missed": int((chosen & ~found).sum()),
                first: round(100 * float(errors[found].mean()), 3) if found.any() else None,
                "box": round(100 * float(by_box[found].mean()), 3) if found.any() else None,
            }
        return rows

    def landmarks(self) -> list[float]:
        """The error of each point over all faces, percent of the first normaliser."""
        return [float(error) for error in 100 * metrics.landmark_errors(self.points)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready but for NaN; ``errors`` and ``faces`` are in the same order."""
        return {
            "scored_markup": self.markup.name,
            "scores": {
                metric.norm: {"threshold": metric.threshold, "rows": self.rows(metric)}
                for metric in self.dataset.metrics
            },
            "regions": {name: _rounded(parts) for name, parts in self.regions().items()},
            "by_yaw": self.by_yaw(),
            "landmarks": [round(value, 3) for value in self.landmarks()],
            "faces": [sample.name for sample in self.dataset],
            "errors": {norm: [round(float(value), 6) for value in values] for norm, values in self.errors.items()},
        }


def _yaw(sample: Sample) -> float:
    """The absolute yaw in degrees, NaN where the points have none."""
    try:
        return abs(head_pose(sample.points, sample.markup).yaw)
    except InputError:
        return float("nan")


def _with_missed(row: dict[str, Any], errors: NDArray[np.float64]) -> dict[str, Any]:
    return {"faces": row.pop("faces"), "missed": int(np.isnan(errors).sum()), **row}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def score(dataset: Dataset, prediction: NDArray[np.float64], markup: str) -> Scores:
    """The scores of predicted points (n, L, 2) of ``markup``, NaN where a face was not found.

    Points of different markups are compared as those of the sparser one. The distances that normalise are always the
    data set's. Points that a data set marks as not known count in no error. Raises MarkupError where neither markup can
    be made from the other.
    """
    target = np.stack([sample.points for sample in dataset]).astype(np.float64)
    common = common_markup(markup, dataset.info.markup)
    prediction = markups.convert(prediction, markup, common.name).astype(np.float64)
    target = markups.convert(target, dataset.info.markup, common.name).astype(np.float64)
    norms = {metric.norm: np.array([one.norms[metric.norm] for one in dataset]) for metric in dataset.metrics}
    known = _known(dataset, common)
    points = {name: metrics.point_errors(prediction, target, norm) for name, norm in norms.items()}
    errors = {name: mean_of_known(values, known) for name, values in points.items()}
    return Scores(dataset, common, errors, np.where(known, points[dataset.metrics[0].norm], np.nan))


def mean_of_known(
    errors: NDArray[np.float64],  # (n, L)
    known: NDArray[np.bool_],  # (n, L)
) -> NDArray[np.float64]:  # (n,)
    """The error of each face over its points whose places are known; NaN where the face was not found."""
    return np.asarray(np.where(known, errors, 0).sum(1) / known.sum(1))


def _known(dataset: Dataset, common: markups.Markup) -> NDArray[np.bool_]:
    """Which points (n, L) of the common markup have a place that is known."""
    if common.name != dataset.info.markup or all(sample.known is None for sample in dataset):
        return np.ones((len(dataset), common.num_points), bool)
    every = np.ones(common.num_points, bool)
    return np.stack([every if sample.known is None else sample.known for sample in dataset])


def common_markup(model: str, data: str) -> markups.Markup:
    """The markup that a model's and a data set's points are compared in, none of them interpolated.

    Raises MarkupError where there is none.
    """
    if model == data:
        return markups.get(model)
    for source, target in ((model, data), (data, model)):
        try:
            made = markups.conversion(source, target)
        except MarkupError:
            continue
        if not (made.interpolated | made.missing).any():
            return markups.get(target)
    raise MarkupError(
        f"the model gives {model} points and the data has {data}: neither can be made from the other, so the model "
        "cannot be scored on it"
    )
