"""The whole pipeline in one file against Aligner, and what it is made of against the runtime's own code."""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from facelm_export import pipeline
from facelm_export.build import build
from facelm_export.exporter import graph_module
from facelm_export.onnx_export import to_onnx
from facelm_export.ops.crops import crops_to_picture
from facelm_export.ops.nms import outside_better
from facelm_export.ops.resampling import cut, fit, translations
from facelm_export.pipeline import FacePipeline, TorchSession, export_pipeline
from facelm_sdk import Aligner, Detector, Landmarker, Tracker, boxes, zoo
from facelm_sdk.cli import app
from facelm_sdk.contract import DetectorSpec, ModelSpec, PipelineSpec
from facelm_sdk.errors import ContractError, InputError, ParityError
from facelm_sdk.images.read import read_image
from facelm_sdk.inspect import inspect_model
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.transform import CropRecipe, kps5_recipe

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
LIMIT = 0.5
"""Pixels of the picture that a box's corner or a point may lie from Aligner's at most."""
SIZE = 320
MODEL = "pyramid_m"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return export_pipeline(MODEL, det_size=SIZE, latency=False, out=tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def run(whole):
    return runner(whole.path.read_bytes())


def whole_of(landmarks, det_size):
    """The contract of a pipeline with a landmark model of that contract."""
    own = {entry.name: getattr(landmarks, entry.name) for entry in fields(landmarks) if entry.name != "has_presence"}
    return PipelineSpec(**own, det_size=det_size, det_thresh=0.5)


def runner(model):
    """A file in plain onnxruntime: a picture to outputs by name."""
    opened = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in opened.get_outputs()]
    return lambda image: dict(zip(names, opened.run(None, {"image": image}), strict=True))


@pytest.fixture(scope="module")
def composed():
    return Aligner(MODEL, det_size=SIZE, precision="fp32", realign=False)


def check_same(found, faces, limit=LIMIT):
    """The same faces in the same order, but where their scores are next to equal."""
    assert len(found["scores"]) == len(faces)
    for place, face in enumerate(faces):
        index = boxes.most_overlapping(face.bbox, found["boxes"], 0.5)
        assert index == place or found["scores"][index] == pytest.approx(found["scores"][place], abs=0.01)
        assert found["scores"][index] == pytest.approx(face.score, abs=0.01)
        for name in ("boxes", "kps", "landmarks"):
            expected = getattr(face, {"boxes": "bbox"}.get(name, name))
            assert np.abs(found[name][index] - expected).max() < limit, name
        if face.scores is not None:
            np.testing.assert_allclose(found["landmark_scores"][index], face.scores, atol=0.02 * limit)


def picture(name):
    group = read_image(PICTURES / "group.jpg")
    parts = {"background": group[400:, :500], "strip": group[90:383, 80:551]}
    if name == "many":
        tile = cv2.resize(read_image(PICTURES / "collins.jpg"), (160, 120), interpolation=cv2.INTER_AREA)
        return np.tile(tile, (2, 2, 1))
    return np.ascontiguousarray(parts[name]) if name in parts else read_image(PICTURES / f"{name}.jpg")


@pytest.mark.parametrize(
    ("name", "faces"),
    [("background", 0), ("collins", 1), ("closeup", 1), ("hopper", 1), ("group", 6), ("strip", 2), ("many", 4)],
)
def test_finds_what_aligner_finds(run, composed, name, faces):
    expected = composed(picture(name))
    assert len(expected) == faces
    check_same(run(picture(name)), expected)


@pytest.mark.parametrize(
    "size", [(97, 131), (320, 240), (250, 333), (641, 479), (800, 600), (1501, 1177), (64, 3000), (3, 2), (1, 1)]
)
def test_pictures_of_any_size(run, composed, size):
    resized = cv2.resize(read_image(PICTURES / "collins.jpg"), size, interpolation=cv2.INTER_AREA)
    check_same(run(resized), composed(resized))


def test_no_face_gives_empty_arrays(run):
    found = run(np.full((480, 640, 3), 90, np.uint8))
    shapes = {name: (value.shape, value.dtype) for name, value in found.items()}
    assert shapes == {
        "boxes": ((0, 4), np.float32),
        "scores": ((0,), np.float32),
        "kps": ((0, 5, 2), np.float32),
        "landmarks": ((0, 68, 2), np.float32),
        "landmark_scores": ((0, 68), np.float32),
    }


@pytest.mark.data
def test_real_pictures(run, composed, data_dir):
    faces, differences = 0, []
    with zipfile.ZipFile(data_dir / "frames.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for name in names[:: len(names) // 40]:
            image = read_image(archive.read(name))
            expected, found = composed(image), run(image)
            check_same(found, expected)
            faces += len(expected)
            differences += [np.abs(found["landmarks"][i] - face.landmarks) for i, face in enumerate(expected)]
    assert faces > 30
    assert np.mean(differences) < 0.05


def test_contract(whole, composed):
    spec = OrtSession(whole.path).spec
    assert spec == whole.spec
    assert (spec.task, spec.name, spec.det_size) == ("pipeline", f"{zoo.DETECTOR}+{MODEL}", SIZE)
    assert spec.det_thresh == composed.detector.det_thresh
    assert (spec.crop, spec.markup) == (composed.landmarker.spec.crop, composed.landmarker.spec.markup)
    assert spec.parity["against"] == "Aligner with PyTorch fp32"
    assert spec.parity["faces"] + spec.parity["ties"] >= 8 and spec.parity["ties"] <= 2
    with pytest.raises(ContractError, match="is a model for pipeline; one for landmarks"):
        Landmarker(whole.path)


def test_file_and_report(whole):
    model = onnx.load(whole.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert not model.functions
    assert str(Path.cwd()).encode() not in whole.path.read_bytes()
    report = json.loads(whole.report_path.read_text())
    assert report["parity"]["max_px"] <= report["tolerance"]["max_px"] == 0.5
    assert (report["parity"]["unmatched"], report["det_size"]) == (0, SIZE)
    assert report["bytes"] == whole.path.stat().st_size
    assert report["command"] == f"facelm-export pipeline --model {MODEL} --no-latency"
    assert "Parity with Aligner with PyTorch fp32" in whole.path.with_suffix(".report.md").read_text()


def test_aligner_runs_the_file(whole, run):
    aligner = Aligner(whole.path, threads=1, profile=True)
    image = picture("group")
    faces = aligner(image)
    check_same(run(image), faces, limit=1e-3)
    assert faces[0].markup == "ibug68" and faces[0].track_id is None
    centre = faces[0].transform.apply(faces[0].kps).mean(0)
    np.testing.assert_allclose(centre, np.mean(whole.spec.crop.template, 0), atol=1e-3)
    assert (aligner.detector, aligner.pipeline.spec) == (None, whole.spec)
    assert set(aligner.profile.last) >= {"pipeline: one file", "total"}
    assert [len(found) for found in aligner.batch([PICTURES / "collins.jpg", image, picture("background")])] == [
        1,
        6,
        0,
    ]
    assert len(aligner(image[..., ::-1], color="rgb")) == 6
    best = [face.score for face in faces]
    assert [face.score for face in Aligner(whole.path, max_faces=2)(image)] == best[:2]
    stricter = Aligner(whole.path, det_size=SIZE, det_thresh=0.99, flip=False)
    assert [face.score for face in stricter(image)] == [score for score in best if score >= 0.99]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"det_size": 640}, r"one file for det_size 320, not 640: .*pipeline --det-size 640"),
        ({"det_size": (320, 240)}, "not 320x240"),
        ({"det_thresh": 0.4}, r"drops faces below 0\.75: det_thresh is from there to 1, not 0\.4"),
        ({"flip": True}, "without flip averaging: leave flip out"),
        ({"detector": "retinaface_r50"}, "finds faces itself: leave detector out"),
        ({"precision": "int8"}, "is in fp32, not in int8"),
    ],
)
def test_what_is_fixed_in_the_file_is_not_an_option(whole, options, message):
    with pytest.raises(InputError, match=message):
        Aligner(whole.path, **options)


def test_what_a_pipeline_cannot_do(whole):
    aligner, image = Aligner(whole.path), picture("collins")
    for given in ({"boxes": [10, 10, 50, 50]}, {"kps": np.zeros((5, 2))}):
        with pytest.raises(InputError, match="leave boxes and kps out"):
            aligner(image, **given)
    with pytest.raises(InputError, match="the landmark model is not by itself"):
        aligner.landmarker  # noqa: B018
    with pytest.raises(InputError, match="a Tracker needs an Aligner with a detector"):
        Tracker(aligner)


def test_command_line(whole, tmp_path):
    result = CliRunner().invoke(
        app, ["align", str(PICTURES), "--model", str(whole.path), "-o", str(tmp_path), "--draw"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "hopper.json").read_text())
    assert (found["model"], found["detector"], len(found["faces"])) == (whole.spec.name, None, 1)
    assert len(found["faces"][0]["landmarks"]) == 68 and (tmp_path / "hopper.jpg").is_file()
    facts = inspect_model(whole.path)
    assert facts["contract"]["det_size"] == SIZE and facts["inputs"][0]["shape"][2] == 3


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


def test_half_precision_flip_a_frame_and_triton(tmp_path):
    done = export_pipeline(
        MODEL, det_size=(320, 240), precision="fp16", flip=True, opset=20, format="triton", latency=False, out=tmp_path
    )
    (file,) = tmp_path.glob("*/1/model.onnx")
    opened = OrtSession(file)
    assert opened.spec == done.spec
    assert (done.spec.precision, done.spec.flip, done.spec.det_size) == ("fp16", True, (320, 240))
    assert {entry.version for entry in onnx.load(file).opset_import} == {20}
    assert "--det-size 320x240 --fp16 --format triton --flip --opset 20" in done.report["command"]
    image = picture("hopper")
    (face,) = Aligner(MODEL, det_size=(320, 240), flip=True, precision="fp32", realign=False)(image)
    np.testing.assert_allclose(opened.run({"image": image})[3][0], face.landmarks, atol=2 * LIMIT)


class BrightBoxes(nn.Module):
    """Finds a face a colour channel, of scores 0.9, 0.8 and 0.7: the extent of its pixels above 127."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        lit = (image[0] > 127).permute(2, 0, 1)  # (3, H, W)
        found, ends = lit.flatten(1).any(1), []
        for axis in (2, 1):  # x, then y
            line = lit.any(3 - axis)
            place = torch.arange(line.shape[1])
            ends.append((torch.where(line, place, 1 << 20).amin(1), torch.where(line, place, -1).amax(1)))
        (x1, x2), (y1, y2) = ends
        index = torch.nonzero(found).flatten()
        boxes = torch.stack([x1 - 0.5, y1 - 0.5, x2 + 0.5, y2 + 0.5], 1).float().index_select(0, index)
        mean = torch.tensor([(0.31, 0.42), (0.69, 0.42), (0.50, 0.62), (0.35, 0.80), (0.65, 0.80)])
        kps = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2]) * mean
        return boxes, torch.tensor([0.9, 0.8, 0.7]).index_select(0, index), kps


class LevelLandmarks(nn.Module):
    """68 points that move by a pixel a 16 levels of the crop, and scores."""

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        level = crops.float().mean((1, 2, 3))
        place = torch.arange(136).float().view(68, 2) / 8
        return place + level[:, None, None] / 16, level[:, None].expand(-1, 68) / 255


SCENES = {
    "three": (640, 480, (100, 100, 300, 300), (320, 40, 620, 400), (10, 200, 60, 260)),
    "one in the other": (640, 480, (100, 100, 400, 400), (150, 150, 250, 250), (380, 380, 480, 480)),
    "large": (2000, 1501, (100, 300, 1500, 1400)),
    "tiny picture": (50, 40, (10, 10, 30, 30), (35, 5, 48, 20)),
    "wide": (1000, 90, (700, 20, 770, 80)),
    "nothing": (300, 500),
}


@pytest.mark.parametrize(
    ("recipe", "det_size"),
    [
        (kps5_recipe(40, zoom=0.7, shift=(2.0, -3.0)), 256),
        (CropRecipe(48, "box", side="max", scale=1.3), (320, 256)),
        (CropRecipe(33, "box", side="min", scale=0.9, shift=(0.1, -0.12)), 480),
        (CropRecipe(48, "box", scale=1.2, box="landmarks"), 256),
    ],
)
def test_geometry(landmark_spec, scene, recipe, det_size):
    part = landmark_spec(crop=recipe, has_scores=True)
    found = DetectorSpec(name="bright", det_thresh=0.5)
    spec = whole_of(part, det_size)
    module = FacePipeline(BrightBoxes(), LevelLandmarks(), recipe, det_size)
    one_file = runner(to_onnx(module, spec).SerializeToString())
    detector = Detector(TorchSession(BrightBoxes(), found), det_size=det_size)
    aligner = Aligner(Landmarker(TorchSession(LevelLandmarks(), part)), detector, realign=False)
    count = 0
    for shape in SCENES.values():
        image = scene(*shape)
        faces = aligner(image)
        check_same(one_file(image), faces, limit=0.02)
        count += len(faces)
    assert count >= 7


@pytest.mark.parametrize("name", ["fan2", "slpt_resnet34"])
def test_no_crop_and_two_of_other_networks(small, scene, name):
    """Networks take what the detector finds as one batch, which may be empty."""
    part = build(name, weights=small(name).path.parent / "weights.safetensors")
    spec = whole_of(part.spec, SIZE)
    module = FacePipeline(BrightBoxes(), graph_module(part), spec.crop, SIZE)
    one_file = runner(to_onnx(module, spec).SerializeToString())
    for boxes_lit in ((), ((100, 100, 300, 300), (320, 40, 620, 400))):
        found = one_file(scene(640, 480, *boxes_lit))
        assert found["landmarks"].shape == (len(boxes_lit), 68, 2) and np.isfinite(found["landmarks"]).all()
        assert ("landmark_scores" in found) == part.spec.has_scores


class Resampling(nn.Module):
    """Both operators by themselves."""

    def __init__(self, width: int, height: int, padded: bool, size: int) -> None:
        super().__init__()
        self.frame, self.size = (width, height, padded), size

    def forward(self, image: torch.Tensor, back: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return *fit(image, *self.frame), cut(image, back, self.size)


@pytest.fixture(scope="module", params=[((320, 320, False), 18), ((320, 256, True), 22)], ids=["side", "frame"])
def resampling(request):
    """The operators in PyTorch and in onnxruntime."""
    from onnxscript import optimizer

    frame, opset = request.param
    module, any_size = Resampling(*frame, 64).eval(), torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        module,
        (torch.zeros(90, 80, 3, dtype=torch.uint8), torch.zeros(2, 2, 3)),
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=({0: any_size, 1: any_size}, {0: any_size}),
        custom_translation_table=translations(),
        optimize=False,
        verbose=False,
    )
    optimizer.optimize_ir(program.model)
    opened = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [one.name for one in opened.get_inputs()]

    def both(image, back):
        expected = [part.numpy() for part in module(torch.from_numpy(image), torch.from_numpy(back))]
        return expected, opened.run(None, dict(zip(names, (image, back), strict=True)))

    return both


@pytest.mark.parametrize(
    ("size", "mean"),
    [
        ((640, 480), 0.001),
        ((333, 700), 0.001),
        ((1283, 727), 0.001),
        ((1000, 7), 0.001),
        ((1501, 2003), 0.001),
        ((320, 240), 0.001),
        ((300, 200), 0.01),
        ((50, 40), 0.01),
        ((17, 1), 0.05),
        ((1, 3), 0.05),
    ],
)
def test_fitting_is_the_detectors(resampling, size, mean):
    """To the level, but for single pixels: near levels decide which of two good boxes of a face is the better."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    (image, zoom, _), found = resampling(cv2.GaussianBlur(noise, (3, 3), 0.15), np.zeros((0, 2, 3), np.float32))
    assert image.shape == found[0].shape
    np.testing.assert_allclose(zoom, found[1], rtol=1e-6)
    differences = np.abs(image - found[0])
    assert differences.max() <= 1 and differences.mean() <= mean


@pytest.mark.parametrize("zoom", [0.1, 0.3, 0.9, 1.0, 2.0, 2.9, 7.0])
def test_cutting_is_crop_transforms(resampling, zoom):
    recipe = kps5_recipe(64, zoom=0.8)
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 256, (700, 900, 3), np.uint8), (0, 0), max(0.8, zoom))
    places = np.array([[300, 300], [-30 * zoom, 200], [900 - 30 * zoom, 700 - 20 * zoom]])  # two reach beyond
    points = np.array(recipe.template) * zoom + rng.normal(0, 3 * zoom, (3, 5, 2)) + places[:, None]
    transforms = [recipe.transform(None, one) for one in points]
    (*_, crops), found = resampling(image, np.stack([one.inverse for one in transforms]).astype(np.float32))
    warped = np.stack([one.warp(image) for one in transforms]).transpose(0, 3, 1, 2)
    assert np.abs(crops - warped).max() <= 1
    assert np.abs(found[2] - warped).max() <= 1.5, "half a level is OpenCV's rounding"
    assert np.abs(found[2] - warped).mean() < 0.3


def test_cutting_what_no_face_shows(resampling):
    """Points that coincide give crops of anything; they must not stop the other faces."""
    image = np.full((70, 90, 3), 200, np.uint8)
    far = np.array([[[1, 0, 5000], [0, 1, 5000]], [[1e6, 0, 0], [0, 1e6, 0]]], np.float32)
    (*_, crops) = resampling(image, far)[1]
    assert crops.shape == (2, 3, 64, 64) and not crops[0].any(), "black outside the picture"


@pytest.mark.parametrize(
    "recipe",
    [
        CropRecipe(48, "box", side="max", scale=1.3),
        CropRecipe(48, "box", side="min", scale=0.9, shift=(0.1, -0.12)),
        CropRecipe(33, "box", side="mean"),
        CropRecipe(48, "box", scale=1.2, box="landmarks", offset=(0.5, 0.5)),
        kps5_recipe(40, zoom=0.7, shift=(2.0, -3.0)),
    ],
)
def test_crop_geometry_is_the_recipes(recipe):
    rng = np.random.default_rng(0)
    kps = rng.uniform(0, 500, (20, 1, 2)) + rng.uniform(20, 90, (20, 5, 2))
    faces = np.concatenate([kps.min(1) - rng.uniform(0, 9, (20, 2)), kps.max(1) + rng.uniform(0, 9, (20, 2))], 1)
    found = crops_to_picture(recipe, torch.from_numpy(faces).float(), torch.from_numpy(kps).float(), "ibug68").numpy()
    expected = [recipe.of_detection("ibug68", box, points).inverse for box, points in zip(faces, kps, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)
    degenerate = crops_to_picture(recipe, torch.ones(1, 4), torch.ones(1, 5, 2), "ibug68")
    assert torch.isfinite(degenerate).all()


def test_boxes_inside_better_ones_go_as_in_the_detector():
    rng = np.random.default_rng(0)
    for _ in range(50):
        first = rng.uniform(0, 60, (12, 2))
        faces = np.concatenate([first, first + rng.uniform(5, 60, (12, 2))], 1).astype(np.float32)
        kept = boxes.merge(faces, np.arange(12, 0, -1), max_iou=1.0, max_contained=0.8)
        assert np.flatnonzero(outside_better(torch.from_numpy(faces), 0.8)).tolist() == kept
    assert outside_better(torch.zeros(0, 4), 0.8).shape == (0,)


def test_int8_is_aligner_with_the_landmark_model_in_int8(composed, tmp_path):
    made = export_pipeline(MODEL, precision="int8", det_size=SIZE, latency=False, out=tmp_path)
    assert made.path.name == f"{MODEL}_int8_pipeline.onnx" and made.spec.precision == "int8"
    figures = made.spec.parity
    assert figures["against"] == "Aligner with the landmark model in int8" and figures["mean_px"] < 0.3
    graph = onnx.load(made.path).graph
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) > 20
    assert [node.name for node in graph.output] == list(made.spec.tensors.outputs)
    run = runner(made.path.read_bytes())
    for name in ("collins", "many", "background"):
        check_same(run(picture(name)), composed(picture(name)), 3.0)
    found = Aligner(made.path)(picture("collins"))
    np.testing.assert_allclose(found[0].landmarks, run(picture("collins"))["landmarks"][0], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, "opset of a pipeline is 18 to 22, not 17"),
        ({"precision": "bf16"}, "precision of a pipeline is one of fp32, fp16, int8, not 'bf16'"),
        ({"calib": "faces"}, "calibration pictures .* are for precision int8"),
        ({"format": "engine"}, "format of a pipeline is onnx or triton"),
        ({"model": "slpt_resnet34"}, "no weights of slpt_resnet34"),
        ({"model": "retinaface_mnet025"}, "is a model for detection; the pipeline needs one for landmarks"),
        ({"detector": MODEL}, "is a model for landmarks; the pipeline needs one for detection"),
        ({"det_size": "auto"}, "only Aligner searches"),
        ({"det_size": 7}, "det_size"),
        ({"det_thresh": 2.0}, "det_thresh"),
        ({"out": "somewhere.bin"}, "ending in .onnx"),
    ],
)
def test_refusals(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        export_pipeline(**options)
    assert not list(tmp_path.iterdir())


def test_a_face_only_one_side_finds_is_a_miss(whole):
    blind = OrtSession(whole.path)
    blind.run = lambda feeds: [np.zeros(shape, np.float32) for shape in ((0, 4), (0,), (0, 5, 2), (0, 68, 2))]
    figures = pipeline.compare(blind, Aligner(MODEL, det_size=SIZE, realign=False), [picture("collins")])
    assert figures["unmatched"] == 1
    with pytest.raises(ParityError, match=r"differs too much from Aligner: max_px 0\.0000.*1 faces that only one"):
        pipeline.check(figures, whole.spec)


def test_a_miss_leaves_nothing(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "to_onnx", lambda *_, **__: onnx.load(whole.path))
    monkeypatch.setattr(pipeline, "TOLERANCES", {"fp32": {"max_px": 1e-7}})
    with pytest.raises(ParityError, match=r"differs too much from Aligner: max_px 0\.\d+ \(allowed"):
        export_pipeline(MODEL, det_size=SIZE, latency=False, out=tmp_path)
    assert not list(tmp_path.iterdir())
