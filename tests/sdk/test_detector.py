"""Detector: coordinates, passes and merging, on a detector that finds bright boxes."""

from __future__ import annotations

import numpy as np
import pytest

from facelm_sdk import Detector
from facelm_sdk import boxes as box_math
from facelm_sdk.detector import _resized
from facelm_sdk.errors import ImageError, InputError


@pytest.fixture(scope="module")
def model(detector_model):
    return detector_model()


@pytest.fixture
def looks(monkeypatch):
    """The shapes (height, width) the detector's session was shown."""
    shapes = []

    def watch(detector):
        run = detector.session.run
        monkeypatch.setattr(
            detector.session, "run", lambda feeds: shapes.append(feeds["image"].shape[1:3]) or run(feeds)
        )
        return shapes

    return watch


def edges(x1, y1, x2, y2):
    """The box of pixels [x1, x2) x [y1, y2), pixel centres at whole numbers."""
    return np.array([x1 - 0.5, y1 - 0.5, x2 - 0.5, y2 - 0.5])


@pytest.mark.parametrize("factor", [0.5, 1, 2])
def test_coordinates_survive_scaling(model, scene, factor):
    picture = scene(800, 600, (104, 200, 304, 400), (400, 100, 600, 300))
    found = Detector(model, det_size=int(800 * factor))(picture)
    np.testing.assert_allclose(found.boxes, [edges(104, 200, 304, 400), edges(400, 100, 600, 300)], atol=0.51 / factor)
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    assert found.kps.shape == (2, 5, 2)
    np.testing.assert_allclose(found.kps[0, 0], found.boxes[0, :2] + 200 * np.array([0.31, 0.42]), atol=1)
    assert found.boxes.dtype == found.scores.dtype == found.kps.dtype == np.float32


def test_no_shift_when_halves_meet_whole_pixels(model, scene):
    found = Detector(model, det_size=400)(scene(800, 600, (104, 200, 304, 400)))
    np.testing.assert_allclose(found.boxes[0], edges(104, 200, 304, 400), atol=1e-4)


def test_sides_are_rounded_one_by_one(model, scene):
    picture = scene(1003, 333, (900, 30, 1000, 300))
    found = Detector(model, det_size=500)(picture)
    np.testing.assert_allclose(found.boxes[0], edges(900, 30, 1000, 300), atol=1.5)


def test_frame_is_letterboxed(model, scene, looks):
    detector = Detector(model, det_size=(320, 320))
    shapes = looks(detector)
    found = detector(scene(640, 320, (100, 100, 200, 200)))
    assert shapes == [(320, 320)]
    np.testing.assert_allclose(found.boxes[0], edges(100, 100, 200, 200), atol=1e-4)


@pytest.mark.parametrize(
    ("size", "shown", "thinned"),
    [((2560, 1920), (2560, 1920), True), ((2563, 1923), (2560, 1920), True), ((2556, 1920), (2556, 1920), False)],
)
def test_a_picture_far_larger_than_the_pass_is_thinned(size, shown, thinned):
    """Of 4 by 4 pixels the inner 2 by 2 count alone; of a picture less than 8 times as large all do."""
    picture = np.full((size[1], size[0], 3), 255, np.uint8)
    rows, columns = ((np.arange(side) % 4 % 3 != 0) for side in size[::-1])
    picture[np.ix_(rows, columns)] = 0
    resized, found = _resized(picture, (320, 240))
    assert resized.shape == (240, 320, 3) and found == shown
    assert (resized.max() == 0) == thinned


def test_a_box_of_a_thinned_picture(model, scene):
    found = Detector(model, det_size=320)(scene(4003, 3001, (800, 1000, 2400, 2600)))
    np.testing.assert_allclose(found.boxes[0], edges(800, 1000, 2400, 2600), atol=7)


def test_threshold_and_order(model, scene):
    picture = scene(640, 640, (10, 10, 100, 100), (200, 200, 300, 300), (400, 400, 500, 500))
    assert Detector(model)(picture).scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert len(Detector(model, det_thresh=0.75)(picture)) == 2
    assert len(Detector(model, det_thresh=0.95)(picture)) == 0


def test_colour_order(model, scene):
    picture = scene(640, 640, (10, 10, 100, 100))
    assert Detector(model)(picture).scores[0] == pytest.approx(0.9)
    assert Detector(model)(picture, color="rgb").scores[0] == pytest.approx(0.7)


@pytest.mark.parametrize(
    "faces",
    [[(300, 300, 700, 700)], [(300, 300, 500, 500)], [(300, 300, 700, 700), (800, 300, 1200, 700)], []],
    ids=["large", "medium", "two", "none"],
)
def test_one_pass_where_nothing_small_is_seen(model, scene, looks, faces):
    detector = Detector(model)
    shapes = looks(detector)
    found = detector(scene(1280, 960, *faces))
    assert shapes == [(240, 320)]
    np.testing.assert_allclose(found.boxes, [edges(*face) for face in faces] or np.zeros((0, 4)), atol=2)


def test_auto_finds_small_faces(detector_model, scene, looks):
    """7 and 14 pixels are too few for this detector to be sure, 28 are not."""
    detector = Detector(detector_model(smallest=20, doubt=0.3))
    shapes = looks(detector)
    picture = scene(1920, 1280, (500, 500, 542, 542))
    found = detector(picture)
    np.testing.assert_allclose(found.boxes[0], edges(500, 500, 542, 542), atol=1.5)
    assert shapes == [(213, 320), (427, 640), (853, 1280)]


def test_auto_finds_small_faces_beside_larger_ones(detector_model, scene):
    """The larger one has 28 pixels in the first pass and 56 in the second, where the other, of 14, is in doubt."""
    detector = Detector(detector_model(smallest=20, doubt=0.3))
    picture = scene(1920, 1280, (100, 100, 268, 268), (500, 500, 542, 542))
    assert len(detector(picture)) == 2


@pytest.mark.parametrize(("doubt", "found"), [(0.3, 2), (0.2, 1)], ids=["0.24", "0.16"])
def test_a_small_face_in_doubt_asks_for_a_closer_look(detector_model, scene, doubt, found):
    """The larger one has 50 pixels in the first pass; the smaller one, green, scores 0.8 times ``doubt`` there."""
    detector = Detector(detector_model(smallest=20, doubt=doubt))
    assert len(detector(scene(1920, 1280, (100, 100, 400, 400), (500, 500, 542, 542)))) == found


def test_a_closer_look_does_not_count_large_faces_twice(model, scene, looks):
    """The small face asks for a closer look, which sees the large one, too."""
    detector = Detector(model)
    shapes = looks(detector)
    found = detector(scene(1280, 960, (100, 100, 700, 800), (1000, 500, 1100, 600)))
    assert shapes == [(240, 320), (480, 640)]
    assert len(found) == 2


def test_auto_finds_a_face_that_fills_the_frame(detector_model, scene, looks):
    """300 pixels are too many for this detector to be sure."""
    detector = Detector(detector_model(largest=300, doubt=0.3))
    shapes = looks(detector)
    picture = scene(600, 600, (2, 2, 598, 598))
    found = detector(picture)
    np.testing.assert_allclose(found.boxes, [edges(2, 2, 598, 598)], atol=2)
    assert shapes[0] == shapes[-1] == (320, 320) and len(shapes) > 1


def test_passes_do_not_count_a_face_twice(model, scene):
    assert len(Detector(model)(scene(600, 600, (0, 0, 600, 600)))) == 1
    assert len(Detector(model)(scene(1920, 1280, (500, 500, 560, 560)))) == 1


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (30000, 1000), (30000, 1), (3, 9000), (90, 60), (8000, 6000)], ids=str
)
def test_auto_scales_stay_in_bounds(model, looks, width, height):
    detector = Detector(model)
    shapes = looks(detector)
    assert len(detector(np.zeros((height, width, 3), np.uint8))) == 0
    for rows, columns in shapes:
        assert rows * columns <= 4_100_000
        assert min(rows, columns) >= 64
        assert columns <= max(64, 2 * width + 1) and rows <= max(64, 2 * height + 1)


def test_panorama(model, scene):
    picture = scene(30000, 1000, (29000, 100, 29600, 800))
    np.testing.assert_allclose(Detector(model)(picture).boxes[0], edges(29000, 100, 29600, 800), atol=8)


@pytest.mark.parametrize("det_size", [0, 10, "big", (640,), (640, 1), 640.0, True, None])
def test_bad_det_size(model, det_size):
    with pytest.raises(InputError, match="det_size"):
        Detector(model, det_size=det_size)


def test_bad_threshold_and_picture(model):
    with pytest.raises(InputError, match="det_thresh"):
        Detector(model, det_thresh=1.5)
    with pytest.raises(ImageError):
        Detector(model)(np.zeros((0, 0, 3), np.uint8))


def test_merge_by_hand():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [2, 2, 5, 5], [8, 8, 18, 18], [50, 50, 60, 60]], np.float32)
    scores = np.array([0.6, 0.9, 0.5, 0.4, 0.95], np.float32)
    assert box_math.merge(boxes, scores, max_iou=0.4, max_contained=0.8) == [4, 1, 3]
    assert box_math.merge(boxes[:0], scores[:0], max_iou=0.4, max_contained=0.8) == []
    np.testing.assert_allclose(box_math.iou(boxes[0], boxes[[0, 1, 4]]), [1, 90 / 110, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("det_size", "sides", "coarsest"),
    [
        ("auto", (5120, 3000), 4.0),
        ("auto", (10240, 1280), 2.0),  # the short side is seen at 640
        ("auto", (640, 480), 0.5),
        (320, (480, 640), 2.0),
        ((320, 200), (640, 480), 2.0),
    ],
)
def test_how_small_a_picture_suffices(detector_model, det_size, sides, coarsest):
    assert Detector(detector_model(), det_size=det_size).coarsest(*sides) == coarsest


@pytest.mark.parametrize("value", ["x", [0.5], float("nan"), -0.1, 1.1, 10**400, True])
def test_thresholds_that_are_no_scores(detector_model, value):
    with pytest.raises(InputError, match="det_thresh is a score from 0 to 1, not"):
        Detector(detector_model(), det_thresh=value)


@pytest.mark.parametrize("value", [100_000, 4097, 63, 320.5, (320, 100_000), (320,), (True, 320), np.zeros(2)])
def test_sizes_that_are_none(detector_model, value):
    with pytest.raises(InputError, match="64 to 4096 pixels"):
        Detector(detector_model(), det_size=value)
