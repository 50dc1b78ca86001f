"""The whole pipeline in one file against Aligner, and the nodes it is made of against OpenCV."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from facelm_export import pipeline
from facelm_export.graph_builder import GraphBuilder
from facelm_export.ops.looks import resized
from facelm_export.ops.warp import crops
from facelm_export.pipeline import export_pipeline
from facelm_sdk import Aligner, detector, zoo
from facelm_sdk.contract import ModelSpec, PipelineSpec
from facelm_sdk.errors import ContractError, InputError, ModelFileError, ParityError
from facelm_sdk.images.read import read_image
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.runtimes.open import open_session
from facelm_sdk.transform import CropRecipe, kps5_recipe

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
LIMIT = 0.25
"""Pixels, half of what is promised."""


def session(proto):
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def embedded():
    return [zoo.resolve(name).path for name in ("lotr_m", "retinaface_mnet025")]


@pytest.fixture(scope="module")
def whole(embedded, tmp_path_factory):
    return export_pipeline(*embedded, latency=False, out=tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def run(whole):
    """The file in plain onnxruntime."""
    opened = onnxruntime.InferenceSession(whole.path, providers=["CPUExecutionProvider"])
    names = [output.name for output in opened.get_outputs()]
    return lambda image: dict(zip(names, opened.run(None, {"image": image}), strict=True))


def check_same(found, faces, limit=LIMIT):
    """The same faces in the same order."""
    assert len(found["scores"]) == len(faces)
    for index, face in enumerate(faces):
        assert found["scores"][index] == pytest.approx(face.score, abs=1e-3)
        for name in ("boxes", "kps", "landmarks"):
            expected = getattr(face, {"boxes": "bbox"}.get(name, name))
            assert np.abs(found[name][index] - expected).max() < limit, name
        if face.scores is not None:
            np.testing.assert_allclose(found["landmark_scores"][index], face.scores, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "faces"), [("background", 0), ("collins", 1), ("closeup", 1), ("hopper", 1), ("group", 7), ("strip", 2)]
)
def test_finds_what_aligner_finds(run, embedded, name, faces):
    group = read_image(PICTURES / "group.jpg")
    parts = {"background": group[400:, :500], "strip": group[90:383, 80:551]}
    picture = np.ascontiguousarray(parts[name]) if name in parts else read_image(PICTURES / f"{name}.jpg")
    expected = Aligner(*embedded)(picture)
    assert len(expected) == faces
    check_same(run(picture), expected)


@pytest.mark.parametrize("size", [(97, 131), (1501, 1177), (64, 3000), (3, 2), (1, 1)])
def test_pictures_of_any_size(run, embedded, size):
    picture = cv2.resize(read_image(PICTURES / "collins.jpg"), size, interpolation=cv2.INTER_AREA)
    check_same(run(picture), Aligner(*embedded)(picture))


def test_no_face_gives_empty_arrays(run):
    found = run(np.full((480, 640, 3), 90, np.uint8))
    shapes = {name: (value.shape, value.dtype) for name, value in found.items()}
    assert shapes == {
        "boxes": ((0, 4), np.float32),
        "scores": ((0,), np.float32),
        "kps": ((0, 5, 2), np.float32),
        "landmarks": ((0, 68, 2), np.float32),
    }


def test_contract(whole, embedded):
    opened, _ = open_session(whole.path, PipelineSpec)
    part = OrtSession(embedded[0]).spec
    assert opened.spec == whole.spec
    assert (opened.spec.task, opened.spec.name) == ("pipeline", "retinaface_mnet025+lotr_m")
    assert (opened.spec.crop, opened.spec.markup, opened.spec.det_size) == (part.crop, part.markup, "auto")
    assert opened.spec.det_thresh == OrtSession(embedded[1]).spec.det_thresh
    assert opened.spec.parity["against"] == "Aligner" and opened.spec.parity["faces"] >= 8
    found = opened.run({"image": read_image(PICTURES / "collins.jpg")})
    assert [value.shape for value in found] == [(1, 4), (1,), (1, 5, 2), (1, 68, 2)]
    with pytest.raises(ContractError, match="is a model for pipeline; one for landmarks"):
        Aligner(whole.path)


def test_file_and_report(whole):
    model = onnx.load(whole.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert str(Path.cwd()).encode() not in whole.path.read_bytes()
    report = json.loads(whole.report_path.read_text())
    assert report["parity"]["max_px"] <= report["tolerance"]["max_px"] == 0.5
    assert report["parity"]["unmatched"] == 0
    assert report["bytes"] == whole.path.stat().st_size
    assert "--pipeline --model lotr_m" in report["command"]
    assert "Parity with Aligner" in whole.path.with_suffix(".report.md").read_text()
    sizes = sum(part.stat().st_size for part in (zoo.resolve(p).path for p in ("lotr_m", "retinaface_mnet025")))
    assert report["bytes"] < 1.1 * sizes, "the weights are stored more than once"


@pytest.mark.data
def test_real_pictures(run, embedded, data_dir):
    aligner, faces, differences = Aligner(*embedded), 0, []
    with zipfile.ZipFile(data_dir / "frames.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for name in names[:: len(names) // 40]:
            picture = read_image(archive.read(name))
            expected, found = aligner(picture), run(picture)
            check_same(found, expected, limit=0.5)
            faces += len(expected)
            differences += [np.abs(found["landmarks"][i] - face.landmarks) for i, face in enumerate(expected)]
    assert faces > 30
    assert np.mean(differences) < 0.05


def test_specs(whole):
    text = whole.spec.to_json()
    framed = replace(whole.spec, det_size=(320, 256))
    assert ModelSpec.from_json(text) == whole.spec
    assert ModelSpec.from_json(framed.to_json()) == framed
    without = {key: value for key, value in json.loads(text).items() if key != "det_size"}
    with pytest.raises(ContractError, match="a contract for pipeline needs a value of det_size"):
        ModelSpec.from_json(json.dumps(without))
    with pytest.raises(ContractError, match="det_size = True"):
        ModelSpec.from_json(json.dumps({**json.loads(text), "det_size": True}))


@pytest.fixture
def made(monkeypatch, tmp_path, scene):
    """A pipeline of tiny models, proven on scenes, as a function from pictures to outputs by name."""
    monkeypatch.setattr(pipeline, "pictures", lambda: [scene(640, 480, (100, 100, 300, 300))])

    def build(landmarks, detector, **options):
        done = export_pipeline(landmarks, detector, out=tmp_path / "tiny.onnx", latency=False, **options)
        opened = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
        names = [output.name for output in opened.get_outputs()]
        return lambda image: dict(zip(names, opened.run(None, {"image": image}), strict=True))

    return build


SCENES = {
    "small faces": (1600, 1200, (40, 40, 70, 80), (800, 300, 1000, 560), (1500, 1100, 1590, 1190)),
    "one in the other": (640, 480, (100, 100, 400, 400), (150, 150, 250, 250), (380, 380, 480, 480)),
    "fills the frame": (400, 300, (0, 20, 400, 300)),
    "tiny picture": (50, 40, (10, 10, 30, 30), (35, 5, 48, 20)),
    "wide": (1000, 90, (700, 20, 770, 80)),
    "nothing": (300, 500),
}


@pytest.mark.parametrize("det_size", ["auto", 480, (320, 256)])
def test_passes_are_the_detectors(made, scene, detector_model, landmark_model, det_size):
    models = landmark_model(has_scores=True), detector_model(smallest=12.0, largest=200.0)
    found = made(*models, det_size=det_size)
    aligner = Aligner(*models, det_size=det_size)
    count = 0
    for shape in SCENES.values():
        picture = scene(*shape)
        faces = aligner(picture)
        check_same(found(picture), faces, limit=0.02)
        count += len(faces)
    assert count >= 5


def test_threshold(made, scene, detector_model, landmark_model):
    picture = scene(640, 640, (10, 10, 100, 100), (200, 200, 300, 300), (400, 400, 500, 500))
    assert len(made(landmark_model(), detector_model())(picture)["scores"]) == 3
    assert len(made(landmark_model(), detector_model(), det_thresh=0.75)(picture)["scores"]) == 2


@pytest.mark.parametrize(
    "recipe",
    [
        CropRecipe(48, "box", side="max", scale=1.3),
        CropRecipe(48, "box", side="min", scale=0.9, shift=(0.1, -0.12)),
        CropRecipe(33, "box", side="mean"),
        kps5_recipe(40, zoom=0.7, shift=(2.0, -3.0)),
    ],
)
def test_crop_recipes(made, scene, detector_model, landmark_model, recipe):
    models = landmark_model(crop=recipe), detector_model()
    picture = scene(640, 480, (100, 100, 210, 300), (300, 40, 620, 400))
    check_same(made(*models)(picture), Aligner(*models)(picture), limit=0.02)


def test_faces_come_in_batches(made, monkeypatch, scene, detector_model, landmark_model):
    monkeypatch.setattr(pipeline, "MAX_BATCH", 2)
    models = landmark_model(has_scores=True), detector_model()
    picture = scene(640, 640, (10, 10, 100, 100), (200, 200, 300, 300), (400, 400, 500, 500))
    expected = Aligner(*models)(picture)
    assert len(expected) == 3
    check_same(made(*models)(picture), expected, limit=0.02)


def test_models_given_by_name_are_exported(monkeypatch, tmp_path, embedded, landmark_model):
    files = {"lotr_m_128": landmark_model(flip=True, precision="fp16"), "retinaface_mnet025": embedded[1]}
    asked = []

    def export(name, **options):
        asked.append((name, options["precision"], options["flip"], options["opset"]))
        return type("Exported", (), {"path": files[name]})

    monkeypatch.setattr(pipeline, "export", export)
    done = export_pipeline(precision="fp16", flip=True, latency=False, out=tmp_path)
    assert asked == [("retinaface_mnet025", "fp32", False, 18), ("lotr_m_128", "fp16", True, 18)]
    assert done.path.name == "lotr_m_128_flip_fp16_pipeline.onnx"
    assert (done.spec.precision, done.spec.flip) == ("fp16", True)


def test_a_heatmap_network(small, embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "check", lambda *_: None)  # an untrained network's peaks jump
    part = small("fan2").path
    done = export_pipeline(part, embedded[1], latency=False, out=tmp_path)
    assert done.path.name == f"{part.stem}_pipeline.onnx" and done.spec.has_scores
    picture = read_image(PICTURES / "group.jpg")
    *_, landmarks, scores = OrtSession(done.path).run({"image": picture})
    faces = Aligner(part, embedded[1])(picture)
    assert scores.shape == (7, 68)
    np.testing.assert_allclose(scores, [face.scores for face in faces], atol=0.02)
    assert np.median(np.abs(landmarks - [face.landmarks for face in faces])) < 0.01


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opset": 17}, InputError, "opset of a pipeline is 18 to 22, not 17"),
        ({"opset": 20}, InputError, "has opset 18, but the pipeline 20"),
        ({"landmarks": "slpt_hrnet18"}, InputError, "no weights of slpt_hrnet18.*give the .onnx"),
        ({"det_size": 7}, InputError, "det_size"),
        ({"det_thresh": 2.0}, InputError, "det_thresh"),
        ({"precision": "fp16"}, InputError, "is fp32 without flip averaging"),
        ({"flip": True}, InputError, "is fp32 without flip averaging"),
        ({"out": "somewhere.bin"}, InputError, "ending in .onnx"),
    ],
)
def test_refusals(embedded, tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        export_pipeline(**{"landmarks": embedded[0], "detector": embedded[1], **options})
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_fit(embedded, tmp_path, landmark_model):
    with pytest.raises(ContractError, match="is a model for landmarks; one for detection"):
        export_pipeline(embedded[0], embedded[0], out=tmp_path)
    with pytest.raises(InputError, match=r"4 crops at a time.*without --batch"):
        export_pipeline(landmark_model(batch=4), embedded[1], out=tmp_path)
    with pytest.raises(ModelFileError, match="no model file"):
        export_pipeline(tmp_path / "none.onnx", embedded[1], out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_miss_leaves_nothing(embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "TOLERANCES", {"fp32": {"max_px": 1e-7}})
    with pytest.raises(ParityError, match=r"differs too much from Aligner: max_px 0\.\d+ \(allowed"):
        export_pipeline(*embedded, latency=False, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_face_only_one_side_finds_is_a_miss(whole, landmark_model, detector_model, scene):
    blind = OrtSession(zoo.resolve("lotr_m").path)
    blind.run = lambda feeds: [np.zeros(shape, np.float32) for shape in ((0, 4), (0,), (0, 5, 2), (0, 68, 2))]
    aligner = Aligner(landmark_model(), detector_model())
    figures = pipeline.compare(blind, aligner, [scene(640, 480, (100, 100, 300, 300))])
    assert figures["unmatched"] == 1
    with pytest.raises(ParityError, match="1 faces that only one of them finds"):
        pipeline.check(figures, whole.spec)


@pytest.fixture(scope="module")
def resize():
    g = GraphBuilder(18)
    picture = g.input("picture", "uint8", ["H", "W", 3])
    image, shown = resized(picture, g.input("size", "int64", [2]), g.input("quick", "bool", []))
    opened = session(g.model({"out": (image, "uint8", ["h", "w", 3]), "shown": (shown, "int64", [2])}))
    return lambda image, size, quick: opened.run(
        None, {"picture": image, "size": np.array(size), "quick": np.array(quick)}
    )


@pytest.mark.parametrize(
    ("old", "new", "most"),
    [
        ((640, 480), (320, 240), 0.001),
        ((640, 480), (160, 120), 0.001),
        ((333, 700), (152, 320), 0.02),
        ((1283, 727), (192, 109), 0.02),
        ((1000, 7), (320, 2), 0.005),
        ((17, 1), (5, 1), 0.02),
        ((50, 40), (50, 40), 0.0),
        ((50, 40), (83, 67), 0.01),
        ((333, 250), (566, 425), 0.01),
        ((1, 3), (2, 6), 0.02),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_resizing_is_the_detectors(resize, old, new, most, quick):
    noise = np.random.default_rng(0).integers(0, 256, (old[1], old[0], 3), np.uint8)
    picture = cv2.GaussianBlur(noise, (3, 3), 1)
    expected, expected_shown = detector._resized(picture, new, quick=quick)
    image, shown = resize(picture, new, quick)
    assert tuple(shown) == expected_shown
    differences = np.abs(image.astype(int) - expected)
    assert differences.max(initial=0) <= 1
    assert differences.mean() <= most


@pytest.mark.parametrize(
    ("zoom", "opset"), [*((zoom, 18) for zoom in (0.1, 0.3, 0.9, 1.0, 2.0, 2.9, 7.0)), (2.9, 20), (2.9, 22)]
)
def test_warping_is_crop_transforms(zoom, opset):
    recipe = kps5_recipe(64, zoom=0.8)
    g = GraphBuilder(opset)
    picture = g.input("picture", "uint8", ["H", "W", 3])
    boxes, kps = g.input("boxes", "float32", ["k", 4]), g.input("kps", "float32", ["k", 5, 2])
    opened = session(g.model({"out": (crops(recipe, boxes, kps).cut(picture), "uint8", ["k", 64, 64, 3])}))
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 256, (700, 900, 3), np.uint8), (0, 0), max(0.8, zoom))
    template = np.array(recipe.template)
    places = np.array([[300, 300], [-30 * zoom, 200], [900 - 30 * zoom, 700 - 20 * zoom]])  # two reach beyond
    points = (template * zoom + rng.normal(0, 3 * zoom, (3, 5, 2)) + places[:, None]).astype(np.float32)
    feeds = {"picture": image, "boxes": np.zeros((3, 4), np.float32)}
    actual = opened.run(None, {**feeds, "kps": points})[0]
    expected = np.stack([recipe.transform(None, one).warp(image) for one in points])
    assert np.abs(actual.astype(int) - expected).max() <= 2
    assert np.abs(actual.astype(int) - expected).mean() < 0.01
    assert opened.run(None, {**feeds, "kps": points[:0]})[0].shape == (0, 64, 64, 3)
    flat = opened.run(None, {**feeds, "kps": np.full((1, 5, 2), 9, np.float32)})[0]
    assert flat.shape == (1, 64, 64, 3), "points that coincide crash the graph"
