"""Aligner: the whole way, with given boxes and points, in batches, and with bad input. Face with it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm_sdk import Aligner, Detector, Landmarker
from facelm_sdk.aligner import MIN_PRESENCE
from facelm_sdk.boxes import landmarks_box
from facelm_sdk.errors import ImageError, InputError, MarkupError
from facelm_sdk.expression import eye_openness, mouth_openness
from facelm_sdk.pose import head_pose
from facelm_sdk.transform import ARCFACE_112, CropRecipe

PICTURES = Path(__file__).resolve().parents[2] / "examples" / "pictures"


@pytest.fixture(scope="module")
def aligner(landmark_model, detector_model):
    return Aligner(landmark_model(has_scores=True), detector_model(), realign=False)  # its points are of no face


@pytest.fixture
def picture(scene):
    return scene(800, 600, (100, 100, 300, 320), (400, 200, 560, 380))


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for name in ("bbox", "kps", "landmarks"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-3)
        assert a.score == b.score and a.markup == b.markup


def test_detected_faces(aligner, picture, template):
    faces = aligner(picture)
    assert [face.score for face in faces] == pytest.approx([0.9, 0.8])
    for face in faces:
        assert face.landmarks.shape == (68, 2) and face.scores.shape == (68,)
        assert face.bbox.dtype == face.kps.dtype == face.landmarks.dtype == np.float32
        crop = face.transform.warp(picture)
        left = crop[:, :16].astype(float).mean() / 255
        expected = face.transform.invert(template(68, 32) + left * np.array([8.0, 4.0]))
        np.testing.assert_allclose(face.landmarks, expected, atol=0.02)


class Moved(Detector):
    """Gives its five points moved and turned about their middle."""

    def __call__(self, image, *, color="bgr"):
        found = super().__call__(image, color=color)
        middle = found.kps.mean(1, keepdims=True)
        turned = (found.kps - middle) @ np.float32([[0.9, 0.44], [-0.44, 0.9]]) + middle + np.float32([6, -4])
        return replace(found, kps=turned)


def test_a_face_whose_five_points_were_off_is_aligned_again():
    """By those of its landmarks; points that the caller gives are the caller's."""
    picture = cv2.imread(str(PICTURES / "collins.jpg"))
    (right,) = Aligner(threads=1)(picture)
    (again,) = Aligner(detector=Moved(threads=1))(picture)
    once = Aligner(detector=Moved(threads=1), realign=False)
    (off,) = once(picture)
    eyes = np.linalg.norm(right.landmarks[36] - right.landmarks[45])
    errors = [np.linalg.norm(face.landmarks - right.landmarks, axis=1).mean() / eyes for face in (again, off)]
    assert errors[0] < 0.015 and errors[0] < 0.8 * errors[1]
    assert np.linalg.norm(again.kps - right.kps, axis=1).mean() < 0.1 * eyes
    (given,) = Aligner(detector=None)(picture, kps=off.kps)
    np.testing.assert_allclose(given.landmarks, off.landmarks, atol=1e-3)
    with pytest.raises(InputError, match="realign is True or False, not 1"):
        Aligner(realign=1)


def test_no_face(aligner):
    assert aligner(np.zeros((100, 100, 3), np.uint8)) == []
    assert aligner(np.zeros((1, 1), np.uint8)) == []


def test_every_form_of_picture(aligner, picture, tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture)
    expected = aligner(picture)
    same(aligner(path), expected)
    same(aligner(path.read_bytes()), expected)
    same(aligner(picture[..., ::-1], color="rgb"), expected)
    same(aligner(picture.astype(np.float32) / 255), expected)


def test_batch_equals_single_calls(landmark_model, detector_model, scene, picture):
    pictures = [picture, np.zeros((50, 50, 3), np.uint8), scene(640, 480, (20, 30, 90, 100)), picture[:, ::-1]]
    model, detector = landmark_model(has_scores=True), Detector(detector_model())
    single = Aligner(model, detector, realign=False)
    expected = [single(one) for one in pictures]
    for max_batch in (1, 2, 64):
        for flip in (None, True):
            aligner = Aligner(Landmarker(model, max_batch=max_batch, flip=flip), detector, realign=False)
            many = aligner.batch(iter(pictures))
            assert [len(faces) for faces in many] == [2, 0, 1, 2]
            for faces, one, alone in zip(many, pictures, expected, strict=True):
                same(faces, alone if flip is None else aligner(one))
    assert single.batch([]) == []


@pytest.mark.parametrize("workers", [1, 2, 5, None])
def test_a_bad_picture_in_a_batch(aligner, picture, workers):
    images = [picture, "missing.jpg", picture, b"rubbish", np.zeros((9, 9), np.complex64), picture]
    found = aligner.batch(iter(images), errors="skip", workers=workers)
    assert [isinstance(faces, list) for faces in found] == [True, False, True, False, False, True]
    assert [len(faces) for faces in found if isinstance(faces, list)] == [2, 2, 2]
    assert all(isinstance(found[index], ImageError) for index in (1, 3, 4))
    assert "missing.jpg" in str(found[1])
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        aligner.batch(images, workers=workers)
    found = aligner.batch([picture, picture], boxes=[[0, 0, 0, 0], None], errors="skip", workers=workers)
    assert isinstance(found[0], InputError) and len(found[1]) == 2


def test_a_batch_is_read_no_further_than_it_must(aligner, picture):
    taken = []

    def images():
        for index in range(100):
            taken.append(index)
            yield picture if index != 3 else "missing.jpg"

    with pytest.raises(ImageError):
        aligner.batch(images(), workers=2)
    assert len(taken) <= 8
    with pytest.raises(ZeroDivisionError):
        aligner.batch((1 / 0 for _ in range(3)), errors="skip", workers=2)


@pytest.mark.parametrize(
    "options", [{"errors": "ignore"}, *({"workers": value} for value in (0, -1, 1.5, "2", True, 999))]
)
def test_options_of_a_batch(aligner, options):
    with pytest.raises(InputError, match=next(iter(options))):
        aligner.batch([], **options)


def test_batch_with_boxes_and_points(aligner, picture):
    kps = [face.kps for face in aligner(picture)]
    many = aligner.batch([picture, picture, picture], kps=[kps, None, kps[0]])
    assert [len(faces) for faces in many] == [2, 2, 1]
    assert many[0][0].score is None and many[1][0].score is not None
    with pytest.raises(InputError, match="end before picture 2"):
        aligner.batch([picture, picture], kps=[kps])
    with pytest.raises(InputError, match="more entries than the 1 pictures"):
        aligner.batch([picture], boxes=[None, None])


def test_max_faces(landmark_model, detector_model, picture):
    faces = Aligner(landmark_model(), detector_model(), max_faces=1)(picture)
    assert len(faces) == 1 and faces[0].score == pytest.approx(0.9)


def test_given_points_need_no_detector(aligner, picture, landmark_model):
    detected = aligner(picture)
    blind = Aligner(landmark_model(), None)
    faces = blind(picture, kps=[face.kps for face in detected])
    for face, known in zip(faces, detected, strict=True):
        np.testing.assert_allclose(face.landmarks, known.landmarks, atol=1e-3)
        np.testing.assert_allclose(face.bbox, [*face.landmarks.min(0), *face.landmarks.max(0)])
        assert face.score is None
    (face,) = blind(picture, kps=detected[0].kps, boxes=[1, 2, 30, 40])
    assert face.bbox.tolist() == [1, 2, 30, 40]


def test_given_boxes_are_looked_into(aligner, picture):
    detected = aligner(picture)
    boxes = [[405, 205, 565, 375], [98, 98, 305, 330]]  # not the order of scores
    faces = aligner(picture, boxes=boxes)
    assert [face.bbox.tolist() for face in faces] == boxes
    for face, known in zip(faces, detected[::-1], strict=True):
        np.testing.assert_allclose(face.kps, known.kps, atol=2)
        assert face.score is None


def test_given_box_without_a_face_takes_the_mean_place(aligner, picture, caplog):
    with caplog.at_level(logging.WARNING):
        (face,) = aligner(picture, boxes=[600, 400, 700, 500])
    np.testing.assert_allclose(face.kps[0], [631, 442], atol=0.01)
    assert "mean place" in caplog.text


def test_box_models(landmark_model, picture):
    aligner = Aligner(landmark_model(crop=CropRecipe(32, "box", scale=1.25)), None)
    (face,) = aligner(picture, boxes=(100, 100, 300, 320))
    assert face.transform.scale == pytest.approx(32 / 275)
    assert face.kps.shape == (5, 2)
    kps = np.array([(0.31, 0.42), (0.69, 0.42), (0.50, 0.62), (0.35, 0.80), (0.65, 0.80)]) * 200 + 100
    (face,) = aligner(picture, kps=kps)
    np.testing.assert_allclose(face.transform.invert(np.array([15.5, 15.5])), [200, 200], atol=1e-3)
    assert face.transform.scale == pytest.approx(32 / 250)


def test_models_of_the_landmarks_box(aligner, landmark_model, picture):
    """Detections and five points are cut by the box made of the points, a box alone by the one its constants make."""
    recipe = CropRecipe(32, "box", scale=1.25, box="landmarks")
    own = Aligner(landmark_model(crop=recipe), aligner.detector)
    faces = own(picture)
    assert faces
    for face in faces:
        np.testing.assert_allclose(face.transform.matrix, recipe.transform(landmarks_box(face.kps)).matrix, rtol=1e-5)
        (again,) = own(picture, kps=face.kps)
        np.testing.assert_allclose(again.transform.matrix, face.transform.matrix, rtol=1e-5)
    (face,) = own(picture, boxes=(100, 100, 300, 320))
    expected = recipe.of_detection("ibug68", (100, 100, 300, 320))
    np.testing.assert_allclose(face.transform.matrix, expected.matrix, rtol=1e-5)


def test_nothing_given_and_no_detector(landmark_model, picture):
    with pytest.raises(InputError, match="give boxes or kps"):
        Aligner(landmark_model(), None)(picture)


def test_no_boxes_given(aligner, picture):
    assert aligner(picture, boxes=[]) == []
    assert aligner(picture, boxes=np.empty((0, 4)), kps=np.empty((0, 5, 2))) == []


good = [10, 10, 50, 50]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boxes": [good, [900, 10, 950, 60]]}, r"boxes\[1\].*outside the picture, which is 800 wide and 600 high"),
        ({"boxes": [-90, -90, -10, -10]}, r"boxes\[0\].*outside"),
        ({"boxes": [good, good, [20, 20, 20, 60]]}, r"boxes\[2\].*no area"),
        ({"boxes": [50, 50, 10, 10]}, r"boxes\[0\].*no area"),
        ({"boxes": [good, [np.nan, 0, 1, 1]]}, r"boxes\[1\].*not finite"),
        ({"boxes": [0, 0, np.inf, 5]}, r"boxes\[0\].*not finite"),
        ({"boxes": [[1, 2, 3]]}, r"shape \(k, 4\) or \(4\); got \(1, 3\)"),
        ({"boxes": "no"}, "not an array of numbers"),
        ({"boxes": [10**400] * 4}, "not an array of numbers"),
        ({"boxes": [0, 0, 1e39, 1e39]}, r"boxes\[0\].*not finite"),
        ({"boxes": [0, 0, 1e38, 1e38]}, r"boxes\[0\].*farther than 1,048,576 pixels"),
        ({"kps": np.full((5, 2), 2.0**25)}, r"kps\[0\].*farther than"),
        ({"kps": np.full((2, 5, 2), np.nan)}, r"kps\[0\].*not finite"),
        ({"kps": np.zeros((5, 3))}, r"shape \(k, 5, 2\)"),
        ({"kps": np.full((5, 2), 5000.0)}, r"kps\[0\].*outside"),
        ({"kps": np.full((1, 5, 2), 50.0)}, "face 0: the points coincide"),
        ({"kps": np.zeros((2, 5, 2)), "boxes": good}, "as many faces; got 1 and 2"),
    ],
)
def test_bad_boxes_and_points(aligner, picture, given, message):
    with pytest.raises(InputError, match=message):
        aligner(picture, **given)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("far", [1e4, 2.0**20])
def test_huge_boxes_are_cut_without_overflow(aligner, landmark_model, picture, far):
    box = [-far, -far, far, far]
    by_box = Aligner(landmark_model(crop=CropRecipe(32, "box")), aligner.detector)
    for one in (aligner, by_box):
        (face,) = one(picture, boxes=box)
        assert np.isfinite(face.landmarks).all() and face.bbox.tolist() == box


def test_bad_pictures_and_options(aligner, landmark_model, detector_model):
    with pytest.raises(ImageError):
        aligner("missing.jpg")
    with pytest.raises(InputError, match="color"):
        aligner(np.zeros((9, 9, 3), np.uint8), color="hsv")
    for value in (0, 1.5, "x", True):
        with pytest.raises(InputError, match="max_faces"):
            Aligner(landmark_model(), detector_model(), max_faces=value)
    with pytest.raises(InputError, match="flip is True, False or None"):
        Aligner(landmark_model(), detector_model(), flip="yes")
    with pytest.raises(InputError, match="many pictures, such as a list of paths, not of 'photos/'"):
        aligner.batch("photos/")


def test_face_to_dict_is_json(aligner, picture):
    face = aligner(picture)[0]
    values = json.loads(json.dumps(face.to_dict()))
    assert list(values) == [
        *("bbox", "score", "kps", "markup", "landmarks", "scores", "presence"),
        *("pose", "eye_openness", "mouth_openness"),
    ]
    np.testing.assert_allclose(values["landmarks"], face.landmarks, atol=6e-4)
    assert values["score"] == 0.9 and values["markup"] == "ibug68"
    assert "ibug68 (68, 2)" in repr(face) and "0.900" in repr(face)


def test_pose_and_openness_of_a_face(aligner, picture):
    """The template is no face's, so its numbers are compared with those of the functions alone."""
    face = aligner(picture)[0]
    assert face.pose == head_pose(face.landmarks) and face.eye_openness == eye_openness(face.landmarks)
    values = face.to_dict()
    assert values["pose"] == {name: round(value, 2) for name, value in face.pose._asdict().items()}
    assert list(values["eye_openness"]) == ["left", "right"]
    assert values["mouth_openness"] == round(mouth_openness(face.landmarks), 3)


def test_a_markup_without_the_68_points_has_no_pose(landmark_model, detector_model, picture):
    face = Aligner(landmark_model(markup="aflw19"), detector_model())(picture)[0]
    for name in ("pose", "eye_openness", "mouth_openness"):
        with pytest.raises(MarkupError):
            getattr(face, name)
        assert face.to_dict()[name] is None
    nowhere = replace(face, landmarks=np.zeros((68, 2), np.float32), markup="ibug68")
    with pytest.raises(InputError):
        _ = nowhere.pose
    assert nowhere.to_dict()["pose"] is None


def test_face_conversion(aligner, picture):
    face = aligner(picture)[0]
    np.testing.assert_allclose(face.to("kps5")[2], face.landmarks[30])
    with pytest.raises(MarkupError):
        face.to("wflw98")


@pytest.mark.parametrize(
    ("size", "scale", "shift"), [(112, 1, 0), (224, 2, 0), (96, 96 / 112, 0), (128, 1, 8), (256, 2, 16), (896, 8, 0)]
)
def test_face_crop_follows_norm_crop(aligner, picture, size, scale, shift):
    face = aligner(picture)[0]
    crop = face.crop(picture, size)
    assert crop.shape == (size, size, 3)
    target = np.array(ARCFACE_112) * scale + (shift, 0)
    rows = [row for x, y in face.kps for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, dx, dy = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
    expected = cv2.warpAffine(picture, np.array([[a, -b, dx], [b, a, dy]]), (size, size))
    assert np.abs(crop.astype(int) - expected).mean() < 1
    for size in (0, 1.5, "x", None, 10**6):
        with pytest.raises(InputError, match="a crop's size"):
            face.crop(picture, size)
    for image in (None, "a.png", picture.astype(float), picture[..., 0], picture[:0]):
        with pytest.raises(ImageError, match=r"cut from uint8 \(H, W, 3\)"):
            face.crop(image)


def norm_crop(image, points, size):
    """The crop as insightface 0.7 cuts it, by the similarity of Umeyama 1991 and cv2.warpAffine."""
    scale, shift = (size / 112, 0) if size % 112 == 0 else (size / 128, 8 * size / 128)
    target = np.array(ARCFACE_112) * scale + (shift, 0)
    source = points.astype(np.float64)
    a, b = source - source.mean(0), target - target.mean(0)
    u, singular, v = np.linalg.svd(b.T @ a / 5)
    signs = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u * signs @ v
    zoom = singular @ signs / (a**2).sum(1).mean()
    matrix = np.column_stack([zoom * rotation, target.mean(0) - zoom * rotation @ source.mean(0)])
    return cv2.warpAffine(image, matrix, (size, size), borderValue=0.0)


@pytest.mark.parametrize("size", [112, 128, 224, 256])
@pytest.mark.parametrize("name", ["collins", "hopper", "closeup"])
def test_crop_by_landmarks_is_norm_crop_of_their_five_points(name, size):
    """Of faces smaller and far larger than the crop."""
    image = cv2.imread(str(PICTURES / f"{name}.jpg"))
    (face,) = Aligner(variant="fp32")(image)
    for by, points in (("landmarks", face.to("kps5")), ("kps", face.kps)):
        crop = face.crop(image, size, by=by).astype(float)
        assert np.abs(crop - norm_crop(image, points, size)).max() <= 0.5
    assert (face.crop(image, size, by="landmarks") != face.crop(image, size)).any()
    with pytest.raises(InputError, match="'kps' or 'landmarks'"):
        face.crop(image, by="points")


def test_an_antialiased_crop_averages(aligner):
    """Of stripes a pixel wide, on a face eight times as large as the crop."""
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    face = replace(aligner(np.full((64, 64, 3), 255, np.uint8))[0], kps=np.array(ARCFACE_112, np.float32) * 8.3 + 100)
    assert np.ptp(face.crop(stripes)) > 200
    np.testing.assert_allclose(face.crop(stripes, antialias=True), 127.5, atol=1)


@pytest.fixture(scope="module")
def three_faces(landmark_model, detector_model, scene):
    """A picture of three faces of falling score, of which the second has a dark left half, and how they are found."""
    picture = scene(400, 200, (20, 40, 100, 140), (140, 40, 220, 140), (260, 40, 340, 140))
    picture[40:140, 140:200, 1] = 130
    models = landmark_model(has_scores=True, has_presence=True), detector_model()
    every = Aligner(*models, min_presence=0, realign=False)(picture)
    presence = [face.presence for face in every]
    assert len(every) == 3 and presence[1] < min(presence[0], presence[2])
    return picture, models, every, (presence[1] + min(presence[0], presence[2])) / 2


def test_what_is_no_face_is_dropped(three_faces):
    picture, models, every, between = three_faces
    found = Aligner(*models, min_presence=between, realign=False)(picture)
    assert [face.score for face in found] == [every[0].score, every[2].score]
    np.testing.assert_array_equal(found[1].landmarks, every[2].landmarks)
    assert found[0].to_dict()["presence"] == round(every[0].presence, 3)


def test_the_next_best_face_takes_the_place_of_what_is_none(three_faces):
    picture, models, every, between = three_faces
    found = Aligner(*models, min_presence=between, max_faces=2, realign=False)(picture)
    assert [face.score for face in found] == [every[0].score, every[2].score]
    assert len(Aligner(*models, min_presence=between, max_faces=1, realign=False)(picture)) == 1


def test_given_faces_are_never_dropped(three_faces):
    picture, models, every, _ = three_faces
    aligner = Aligner(*models, min_presence=1)
    assert aligner(picture) == []
    given = aligner(picture, boxes=[face.bbox for face in every], kps=[face.kps for face in every])
    assert [face.presence for face in given] == pytest.approx([face.presence for face in every])


def test_the_default_drops_below_half_and_models_without_presence_drop_nothing(three_faces, landmark_model):
    picture, models, every, _ = three_faces
    assert max(face.presence for face in every) < MIN_PRESENCE  # of one colour channel each
    assert Aligner(*models)(picture) == []
    faces = Aligner(landmark_model(), models[1])(picture)
    assert len(faces) == 3 and faces[0].presence is None and faces[0].to_dict()["presence"] is None


def test_bad_min_presence(landmark_model, detector_model):
    for value in (-0.1, 1.5, "x", True, float("nan")):
        with pytest.raises(InputError, match="min_presence is a probability from 0 to 1"):
            Aligner(landmark_model(has_presence=True), detector_model(), min_presence=value)
    with pytest.raises(InputError, match="tiny does not say whether there is a face: leave min_presence out"):
        Aligner(landmark_model(), detector_model(), min_presence=0.5)
