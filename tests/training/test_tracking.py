"""The measurement of the Tracker: what is painted, what counts as lost, false and missed, and what the page says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facelm_sdk import Face
from facelm_sdk import markup as markups
from tools.tracking import FRAMES, HEIGHT, KINDS, SIDE, WIDTH, Cast, Count, Layer, Place, Shown, paint, video

RESULTS = Path(__file__).resolve().parents[2] / "training" / "results"
EMPTY = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
POINTS = np.random.default_rng(0).uniform(80, 176, (68, 2))
FULL = np.ones((SIDE, SIDE), np.float32)


def layer(level: int, points=None) -> Layer:
    return Layer(np.full((SIDE, SIDE, 3), level, np.uint8), FULL, points)


def found(points, number=1) -> Face:
    points = points.astype(np.float32)
    return Face(
        bbox=np.concatenate([points.min(0), points.max(0)]),
        score=0.9,
        kps=markups.convert(points, "ibug68", "kps5").astype(np.float32),
        landmarks=points,
        scores=None,
        markup="ibug68",
        transform=None,
        track_id=number,
    )


def count(*frames) -> Count:
    result = Count()
    result.start()
    for faces, shown in frames:
        result.add(faces, shown)
    return result


def test_points_follow_the_picture():
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[60:69, 180:189] = 255
    face = Layer(picture, FULL, np.full((68, 2), (184.0, 64.0)))
    frame, (shown,) = paint(EMPTY, [Place(face, np.array([150.0, 110.0]), 200.0, 30.0)])
    y, x = np.argwhere(frame[..., 0] > 128).mean(0)
    np.testing.assert_allclose(shown.points[0], (x, y), atol=0.5)
    assert shown.seen == 1


def test_what_lies_before_a_face_or_outside_the_picture_is_not_seen():
    middle = np.array([160.0, 120.0])
    face = Place(layer(90, POINTS), middle, 150.0)
    frame, (shown,) = paint(EMPTY, [face, Place(layer(200), middle, 150.0)])
    assert shown.seen == 0 and frame[120, 160, 0] == 200
    _, (before,) = paint(EMPTY, [Place(layer(200), middle, 150.0), face])
    assert before.seen == 1
    _, (outside,) = paint(EMPTY, [Place(layer(90, POINTS), np.array([-100.0, 120.0]), 150.0)])
    assert outside.seen == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_video_shows_its_faces(kind):
    chance = np.random.default_rng(1).uniform(-1, 1, 20)
    cast = Cast([layer(90, POINTS), layer(150, POINTS)], layer(200), [EMPTY, EMPTY + 30], chance)
    frames = list(video(kind, cast))
    seen = [[face.seen for face in shown] for _, shown in frames]
    assert len(frames) == FRAMES and max(seen[0]) == 1
    lost = sum(not faces or min(faces) <= 0.2 for faces in seen)
    assert (lost > 5) == (kind in ("leave", "cover", "cut", "cross"))


def test_false_and_missed_faces_are_counted():
    there, gone, half = Shown(POINTS, 1.0), Shown(POINTS, 0.0), Shown(POINTS, 0.5)
    result = count(
        ([found(POINTS + 1)], [there]),
        ([], [there]),  # missed
        ([found(POINTS + 80)], [there]),  # false and missed
        ([found(POINTS)], [gone]),  # false
        ([], [gone]),
        ([found(POINTS)], [half]),  # in doubt: neither
        ([], [half]),
        ([found(POINTS), found(POINTS + 2, 2)], [there]),  # false: one face twice
    )
    assert (result.frames, result.in_view, result.missed, result.false, result.switches) == (8, 4, 2, 3, 0)
    eyes = np.linalg.norm(POINTS[36] - POINTS[45])
    assert result.errors == pytest.approx([2**0.5 / eyes, 0], abs=1e-6)
    assert result.figures()["false"] == pytest.approx(3 / 8)


def test_switches_of_numbers_are_counted():
    one, other = Shown(POINTS, 1.0), Shown(POINTS + 200, 1.0)
    hidden = Shown(POINTS, 0.1)
    both = ([found(POINTS, 1), found(POINTS + 200, 2)], [one, other])
    swapped = ([found(POINTS, 2), found(POINTS + 200, 1)], [one, other])
    assert count(both, both).switches == 0
    assert count(both, swapped).switches == 2
    assert count(([found(POINTS, 1)], [one]), ([found(POINTS, 2)], [one])).switches == 1
    new = ([found(POINTS, 2)], [one])
    assert count(([found(POINTS, 1)], [one]), ([], [hidden]), new).switches == 0  # found anew


def test_the_page_says_what_was_measured():
    record = json.loads((RESULTS / "tracking.json").read_text())
    page = (RESULTS / "README.md").read_text()
    for name, kinds in record.items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        every = kinds["all"]
        told = [float(cell) for cell in line.split("|")[2:-1]]
        percent = [round(100 * every[key], 1) for key in ("false", "missed")]
        assert told == [every["nme"], *percent, every["detections"], every["looks"], every["switches"]]
