"""Readers of the training data."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest

from facelm_sdk import markup as markups
from facelm_sdk.errors import InputError
from facelm_training.data import FILES, check_folder, detection_frames, landmark_faces, without_drawing


def test_a_wrong_folder_is_told_what_it_lacks(tmp_path):
    (tmp_path / FILES[0]).touch()
    with pytest.raises(InputError) as caught:
        landmark_faces(tmp_path, "train")
    assert FILES[0] not in str(caught.value).partition("lacks")[2]
    assert all(name in str(caught.value) for name in FILES[1:])
    with pytest.raises(InputError, match=r"lacks landmarks68\.npz, .*frames\.zip"):
        detection_frames(tmp_path / "none", "val")


def green(image):
    blue, middle, red = cv2.split(image.astype(int))
    return int((middle - np.maximum(blue, red) > 40).sum())


def test_green_lines_are_painted_over():
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 1), np.uint8), (0, 0), 4)
    picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    drawn = picture.copy()
    cv2.rectangle(drawn, (40, 20), (110, 100), (0, 255, 0), 1)
    restored = without_drawing(drawn)
    assert green(drawn) > 200 and green(restored) == 0
    assert np.abs(restored.astype(int) - picture).mean() < 0.5
    np.testing.assert_array_equal(without_drawing(picture), picture)


@pytest.mark.data
def test_the_box_of_an_lfw_picture_goes(data_dir):
    with zipfile.ZipFile(check_folder(data_dir) / "frames.zip") as file:
        names = [name for name in file.namelist() if name.startswith("lfw_")][:3]
        pictures = [cv2.imdecode(np.frombuffer(file.read(name), np.uint8), cv2.IMREAD_COLOR) for name in names]
    for picture in pictures:
        assert green(picture) > 200
        assert green(without_drawing(picture)) < 0.03 * green(picture)


@pytest.mark.data
@pytest.mark.parametrize("split", ["train", "val"])
def test_landmark_faces(data_dir, split):
    faces = landmark_faces(data_dir, split, limit=3)
    assert len(faces) == len(faces.names) == 6
    assert faces.kps.shape == (6, 5, 2) and faces.points.shape == faces.original.shape == (6, 68, 2)
    assert faces.kps.dtype == faces.points.dtype == np.float32
    assert not any(name.startswith("lfw_") for name in faces.names)
    assert np.isfinite(faces.points).all() and np.isfinite(faces.original[:3]).all()
    assert np.isnan(faces.original[3:]).all() and np.isnan(faces.disagreement[3:]).all()
    for image, kps, points in zip(faces.images, faces.kps, faces.points, strict=True):
        assert image.dtype == np.uint8 and image.ndim == 3
        distance = np.linalg.norm(markups.convert(points, "ibug68", "kps5") - kps, axis=-1)
        assert distance.mean() < 0.1 * np.ptp(points, axis=0).max()


@pytest.mark.data
def test_splits_share_no_picture(data_dir):
    with np.load(data_dir / "landmarks68.npz") as crops:
        names, split = crops["name"], crops["split"]
    faces = landmark_faces(data_dir, "val", frames=False, limit=5)
    assert len(faces) == 5
    assert set(faces.names) <= set(names[split == "val"]) and not set(faces.names) & set(names[split == "train"])


@pytest.mark.data
def test_detection_frames(data_dir):
    frames = detection_frames(data_dir, "val")
    assert len({frame.name for frame in frames}) == len(frames) > 500
    assert {frame.name.split("_")[0] for frame in frames} == {"ytf", "lfw", "web", "bsds"}
    for frame in frames[:: len(frames) // 10]:
        height, width = frame.image().shape[:2]
        assert max(height, width) <= 400
        count = len(frame.scores)
        assert frame.boxes.shape == (count, 4) and frame.kps.shape == (count, 5, 2)
    drawn = next(frame for frame in frames if frame.name.startswith("lfw_"))
    assert green(drawn.image()) < 50
