"""The figures that say how near a file comes to PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facelm_export.report.parity import TOLERANCES, check, compare
from facelm_export.report.samples import Samples
from facelm_sdk.contract import DetectorSpec, LandmarkSpec
from facelm_sdk.errors import ParityError
from facelm_sdk.transform import CropRecipe

PICTURES = Samples([np.zeros((1, 8, 8, 3), np.uint8)] * 3)


class Detections:
    """A detector of two faces, their order, place and scores as given."""

    def __init__(self, order=(0, 1), shift=0.0, scores=(0.9, 0.8), threshold=0.5):
        boxes = np.array([[10, 10, 60, 70], [100, 100, 180, 190]], np.float32)[list(order)] + np.float32(shift)
        kps = np.zeros((2, 5, 2), np.float32) + boxes[:, None, :2]
        self.outputs = [boxes, np.array(scores, np.float32)[list(order)], kps]
        self.spec = DetectorSpec(name="faces", det_thresh=threshold)

    def __call__(self, image):
        return [torch.from_numpy(part) for part in self.outputs]

    def run(self, feeds):
        return self.outputs


def test_detections_are_compared_face_by_face():
    swapped = compare(Detections(), Detections(order=(1, 0)), PICTURES)
    assert (swapped.pop("faces"), set(swapped.values())) == (6, {0})
    moved = compare(Detections(), Detections(shift=0.25), PICTURES)
    assert moved["max_px"] == moved["mean_px"] == 0.25
    assert moved["p99_percent"] == pytest.approx(100 * 0.25 / 60, abs=1e-3)  # of the smaller face's longer side
    across = compare(Detections(), Detections(scores=(0.9, 0.79), threshold=0.795), PICTURES)
    assert (across["faces"], across["unmatched"]) == (4, 0), "a score on the other side of the threshold"
    other = compare(Detections(), Detections(scores=(0.9, 0.6)), PICTURES)
    assert other["unmatched"] == 6
    elsewhere = compare(Detections(), Detections(shift=300), PICTURES)
    assert elsewhere["unmatched"] == 12 and elsewhere["faces"] == 0


class Points:
    """A landmark model that gives ``points`` moved by ``shift`` (x, y) for every crop."""

    def __init__(self, points, shift=(0.0, 0.0)):
        self.points = points + np.asarray(shift, np.float32)
        self.spec = LandmarkSpec(name="points", markup="ibug68", num_landmarks=68, crop=CropRecipe(8, "box"))

    def __call__(self, crops):
        return torch.from_numpy(np.repeat(self.points[None], len(crops), 0))

    def run(self, feeds):
        return [np.repeat(self.points[None], len(feeds["crops"]), 0)]


@pytest.fixture
def points():
    values = np.random.default_rng(0).uniform(0, 64, (68, 2)).astype(np.float32)
    values[36], values[45] = (10, 20), (50, 20)  # outer corners of the eyes, 40 pixels apart
    return values


def test_landmark_differences_in_pixels_and_percent(points):
    crops = np.zeros((20, 8, 8, 3), np.uint8)
    figures = compare(Points(points), Points(points, (0.3, 0.4)), Samples([crops]))
    assert figures["crops"] == 20 and figures["max_px"] == pytest.approx(0.5, abs=1e-4)
    assert figures["mean_percent"] == pytest.approx(100 * 0.5 / 40, abs=1e-3)
    assert "delta_nme_percent" not in figures


def test_labels_give_the_growth_of_the_nme(points):
    crops = np.zeros((2, 8, 8, 3), np.uint8)
    labels = np.repeat(points[None] - (1, 0), 2, 0)  # PyTorch is 1 px off, the file 1.5
    figures = compare(Points(points), Points(points, (0.5, 0)), Samples([crops], labels=labels))
    assert figures["nme_fp32_percent"] == pytest.approx(2.5, abs=1e-3)
    assert figures["nme_percent"] == pytest.approx(3.75, abs=1e-3)
    assert figures["delta_nme_percent"] == pytest.approx(50, abs=0.01)
    with pytest.raises(ParityError, match=r"delta_nme_percent 50\.\d+ \(allowed 1\.0\)"):
        check(figures, "int8", "points")


def test_nan_is_an_error(points):
    with pytest.raises(ParityError, match="NaN"):
        compare(Points(points), Points(points * np.nan), Samples([np.zeros((1, 8, 8, 3), np.uint8)]))


def test_every_precision_has_limits_in_figures_that_are_always_there(points):
    figures = compare(Points(points), Points(points), Samples([np.zeros((1, 8, 8, 3), np.uint8)]))
    for precision, limits in TOLERANCES.items():
        assert len(figures.keys() & limits.keys()) >= 2
        check(figures, precision, "points")
