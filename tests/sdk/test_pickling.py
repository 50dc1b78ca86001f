"""Models in other processes: pickled as what they were opened with, opened anew where they are unpickled."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from facelm_sdk import Aligner, Detector, Landmarker, zoo
from facelm_sdk.errors import InputError, ModelFileError
from facelm_sdk.runtimes.base import RuntimeOptions
from facelm_sdk.runtimes.onnxruntime import OrtSession

PICTURE = Path(__file__).resolve().parents[2] / "examples" / "pictures" / "group.jpg"


def test_a_spawned_worker_finds_the_same_faces():
    aligner = Aligner(max_faces=3, min_presence=0, threads=1, det_thresh=0.6)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(aligner, (PICTURE,))
        (crops,) = pool.map(aligner.landmarker, [np.zeros((2, 128, 128, 3), np.uint8)])
        boxes = pool.apply(Detector(det_size=320), (PICTURE,)).boxes
    expected = aligner(PICTURE)
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.landmarks, other.landmarks)
        assert (one.score, one.markup) == (other.score, other.markup)
    np.testing.assert_array_equal(crops, aligner.landmarker(np.zeros((2, 128, 128, 3), np.uint8)))
    np.testing.assert_array_equal(boxes, Detector(det_size=320)(PICTURE).boxes)


def test_options_and_settings_go_along(landmark_model, detector_model):
    landmarker = Landmarker(landmark_model(), flip=True, max_batch=3, threads=2)
    aligner = Aligner(landmarker, Detector(detector_model(), det_size=(64, 128), det_thresh=0.9), profile=True)
    copy = pickle.loads(pickle.dumps(aligner))
    assert copy.landmarker.max_batch == 3 and copy.landmarker.session is not landmarker.session
    assert copy.landmarker.session._session.get_session_options().intra_op_num_threads == 2
    assert (copy.detector.det_size, copy.detector.det_thresh) == ((64, 128), 0.9)
    assert copy.profile is not None and copy.landmarker.spec == landmarker.spec
    crops = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(copy.landmarker(crops), landmarker(crops))


def test_embedded_models_are_found_where_the_package_is(embed, landmark_model, monkeypatch, tmp_path):
    entry = embed(landmark_model())
    data = pickle.dumps(Landmarker("tiny"))
    (moved := tmp_path / "elsewhere").mkdir()
    for name in (entry["file"], "manifest.json"):
        (tmp_path / name).rename(moved / name)
    with pytest.raises(ModelFileError, match="no model file"):
        pickle.loads(data)
    monkeypatch.setattr(zoo, "WEIGHTS", moved)
    assert pickle.loads(data).spec.name == "tiny"


def test_relative_paths_and_bytes(landmark_model, monkeypatch, tmp_path):
    path = landmark_model()
    monkeypatch.chdir(path.parent)
    data = pickle.dumps([OrtSession(path.name), OrtSession(path.read_bytes())])
    monkeypatch.chdir(tmp_path)
    assert [session.spec.name for session in pickle.loads(data)] == ["tiny", "tiny"]


def test_session_options_cannot_go_along(landmark_model):
    session = OrtSession(landmark_model(), RuntimeOptions(session_options=onnxruntime.SessionOptions()))
    with pytest.raises(InputError, match=r"session_options cannot be pickled: give threads"):
        pickle.dumps(session)
