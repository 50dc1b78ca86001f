"""What a detector's card says, on a detector that finds bright boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from facelm_sdk import Detector, Landmarker
from facelm_training import datasets, release_scores
from facelm_training.data import Frame
from facelm_training.datasets.base import build
from facelm_training.negatives import part_of

INSIDE = np.array([(0.31, 0.42), (0.69, 0.42), (0.50, 0.62), (0.35, 0.80), (0.65, 0.80)])
"""Where the detector sees the five points in a box."""


def marked(box):
    """68 points in a box, of which the five points are where the detector sees them."""
    low, size = np.array(box[:2]), np.subtract(box[2:], box[:2])
    points = low + np.random.default_rng(0).uniform(0.05, 0.95, (68, 2)) * size
    kps = low + INSIDE * size
    points[0], points[16] = low, low + size
    points[36:42], points[42:48], points[30], points[48], points[54] = kps
    return points


@pytest.fixture
def detector(detector_model):
    return Detector(detector_model(), det_size=320)


@pytest.fixture
def faces(scene, tmp_path):
    """Two landmark samples: a face that is bright, and one that is not to be seen."""
    box = (120, 100, 200, 180)
    cv2.imwrite(str(tmp_path / "bright.png"), scene(320, 320, box))
    cv2.imwrite(str(tmp_path / "dark.png"), np.zeros((320, 320, 3), np.uint8))
    paths = [tmp_path / "bright.png", tmp_path / "dark.png"]
    samples = build("ibug68", ["a", "b"], paths, np.stack([marked(box)] * 2))
    return datasets.Dataset(datasets.READERS["300w"], "private", tuple(samples))


def frame(name, image, *boxes, scores=None):
    boxes = np.float32(boxes).reshape(-1, 4)
    scores = np.ones(len(boxes), np.float32) if scores is None else np.float32(scores)
    jpeg = cv2.imencode(".png", image)[1].tobytes()
    return Frame(name, jpeg, boxes, scores, np.zeros((len(boxes), 5, 2), np.float32))


def test_frames(detector, scene):
    one, two = (20, 20, 80, 90), (120, 20, 180, 90)
    frames = [
        frame("ytf_1", scene(320, 200, one, two), one),  # a false box
        frame("ytf_2", scene(320, 200, one, two), one, two, scores=[0.9, 0.5]),  # on a doubtful one
        frame("lfw_1", scene(320, 200), one),
        frame("bsds_1", scene(320, 200)),
    ]
    table = release_scores.frame_scores(detector, frames)
    assert table["ytf"] == {"faces": 2, "recall": 100.0, "precision": 66.67, "false boxes": 1}
    assert table["lfw"]["recall"] == 0 and table["all"]["faces"] == 3 and table["all"]["recall"] == 66.67
    assert table["scenes without a face"] == {"pictures": 1, "none found": 1, "percent": 100.0}


def test_thresholds(detector, scene):
    """Blue boxes score 0.9, green ones 0.8."""
    one, two = (20, 20, 80, 90), (120, 20, 180, 90)
    table = release_scores.by_threshold(
        detector, [frame("ytf_1", scene(320, 200, one, two), two)], [scene(320, 200, one)]
    )
    of_empty = "pictures without a face, a face seen"
    assert table["0.50"] == {"recall": 100.0, "precision": 50.0, of_empty: 100.0}
    assert table["0.85"] == {"recall": 0.0, "precision": 0.0, of_empty: 100.0}
    assert table["0.95"][of_empty] == 0


def test_pictures_without_a_face(detector, landmark_model, scene, tmp_path):
    """The landmarker's presence is the brightness of a crop's left half, as its made-up weights have it."""
    folder = tmp_path / "negatives"
    folder.mkdir()
    names = [
        name for name in (f"{kind}_{i}.png" for kind in ("dog", "x") for i in range(40)) if part_of(name) == "test"
    ]
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), scene(320, 200, *[(20, 20, 80, 90)] * (index % 2)))
    table = release_scores.without_faces(detector, Landmarker(landmark_model()), [folder])
    assert set(table) == {"dog", "object", "all"}
    assert table["all"] == {
        "pictures": len(names),
        "detector sees a face": len(names) // 2,
        "and presence lets it pass": len(names) // 2,  # of a model without presence
    }
    dropped = release_scores.without_faces(detector, Landmarker(landmark_model(has_presence=True)), [folder])
    assert dropped["all"]["detector sees a face"] == len(names) // 2


def test_found_faces_and_their_five_points(detector, faces):
    found, missing = release_scores.found_faces(detector, faces, "faces")
    assert found[:2] == (True, True) and found[2] < 3
    assert missing[:2] == (False, False) and np.isnan(missing[2])


def test_by_roll_only_what_is_upright_has_its_points_there(detector, faces):
    """The detector sees five points upright whichever way the picture is turned."""
    table = release_scores.by_roll(detector, faces)
    assert next(iter(table)) == "0 degrees" and len(table) == len(release_scores.ROLLS)
    assert table["0 degrees"]["found"] == 1 and table["0 degrees"]["five points off by, %"] < 3
    assert table["180 degrees"]["found"] == 0


def test_by_yaw_counts_every_face(detector, faces):
    assert sum(row["faces"] for row in release_scores.by_yaw(detector, [faces]).values()) == 2


def test_by_size(detector_model, scene, monkeypatch):
    monkeypatch.setattr(release_scores, "PER_SIZE", 6)
    detector = Detector(detector_model(smallest=14), det_size=640)
    frames = [frame("ytf_1", scene(200, 200, (60, 60, 140, 140)), (60, 60, 140, 140))]
    table = release_scores.by_size(detector, frames)
    assert table["8-12 px"]["recall"] == 0 and table["64-128 px"] == {"faces": 6, "recall": 100.0, "false boxes": 0}
