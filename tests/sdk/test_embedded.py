"""The embedded models on real pictures, through the runtime as a newcomer runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from facelm_sdk import Aligner, zoo
from facelm_sdk import markup as markups
from facelm_sdk.metrics import inter_ocular, nme
from facelm_sdk.runtimes.onnxruntime import OrtSession

PICTURES = Path(__file__).resolve().parents[2] / "examples" / "pictures"
EXPECTED = Path(__file__).with_name("expected_landmarks.json")
MARKUP = markups.get("ibug68")


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner()


@pytest.mark.parametrize("name", ["collins", "hopper"])
def test_landmarks_of_the_example_pictures_are_where_they_were_looked_at(aligner, name):
    expected = np.array(json.loads(EXPECTED.read_text())[name])
    faces = aligner(PICTURES / f"{name}.jpg")
    assert len(faces) == 1
    assert faces[0].score > 0.9
    # The stored points were checked by eye; better weights may move them by a little.
    error = nme(faces[0].landmarks[None], expected[None], inter_ocular(expected[None], MARKUP))
    assert error[0] < 0.02


def test_the_group_and_the_close_up_are_found(aligner):
    faces = aligner(PICTURES / "group.jpg")
    heights = sorted(float(face.bbox[3] - face.bbox[1]) for face in faces)
    assert len(faces) == 7, heights
    assert heights[0] < 40 < 100 < heights[-1]
    (close,) = aligner(PICTURES / "closeup.jpg")
    height, width = cv2.imread(str(PICTURES / "closeup.jpg")).shape[:2]
    assert (close.bbox[2] - close.bbox[0]) * (close.bbox[3] - close.bbox[1]) > 0.5 * width * height


def test_a_mirrored_picture_gives_mirrored_landmarks(aligner):
    image = cv2.imread(str(PICTURES / "hopper.jpg"))
    (face,), (mirrored,) = aligner.batch([image, np.ascontiguousarray(image[:, ::-1])])
    back = markups.flip_points(mirrored.landmarks, image.shape[1], MARKUP)
    assert nme(face.landmarks[None], back[None], inter_ocular(back[None], MARKUP))[0] < 0.035


def test_rgb_bgr_path_bytes_and_flip_agree(aligner):
    path = PICTURES / "collins.jpg"
    image = cv2.imread(str(path))
    (reference,) = aligner(image)
    for other in (aligner(path), aligner(path.read_bytes()), aligner(image[..., ::-1], color="rgb")):
        np.testing.assert_allclose(other[0].landmarks, reference.landmarks, atol=1e-3)
    (flipped,) = Aligner(flip=True)(image)
    assert 0 < np.abs(flipped.landmarks - reference.landmarks).max() < 4


def test_scale_of_the_picture_does_not_matter(aligner):
    image = cv2.imread(str(PICTURES / "collins.jpg"))
    (reference,) = aligner(image)
    for scale in (0.35, 2.5):
        face, *others = aligner(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        assert len(others) <= (scale > 1) and all(other.scores.mean() < 0.5 for other in others)  # the suit's badge
        points = (face.landmarks + 0.5) / scale - 0.5
        assert nme(points[None], reference.landmarks[None], inter_ocular(reference.landmarks[None], MARKUP))[0] < 0.05


def test_the_arcface_crop_puts_the_eyes_on_the_template(aligner):
    from facelm_sdk.transform import ARCFACE_112, CropTransform

    image = cv2.imread(str(PICTURES / "collins.jpg"))
    (face,) = aligner(image)
    crop = face.crop(image)
    assert crop.shape == (112, 112, 3)
    placed = CropTransform.from_kps5(face.kps, ARCFACE_112, 112).apply(face.kps)
    assert np.abs(placed - np.array(ARCFACE_112)).max() < 5


def test_no_face_in_noise_and_in_flat_pictures(aligner):
    rng = np.random.default_rng(0)
    for image in (
        np.zeros((480, 640, 3), np.uint8),
        np.full((300, 200, 3), 255, np.uint8),
        rng.integers(0, 256, (480, 640, 3), dtype=np.uint8),
    ):
        assert aligner(image) == []


@pytest.mark.data
def test_accuracy_on_val_people(data_dir):
    datasets = pytest.importorskip("facelm_training.datasets")
    aligner = Aligner(flip=True)
    errors = []
    for sample in datasets.open(f"landmarks68/val:{data_dir}").samples[:80]:
        found, target = aligner(sample.image()), sample.points
        if not found:
            continue
        best = min(found, key=lambda face: np.linalg.norm(face.landmarks.mean(0) - target.mean(0)))
        errors.append(nme(best.landmarks[None], target[None], inter_ocular(target[None], MARKUP))[0])
    assert len(errors) >= 79 and np.mean(errors) < 0.03


@pytest.mark.data
def test_scenes_without_a_face(data_dir):
    landmark_data = pytest.importorskip("facelm_training.data")
    frames = landmark_data.detection_frames(data_dir, "val")
    empty = [frame for frame in frames if frame.name.startswith("bsds") and not len(frame.boxes)]
    aligner = Aligner()
    false = sum(len(aligner(frame.image())) > 0 for frame in empty)
    assert false <= 0.05 * len(empty)


def test_every_file_says_what_made_it_and_how_good_it_is():
    sessions = {
        (entry.name, entry.precision): OrtSession(zoo.resolve(entry.name, variant=entry.precision).path)
        for entry in zoo.list_models()
    }
    for (name, precision), session in sessions.items():
        assert re.fullmatch(r"facelm-sdk \d+\.\d+\.\d+", session.spec.created_by), (name, precision)
        if precision == "int8":
            assert session.spec.accuracy != sessions[name, "fp32"].spec.accuracy
