"""Faces to and from other tools and files: there and back, in the other library's own classes, and damaged input."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from facelm_sdk import Face, InputError, MarkupError, Tracker, cli
from facelm_sdk import markup as markups
from facelm_sdk.errors import MissingDependencyError
from facelm_sdk.interop import coco, dlib, insightface, json_schema, pts, supervision, table
from facelm_sdk.pose import HEAD_68

ALL = ["kps5", "aflw19", "cofw29", "ibug68", "wflw98", "jd106"]


def make(markup="ibug68", *, seed=0, scores=False, **values):
    """A face of a markup: the mean head, in the other markups with points of its 68."""
    points = HEAD_68[:, :2] * 10 + np.random.default_rng(seed).uniform(80, 200, 2)
    if markup != "ibug68":
        points = np.nan_to_num(markups.convert(points, "ibug68", markup, missing="nan"), nan=100.0)
    given = {"scores": np.linspace(0, 1, len(points))} if scores else {}
    return Face.of_landmarks(np.round(points, 3), markup, **given, **values)


def same(one, other, atol=1e-3, names=("bbox", "kps", "landmarks")):
    assert one.markup == other.markup
    for name in names:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=atol)
    for name in ("score", "presence", "track_id"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-3), name
    assert (one.scores is None) == (other.scores is None)
    if one.scores is not None:
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


@pytest.mark.parametrize("markup", ALL)
def test_json_there_and_back(markup):
    for face in (make(markup), make(markup, scores=True, score=0.5, presence=0.25, track_id=7)):
        same(Face.from_dict(json.loads(json.dumps(face.to_dict()))), face)


def test_a_face_of_landmarks_alone():
    face = make()
    np.testing.assert_array_equal(face.bbox, [*face.landmarks.min(0), *face.landmarks.max(0)])
    np.testing.assert_allclose(face.kps, face.to("kps5"), atol=1e-4)
    assert face.score is None and face.crop(np.zeros((300, 300, 3), np.uint8)).shape == (112, 112, 3)
    for landmarks, match in (
        (np.zeros((5, 2)), r"shape \(68, 2\), not \(5, 2\)"),
        (np.full((68, 2), np.nan), "finite"),
        ("no points", "numbers"),
    ):
        with pytest.raises(InputError, match=match):
            Face.of_landmarks(landmarks)
    with pytest.raises(MarkupError, match="no markup"):
        Face.of_landmarks(np.zeros((68, 2)), "dlib")


@pytest.mark.parametrize("values", [None, {}, [], {"landmarks": [[0, 0]] * 5}, {"landmarks": "x", "markup": "kps5"}])
def test_json_of_no_face(values):
    with pytest.raises(InputError):
        Face.from_dict(values)


def test_json_with_a_score_that_is_none():
    with pytest.raises(InputError, match="score is a number from 0 to 1"):
        Face.from_dict({**make().to_dict(), "score": "high"})


@pytest.mark.parametrize("markup", ALL)
def test_the_schema_holds_for_real_faces(markup):
    validate(face_schema(), make(markup).to_dict())
    validate(face_schema(), make(markup, scores=True, score=0.9, presence=1.0, track_id=3).to_dict())


def face_schema():
    schema = json_schema()
    return {"$defs": schema["$defs"], "$ref": "#/$defs/face"}


def validate(schema, value):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(value)


def test_the_schema_holds_for_what_the_package_writes(tmp_path):
    """The embedded models' results, of pictures and of a video's faces."""
    group = Path(__file__).resolve().parents[3] / "examples" / "pictures" / "group.jpg"
    result = CliRunner().invoke(cli.app, ["align", str(group), "-o", str(tmp_path), "--format", "jsonl", "--quiet"])
    assert result.exit_code == 0
    (line,) = (tmp_path / "faces.jsonl").read_text().splitlines()
    validate(json_schema(), json.loads(line))
    assert len(json.loads(line)["faces"]) == 7
    faces = Tracker(max_faces=2)(cv2.imread(str(group)))
    assert len(faces) == 2
    for face in faces:
        validate(face_schema(), json.loads(json.dumps(face.to_dict())))


def test_the_schema_refuses_others():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(face_schema())
    good = make().to_dict()
    for change in (
        {"markup": "dlib"},
        {"landmarks": good["landmarks"][:67]},
        {"score": 1.5},
        {"kps": [[0, 0, 0]] * 5},
        {"pose": {"yaw": 0}},
        {"more": 1},
    ):
        assert not validator.is_valid({**good, **change}), change
    assert not validator.is_valid({name: value for name, value in good.items() if name != "bbox"})


def test_the_schema_knows_every_markup():
    kinds = json_schema()["$defs"]["face"]
    assert kinds["properties"]["markup"]["enum"] == markups.names()
    counts = {
        rule["if"]["properties"]["markup"]["const"]: rule["then"]["properties"]["landmarks"] for rule in kinds["allOf"]
    }
    assert {name: count["minItems"] for name, count in counts.items()} == {
        name: markups.get(name).num_points for name in markups.names()
    }


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("markup", ALL)
def test_pts_there_and_back(markup, tmp_path):
    face = make(markup)
    pts.write_pts(tmp_path / "new" / "a.pts", face)
    same(pts.read_pts(tmp_path / "new" / "a.pts"), face, names=("landmarks",))
    first = (tmp_path / "new" / "a.pts").read_text().splitlines()
    assert first[:3] == ["version: 1", f"n_points: {len(face.landmarks)}", "{"] and first[-1] == "}"
    np.testing.assert_allclose([float(value) for value in first[3].split()], face.landmarks[0] + 1, atol=1e-3)


def test_damaged_pts(tmp_path):
    for text in ("", "version: 1", "{1 2 3}", "{a b}"):
        with pytest.raises(InputError, match=r"the text is not a \.pts file"):
            pts.from_pts(text)
    with pytest.raises(MarkupError, match="no markup has 2 points; there are 5"):
        pts.from_pts("{1 2\n3 4}")
    with pytest.raises(InputError, match=r"none\.pts cannot be read"):
        pts.read_pts(tmp_path / "none.pts")
    with pytest.raises(InputError, match="finite"):
        pts.from_pts("{" + "nan 1\n" * 5 + "}")


@pytest.mark.parametrize("markup", ALL)
def test_dlib_there_and_back(markup):
    face = make(markup)
    text = dlib.to_dlib_xml([("a&b.jpg", [face, make(markup, seed=1)]), ("none.jpg", [])])
    back = dlib.from_dlib_xml(text)
    assert list(back) == ["a&b.jpg", "none.jpg"] and back["none.jpg"] == [] and len(back["a&b.jpg"]) == 2
    same(back["a&b.jpg"][0], face, atol=1.0, names=("bbox", "landmarks"))
    np.testing.assert_array_equal(back["a&b.jpg"][0].landmarks, np.rint(face.landmarks))
    assert f'<part name="{"000" if markup == "jd106" else "00"}"' in text  # so that sorted names are in order


def test_dlib_files_of_others():
    parts = "".join(f'<part name="{index}" x="{10 + index}" y="{20 + index % 3}"/>' for index in reversed(range(68)))
    box = f'<box top="1" left="2" width="30" height="40">{parts}</box>'
    box += '<box ignore="1" top="0" left="0" width="1" height="1"/>'
    faces = dlib.from_dlib_xml(f"<dataset><images><image file='x.png'>{box}</image></images></dataset>")["x.png"]
    assert len(faces) == 1 and faces[0].bbox.tolist() == [2, 1, 32, 41]
    np.testing.assert_array_equal(faces[0].landmarks[:, 0], 10 + np.arange(68))
    for text, match in (
        ("no xml", "not dlib's XML"),
        ("<images><image/></images>", "'file'"),
        ("<image file='a'><box top='1' left='2' width='3' height='4'/></image>", "no parts"),
        ("<image file='a'><box top='x' left='2' width='3' height='4'/></image>", "are numbers"),
    ):
        with pytest.raises(InputError, match=match):
            dlib.from_dlib_xml(text)


@pytest.mark.parametrize("markup", ALL)
def test_coco_there_and_back(markup):
    faces = [make(markup, score=0.75, scores=True), make(markup, seed=1)]
    images = [coco.CocoImage("a.jpg", 300, 200, faces), coco.CocoImage("b.jpg", 10, 20, [])]
    data = json.loads(json.dumps(coco.to_coco(images)))
    back = coco.from_coco(data)
    assert list(back) == ["a.jpg", "b.jpg"] and back["b.jpg"] == []
    for one, other in zip(back["a.jpg"], faces, strict=True):
        same(one, other, atol=2e-3, names=("bbox", "landmarks"))
    (category,) = data["categories"]
    assert len(category["keypoints"]) == len(set(category["keypoints"])) == markups.get(markup).num_points
    assert all(1 <= end <= len(category["keypoints"]) for line in category["skeleton"] for end in line)
    first = data["annotations"][0]
    assert first["num_keypoints"] * 3 == len(first["keypoints"]) and set(first["keypoints"][2::3]) == {2}
    x, y, width, height = first["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], faces[0].bbox, atol=2e-3)


def test_coco_of_supervision_and_damaged_coco():
    with pytest.raises(InputError, match="of ibug68, kps5"):
        coco.to_coco([coco.CocoImage("a", 1, 1, [make(), make("kps5")])])
    good = coco.to_coco([coco.CocoImage("a", 1, 1, [make("kps5")])])
    unseen = json.loads(json.dumps(good))
    unseen["annotations"][0]["keypoints"][2] = 0
    with pytest.raises(InputError, match="annotation 1 has points that are not labelled"):
        coco.from_coco(unseen)
    for damaged in ({}, [], {"images": [], "annotations": [{}]}, {**good, "images": []}, {**good, "images": [1]}):
        with pytest.raises(InputError, match="not COCO's key-point JSON"):
            coco.from_coco(damaged)


@pytest.mark.parametrize("markup", ALL)
def test_rows_there_and_back(markup):
    for face in (make(markup), make(markup, scores=True, score=0.5, presence=0.25, track_id=7)):
        row = table.to_row(face)
        assert list(row) == table.columns(markup, scores=face.scores is not None)
        same(table.from_row(row), face)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row))
        writer.writeheader()
        writer.writerow(row)
        (line,) = csv.DictReader(io.StringIO(text.getvalue()))
        same(table.from_row(line), face)


def test_damaged_rows():
    row = table.to_row(make())
    with pytest.raises(InputError, match="lacks 'x67'"):
        table.from_row({name: value for name, value in row.items() if name != "x67"})
    with pytest.raises(InputError, match="could not convert"):
        table.from_row({**row, "y3": "far"})
    with pytest.raises(MarkupError):
        table.from_row({**row, "markup": "dlib"})


def test_a_pandas_row():
    pandas = pytest.importorskip("pandas")
    faces = [make(score=0.5, track_id=3), make(seed=1)]
    frame = table.to_frame(faces)
    assert frame.shape == (2, len(table.columns("ibug68")))
    assert frame["yaw"].notna().all() and frame["score"].isna().tolist() == [False, True]
    for face, (_, row) in zip(faces, frame.iterrows(), strict=True):
        same(table.from_row(row), face)
    same(table.from_row(pandas.Series(table.to_row(faces[0]))), faces[0])


def test_parquet():
    parquet = pytest.importorskip("pyarrow.parquet")
    faces = [make(score=0.5), make(seed=1, score=0.25)]
    rows = [{"source": "a.jpg", "face": index, **table.to_row(face)} for index, face in enumerate(faces)]
    data = table.to_parquet(rows, ["source", "face", *table.columns("ibug68")])
    read = parquet.read_table(io.BytesIO(data))
    assert str(read.schema.field("face").type) == "int64" and str(read.schema.field("track_id").type) == "int64"
    for face, row in zip(faces, read.to_pylist(), strict=True):
        same(table.from_row(row), face)
    assert parquet.read_table(io.BytesIO(table.to_parquet([], ["source", "x0"]))).num_rows == 0


# Libraries ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("markup", ALL)
def test_supervision_keypoints(markup):
    sv = pytest.importorskip("supervision")
    for faces in ([make(markup), make(markup, seed=1)], [make(markup, score=0.5, scores=True)]):
        points = supervision.to_keypoints(faces)
        assert isinstance(points, sv.KeyPoints) and points.xy.shape == (len(faces), len(faces[0].landmarks), 2)
        for one, other in zip(supervision.from_keypoints(points), faces, strict=True):
            same(one, other)
        alone = sv.KeyPoints(xy=points.xy)
        same(supervision.from_keypoints(alone)[0], make(markup), names=("landmarks",))
    assert len(supervision.to_keypoints([])) == 0 and supervision.from_keypoints(sv.KeyPoints.empty()) == []


def test_supervision_detections():
    sv = pytest.importorskip("supervision")
    faces = [make(seed=index, score=0.9 - 0.3 * index, track_id=index + 1, scores=True) for index in range(3)]
    found = supervision.to_detections(faces)
    assert isinstance(found, sv.Detections) and found["class_name"].tolist() == ["face"] * 3
    for one, other in zip(supervision.from_detections(found), faces, strict=True):
        same(one, other)
    kept = found[found.confidence > 0.5]
    same(supervision.from_detections(kept)[1], faces[1])
    assert supervision.to_detections([make()]).tracker_id is None
    assert supervision.from_detections(supervision.to_detections([])) == []
    with pytest.raises(InputError, match=r"boxes=detections\.xyxy"):
        supervision.from_detections(sv.Detections(xyxy=np.array([[0.0, 0, 1, 1]])))
    for convert in (supervision.to_detections, supervision.to_keypoints):
        with pytest.raises(InputError, match="several"):
            convert([make(), make("kps5")])


def test_supervision_draws_them():
    """Its own annotator takes what it is given."""
    sv = pytest.importorskip("supervision")
    drawn = sv.VertexAnnotator(radius=2).annotate(np.zeros((300, 300, 3), np.uint8), supervision.to_keypoints([make()]))
    assert drawn.any()


class TheirFace(dict):
    """As insightface's: a dict whose entries are attributes, None where there is none."""

    def __getattr__(self, name):
        return self.get(name)


def test_insightface_order_of_106_points_mirrors_and_keeps_its_parts():
    """Known of its markup's picture: chin 0, jaw 1 and 17, eye corners 35 39 89 93, nose tip 86, mouth 52 61 71 53."""
    order = np.array(insightface.FROM_JD106)
    assert sorted(order) == list(range(106))
    jd = {0: 1, 16: 0, 32: 17, 66: 35, 70: 39, 75: 89, 79: 93, 54: 86, 84: 52, 90: 61, 87: 71, 93: 53, 104: 38, 105: 88}
    assert {index: order[index] for index in jd} == jd
    numbers = np.arange(106.0).repeat(2).reshape(106, 2)
    assert insightface.from_insightface_106(numbers)[:, 0].tolist() == order.tolist()
    np.testing.assert_array_equal(insightface.from_insightface_106(insightface.to_insightface_106(numbers)), numbers)
    # the well-known list of the 68 among its points
    known = [1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17]
    assert markups.convert(order.repeat(2).reshape(106, 2), "jd106", "ibug68")[:17, 0].tolist() == known
    with pytest.raises(InputError, match=r"106, 2"):
        insightface.from_insightface_106(np.zeros((68, 2)))


def test_from_insightface():
    points = make("jd106").landmarks
    theirs = TheirFace(bbox=np.array([1.0, 2, 3, 4]), det_score=np.float32(0.5), kps=make("kps5").landmarks)
    same(insightface.from_insightface(theirs), make("kps5", bbox=[1, 2, 3, 4], score=0.5))
    theirs["landmark_3d_68"] = np.concatenate([make().landmarks, np.ones((68, 1))], 1)
    same(insightface.from_insightface(theirs), make(bbox=[1, 2, 3, 4], score=0.5), names=("bbox", "landmarks"))
    theirs["landmark_2d_106"] = insightface.to_insightface_106(points)
    found = insightface.from_insightface(theirs)
    assert found.markup == "jd106"
    np.testing.assert_allclose(found.landmarks, points)
    with pytest.raises(InputError, match="no landmark_2d_106"):
        insightface.from_insightface(TheirFace(bbox=np.zeros(4)))


def test_to_insightface():
    kind = pytest.importorskip("insightface.app.common").Face
    for face in (make("jd106", score=0.5), make(score=0.5), make("kps5", score=0.5)):
        theirs = insightface.to_insightface(face)
        assert isinstance(theirs, kind) and theirs.det_score == 0.5 and theirs.embedding is None
        same(insightface.from_insightface(theirs), face)


def test_a_library_that_is_missing_is_named(monkeypatch):
    face = replace(make(), track_id=1)
    for package, call in {
        "supervision": lambda: supervision.to_keypoints([face]),
        "insightface": lambda: insightface.to_insightface(face),
        "pandas": lambda: table.to_frame([face]),
        "pyarrow": lambda: table.to_parquet([], []),
    }.items():
        for module in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingDependencyError, match=rf'{package} cannot be imported .* pip install "facelm-sdk\['):
            call()


def test_importing_the_converters_loads_none_of_the_libraries():
    code = "import sys, facelm_sdk.interop.supervision, facelm_sdk.interop.insightface, facelm_sdk.interop.table\n"
    code += "print([name for name in ('supervision', 'insightface', 'pandas', 'pyarrow') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
