"""Tracker: what it follows, when it asks the detector, and when it lets go. Smoothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm_sdk import Aligner, CropRecipe, Smoothing, Tracker, zoo
from facelm_sdk import markup as markups
from facelm_sdk.aligner import MEAN_KPS
from facelm_sdk.contract import DetectorSpec
from facelm_sdk.errors import ImageError, InputError
from facelm_sdk.video.one_euro import OneEuro
from facelm_sdk.video.tracker import LOOK_SIZE, REMEMBERED_FRAMES

PICTURES = Path(__file__).resolve().parents[3] / "examples" / "pictures"
BLACK = np.zeros((480, 640, 3), np.uint8)


def extent(channel):
    """The box of one channel's light, to a fraction of a pixel; None where it is dark."""
    if channel.max() < 100:
        return None
    low, high = [], []
    for profile in (channel.max(axis=0) / 255, channel.max(axis=1) / 255):
        centre, side = (profile * np.arange(len(profile))).sum() / profile.sum(), profile.sum()
        low.append(centre - side / 2)
        high.append(centre + side / 2)
    return np.array([*low, *high])


def points_in(box):
    """68 points whose five points lie at their mean place in a box."""
    fractions = np.random.default_rng(0).uniform(0.1, 0.9, (68, 2))
    for place, indices in zip(MEAN_KPS, (range(36, 42), range(42, 48), [30], [48], [54]), strict=True):
        fractions[list(indices)] = place
    return box[:2] + fractions * (box[2:] - box[:2])


class DetectorStub:
    """Finds a face for the light of each colour channel; keeps the sides of the pictures it was shown."""

    providers = ()
    spec = DetectorSpec(name="stub", det_thresh=0.5)

    def __init__(self):
        self.shown = []

    def run(self, feeds):
        picture = feeds["image"][0]
        self.shown.append(max(picture.shape))
        found = [box for box in map(extent, np.moveaxis(picture, 2, 0)) if box is not None]
        boxes = np.array(found, np.float32).reshape(-1, 4)
        kps = np.array([box[:2] + MEAN_KPS * (box[2:] - box[:2]) for box in found], np.float32).reshape(-1, 5, 2)
        return [boxes, np.linspace(0.9, 0.7, 3, dtype=np.float32)[: len(found)], kps]

    @property
    def looks(self):
        """How often it was asked about one face."""
        return self.shown.count(LOOK_SIZE)

    @property
    def detections(self):
        return len(self.shown) - self.looks


class LandmarksStub:
    """Points in the light that fills the middle of a crop; a mean face, as networks give, where there is none."""

    providers = ()

    def __init__(self, spec):
        self.spec = spec
        self.batches = []

    def run(self, feeds):
        self.batches.append(len(feeds["crops"]))
        points = np.array([self.points(crop) for crop in feeds["crops"]], np.float32)
        levels = np.array([crop.max() / 255 for crop in feeds["crops"]], np.float32)
        return [points, levels] if self.spec.has_presence else [points]

    def points(self, crop):
        size = len(crop)
        middle = crop[size // 4 : -size // 4, size // 4 : -size // 4].reshape(-1, 3).mean(axis=0)
        light = crop[..., int(middle.argmax())] / 255.0
        if light.max() < 0.4:
            return points_in(np.array([0.1, 0.1, 0.9, 0.9]) * size)
        y, x = (np.indices(light.shape) * light).sum(axis=(1, 2)) / light.sum()
        half = np.sqrt(light.sum()) / 2  # of a square, however the crop is turned
        return points_in(np.array([x - half, y - half, x + half, y + half]))


@pytest.fixture
def world(landmark_spec):
    """Builds a Tracker on stubs, and returns it with them."""

    def build(crop=None, presence=False, min_presence=None, **options):
        detector, landmarks = DetectorStub(), LandmarksStub(landmark_spec(128, crop=crop, has_presence=presence))
        aligner = Aligner(landmarks, detector, det_size=320, min_presence=min_presence)
        return Tracker(aligner, **options), detector, landmarks

    return build


def scene_of(*faces, side=100):
    """Faces at (x, y), one a colour channel, in 640x480."""
    picture = BLACK.copy()
    for channel, (x, y) in enumerate(faces):
        shift = np.array([[1, 0, x], [0, 1, y]], np.float64)
        light = cv2.warpAffine(np.full((side, side), 255, np.uint8), shift, (640, 480))
        picture[..., channel] = light
    return picture


def test_the_detector_runs_once_for_a_face_that_moves(world):
    tracker, detector, landmarks = world(presence=True, max_faces=1)
    for step in range(25):
        x, y = 100 + 6 * step, 200 - 3.5 * step
        (face,) = tracker(scene_of((x, y)))
        assert face.track_id == 1 and face.score == pytest.approx(0.9)
        np.testing.assert_allclose(face.bbox, [x, y, x + 100, y + 100], atol=4)
        centre = points_in(np.array([x, y, x + 100, y + 100])).mean(axis=0)
        np.testing.assert_allclose(face.landmarks.mean(axis=0), centre, atol=2)
        np.testing.assert_allclose(face.kps, face.to("kps5"))
    assert detector.detections == 1 and detector.looks == 0
    assert landmarks.batches == [1] * 25
    assert face.to_dict()["track_id"] == 1 and "track_id=1" in repr(face)


@pytest.mark.parametrize("options", [{}, {"presence": True, "min_presence": 0}])
def test_the_detector_confirms_a_face_where_the_landmark_model_does_not(world, options):
    tracker, detector, _ = world(max_faces=1, **options)
    for _ in range(20):
        assert len(tracker(scene_of((200, 200)))) == 1
    assert (detector.detections, detector.looks) == (1, 19)
    assert tracker(BLACK) == [] and detector.looks == 20


def test_landmarks_that_are_not_where_the_detector_has_them_are_lost(world, monkeypatch):
    tracker, detector, landmarks = world(max_faces=1)
    frame = scene_of((200, 200))
    tracker(frame)
    points = landmarks.points
    monkeypatch.setattr(landmarks, "points", lambda crop: points(crop) + 0.2 * len(crop))
    assert len(tracker(frame)) == 1 and detector.looks == 1 and detector.detections == 2  # found anew


def test_what_the_landmark_model_takes_for_no_face_is_lost_until_it_is_one(world):
    tracker, _, _ = world(presence=True, max_faces=1)
    bright = scene_of((200, 200))
    dim = (bright * 0.45).astype(np.uint8)  # which the detector still takes for the same
    assert [[face.track_id for face in tracker(frame)] for frame in (bright, dim, dim, bright)] == [[1], [], [], [1]]
    plain, _, _ = world(max_faces=1)
    assert [len(plain(frame)) for frame in (bright, dim, dim, bright)] == [1, 1, 1, 1]


def test_the_next_face_is_followed_in_the_place_of_what_is_none(world):
    tracker, _, _ = world(presence=True, max_faces=1)
    frame = scene_of((60, 200), (400, 200))
    frame[..., 0] = frame[..., 0] * 0.45
    (face,) = tracker(frame)
    assert face.score == pytest.approx(0.8) and face.presence == 1


def test_a_face_that_moves_far_is_cropped_again(world):
    tracker, _, landmarks = world(max_faces=1)
    tracker(scene_of((200, 200)))
    (face,) = tracker(scene_of((220, 215)))
    assert landmarks.batches == [1, 1, 1]
    np.testing.assert_allclose(face.landmarks, points_in(np.array([220, 215, 320, 315])), atol=2)


@pytest.mark.parametrize("presence", [False, True])
def test_a_cut_to_no_face_is_seen_in_its_first_frame(world, presence):
    tracker, detector, _ = world(presence=presence, max_faces=1)
    tracker(scene_of((200, 200)))
    before = detector.detections
    assert tracker(BLACK) == []  # though the landmark network gives a mean face
    assert detector.looks == (not presence) and detector.detections == before + 1
    assert tracker(BLACK) == []
    assert detector.detections == before + 2  # looked for in every frame


@pytest.mark.parametrize("presence", [False, True])
def test_a_cut_to_another_place_is_another_face(world, presence):
    tracker, _, _ = world(presence=presence)
    tracker(scene_of((50, 50)))
    (face,) = tracker(scene_of((450, 300)))
    assert face.track_id == 2
    np.testing.assert_allclose(face.bbox, [450, 300, 550, 400], atol=4)


@pytest.mark.parametrize("presence", [False, True])
@pytest.mark.parametrize(("frames", "number"), [(5, 1), (REMEMBERED_FRAMES + 1, 2)])
def test_a_face_that_was_hidden_keeps_its_number_for_a_while(world, frames, number, presence):
    tracker, _, _ = world(presence=presence, smoothing=True)
    tracker(scene_of((200, 200)))
    for _ in range(frames):
        assert tracker(BLACK) == []
    (face,) = tracker(scene_of((210, 205)))
    assert face.track_id == number
    np.testing.assert_allclose(face.landmarks, points_in(np.array([210, 205, 310, 305])), atol=3)  # not smoothed over


def test_a_face_that_leaves_the_picture_is_lost(world):
    tracker, _, _ = world(max_faces=1)
    counts = [len(tracker(scene_of((560 + 8 * step, 200)))) for step in range(11)]
    assert counts[0] == 1 and counts[-1] == 0


def test_faces_that_come_later_are_found(world):
    tracker, detector, landmarks = world(redetect_every=5)
    for _ in range(2):
        tracker(scene_of((100, 100)))
    numbers = [[face.track_id for face in tracker(scene_of((100, 100), (400, 300)))] for _ in range(5)]
    assert numbers == [[1]] * 3 + [[1, 2]] * 2
    assert detector.detections == 2
    assert landmarks.batches[-1] == 2  # one batch for all faces


def test_no_more_than_max_faces(world):
    tracker, detector, _ = world(max_faces=1, redetect_every=2)
    for _ in range(8):
        assert [face.track_id for face in tracker(scene_of((100, 100), (400, 300)))] == [1]
    assert detector.detections == 1
    never, detector, _ = world(redetect_every=None)
    for _ in range(8):
        assert len(never(scene_of((100, 100)))) == 1
    assert detector.detections == 1


def test_the_face_that_is_lost_is_looked_for_beside_the_other(world):
    tracker, detector, _ = world(redetect_every=None)
    both = tracker(scene_of((100, 100), (400, 300)))
    assert [face.track_id for face in both] == [1, 2]
    (left,) = tracker(scene_of((700, 700), (400, 300)))
    assert left.track_id == 2 and detector.detections == 2


@pytest.mark.parametrize("presence", [False, True])
def test_two_tracks_of_one_face_become_one(world, presence):
    tracker, _, _ = world(presence=presence)
    tracker(scene_of((100, 100), (215, 100)))
    other = tracker._tracks[1]
    other.kps, other.bbox = tracker._tracks[0].kps + 2, tracker._tracks[0].bbox + 2
    assert [face.track_id for face in tracker(scene_of((100, 100)))] == [1]


def test_frames_of_another_size_start_anew(world):
    tracker, detector, _ = world(max_faces=1)
    frame = scene_of((100, 100))
    tracker(frame)
    (face,) = tracker(frame[:400, :500])
    assert face.track_id == 2 and detector.detections == 2
    tracker.reset()
    assert tracker(frame[:400, :500])[0].track_id == 3


def test_models_that_crop_by_a_box(world):
    tracker, detector, _ = world(crop=CropRecipe(128, kind="box", scale=1.4), max_faces=1)
    for step in range(10):
        x, y = 100 + 5 * step, 100 + 4 * step
        (face,) = tracker(scene_of((x, y)))
        np.testing.assert_allclose(face.landmarks, points_in(np.array([x, y, x + 100, y + 100])), atol=3)
    assert detector.detections == 1


def test_the_same_frames_give_the_same_faces(world):
    frames = [scene_of((100 + 7 * step, 100), (400, 300 - 9 * step)) for step in range(12)]
    one, other = ([tracker(frame) for frame in frames] for tracker in (world()[0], world()[0]))
    for faces, again in zip(one, other, strict=True):
        assert [face.to_dict() for face in faces] == [face.to_dict() for face in again]


def test_options_and_frames_that_are_not_accepted(world, landmark_spec):
    landmarks = LandmarksStub(landmark_spec(128))
    aligner = Aligner(landmarks, DetectorStub(), max_faces=3)
    assert Tracker(aligner).max_faces == 3 and Tracker(aligner, max_faces=1).max_faces == 1
    with pytest.raises(InputError, match="det_size: give options to the Aligner"):
        Tracker(aligner, det_size=320)
    with pytest.raises(InputError, match="with a detector"):
        Tracker(Aligner(landmarks, None))
    with pytest.raises(InputError, match="max_faces"):
        Tracker(aligner, max_faces=0)
    with pytest.raises(InputError, match="redetect_every"):
        Tracker(aligner, redetect_every=0)
    with pytest.raises(ImageError):
        Tracker(aligner)(None)


@pytest.mark.parametrize("values", [{"min_cutoff": 0}, {"fps": -1}, {"beta": -1}, {"speed_cutoff": float("nan")}])
def test_smoothing_that_is_not_accepted(values):
    with pytest.raises(InputError, match=next(iter(values))):
        Smoothing(**values)


def test_smoothing_steadies_points_at_rest_and_keeps_up_with_those_that_move():
    rng = np.random.default_rng(0)
    still = rng.normal(100, 0.1, (200, 68, 2)).astype(np.float32)  # a thousandth of a face of 100 pixels
    smooth = OneEuro(Smoothing())
    steady = np.array([smooth(points, 100) for points in still])
    np.testing.assert_array_equal(steady[0], still[0])
    assert steady.dtype == np.float32
    assert np.diff(steady[20:], axis=0).std() < 0.5 * np.diff(still[20:], axis=0).std()

    moving = np.arange(90, dtype=np.float32)[:, None, None] * 3 + np.zeros(
        (90, 68, 2), np.float32
    )  # 0.9 faces a second
    follow = OneEuro(Smoothing())
    lag = moving - np.array([follow(points, 100) for points in moving])
    assert lag[30:].max() < 3  # less than a frame
    follow.reset()
    np.testing.assert_array_equal(follow(still[0], 100), still[0])


def test_smoothed_faces_agree_with_themselves(world):
    tracker, _, _ = world(smoothing=Smoothing(beta=0.5))
    plain, _, _ = world()
    for step in range(8):
        frame = scene_of((100 + 2 * step, 100))
        (face,), (raw,) = tracker(frame), plain(frame)
        np.testing.assert_allclose(face.kps, face.to("kps5"), atol=1e-3)
    assert face.landmarks[:, 0].mean() < raw.landmarks[:, 0].mean() - 0.5  # it lags, and the crop does not
    np.testing.assert_allclose(face.bbox, raw.bbox)


@pytest.mark.parametrize("landmarks", [zoo.LANDMARKS, "lotr_m"])  # the latter has no presence
def test_embedded_models_follow_a_real_face(landmarks):
    picture = cv2.imread(str(PICTURES / "collins.jpg"))
    aligner = Aligner(landmarks, max_faces=1)
    tracker = Tracker(aligner)
    eyes = list(markups.get("ibug68").outer_eye_corners)
    for step in range(12):
        matrix = cv2.getRotationMatrix2D((220.0, 110.0), 2.0 * step, 1.0 + 0.02 * step)
        matrix[:, 2] += 5 * step
        frame = cv2.warpAffine(picture, matrix, (640, 480))
        (face,), (still,) = tracker(frame), aligner(frame)
        offset = np.linalg.norm(face.landmarks - still.landmarks, axis=1).mean()
        assert offset < 0.05 * np.linalg.norm(still.landmarks[eyes[0]] - still.landmarks[eyes[1]])
        assert face.track_id == 1
    noise = np.random.default_rng(0).integers(0, 255, frame.shape).astype(np.uint8)
    assert tracker(cv2.GaussianBlur(noise, (0, 0), 5)) == []
    assert tracker(frame)[0].track_id == 1
