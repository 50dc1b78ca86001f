"""Faces as the rows of one table."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from facelm_sdk import Aligner, Face, table
from facelm_sdk.errors import InputError, MissingDependencyError

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def aligner(landmark_model, detector_model):
    return Aligner(landmark_model(has_scores=True, has_presence=True), detector_model(), min_presence=0)


def test_every_picture_has_a_row_and_every_face_its_own(aligner, scene, tmp_path):
    two, none = scene(64, 48, (4, 6, 24, 30), (30, 6, 50, 30)), scene(40, 20)
    found = table.align(aligner, [two, none, tmp_path / "missing.png", two])
    assert found.schema.equals(table.schema())
    rows = found.to_pylist()
    assert [row["picture"] for row in rows] == [0, 0, 1, 2, 3, 3]
    assert [row["face"] for row in rows] == [0, 1, None, None, 0, 1]
    assert [(row["width"], row["height"]) for row in rows[1:4]] == [(64, 48), (40, 20), (None, None)]
    assert [row["error"] is None for row in rows] == [True, True, True, False, True, True]
    assert "missing.png: No such file" in rows[3]["error"] and rows[3]["source"] == str(tmp_path / "missing.png")
    assert {row["model"] for row in rows} == {"tiny"} and {row["detector"] for row in rows} == {"bright"}


def test_a_row_is_a_face_in_the_names_of_the_json(aligner, scene, tmp_path):
    picture = scene(64, 48, (4, 6, 24, 30))
    (face,) = aligner(picture)
    parquet.write_table(table.align(aligner, [picture]), tmp_path / "faces.parquet")
    (row,) = parquet.read_table(tmp_path / "faces.parquet").to_pylist()
    assert set(face.to_dict()) <= set(row)
    again = Face.from_dict(row)
    np.testing.assert_allclose(again.landmarks, face.landmarks, atol=1e-3)
    np.testing.assert_allclose(again.scores, face.scores, atol=1e-3)
    np.testing.assert_allclose(again.kps, face.kps, atol=1e-3)
    assert row["pose"]["yaw"] == pytest.approx(face.pose.yaw, abs=0.01)


def test_points_of_all_faces_are_one_array(aligner, scene):
    pictures = [scene(64, 48, (4, 6, 24, 30)), scene(64, 48), scene(64, 48, (9, 6, 24, 30), (30, 6, 50, 30))]
    found = table.align(aligner, pictures)
    faces = [face for picture in pictures for face in aligner(picture)]
    np.testing.assert_allclose(table.points(found), [face.landmarks for face in faces], atol=1e-3)
    np.testing.assert_allclose(table.points(found, "kps"), [face.kps for face in faces], atol=1e-3)
    assert table.points(found).dtype == np.float32 and len(faces) == 3
    assert table.points(table.align(aligner, [scene(8, 8)])).shape == (0, 0, 2)
    mixed = table.to_table([Face.of_landmarks(np.eye(5, 2), "kps5").to_dict(), faces[0].to_dict()])
    with pytest.raises(InputError, match=r"faces of \[5, 68\] points"):
        table.points(mixed)


def test_names_that_are_no_text_are_written_as_one(aligner):
    (row,) = table.rows(aligner, b"no picture", "name\udcff.jpg", picture=7)
    assert (row["source"], row["picture"]) == ("name\\xff.jpg", 7) and "not a picture" in row["error"]
    assert table.to_table([row]).num_rows == 1


def test_without_pyarrow_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "facelm-sdk\[parquet\]"'):
        table.schema()
