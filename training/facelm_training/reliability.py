"""How far a model's confidence can be trusted: reliability of its scores, and what its presence keeps and drops.

Expected calibration error (Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3): over 15 bins of equal
width, the difference between how sure the points of a bin were and how many of them were right, weighted by the bin's
points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm_sdk import Aligner, Detector, Landmarker, metrics
from facelm_sdk import markup as markups
from facelm_sdk.aligner import MIN_PRESENCE
from facelm_sdk.errors import InputError
from facelm_sdk.types import ImageArray

from .augment import cover_part
from .confidence import WITHIN
from .datasets import Dataset, Sample
from .evaluation import Cut, Track, crops_of
from .landmarks import inside
from .negatives import read_negatives

BINS = 15
FALSE_THRESHOLDS = (0.5,)
"""Thresholds of the detector beside its own at which its false faces are counted: there are few above that."""


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Points by their score: of each bin (b,) how many, their mean score, and which part of them was right."""

    counts: NDArray[np.int64]
    scores: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1; NaN of no points."""
        if not self.counts.sum():
            return float("nan")
        return float(np.sum(self.counts * np.abs(self.scores - self.right)) / self.counts.sum())


def bins_of(scores: NDArray[Any], right: NDArray[np.bool_], count: int = BINS) -> Bins:
    """Sort probabilities (n,) and what came true (n,) into ``count`` bins of equal width; empty bins are 0."""
    places = np.minimum((np.asarray(scores, np.float64) * count).astype(int), count - 1)
    counts = np.bincount(places, minlength=count)
    some = np.maximum(counts, 1)
    return Bins(
        counts,
        np.bincount(places, np.asarray(scores, np.float64), count) / some,
        np.bincount(places, np.asarray(right, np.float64), count) / some,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What a model said of n faces that were found: ``scores`` (n, L) and ``presence`` (n,).

    ``right`` (n, L): which points lie within 5% of the eye distance of the label; ``known``: whose labels are known;
    ``covered``: which were covered.
    """

    scores: NDArray[np.float32]
    presence: NDArray[np.float32]
    right: NDArray[np.bool_]
    known: NDArray[np.bool_]
    covered: NDArray[np.bool_]

    @property
    def bins(self) -> Bins:
        """All points whose labels are known, by their scores."""
        return bins_of(self.scores[self.known], self.right[self.known])

    def row(self) -> dict[str, Any]:
        """The figures of a table: percent, but for the number of faces and the calibration error."""
        row: dict[str, Any] = {"faces": len(self.scores), "ECE": round(self.bins.error, 3)}
        groups = {"": self.known}
        if self.covered.any():
            groups |= {"covered ": self.known & self.covered, "visible ": self.known & ~self.covered}
        for name, chosen in groups.items():
            row[f"{name}score"] = _percent(self.scores[chosen])
            row[f"{name}right"] = _percent(self.right[chosen])
        row["present"] = _percent(self.presence >= MIN_PRESENCE, 2)
        return row


def _percent(values: NDArray[Any], digits: int = 1) -> float | None:
    return round(100 * float(values.mean()), digits) if values.size else None


def observe(
    samples: Iterable[Sample],
    landmarker: Landmarker,
    cut: Cut,
    detector: Detector | None = None,
    *,
    half_covered: bool = False,
    batch: int = 16,
    track: Track = iter,
) -> Observed:
    """Run a model that has scores and presence on the faces that are found; InputError for another model.

    ``half_covered``: after the crop is cut, half of the face is covered from one side, in a flat colour or in noise,
    always the same for a face. ``detector`` is needed where the cut is by detections.
    """
    if not (landmarker.spec.has_scores and landmarker.spec.has_presence):
        raise InputError(f"{landmarker.spec.name} does not give scores and presence")
    crops: list[ImageArray] = []
    truth, known, covered = [], [], []
    found_crops = crops_of(samples, landmarker.spec.markup, cut, detector, track)
    for index, (sample, picture, transform) in enumerate(found_crops):
        if transform is None:
            continue
        crop, points = transform.warp(picture), transform.apply(sample.points)
        hidden = np.zeros(len(points), np.bool_)
        if half_covered:
            crop, hidden = cover_part(crop, np.float32(points), np.random.default_rng([11, index]))
        crops.append(crop)
        truth.append(points)
        covered.append(hidden)
        known.append(inside(sample.points, picture) & (True if sample.known is None else sample.known))
    if not crops:
        raise InputError("no face was found")
    runs = [landmarker.run(np.stack(crops[start : start + batch])) for start in range(0, len(crops), batch)]
    found, scores, presence = (np.concatenate(part) for part in zip(*runs, strict=True))
    label = np.stack(truth)
    eyes = metrics.inter_ocular(label, markups.get(landmarker.spec.markup))
    right = metrics.point_errors(found, label, eyes) <= WITHIN
    return Observed(scores, presence, right, np.stack(known), np.stack(covered))


def false_faces(
    landmarker: Landmarker, detector: Detector, negatives: Path, threshold: float | None = None
) -> NDArray[np.float32]:
    """The presence (n,) of what the detector takes for a face in the pictures of ``negatives`` kept for tests.

    ``threshold``: default, the detector's own.
    """
    finder = Detector(detector.session, det_size=detector.det_size, det_thresh=threshold)
    aligner = Aligner(landmarker, finder, min_presence=0)
    faces = [face for picture in read_negatives(negatives, "test").values() for face in aligner(picture)]
    return np.array([face.presence for face in faces], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """Observations by data set, plain and half covered, and presence of false faces by what they are."""

    observed: Mapping[str, Observed]
    false: Mapping[str, NDArray[np.float32]]

    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The tables of a card."""
        tables = {"confidence": {name: one.row() for name, one in self.observed.items()}}
        if self.false:
            tables["false faces"] = {
                name: {"faces": len(presence), "dropped": _percent(presence < MIN_PRESENCE)}
                for name, presence in self.false.items()
            }
        return tables


def report(landmarker: Landmarker, detector: Detector, datasets: Iterable[Dataset], negatives: Path) -> Report:
    """Everything there is to say; without the folder ``negatives`` nothing of false faces."""
    cut = Cut.of(landmarker.recipe)
    observed = {}
    for dataset in datasets:
        observed[dataset.title] = observe(dataset, landmarker, cut, detector)
        observed[f"{dataset.title}, half covered"] = observe(dataset, landmarker, cut, detector, half_covered=True)
    false = {}
    if negatives.is_dir():
        for threshold in (detector.det_thresh, *FALSE_THRESHOLDS):
            false[f"detector at {threshold:g}"] = false_faces(landmarker, detector, negatives, threshold)
    return Report(observed, false)
