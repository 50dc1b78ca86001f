"""Damaged files of data sets and of the project's own training data: an InputError that names the file."""

from __future__ import annotations

import io
import json
import zipfile

import cv2
import numpy as np
import pytest

from facelm_sdk.errors import InputError
from facelm_training import datasets
from facelm_training.data import detection_frames

JPEG = cv2.imencode(".jpg", np.zeros((20, 20, 3), np.uint8))[1].tobytes()
POINTS = np.random.default_rng(0).uniform(2, 18, (2, 68, 2)).astype(np.float32)
FIVE = np.random.default_rng(1).uniform(2, 18, (2, 5, 2)).astype(np.float32)
NAMES = np.array(["a.jpg", "b.jpg"])


@pytest.fixture
def turned(tmp_path):
    """Writes turned68 with arrays in the place of its own; an .npz of bytes as they are."""
    for name in NAMES:
        (tmp_path / name).write_bytes(JPEG)

    def write(data=None, **arrays):
        path = tmp_path / "turned68.npz"
        if data is not None:
            path.write_bytes(data)
        else:
            np.savez(path, **{"name": NAMES, "points": POINTS, "known": np.ones((2, 68), bool), **arrays})
        return f"turned68:{tmp_path}"

    return write


def test_turned68(turned):
    assert [face.name for face in datasets.open(turned())] == list(NAMES)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": b"PK"}, "cannot be read"),
        ({"data": b""}, "cannot be read"),
        ({"name": np.array([1, 2])}, r"holds name as int64 \(2,\)"),
        ({"name": NAMES.reshape(2, 1)}, r"holds name as <U5 \(2, 1\)"),
        ({"name": np.array(["a", "\ud800"])}, "cannot be read"),
        ({"name": np.frombuffer(b"\xff" * 8, "<U1")}, "cannot be read"),
        ({"points": POINTS[:1]}, r"holds points as float32 \(1, 68, 2\)"),
        ({"points": POINTS[:, :5]}, r"holds points as float32 \(2, 5, 2\)"),
        ({"points": POINTS.astype(complex)}, "holds points as complex128"),
        ({"points": POINTS * 1e30}, r"points reach as far as .* pixels; the file is damaged"),
        ({"known": np.ones((2, 68))}, "holds known as float64"),
        ({"name": np.array(["a.jpg", "x" * 5000])}, "lacks 1 pictures"),
        ({"name": np.array(["a.jpg", "b\0.jpg"])}, "lacks 1 pictures"),
        ({"name": np.array([None, "x"])}, "cannot be read"),
    ],
)
def test_damaged_turned68(turned, arrays, message):
    with pytest.raises(InputError, match=message):
        datasets.open(turned(**arrays))


def test_an_archive_that_is_an_array(turned):
    target = io.BytesIO()
    np.save(target, POINTS)
    with pytest.raises(InputError, match="cannot be read"):
        datasets.open(turned(target.getvalue()))


@pytest.fixture
def landmarks68(tmp_path):
    def write(**arrays):
        np.savez(
            tmp_path / "landmarks68.npz",
            **{"name": NAMES, "points": POINTS, "kps5": FIVE, "split": np.array(["val", "val"]), **arrays},
        )
        for name in ("300w", "clean"):
            labels = {"crop_points": POINTS, "crop_disagreement": np.zeros(2, np.float32)}
            np.savez(tmp_path / f"landmarks68_{name}.npz", **labels)
        with zipfile.ZipFile(tmp_path / "landmarks68.zip", "w") as archive:
            for name in NAMES:
                archive.writestr(str(name), JPEG)
        return f"landmarks68:{tmp_path}"

    return write


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"kps5": FIVE[:1]}, r"holds kps5 as float32 \(1, 5, 2\); the file is not that of landmarks68"),
        ({"name": NAMES[:1], "split": NAMES[:1], "points": POINTS[:1], "kps5": FIVE[:1]}, "is of 2 faces.*of 1"),
        ({"split": np.zeros(2)}, "holds split as float64"),
    ],
)
def test_damaged_landmarks68(landmarks68, arrays, message):
    assert len(datasets.open(landmarks68())) == 2
    with pytest.raises(InputError, match=message):
        datasets.open(landmarks68(**arrays))


ENTRY = {"image": "a.jpg", "split": "train", "boxes": [[1, 2, 9, 9]], "scores": [0.9], "kps5": [[[1, 2]] * 5]}


def frames(tmp_path, *lines, picture="a.jpg"):
    with zipfile.ZipFile(tmp_path / "frames.zip", "w") as archive:
        archive.writestr(picture, JPEG)
        archive.writestr(
            "labels.jsonl", "\n".join(json.dumps(line) if isinstance(line, dict) else line for line in lines)
        )
    return detection_frames(tmp_path, "train")


def test_detection_frames(tmp_path):
    (frame,) = frames(tmp_path, ENTRY, {**ENTRY, "split": "val"})
    assert frame.name == "a.jpg" and frame.image().shape == (20, 20, 3) and frame.kps.shape == (1, 5, 2)


@pytest.mark.parametrize(
    "line",
    [
        *("5", "null", "{", "[" * 100_000, {**ENTRY, "image": 5}, {**ENTRY, "boxes": [[1, 2, 3]]}),
        *({**ENTRY, "scores": [0.9, 0.8]}, {**ENTRY, "scores": 0.9, "boxes": []}, {**ENTRY, "kps5": "x"}),
        *({**ENTRY, "boxes": [[1, 2, 10**400, 3]]}, {**ENTRY, "boxes": [[1, 2, 1e300, 3]]}, {"image": "a.jpg"}),
    ],
)
def test_damaged_lines_of_labels(tmp_path, line):
    with pytest.raises(InputError, match=r"labels\.jsonl, line 2: not a"):
        frames(tmp_path, ENTRY, line)


def test_damaged_frames(tmp_path):
    with pytest.raises(InputError, match=r"frames\.zip cannot be read; it is damaged or lacks a file"):
        frames(tmp_path, ENTRY, picture="b.jpg")
    (tmp_path / "frames.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"frames\.zip cannot be read"):
        detection_frames(tmp_path, "train")
