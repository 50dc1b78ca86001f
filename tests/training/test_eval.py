"""``facelm eval``: predictions, tables and files, against models whose answers are known."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from facelm_sdk import Aligner, Detector, Landmarker, zoo
from facelm_sdk import markup as markups
from facelm_sdk.cli import plugins
from facelm_sdk.errors import InputError, MarkupError, MissingDependencyError
from facelm_sdk.pose import HEAD_68
from facelm_sdk.transform import CropRecipe, CropTransform
from facelm_training import datasets
from facelm_training.datasets.base import build
from facelm_training.eval_cli import eval_command
from facelm_training.evaluation import Cut, common_markup, predict, predict_whole, score
from facelm_training.figures import plot_ced
from tests.tolerances import ROUND_TRIP

ROOT = Path(__file__).resolve().parents[2]
SIZE = 32
BOX = CropRecipe(size=SIZE, kind="box", scale=1.2)
WFLW = markups.get("wflw98")
BOXES = [(20, 30, 60, 90), (10, 10, 70, 60), (40, 20, 90, 80), (5, 5, 45, 50)]
NMES = [0.02, 0.05, 0.08, 0.25]


@pytest.fixture
def box_model(landmark_model):
    """In a black picture its points are the template's of the crop."""
    return landmark_model(markup="wflw98", crop=BOX)


@pytest.fixture
def wflw(tmp_path, template):
    """Black pictures; each face's points are off from what the model gives for its rectangle by a known error."""
    folder = tmp_path / "WFLW"
    (folder / "WFLW_images").mkdir(parents=True)
    lines = []
    for index, (box, error) in enumerate(zip(BOXES, NMES, strict=True)):
        points = CropTransform.from_box(box, SIZE, scale=1.2).invert(template(98, SIZE).astype(np.float64))
        points = points + np.array([0.6, 0.8]) * error * np.linalg.norm(points[60] - points[72])
        flags = [int(index == 3), 0, 0, 0, int(index > 1), 0]
        lines.append(
            " ".join([*(f"{v:.6f}" for v in points.ravel()), *map(str, box), *map(str, flags), f"{index}.png"])
        )
        cv2.imwrite(str(folder / "WFLW_images" / f"{index}.png"), np.zeros((100, 120, 3), np.uint8))
    (folder / "list_98pt_rect_attr_test.txt").write_text("\n".join(lines))
    return folder


def invoke(*args):
    app = Typer()
    app.command()(eval_command)
    return CliRunner().invoke(app, [str(arg) for arg in args])


def rows_of(stdout):
    """The cells of each printed row by its first cell; rows of the same name are kept in order."""
    found = {}
    for line in stdout.splitlines():
        name, *cells = line.split() or [""]
        found.setdefault(name, []).append(cells)
    return found


def test_the_tables(wflw, box_model, tmp_path):
    out = tmp_path / "out"
    result = invoke("--model", box_model, "--data", f"wflw:{wflw}", "--box", "dataset", "--out", out, "--batch", 3)
    assert result.exit_code == 0, result.output
    assert "tiny on wflw/test, 4 faces, wflw98 points" in result.stdout
    assert "crop by the data set's own face box" in result.stdout
    assert "4 faces here, 2500 as published" in result.stderr
    rows = rows_of(result.stdout)
    assert rows["full"][0] == ["4", "0", "10.00", "6.50", "25.00", "37.50"]  # AUC: (0.8 + 0.5 + 0.2 + 0) / 4
    assert rows["pose"][0] == ["1", "0", "25.00", "25.00", "100.00", "0.00"]
    assert rows["occlusion"][0] == ["2", "0", "16.50", "16.50", "50.00", "10.00"]
    assert "expression" not in rows  # has no face
    assert rows["full"][1] == ["10.00"] * 8  # seven parts and all but the jaw
    assert sum(int(cells[1]) for name in ("0-15", "15-30", "30-45", "45-90") for cells in rows[name]) == 4
    (path,) = out.glob("*.json")
    assert path.name == "tiny_wflw_test.json"
    record = json.loads(path.read_text("utf-8"))
    assert record["errors"]["inter_ocular"] == pytest.approx(NMES, abs=1e-4)
    assert record["scores"]["inter_ocular"]["rows"]["full"]["nme"] == pytest.approx(10, abs=0.01)
    assert record["landmarks"] == pytest.approx([10] * 98, abs=0.01)
    assert record["regions"]["pose"]["mouth"] == pytest.approx(25, abs=0.01)
    assert record["model"]["sha256"] and record["model"]["flip"] is False and record["crop"]["detector"] is None
    assert record["data"] == {
        "spec": f"wflw:{wflw}",
        "title": "wflw/test",
        "faces": 4,
        "published": 2500,
        "markup": "wflw98",
        "normalisers": ["inter_ocular"],
    }
    assert record["versions"]["numpy"] == np.__version__ and record["command"]
    assert (out / "tiny_wflw_test_ced.png").read_bytes().startswith(b"\x89PNG")


def test_limit_is_spread_evenly(wflw, box_model, tmp_path):
    result = invoke(
        *("--model", box_model, "--data", f"wflw:{wflw}", "--data", f"wflw/occlusion:{wflw}"),
        *("--box", "dataset", "--limit", 2, "--out", tmp_path, "--quiet"),
    )
    assert result.exit_code == 0, result.output
    whole = json.loads((tmp_path / "tiny_wflw_test.json").read_text())
    assert whole["errors"]["inter_ocular"] == pytest.approx([NMES[0], NMES[3]], abs=1e-4)
    part = json.loads((tmp_path / "tiny_wflw_test_occlusion.json").read_text())
    assert part["errors"]["inter_ocular"] == pytest.approx(NMES[2:], abs=1e-4)
    assert list(part["scores"]["inter_ocular"]["rows"]) == ["occlusion"] and part["limit"] == 2


def test_no_result_is_written_over_another_or_the_model(wflw, box_model, tmp_path):
    twice = ("--data", f"wflw:{wflw}", "--data", f"wflw:{wflw}", "--box", "dataset", "--limit", 1, "--quiet")
    assert invoke("--model", box_model, *twice, "--out", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == [
        "tiny_wflw_test.json",
        "tiny_wflw_test_2.json",
    ]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "tiny_wflw_test.json").symlink_to(box_model)
    before = box_model.read_bytes()
    result = invoke("--model", box_model, *twice, "--out", tmp_path / "linked")
    assert isinstance(result.exception, InputError) and box_model.read_bytes() == before


def test_the_papers_crop_is_of_the_landmarks_box(wflw, box_model, template):
    faces = datasets.open(f"wflw:{wflw}")
    landmarker = Landmarker(box_model)
    cut = Cut.of(landmarker.recipe, box="landmarks")
    assert not cut.needs_detector and "as in the papers" in cut.description
    found = predict(faces, landmarker, cut, batch=3)
    for points, face in zip(found, faces, strict=True):
        box = [*face.points.min(0), *face.points.max(0)]
        expected = CropTransform.from_box(box, SIZE, scale=1.2).invert(template(98, SIZE).astype(np.float64))
        np.testing.assert_allclose(points, expected, **ROUND_TRIP)


def test_flip_reaches_the_model(wflw, box_model, template):
    """A black crop's mirror gives the same points, so the average is of the template and its mirror image."""
    landmarker = Landmarker(box_model, flip=True)
    faces = datasets.open(f"wflw:{wflw}")
    points = predict(faces, landmarker, Cut.of(BOX, box="dataset"))[0]
    crop = template(98, SIZE).astype(np.float64)
    mean = (crop + markups.flip_points(crop, SIZE, WFLW)) / 2
    np.testing.assert_allclose(points, CropTransform.from_box(BOXES[0], SIZE, scale=1.2).invert(mean), **ROUND_TRIP)


@pytest.fixture
def detected(tmp_path, scene, detector_model, landmark_model):
    """Two faces in one picture, one in another where no face is to be seen; points at the corners of their boxes."""
    boxes = [(50, 50, 250, 260), (400, 100, 600, 300), (300, 300, 400, 420)]
    cv2.imwrite(str(tmp_path / "two.png"), scene(640, 480, *boxes[:2]))
    cv2.imwrite(str(tmp_path / "none.png"), np.zeros((480, 640, 3), np.uint8))
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(box[:2], box[2:], (68, 2)) for box in boxes])
    points[:, 0], points[:, 1] = np.array(boxes)[:, :2], np.array(boxes)[:, 2:]
    paths = [tmp_path / name for name in ("two.png", "two.png", "none.png")]
    samples = build("ibug68", ["a", "b", "c"], paths, points, kps5=rng.uniform(10, 90, (3, 5, 2)))
    dataset = datasets.Dataset(datasets.READERS["300w"], "private", tuple(samples))
    return dataset, Detector(detector_model()), Landmarker(landmark_model())


def test_detections_are_matched_and_missed_faces_are_failures(detected, monkeypatch):
    dataset, detector, landmarker = detected
    looks = []
    search = Detector.__call__
    monkeypatch.setattr(Detector, "__call__", lambda self, image: looks.append(image.shape) or search(self, image))
    cut = Cut.of(landmarker.recipe)
    assert cut.source == "detector"
    found = predict(dataset, landmarker, cut, detector)
    assert len(looks) == 2  # a picture is searched once
    assert np.isnan(found).any((1, 2)).tolist() == [False, False, True]
    for points, sample in zip(found[:2], dataset, strict=False):
        centre = (sample.landmark_box[:2] + sample.landmark_box[2:]) / 2
        assert np.linalg.norm(points.mean(0) - centre) < 0.4 * np.ptp(sample.landmark_box[::2])
    row = score(dataset, found, "ibug68").rows(datasets.Metric("inter_ocular", 1e9))["full"]
    assert (row["faces"], row["missed"], row["fr@1e+09"]) == (3, 1, 33.333)
    errors = score(dataset, found, "ibug68").errors["inter_ocular"]
    assert row["nme"] == pytest.approx(100 * errors[:2].mean(), abs=1e-3)
    with pytest.raises(InputError, match="need a detector"):
        predict(dataset, landmarker, cut)


def test_whole_pictures_are_the_aligners(detected):
    """A face is that of the most overlapping box, and missed where there is none."""
    dataset, detector, landmarker = detected
    aligner = Aligner(landmarker, detector, realign=False)
    found = predict_whole(dataset, aligner)
    np.testing.assert_allclose(
        found[:2], predict(dataset, landmarker, Cut.of(landmarker.recipe), detector)[:2], atol=1e-3
    )
    assert np.isnan(found[2]).all()
    first, second = (face.landmarks for face in aligner(dataset[0].image()))
    np.testing.assert_allclose(found[:2], [first, second], atol=1e-3)


@pytest.mark.parametrize("source", ["truth", "dataset"])
def test_five_points_that_are_given(detected, template, source):
    dataset, _, landmarker = detected
    black = dataset.part([2])
    sample = black[0]
    kps = sample.kps5 if source == "dataset" else markups.convert(sample.points, "ibug68", "kps5")
    recipe = landmarker.recipe
    expected = CropTransform.from_kps5(kps, recipe.template, SIZE).invert(template(68, SIZE).astype(np.float64))
    found = predict(black, landmarker, Cut.of(recipe, points=source))
    np.testing.assert_allclose(found[0], expected, **ROUND_TRIP)


def test_cuts_that_cannot_be(detected):
    dataset, _, landmarker = detected
    with pytest.raises(InputError, match="cut by box: --box is detector, landmarks, dataset"):
        Cut.of(BOX, points="truth")
    with pytest.raises(InputError, match="cut by five points: --points is detector, dataset, truth"):
        Cut.of(landmarker.recipe, box="landmarks")
    with pytest.raises(InputError, match="--points is detector, dataset, truth; got 'oracle'"):
        Cut.of(landmarker.recipe, points="oracle")
    with pytest.raises(InputError, match="a has no box of the data set's own"):
        Cut.of(BOX, box="dataset").transform(dataset[0], None, "ibug68")
    assert "oracle" in Cut.of(landmarker.recipe, points="truth").description


def test_points_that_are_not_known_count_in_no_error():
    points = np.random.default_rng(0).uniform(0, 100, (2, 68, 2))
    known = np.ones((2, 68), bool)
    known[0, :8] = False
    samples = build("ibug68", ["a", "b"], [Path("x")] * 2, points, known=known)
    dataset = datasets.Dataset(datasets.READERS["turned68"], "test", tuple(samples))
    moved = points + np.array([0, 5])
    moved[0, :8] += 1000
    scores = score(dataset, moved, "ibug68")
    eyes = np.array([sample.norms["inter_ocular"] for sample in dataset])
    np.testing.assert_allclose(scores.errors["inter_ocular"], 5 / eyes, rtol=1e-5)
    assert scores.landmarks()[0] == pytest.approx(500 / eyes[1], rel=1e-4)
    moved[0] = np.nan
    assert np.isnan(score(dataset, moved, "ibug68").errors["inter_ocular"]).tolist() == [True, False]


def test_what_users_run_is_the_default(detected, landmark_model):
    """The detection's own box, or the landmarks' box made of its five points, as Aligner cuts it."""
    dataset, detector, _ = detected
    for box, told in (("detector", "the box of the detection"), ("landmarks", "made of the five points")):
        landmarker = Landmarker(landmark_model(crop=CropRecipe(SIZE, "box", scale=1.2, box=box)))
        cut = Cut.of(landmarker.recipe)
        assert cut.needs_detector and told in cut.description
        faces = Aligner(landmarker, detector)(cv2.imread(str(dataset[0].source)))
        found = predict(dataset.part([0, 1]), landmarker, cut, detector)
        np.testing.assert_allclose(found, [face.landmarks for face in faces], atol=0.01)


def test_it_is_told_which_way_a_box_is_cut(wflw, box_model, detector_model):
    for args, told in (((), True), (("--box", "landmarks"), False)):
        options = ("--model", box_model, "--detector", detector_model(), "--data", f"wflw:{wflw}", "--quiet")
        result = invoke(*options, *args)
        assert result.exit_code == 0, result.output
        assert ("the papers' protocol is --box landmarks" in result.stdout) == told
        assert ("as in the papers" in result.stdout) != told


def test_errors_by_yaw():
    """Each face is in the row of its yaw; the box's size normalises as the points' own box has it."""
    rng = np.random.default_rng(0)
    yaws, errors = [0, -10, 20, 40, -50, 80], [1, 3, 2, 4, np.nan, 6]
    points = []
    for yaw in yaws:
        a = np.radians(-yaw)
        turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        head = HEAD_68 @ turn.T + (0, 0, 100)
        points.append(1000 * head[:, :2] / head[:, 2:] + rng.uniform(100, 300, 2))
    names = [str(index) for index in range(len(yaws))]
    dataset = datasets.Dataset(
        datasets.READERS["300w"], "private", tuple(build("ibug68", names, [Path("x")] * 6, points))
    )
    moved = np.array(points) + np.array([0.6, 0.8]) * np.array(errors)[:, None, None]
    scores = score(dataset, moved, "ibug68")
    rows = scores.by_yaw()
    assert [list(row.values())[:2] for row in rows.values()] == [[2, 0], [1, 0], [1, 0], [2, 1]]
    assert rows == scores.to_dict()["by_yaw"] and list(rows) == ["0-15", "15-30", "30-45", "45-90"]
    sizes = np.sqrt(np.prod(np.ptp(points, axis=1), axis=1))
    assert rows["0-15"]["box"] == pytest.approx(100 * (1 / sizes[0] + 3 / sizes[1]) / 2, abs=0.01)
    assert rows["45-90"]["box"] == pytest.approx(100 * 6 / sizes[5], abs=0.01)
    eyes = np.linalg.norm(points[5][36] - points[5][45])
    assert rows["45-90"]["inter_ocular"] == pytest.approx(100 * 6 / eyes, abs=0.01)
    sparse = rng.uniform(0, 100, (6, 29, 2))
    few = datasets.Dataset(datasets.READERS["cofw"], "test", tuple(build("cofw29", names, [Path("x")] * 6, sparse)))
    assert score(few, sparse, "cofw29").by_yaw() == {}


def test_other_markups_are_compared_as_the_sparser_one(detected):
    """A 98-point prediction of 68 annotated points, and 98 annotated points of a 68-point prediction."""
    rng = np.random.default_rng(1)
    dense = rng.uniform(0, 100, (1, 98, 2))
    sparse = markups.convert(dense, "wflw98", "ibug68")
    wanted = {"a": ("300w", sparse, dense, "wflw98"), "b": ("wflw", dense, sparse, "ibug68")}
    for name, (data, target, prediction, markup) in wanted.items():
        info = datasets.READERS[data]
        dataset = datasets.Dataset(info, "test", tuple(build(info.markup, [name], [Path("x")], target)))
        scores = score(dataset, prediction + np.array([3, 4]), markup)
        assert scores.markup.name == "ibug68" and scores.points.shape == (1, 68)
        assert scores.errors["inter_ocular"][0] == pytest.approx(5 / dataset[0].norms["inter_ocular"], rel=1e-4)
        assert set(scores.errors) == {metric.norm for metric in dataset.metrics}
    assert common_markup("jd106", "ibug68").name == "ibug68" == common_markup("ibug68", "jd106").name
    with pytest.raises(MarkupError, match="gives ibug68 points and the data has cofw29"):
        common_markup("ibug68", "cofw29")
    with pytest.raises(MarkupError, match="gives ibug68 points and the data has aflw19"):
        common_markup("ibug68", "aflw19")  # whose points would be interpolated


def test_a_region_is_told_apart(detected):
    dataset = detected[0]
    target = np.stack([sample.points for sample in dataset]).astype(np.float64)
    prediction = target.copy()
    norms = np.array([sample.norms["inter_ocular"] for sample in dataset])
    prediction[:, 48:68, 0] += 0.1 * norms[:, None]
    scores = score(dataset, prediction, "ibug68")
    regions = scores.regions()["full"]
    assert regions["mouth"] == pytest.approx(10) and regions["jaw"] == regions["nose"] == regions["eyes"] == 0
    assert scores.landmarks() == pytest.approx([0] * 48 + [10] * 20)


def test_without_any_face_the_json_is_still_json(detected, landmark_model, detector_model, tmp_path):
    folder = tmp_path / "wflw"
    (folder / "WFLW_images").mkdir(parents=True)
    cv2.imwrite(str(folder / "WFLW_images" / "a.png"), np.zeros((100, 100, 3), np.uint8))
    points = np.random.default_rng(0).uniform(10, 90, 196)
    line = " ".join([*map(str, points), "10 10 90 90", "0 0 0 0 0 0", "a.png"])
    (folder / "list_98pt_rect_attr_test.txt").write_text(line)
    model = landmark_model(markup="wflw98")
    args = ("--model", model, "--detector", detector_model(), "--data", f"wflw:{folder}", "--out", tmp_path / "out")
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    assert rows_of(result.stdout)["full"][0] == ["1", "1", "-", "-", "100.00", "0.00"]
    (path,) = (tmp_path / "out").glob("*.json")
    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (
        record["errors"]["inter_ocular"] == [None] and record["scores"]["inter_ocular"]["rows"]["full"]["nme"] is None
    )


def test_what_is_not_accepted(wflw, box_model, landmark_model):
    data = ("--data", f"wflw:{wflw}")
    for args, kind, told in (
        (("--model", "slpt.safetensors", *data), InputError, "facelm-export --model NAME --weights slpt.safetensors"),
        (("--model", box_model, *data, "--limit", 0), InputError, "at least 1"),
        (("--model", box_model, *data, "--batch", 0), InputError, "at least 1"),
        (("--model", box_model, *data, "--points", "truth"), InputError, "cut by box"),
        (("--model", box_model, "--data", f"lfw:{wflw}"), InputError, "a data set is NAME:DIR"),
        (("--model", landmark_model(markup="cofw29", crop=BOX), *data), MarkupError, "cofw29 points and the data has"),
    ):
        error = invoke(*args).exception
        assert isinstance(error, kind) and told in str(error)
    assert invoke("--model", box_model).exit_code == 2  # no --data


def test_it_is_a_command_of_facelm(wflw, box_model, monkeypatch):
    line = 'eval = "facelm_training.eval_cli:eval_command"'
    assert line in (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    entry = EntryPoint("eval", "facelm_training.eval_cli:eval_command", plugins.PLUGIN_GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    app = Typer()
    app.command("own")(lambda: None)
    plugins.add_plugins(app)
    args = ["eval", "--model", str(box_model), "--data", f"wflw/pose:{wflw}", "--box", "dataset", "--quiet"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert rows_of(result.stdout)["pose"][0][2] == "25.00"


def test_the_plot_needs_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"the plot needs matplotlib .*facelm-sdk\[train\]"):
        plot_ced({"one": np.array([0.02])}, tmp_path / "ced.png", "errors")


@pytest.mark.data
def test_the_packaged_model_on_landmarks68(data_dir, tmp_path):
    result = invoke("--model", "lotr_m", "--data", f"landmarks68:{data_dir}", "--limit", 24, "--out", tmp_path, "-q")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "lotr_m_landmarks68_val_300w.json").read_text())
    assert 1 < record["scores"]["inter_ocular"]["rows"]["full"]["nme"] < 4
    assert record["crop"]["detector"] == zoo.DETECTOR
