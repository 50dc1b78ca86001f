"""Readers of the public data sets, on small files in their own formats."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from facelm_sdk import markup as markups
from facelm_sdk.errors import ImageError, InputError, MissingDependencyError
from facelm_training import datasets
from facelm_training.datasets import aflw19

RNG = np.random.default_rng(0)


def points_of(markup, count, low=20, high=90):
    return np.round(RNG.uniform(low, high, (count, markups.get(markup).num_points, 2)), 3)


def picture(path, level=0, size=(120, 100)):
    """A flat picture, ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), level, np.uint8))


def by_hand(points, indices):
    """The distance of the mean of two groups of points (L, 2)."""
    left, right = (points[list(group)].mean(0) for group in indices)
    return np.linalg.norm(left - right)


# WFLW -----------------------------------------------------------------------------------------------------------------


def wflw_line(points, box, flags, name):
    return " ".join([*(f"{v:.3f}" for v in points.ravel()), *map(str, box), *map(str, flags), name])


@pytest.fixture
def wflw(tmp_path):
    points = points_of("wflw98", 3)
    folder = tmp_path / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    folder.mkdir(parents=True)
    names = ["0--Parade/a.jpg", "0--Parade/a.jpg", "1--Handshaking/b.jpg"]
    flags = [(1, 0, 0, 0, 0, 0), (0, 0, 0, 1, 0, 1), (0, 0, 0, 0, 0, 0)]
    lines = [wflw_line(points[i], (10 + i, 20, 90, 95), flags[i], names[i]) for i in range(3)]
    for split in ("train", "test"):
        (folder / f"list_98pt_rect_attr_{split}.txt").write_text("\n".join(lines) + "\n")
    for level, name in enumerate(dict.fromkeys(names)):
        picture(tmp_path / "WFLW_images" / name, 100 * level)
    return tmp_path, points


def test_wflw(wflw):
    folder, points = wflw
    faces = datasets.open(f"wflw:{folder}")
    assert len(faces) == 3 and faces.split == "test" and faces.title == "wflw/test" and faces.published == 2500
    np.testing.assert_allclose(np.stack([face.points for face in faces]), points, atol=1e-4)
    assert faces[0].points.dtype == np.float32 and faces[0].markup == "wflw98"
    np.testing.assert_array_equal(faces[1].box, [11, 20, 90, 95])
    assert len({face.name for face in faces}) == 3
    assert faces[2].norms["inter_ocular"] == pytest.approx(by_hand(points[2], [(60,), (72,)]), abs=1e-3)
    assert faces[2].norms["inter_pupil"] == pytest.approx(by_hand(points[2], [(96,), (97,)]), abs=1e-3)
    assert faces[2].norms["box"] == pytest.approx(np.sqrt(np.prod(np.ptp(points[2], axis=0))), abs=1e-3)
    np.testing.assert_allclose(faces[2].landmark_box, [*points[2].min(0), *points[2].max(0)], atol=1e-4)
    assert (faces[2].image() == 100).all() and faces[2].image().shape == (100, 120, 3)


def test_wflw_subsets(wflw):
    faces = datasets.open(f"wflw:{wflw[0]}")
    rows = faces.subsets()
    assert list(rows) == ["full", "pose", "make-up", "blur"]
    assert [mask.tolist() for mask in rows.values()] == [
        [True, True, True],
        [True, False, False],
        [False, True, False],
        [False, True, False],
    ]
    pose = datasets.open(f"wflw/pose:{wflw[0]}")
    assert pose.title == "wflw/test/pose" and pose.published == 326 and [face.name for face in pose] == [faces[0].name]
    assert list(pose.subsets()) == ["pose"]
    assert [face.name for face in faces.part([2, 0])] == [faces[2].name, faces[0].name]


def test_wflw_damage_is_told(wflw):
    folder = wflw[0]
    (folder / "WFLW_images" / "1--Handshaking" / "b.jpg").unlink()
    with pytest.raises(InputError, match=r"lacks 1 pictures, the first of them WFLW_images.1--Handshaking.b\.jpg"):
        datasets.open(f"wflw:{folder}")
    listing = folder / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_98pt_rect_attr_test.txt"
    text = listing.read_text()
    for damaged, told in (
        (text[: len(text) // 2], r"line 2: \d+ columns, not 207"),
        (text.replace(" ", " x", 1), "line 1: could not convert"),
        ("", "is empty"),
    ):
        listing.write_text(damaged)
        with pytest.raises(InputError, match=told):
            datasets.open(f"wflw:{folder}")
    listing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        datasets.open(f"wflw:{folder}")


# 300-W ----------------------------------------------------------------------------------------------------------------


def write_pts(path, points):
    rows = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"version: 1\nn_points:  {len(points)}\n{{\n{rows}\n}}\n")


@pytest.fixture
def w300(tmp_path):
    places = ["afw/1_1.jpg", "helen/trainset/2_1.jpg", "lfpw/trainset/image_0001.png"]
    places += ["helen/testset/3_1.jpg", "lfpw/testset/image_0001.png", "ibug/image_092 _01.jpg"]
    places += ["01_Indoor/indoor_001.png", "02_Outdoor/outdoor_001.png"]
    points = dict(zip(places, points_of("ibug68", len(places)), strict=True))
    for place, values in points.items():
        picture(tmp_path / place)
        write_pts((tmp_path / place).with_suffix(".pts"), values)
    write_pts(tmp_path / "afw" / "1_1_mirror.pts", points["afw/1_1.jpg"])
    return tmp_path, points


def test_300w(w300):
    folder, points = w300
    test = datasets.open(f"300w:{folder}")
    assert [face.name for face in test] == list(points)[3:6]
    for face in test:  # a file's first pixel is 1, ours is 0
        np.testing.assert_allclose(face.points, points[face.name] - 1, atol=1e-4)
        assert face.box is None and face.image().shape == (100, 120, 3)
    assert {name: mask.tolist() for name, mask in test.subsets().items()} == {
        "common": [True, True, False],
        "challenging": [False, False, True],
        "full": [True, True, True],
    }
    eyes = [range(36, 42), range(42, 48)]
    assert test[0].norms["inter_pupil"] == pytest.approx(by_hand(points[test[0].name], eyes), abs=1e-3)
    assert [face.name for face in datasets.open(f"300w/train:{folder}")] == list(points)[:3]
    assert [face.name for face in datasets.open(f"300w:{folder}", split="train")] == list(points)[:3]
    outdoor = datasets.open(f"300w/outdoor:{folder}")
    assert outdoor.split == "private" and [face.name for face in outdoor] == list(points)[7:]
    assert datasets.open(f"300w/challenging:{folder}")[0].name == "ibug/image_092 _01.jpg"
    raw = datasets.open(f"300w/raw:{folder}")
    np.testing.assert_allclose(raw[0].points, test[0].points + 1, atol=1e-4)
    assert raw.title == "300w/test/raw"


def test_300w_needs_the_folders_of_what_is_asked_for(w300):
    folder, points = w300
    shutil.rmtree(folder / "ibug")
    common = datasets.open(f"300w/common:{folder}")
    assert [face.name for face in common] == list(points)[3:5] and common.published == 554
    assert [face.name for face in datasets.open(f"300w/train/afw:{folder}")] == list(points)[:1]
    assert [face.name for face in datasets.open_below("300w/helen:.", folder)] == list(points)[1:2]
    with pytest.raises(InputError, match="lacks ibug"):
        datasets.open(f"300w:{folder}")


def test_300w_damage_is_told(w300):
    folder = w300[0]
    annotation = folder / "ibug" / "image_092 _01.pts"
    text = annotation.read_text()
    annotation.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match=r"image_092 _01\.pts holds .* not 68"):
        datasets.open(f"300w:{folder}")
    annotation.write_text(text)
    (folder / "ibug" / "image_092 _01.jpg").unlink()
    with pytest.raises(InputError, match=r"lacks the picture of ibug.image_092 _01"):
        datasets.open(f"300w:{folder}")
    annotation.unlink()
    with pytest.raises(InputError, match=r"lacks the \.pts files in ibug"):
        datasets.open(f"300w:{folder}")
    (folder / "ibug").rmdir()
    with pytest.raises(InputError, match=r"lacks ibug; expected is afw/"):
        datasets.open(f"300w:{folder}")


# COFW -----------------------------------------------------------------------------------------------------------------


def write_cofw(path, suffix, images, phis, boxes):
    """As MATLAB 7.3 does: axes reversed, a cell array of references."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        references = np.empty((1, len(images)), h5py.ref_dtype)
        for index, image in enumerate(images):
            references[0, index] = file.create_dataset(f"#refs#/{index}", data=image.T).ref
        file.create_dataset(f"Is{suffix}", data=references, dtype=h5py.ref_dtype)
        file.create_dataset(f"phis{suffix}", data=phis.T)
        file.create_dataset(f"bboxes{suffix}", data=boxes.T)


@pytest.fixture
def cofw(tmp_path):
    points = points_of("cofw29", 2)
    occluded = RNG.integers(0, 2, (2, 29))
    phis = np.concatenate([points[..., 0], points[..., 1], occluded], axis=1)
    colour = RNG.integers(0, 256, (100, 120, 3), np.uint8)  # RGB
    grey = RNG.integers(0, 256, (90, 110), np.uint8)
    boxes = np.array([[11, 21, 50, 60], [31, 41, 52, 62]], float)
    for split, suffix in (("train", "Tr"), ("test", "T")):
        write_cofw(tmp_path / f"COFW_{split}_color.mat", suffix, [colour, grey], phis, boxes)
    return tmp_path, points, occluded, colour, grey


@pytest.mark.parametrize("split", ["train", "test"])
def test_cofw(cofw, split):
    folder, points, occluded, colour, grey = cofw
    faces = datasets.open(f"cofw/{split}:{folder}")
    assert len(faces) == 2 and faces.published == {"train": 1345, "test": 507}[split]
    np.testing.assert_allclose(np.stack([face.points for face in faces]), points - 1, atol=1e-4)
    np.testing.assert_array_equal(np.stack([face.occluded for face in faces]), occluded == 1)
    np.testing.assert_array_equal(faces[1].box, [30, 40, 82, 102])
    np.testing.assert_array_equal(faces[0].image(), colour[..., ::-1])
    np.testing.assert_array_equal(faces[1].image(), np.repeat(grey[..., None], 3, axis=2))
    assert faces[0].norms["inter_ocular"] == pytest.approx(by_hand(points[0], [(8,), (9,)]), abs=1e-3)
    assert faces[0].norms["inter_pupil"] == pytest.approx(by_hand(points[0], [(16,), (17,)]), abs=1e-3)
    raw = datasets.open(f"cofw/{split}/raw:{folder}")
    np.testing.assert_allclose(raw[0].points, points[0], atol=1e-4)
    np.testing.assert_array_equal(raw[1].box, [31, 41, 83, 103])


def test_cofw_damage_is_told(cofw, monkeypatch):
    path = cofw[0] / "COFW_test_color.mat"
    data = path.read_bytes()
    faces = datasets.open(f"cofw:{cofw[0]}")
    for damaged in (data[: len(data) // 2], b"MATLAB 5.0 MAT-file"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"truncated or not a MATLAB 7\.3 file with IsT, phisT, bboxesT"):
            datasets.open(f"cofw:{cofw[0]}")
        with pytest.raises(ImageError, match="picture 1 of IsT cannot be read"):
            faces[0].image()
    with pytest.importorskip("h5py").File(path, "w") as file:
        file.create_dataset("IsT", data=np.zeros((1, 1)))  # numbers, not references
    with pytest.raises(InputError, match="cannot be read"):
        datasets.open(f"cofw:{cofw[0]}")
    with pytest.raises(ImageError, match="picture 1 of IsT cannot be read"):
        faces[0].image()
    write_cofw(path, "T", [np.zeros((9, 9), np.uint8)], np.zeros((1, 58)), np.zeros((1, 4)))
    with pytest.raises(InputError, match=r"phis \(1, 58\)"):
        datasets.open(f"cofw:{cofw[0]}")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "facelm-sdk\[train\]"'):
        datasets.open(f"cofw:{cofw[0]}")


@pytest.fixture
def cofw68(cofw):
    savemat = pytest.importorskip("scipy.io").savemat
    folder, colour = cofw[0], cofw[3]
    base = folder / "COFW68_Data"
    (base / "test_annotations").mkdir(parents=True)
    points = points_of("ibug68", 2)
    occluded = RNG.integers(0, 2, (2, 68))
    for index in range(2):
        content = {"Points": points[index], "Occ": occluded[index][None].astype(np.uint8)}
        savemat(base / "test_annotations" / f"{index + 1}_points.mat", content)
    savemat(base / "cofw68_test_bboxes.mat", {"bboxes": np.array([[5.0, 6, 70, 80], [1, 2, 30, 40]])})
    return folder, points, occluded, colour


def test_cofw68(cofw68):
    folder, points, occluded, colour = cofw68
    faces = datasets.open(f"cofw68:{folder}")
    assert faces.info.markup == "ibug68" and [metric.norm for metric in faces.metrics][1] == "inter_pupil"
    np.testing.assert_allclose(np.stack([face.points for face in faces]), points - 1, atol=1e-4)
    np.testing.assert_array_equal(np.stack([face.occluded for face in faces]), occluded == 1)
    np.testing.assert_array_equal(faces[0].box, [4, 5, 74, 85])
    np.testing.assert_array_equal(faces[0].image(), colour[..., ::-1])


def test_cofw68_damage_is_told(cofw68):
    annotation = cofw68[0] / "COFW68_Data" / "test_annotations" / "2_points.mat"
    annotation.write_bytes(annotation.read_bytes()[:200])
    with pytest.raises(InputError, match=r"2_points\.mat cannot be read; it is truncated or lacks Points, Occ"):
        datasets.open(f"cofw68:{cofw68[0]}")
    annotation.unlink()
    with pytest.raises(InputError, match=r"lacks 1 files of test_annotations, the first of them 2_points\.mat"):
        datasets.open(f"cofw68:{cofw68[0]}")


# AFLW -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def aflw(tmp_path, monkeypatch):
    """Five faces, of which three train."""
    savemat = pytest.importorskip("scipy.io").savemat
    monkeypatch.setattr(aflw19, "TRAIN", 3)
    points = points_of("aflw19", 5)
    names = [f"{'023'[i % 3]}/image{i:05}.jpg" for i in range(5)]
    for level, name in enumerate(names):
        picture(tmp_path / "data" / "flickr" / name, 10 * level)
    visible = np.ones((5, 19))
    visible[4, 3] = 0
    content = {
        "data": np.concatenate([points[..., 0], points[..., 1]], axis=1),
        "bbox": np.array([[10.0, 70, 20, 100]] * 5),  # left, right, top, bottom
        "mask_new": visible,
        "nameList": np.array([[name] for name in names], dtype=object),
        "ra": np.array([[2, 4, 3, 5, 1]], np.uint16),
    }
    savemat(tmp_path / "AFLWinfo_release.mat", content)
    return tmp_path, points, content


def test_aflw19(aflw):
    folder, points, _ = aflw
    test = datasets.open(f"aflw19:{folder}")
    np.testing.assert_allclose(np.stack([face.points for face in test]), points[[4, 0]], atol=1e-4)
    train = datasets.open(f"aflw19/train:{folder}")
    np.testing.assert_allclose(np.stack([face.points for face in train]), points[[1, 3, 2]], atol=1e-4)
    np.testing.assert_array_equal(test[0].box, [10, 20, 70, 100])
    assert test[0].norms["diag"] == pytest.approx(100) and test[0].norms["box"] == pytest.approx(np.sqrt(60 * 80))
    assert [metric.norm for metric in test.metrics] == ["diag", "box"]
    assert {name: mask.tolist() for name, mask in test.subsets().items()} == {
        "full": [True, True],
        "frontal": [False, True],
    }
    np.testing.assert_array_equal(np.flatnonzero(test[0].occluded), [3])
    assert [int(face.image()[0, 0, 0]) for face in test] == [40, 0]


def test_aflw19_other_places_and_damage(aflw):
    folder, _, content = aflw
    savemat = pytest.importorskip("scipy.io").savemat
    (folder / "data" / "flickr").rename(folder / "images")
    assert (datasets.open(f"aflw19:{folder}")[0].image() == 40).all()
    (folder / "images" / "0" / "image00000.jpg").unlink()
    with pytest.raises(InputError, match="lacks 1 pictures"):
        datasets.open(f"aflw19:{folder}")
    path = folder / "AFLWinfo_release.mat"
    savemat(path, {**content, "data": content["data"][:, :19]})
    with pytest.raises(InputError, match=r"holds data, bbox, mask_new, nameList and ra of sizes \(\(5, 19\)"):
        datasets.open(f"aflw19:{folder}")
    savemat(path, {**content, "ra": np.array([[2, 4, 3, 5, 5]], np.uint16)})
    with pytest.raises(InputError, match="ra no permutation of 1 to 5"):
        datasets.open(f"aflw19:{folder}")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="truncated or lacks data, bbox"):
        datasets.open(f"aflw19:{folder}")
    path.unlink()
    with pytest.raises(InputError, match=r"lacks AFLWinfo_release\.mat; expected is AFLWinfo_release\.mat, and AFLW's"):
        datasets.open(f"aflw19:{folder}")


# JD-landmark ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def jd106(tmp_path):
    root = tmp_path / "JD"
    names = ["Training_data/AFW/picture/AFW_1.jpg", "Training_data/IBUG/picture/IBUG_1.jpg"]
    names += ["Test_data1/picture/x_1.jpg", "Test_data1/picture/x_2.jpg"]
    points = dict(zip(names, points_of("jd106", 4), strict=True))
    for index, (name, values) in enumerate(points.items()):
        path = root / name
        picture(path)
        folder = path.parents[1]
        (folder / "landmark").mkdir(exist_ok=True)
        rows = "\n".join(f"{x:.3f} {y:.3f}" for x, y in values)
        (folder / "landmark" / f"{path.name}.txt").write_text(f"106\n{rows}\n")
        if "Test" in name:
            (folder / "rect").mkdir(exist_ok=True)
            (folder / "rect" / f"{path.name}.rect").write_text(f"{index} 20 90 95\n")
    return root, points


def test_jd106(jd106):
    folder, points = jd106
    test = datasets.open(f"jd106:{folder}")
    assert [face.name for face in test] == list(points)[2:]
    np.testing.assert_allclose(np.stack([face.points for face in test]), list(points.values())[2:], atol=1e-4)
    np.testing.assert_array_equal(np.stack([face.box for face in test]), [[2, 20, 90, 95], [3, 20, 90, 95]])
    sides = np.ptp(points[test[0].name], axis=0)
    assert test[0].norms["box"] == pytest.approx(np.sqrt(sides.prod()), abs=1e-3)  # of the landmarks, not the rectangle
    assert test.metrics[0] == datasets.Metric("box", 0.08)
    train = datasets.open(f"jd106/train:{folder}")
    assert [face.name for face in train] == list(points)[:2] and train[0].box is None
    assert len(datasets.open(f"jd106:{folder / 'Test_data1'}")) == 2
    assert len(datasets.open(f"jd106/train:{folder / 'Training_data' / 'AFW'}")) == 1


def test_jd106_damage_is_told(jd106):
    folder = jd106[0]
    with pytest.raises(InputError, match="lacks a folder picture/ with pictures of the val split"):
        datasets.open(f"jd106/val:{folder}")
    rect = folder / "Test_data1" / "rect" / "x_2.jpg.rect"
    rect.write_text("1 2 3")
    with pytest.raises(InputError, match="holds 3 numbers"):
        datasets.open(f"jd106:{folder}")
    rect.unlink()
    annotation = folder / "Test_data1" / "landmark" / "x_1.jpg.txt"
    text = annotation.read_text()
    for damaged in (text[: len(text) // 2], text.replace("106", "68", 1), ""):
        annotation.write_text(damaged)
        with pytest.raises(InputError, match=r"x_1\.jpg\.txt is not 106 in the first line"):
            datasets.open(f"jd106:{folder}")
    annotation.unlink()
    with pytest.raises(InputError, match="lacks 1 landmark files"):
        datasets.open(f"jd106:{folder}")


# All ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", datasets.names())
def test_a_wrong_folder_is_told_what_is_expected(name, tmp_path):
    with pytest.raises(InputError) as caught:
        datasets.open(f"{name}:{tmp_path}")
    assert str(tmp_path) in str(caught.value) and "lacks" in str(caught.value)
    with pytest.raises(InputError, match=f"is not a {name} folder: it does not exist; expected is"):
        datasets.open(f"{name}:{tmp_path / 'none'}")
    for folder in ("x" * 5000, "~nobody_of_this_name/x"):  # no error of the system's own
        with pytest.raises(InputError, match="it does not exist"):
            datasets.open(f"{name}:{folder}")


@pytest.mark.parametrize("spec", ["wflw", "wflw:", "lfw:DIR", ":DIR", "wflw/x"])
def test_a_wrong_spec_is_told_the_names(spec):
    with pytest.raises(InputError, match=r"NAME of wflw, 300w, .*cofw, cofw68, aflw19, jd106, landmarks68"):
        datasets.open(spec)


@pytest.mark.parametrize(
    "head", ["wflw/profile", "wflw/train/pose", "wflw/train/test", "wflw/test/pose/blur", "wflw/raw"]
)
def test_a_wrong_part_is_told_the_parts(head, tmp_path):
    with pytest.raises(InputError, match=r"splits train, test; subsets full, pose, expression"):
        datasets.open(f"{head}:{tmp_path}")
    with pytest.raises(InputError, match="'train' is not a part"):
        datasets.open(f"wflw/pose:{tmp_path}", split="train")


def test_pictures_are_read_as_stored(tmp_path):
    """An EXIF orientation does not turn them: the annotations are of the stored pixels."""
    path = tmp_path / "turned.jpg"
    picture(path)
    data = path.read_bytes()
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    segment = b"Exif\x00\x00" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:])
    assert cv2.imread(str(path)).shape[:2] == (120, 100)
    assert datasets.base.read_stored(path).shape[:2] == (100, 120)
    for damaged, told in ((b"", "the file is empty"), (b"text", "not a picture")):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=told):
            datasets.base.read_stored(path)
    path.unlink()
    with pytest.raises(ImageError, match="cannot read"):
        datasets.base.read_stored(path)


@pytest.mark.data
@pytest.mark.parametrize("name", ["landmarks68", "portraits68"])
def test_the_projects_own_faces(data_dir, name):
    train, val = (datasets.open(f"{name}/{split}:{data_dir}") for split in ("train", "val"))
    assert 0.9 * train.published < len(train) <= train.published and len(val) <= val.published
    assert not {face.name for face in train} & {face.name for face in val}
    assert not any(face.name.startswith("lfw_") for face in train)
    face = val[7]
    assert face.image().ndim == 3 and face.kps5.shape == (5, 2) and face.points.shape == (68, 2)
    distance = np.linalg.norm(markups.convert(face.points, "ibug68", "kps5") - face.kps5, axis=-1)
    assert distance.mean() < 0.1 * np.ptp(face.points, axis=0).max()


@pytest.mark.data
def test_labels_of_landmarks68(data_dir):
    """The usual one is in the convention of 300-W; the annotator's is of the same faces and not the same."""
    faces = datasets.open(f"landmarks68:{data_dir}")
    assert faces.title == "landmarks68/val/300w" and len(faces) == faces.published == 559
    original = datasets.open(f"landmarks68/val/original:{data_dir}")
    assert [face.name for face in original] == [face.name for face in faces]
    distance = np.linalg.norm(faces[7].points - original[7].points, axis=1).mean() / faces[7].norms["inter_ocular"]
    assert 0.005 < distance < 0.3


# 300W-LP --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def w300lp(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    names = ["AFW/AFW_1_1_0", "AFW/AFW_1_1_1", "HELEN/HELEN_2_1_0", "IBUG/IBUG_3_0", "LFPW/LFPW_image_test_0001_0"]
    points = dict(zip(names, points_of("ibug68", len(names)), strict=True))
    for name, values in points.items():
        picture(tmp_path / f"{name}.jpg")
        (tmp_path / "landmarks" / name).parent.mkdir(parents=True, exist_ok=True)
        savemat(tmp_path / "landmarks" / f"{name}_pts.mat", {"pts_2d": values, "pts_3d": values + 1})
    picture(tmp_path / "AFW_Flip" / "AFW_1_1_0.jpg")
    return tmp_path, points


def test_300wlp(w300lp):
    folder, points = w300lp
    faces = datasets.open(f"300wlp:{folder}")
    assert [face.name for face in faces] == [f"{name}.jpg" for name in points] and faces.published == 61_225
    np.testing.assert_allclose(np.stack([face.points for face in faces]), list(points.values()), atol=1e-4)
    solid = datasets.open(f"300wlp/3d/afw:{folder}")
    assert len(solid) == 2
    np.testing.assert_allclose(solid[0].points, points["AFW/AFW_1_1_0"] + 1, atol=1e-4)
    (folder / "landmarks" / "HELEN" / "HELEN_2_1_0_pts.mat").unlink()
    assert len(datasets.open(f"300wlp/lfpw:{folder}")) == 1
    with pytest.raises(InputError, match="HELEN_2_1_0_pts"):
        datasets.open(f"300wlp:{folder}")
    shutil.rmtree(folder / "IBUG")
    with pytest.raises(InputError, match="lacks IBUG; expected is AFW/"):
        datasets.open(f"300wlp/ibug:{folder}")


# Menpo ----------------------------------------------------------------------------------------------------------------


def test_menpo(tmp_path):
    places = ["train/semifrontal/a.jpg", "train/semifrontal/b.png", "test/c.jpg"]
    points = dict(zip(places, points_of("ibug68", 3), strict=True))
    for place, values in points.items():
        picture(tmp_path / place)
        write_pts((tmp_path / place).with_suffix(".pts"), values)
    picture(tmp_path / "train/profile/d.jpg")
    write_pts(tmp_path / "train/profile/d.pts", points[places[0]][:39])
    faces = datasets.open(f"menpo/train:{tmp_path}")
    assert [face.name for face in faces] == places[:2], "those in profile are left out"
    np.testing.assert_allclose(faces[1].points, points[places[1]] - 1, atol=1e-4)
    assert [metric.norm for metric in faces.metrics] == ["box", "inter_ocular"]
    raw = datasets.open(f"menpo/raw:{tmp_path}")
    np.testing.assert_allclose(raw[0].points, points[places[2]], atol=1e-4)
    (tmp_path / places[0]).unlink()
    with pytest.raises(InputError, match=r"the picture of train/semifrontal/a\.pts"):
        datasets.open(f"menpo/train:{tmp_path}")


# 300-VW ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def vw300(tmp_path):
    """Scenario C's 14 videos: 410 with three frames, each of its own grey, as a video, the others with a picture."""
    points = points_of("ibug68", 3)
    (tmp_path / "410").mkdir()
    writer = cv2.VideoWriter(str(tmp_path / "410" / "vid.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (120, 96))
    for index in range(3):
        writer.write(np.full((96, 120, 3), 40 + 60 * index, np.uint8))
        write_pts(tmp_path / "410" / "annot" / f"{index + 1:06d}.pts", points[index])
    writer.release()
    for number in (411, 516, 517, 526, 528, 529, 530, 531, 533, 557, 558, 559, 562):
        picture(tmp_path / str(number) / "frames" / "000001.jpg", 200)
        write_pts(tmp_path / str(number) / "annot" / "000001.pts", points[0])
    return tmp_path, points


def test_300vw(vw300):
    folder, points = vw300
    faces = datasets.open(f"300vw/c:{folder}")
    assert len(faces) == 3 + 13 and faces.title == "300vw/test/c" and faces.published == 26_338
    assert [face.name for face in faces][:4] == ["410#000001", "410#000002", "410#000003", "411#000001"]
    for order in ((0, 1, 2), (2, 0, 1)):  # one after the other, and with a search
        for index in order:
            image = faces[index].image()
            assert image.shape == (96, 120, 3) and abs(int(image[40, 50, 0]) - 40 - 60 * index) < 4
    np.testing.assert_allclose(faces[2].points, points[2] - 1, atol=1e-4)
    assert abs(int(faces[5].image()[0, 0, 0]) - 200) < 4
    with pytest.raises(InputError, match=r"not a 300vw folder: it lacks 114"):
        datasets.open(f"300vw:{folder}")
    write_pts(folder / "410" / "annot" / "000009.pts", points[0])
    lost = datasets.open(f"300vw/c:{folder}")
    with pytest.raises(ImageError, match="frame 9 cannot be read"):
        next(face for face in lost if face.name == "410#000009").image()
    (folder / "411" / "frames" / "000001.jpg").unlink()
    with pytest.raises(InputError, match=r"lacks 411/vid\.avi"):
        datasets.open(f"300vw/c:{folder}")


def test_300vw_has_the_published_videos():
    from facelm_training.datasets.vw300 import SCENARIOS, TRAIN

    test = [number for numbers in SCENARIOS.values() for number in numbers]
    assert [len(numbers) for numbers in SCENARIOS.values()] == [31, 19, 14] and len(TRAIN) == 50
    assert len({*test, *TRAIN}) == 114
