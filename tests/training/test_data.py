"""Readers of the training data."""

from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest

from facelm_sdk.errors import ImageError, InputError
from facelm_training.archives import check_folder
from facelm_training.data import Frame, detection_frames, mixed, without_drawing


def test_a_wrong_folder_is_told_what_it_lacks(tmp_path):
    (tmp_path / "a.npz").touch()
    with pytest.raises(InputError, match=r"lacks b\.npz, c\.zip$"):
        check_folder(tmp_path, ("a.npz", "b.npz", "c.zip"))
    with pytest.raises(InputError, match=r"lacks frames\.zip"):
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
    with zipfile.ZipFile(data_dir / "frames.zip") as file:
        names = [name for name in file.namelist() if name.startswith("lfw_")][:3]
        pictures = [cv2.imdecode(np.frombuffer(file.read(name), np.uint8), cv2.IMREAD_COLOR) for name in names]
    for picture in pictures:
        assert green(picture) > 200
        assert green(without_drawing(picture)) < 0.03 * green(picture)


def test_a_mixture_holds_what_surrounds_the_faces(faces):
    """The points stay on the same pixels, and every crop of training can be cut."""
    mixture = mixed([(faces, 3.0), (faces, 1.0)])
    assert mixture.names == 2 * faces.names and mixture.weights.tolist() == [3.0] * 6 + [1.0] * 6
    for index, image in enumerate(mixture.images):
        before, left = faces.images[index % 6], faces.points[index % 6, 36].astype(int)
        x, y = left - (faces.points[index % 6] - mixture.points[index])[0].astype(int)
        assert (image[y, x] == before[left[1], left[0]]).all() and image[y, x].any()
        np.testing.assert_allclose(
            mixture.kps[index] - mixture.points[index, 36],
            faces.kps[index % 6] - faces.points[index % 6, 36],
            atol=1e-4,
        )
        sides = np.ptp(mixture.points[index], axis=0)
        assert max(image.shape) <= 2.6 * sides.max() + 3


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


def test_an_empty_picture_is_a_typed_error():
    none = np.zeros((0, 4), np.float32)
    with pytest.raises(ImageError, match=r"ytf_1\.jpg: the file is empty"):
        Frame("ytf_1.jpg", b"", none, none[:, 0], none.reshape(0, 5, 2)[:0]).image()
