"""Crops and pictures to calibrate and to compare on."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from facelm_export.report.samples import PICTURE, SECOND, portrait_crops, read_samples, varied_crops
from facelm_sdk import Aligner, Landmarker
from facelm_sdk.contract import DetectorSpec, LandmarkSpec
from facelm_sdk.errors import InputError
from facelm_sdk.transform import CropRecipe, kps5_recipe

CROP = kps5_recipe(96, zoom=0.875, shift=(0.5, 22.5))
SPEC = LandmarkSpec(name="x", markup="ibug68", num_landmarks=68, crop=CROP, precision="int8")
DETECTOR = DetectorSpec(name="d", det_thresh=0.5, precision="int8")


def write_pts(path, points):
    rows = "\n".join(f"{x + 1:.4f} {y + 1:.4f}" for x, y in points)
    path.with_suffix(".pts").write_text(f"version: 1\nn_points: {len(points)}\n{{\n{rows}\n}}\n")


@pytest.fixture
def folder(tmp_path):
    """Six pictures of the two portraits at several sizes."""
    for i, scale in enumerate((0.5, 0.7, 0.9)):
        for source in (PICTURE, SECOND):
            image = cv2.resize(cv2.imread(str(source)), None, fx=scale, fy=scale)
            cv2.imwrite(str(tmp_path / f"{source.stem}_{i}.png"), image)
    return tmp_path


def test_the_packaged_crops_differ_and_show_faces():
    samples = read_samples(None, SPEC)
    [compared], [calibrating] = samples.inputs, samples.calibration
    assert compared.shape[1:] == calibrating.shape[1:] == (96, 96, 3)
    assert len({crop.tobytes() for crop in [*compared, *calibrating]}) == len(compared) + len(calibrating)
    assert np.array_equal(varied_crops(SPEC, 4), calibrating[:4]), "the same ones every time"
    assert calibrating.std((1, 2, 3)).min() > 5 and 60 < calibrating.mean() < 160
    assert np.array_equal(compared, portrait_crops(SPEC))


def test_most_varied_crops_still_look_like_a_face_to_the_landmarker():
    """The five points of a face lie in order in most of them: eyes apart, above the mouth."""
    spec = Landmarker().spec
    crops = varied_crops(spec, 24)
    points = Landmarker()(crops)
    upright = points[:, 36:48, 1].mean(1) < points[:, 48:68, 1].mean(1)
    apart = np.linalg.norm(points[:, 45] - points[:, 36], axis=-1) > 30
    assert (upright & apart).mean() > 0.8


def test_crops_by_a_box_and_pictures_for_a_detector():
    boxed = LandmarkSpec(name="x", markup="ibug68", num_landmarks=68, crop=CropRecipe(64, "box", scale=1.2))
    assert varied_crops(boxed, 4).shape == (4, 64, 64, 3)
    samples = read_samples(None, DETECTOR)
    assert len(samples.inputs) == 3 and len(samples.calibration) > 10
    assert len({one.shape for one in samples.calibration}) > 10, "many sizes"


def test_a_folder_is_cut_into_two_halves(folder):
    samples = read_samples(folder, SPEC)
    [compared], [calibrating] = samples.inputs, samples.calibration
    assert len(compared) == len(calibrating) == 3 and samples.labels is None
    assert not {crop.tobytes() for crop in compared} & {crop.tobytes() for crop in calibrating}
    pictures = read_samples(folder, DETECTOR)
    assert len(pictures.inputs) == len(pictures.calibration) == 3


def test_pts_files_are_labels(folder):
    aligner, marked = Aligner(), {}
    for path in sorted(folder.glob("*.png")):
        marked[path] = aligner(path)[0]
        write_pts(path, marked[path].landmarks)
    samples = read_samples(folder, SPEC)
    assert samples.labels.shape == (3, 68, 2)
    face = marked[sorted(marked)[1]]
    expected = CROP.transform(kps=face.kps).apply(face.landmarks)
    np.testing.assert_allclose(samples.labels[0], expected, atol=0.01)


def test_labels_of_another_markup_are_refused(folder):
    for path in folder.glob("*.png"):
        write_pts(path, np.zeros((29, 2)))
    with pytest.raises(InputError, match="29 points, but the markup ibug68 has 68"):
        read_samples(folder, SPEC)
    next(folder.glob("*.pts")).write_text("version: 1")
    for path in sorted(folder.glob("*.pts")):
        path.write_text("nothing")
    with pytest.raises(InputError, match=r"is not a \.pts file"):
        read_samples(folder, SPEC)


def test_what_holds_no_faces_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        read_samples(tmp_path / "missing", SPEC)
    with pytest.raises(InputError, match="no pictures in"):
        read_samples(tmp_path, SPEC)
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((80, 80, 3), 90, np.uint8))
    with pytest.raises(InputError, match="shows 0 faces"):
        read_samples(tmp_path, SPEC)
    shutil.copy(PICTURE, tmp_path / "c.jpg")
    with pytest.raises(InputError, match="shows 1 faces"):
        read_samples(tmp_path, SPEC)
