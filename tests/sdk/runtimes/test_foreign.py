"""Other people's detectors and landmarkers: graphs of the same signature, made here, whose answers are known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facelm_sdk import Aligner, ContractError, Detector, Landmarker
from facelm_sdk.inspect import inspect_model
from facelm_sdk.interop.insightface import to_insightface_106
from facelm_sdk.runtimes import foreign
from facelm_sdk.runtimes.onnxruntime import OrtSession

KPS = np.array([(-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)], np.float32)
"""Five points about an anchor, in strides."""


def save(path, name, shape, outputs, nodes, tensors):
    """Write a graph of one float input; ``outputs`` are (name, shape), ``tensors`` its constants."""
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, own) for key, own in outputs],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture
def scrfd(tmp_path):
    """SCRFD: at stride 8 the score of a cell's first anchor is the mean of its red, 0 to 1; others score nothing.

    A box reaches (1, 1, 3, 4) strides from its anchor's centre. ``normalises``: as insightface's mxnet graphs do.
    """

    def build(levels=3, side=None, *, normalises=False, batch_axis=False):
        anchors = 2 if levels == 3 else 1
        nodes, outputs = [], []
        source = "data"
        if normalises:
            nodes += [
                helper.make_node("Sub", ["data", "mean"], ["lessmean"], name="_minusscalar0"),
                helper.make_node("Mul", ["lessmean", "std"], ["normal"], name="_mulscalar0"),
            ]
            source = "normal"
        tensors = {
            "mean": np.float32(127.5),
            "std": np.float32(1 / 128),
            "first": np.array([0]),
            "second": np.array([1]),
            "channels": np.array([1]),
            "half": np.float32(127.5 / 128),
            "full": np.float32(255 / 128),
            "column": np.array([1, -1, 1] if batch_axis else [-1, 1]),
            "sides": np.array([[1, 1, 3, 4]], np.float32),
            "points": KPS.reshape(1, 10),
        }
        nodes.append(helper.make_node("Slice", [source, "first", "second", "channels"], ["red"]))
        parts = {"score": [], "box": [], "kps": []}
        for level in range(levels):
            stride = 8 << level
            tensors[f"weights{level}"] = np.array([1] + [0] * (anchors - 1), np.float32)[None, :, None, None] * (
                level == 0
            )
            nodes += [
                helper.make_node(
                    "AveragePool", ["red"], [f"mean{level}"], kernel_shape=[stride] * 2, strides=[stride] * 2
                ),
                helper.make_node("Add", [f"mean{level}", "half"], [f"up{level}"]),
                helper.make_node("Div", [f"up{level}", "full"], [f"unit{level}"]),
                helper.make_node("Mul", [f"unit{level}", f"weights{level}"], [f"each{level}"]),
                helper.make_node("Transpose", [f"each{level}"], [f"last{level}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"last{level}", "column"], [f"score{level}"]),
                helper.make_node("Sub", [f"score{level}", f"score{level}"], [f"zero{level}"]),
                helper.make_node("Add", [f"zero{level}", "sides"], [f"box{level}"]),
                helper.make_node("Add", [f"zero{level}", "points"], [f"kps{level}"]),
            ]
            for kind, size in (("score", 1), ("box", 4), ("kps", 10)):
                parts[kind].append((f"{kind}{level}", [1, None, size] if batch_axis else [None, size]))
        outputs = [*parts["score"], *parts["box"], *parts["kps"]]
        shape = [1, 3, side or "h", side or "w"]
        return save(tmp_path / "det_10g.onnx", "data", shape, outputs, nodes, tensors)

    return build


def red(width, height, *cells):
    """A black BGR picture with these cells of 8 pixels (column, row) red."""
    picture = np.zeros((height, width, 3), np.uint8)
    for x, y in cells:
        picture[8 * y : 8 * y + 8, 8 * x : 8 * x + 8, 2] = 255
    return picture


@pytest.mark.parametrize("levels", [3, 5])
@pytest.mark.parametrize("side", [None, 256])
@pytest.mark.parametrize("normalises", [False, True])
def test_scrfd(scrfd, levels, side, normalises):
    """A picture whose sides are no whole strides; the anchor of cell (5, 3) lies at (40, 24)."""
    session = OrtSession(scrfd(levels, side, normalises=normalises, batch_axis=levels == 5))
    assert session.spec.name == "det_10g" and session.spec.task == "detection"
    boxes, scores, kps = session.run({"image": red(150, 90, (5, 3))[None]})
    np.testing.assert_allclose(scores, [1.0], atol=1e-5)
    np.testing.assert_allclose(boxes, [[32, 16, 64, 56]], atol=1e-4)
    np.testing.assert_allclose(kps, [KPS * 8 + (40, 24)], atol=1e-4)
    assert all(array.dtype == np.float32 for array in (boxes, scores, kps))
    blue = np.ascontiguousarray(red(150, 90, (5, 3))[..., ::-1])
    assert [len(array) for array in session.run({"image": blue[None]})] == [0, 0, 0]


def test_scrfd_suppresses_and_sorts(scrfd):
    session = OrtSession(scrfd())
    picture = red(160, 160, (2, 2), (3, 2), (12, 12))
    picture[..., 2] = picture[..., 2] * (0.6 + 0.4 * (np.arange(160) >= 90))
    boxes, scores, _ = session.run({"image": picture[None]})
    np.testing.assert_allclose(scores, [1.0, 0.6], atol=0.01)  # that of (3, 2) overlaps by more than 0.4
    np.testing.assert_allclose(boxes[0], [88, 88, 120, 128], atol=1e-4)


def test_a_picture_larger_than_a_fixed_frame(scrfd):
    """It is shrunk to fit, and what is found is in its own pixels, whose centres lie at whole numbers."""
    session = OrtSession(scrfd(side=128))
    picture = np.repeat(np.repeat(red(128, 64, (5, 3)), 4, axis=0), 4, axis=1)  # 512 x 256
    boxes, scores, kps = session.run({"image": picture[None]})
    np.testing.assert_allclose(scores, [1.0], atol=0.01)
    np.testing.assert_allclose(boxes, [(np.array([32, 16, 64, 56]) + 0.5) * 4 - 0.5], atol=1e-3)
    np.testing.assert_allclose(kps[0], ((KPS * 8 + (40, 24)) + 0.5) * 4 - 0.5, atol=1e-3)


@pytest.mark.parametrize("side", [None, 640])
def test_scrfd_as_a_detector(scrfd, side):
    """With every option a Detector has, by its path."""
    found = Detector(scrfd(side=side), det_size=640)(red(640, 480, (20, 20), (50, 30)))
    assert len(found) == 2
    np.testing.assert_allclose(found.boxes[found.boxes[:, 0].argsort()][0], [152, 152, 184, 192], atol=0.01)
    auto = Detector(scrfd(side=side))
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[100:300, 200:400, 2] = 255
    assert len(auto(picture)) and not len(auto(np.zeros_like(picture)))


def reference_priors(height, width):
    """As the paper's public code lists them, one by one, fractions of the picture."""
    for step, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for i in range(-(-height // step)):
            for j in range(-(-width // step)):
                for size in sizes:
                    yield (j + 0.5) * step / width, (i + 0.5) * step / height, size / width, size / height


@pytest.fixture
def retinaface(tmp_path):
    """RetinaFace: constant outputs for a picture of 96 x 64, in the order asked for, moved by the mean pixel."""

    def build(order=("loc", "conf", "landms"), *, softmax=True):
        rng = np.random.default_rng(0)
        count = len(list(reference_priors(64, 96)))
        logits = np.stack([np.full(count, 3.0), rng.uniform(-9, 2, count)], 1).astype(np.float32)
        logits[[5, 170], 1] = 6, 8
        exp = np.exp(logits)
        values = {
            "loc": rng.normal(0, 1, (1, count, 4)).astype(np.float32),
            "conf": (exp / exp.sum(1, keepdims=True) if softmax else logits)[None],
            "landms": rng.normal(0, 1, (1, count, 10)).astype(np.float32),
        }
        nodes = [
            helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
            helper.make_node("Add", ["mean", "expected"], ["off"]),  # 0 for a black picture less its mean
            *(helper.make_node("Add", [f"{name}_values", "off"], [name]) for name in values),
        ]
        tensors = {f"{name}_values": value for name, value in values.items()}
        tensors |= {"axes": np.array([0, 1, 2, 3]), "expected": np.float32((104 + 117 + 123) / 3)}
        shapes = {name: list(value.shape) for name, value in values.items()}
        outputs = [(name, shapes[name]) for name in order]
        path = save(tmp_path / "Resnet50_Final.onnx", "input", [1, 3, 64, 96], outputs, nodes, tensors)
        return path, values, exp[:, 1] / exp.sum(1)

    return build


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("order", [("loc", "conf", "landms"), ("landms", "loc", "conf")])
def test_retinaface(retinaface, order, softmax):
    path, values, wanted = retinaface(order, softmax=softmax)
    boxes, scores, kps = OrtSession(path).run({"image": np.zeros((1, 64, 96, 3), np.uint8)})
    priors = np.array(list(reference_priors(64, 96)))
    assert scores[0] == pytest.approx(wanted.max(), abs=1e-3)
    for box, score, points in zip(boxes, scores, kps, strict=True):
        index = int(np.abs(wanted - score).argmin())
        x, y, width, height = priors[index]
        loc, landms = values["loc"][0, index], values["landms"][0, index]
        centre = np.array([x + loc[0] * 0.1 * width, y + loc[1] * 0.1 * height])
        half = np.array([width * np.exp(loc[2] * 0.2), height * np.exp(loc[3] * 0.2)]) / 2
        expected = np.concatenate([centre - half, centre + half]) * (96, 64, 96, 64)
        np.testing.assert_allclose(box, expected, atol=0.02)
        five = (np.array([x, y]) + landms.reshape(5, 2) * 0.1 * (width, height)) * (96, 64)
        np.testing.assert_allclose(points, five, atol=0.02)
    assert (np.diff(scores) <= 0).all() and len(scores) > 1


@pytest.fixture
def landmarks106(tmp_path):
    """2d106det: a template of points -0.5 to 0.5, moved by the mean of red, as -1 to 1, to the right."""

    def build(batch=None, *, normalises=True):
        template = np.random.default_rng(0).uniform(-0.5, 0.5, (106, 2)).astype(np.float32)
        prefix = [
            helper.make_node("Sub", ["data", "mean"], ["lessmean"], name="_minusscalar0"),
            helper.make_node("Mul", ["lessmean", "std"], ["normal"], name="_mulscalar0"),
        ]
        nodes = [
            *(prefix if normalises else []),
            helper.make_node("Slice", ["normal" if normalises else "data", "start", "end", "axis"], ["red"]),
            helper.make_node("ReduceMean", ["red", "axes"], ["level"], keepdims=0),
            helper.make_node("Reshape", ["level", "column"], ["levels"]),
            helper.make_node("Mul", ["levels", "right"], ["moved"]),
            helper.make_node("Add", ["moved", "template"], ["fc1"]),
        ]
        tensors = {
            "mean": np.float32(127.5),
            "std": np.float32(1 / 128),
            "start": np.array([0]),
            "end": np.array([1]),
            "axis": np.array([1]),
            "axes": np.array([1, 2, 3]),
            "column": np.array([-1, 1]),
            "right": np.tile(np.array([0.1, 0], np.float32), 106)[None],
            "template": template.reshape(1, 212),
        }
        outputs = [("fc1", [batch or "None", 212])]
        path = save(tmp_path / "2d106det.onnx", "data", [batch or "None", 3, 192, 192], outputs, nodes, tensors)
        return path, template

    return build


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("normalises", [True, False])
def test_2d106det(landmarks106, batch, normalises):
    path, template = landmarks106(batch, normalises=normalises)
    landmarker = Landmarker(path)
    assert landmarker.spec.markup == "jd106" and landmarker.size == 192
    crops = np.zeros((3, 192, 192, 3), np.uint8)
    crops[1, ..., 2] = 255
    crops[2, ..., 0] = 255  # blue counts for nothing
    found = landmarker(crops)
    assert found.shape == (3, 106, 2) and found.dtype == np.float32
    for points, level in zip(found, (-1, 1, -1), strict=True):
        expected = (template + 1 + level * 127.5 / 128 * np.array([0.1, 0])) * 96
        np.testing.assert_allclose(to_insightface_106(points), expected, atol=1e-3)
    assert landmarker(crops[:0]).shape == (0, 106, 2)


def test_a_pack_of_insightface_from_picture_to_points(scrfd, landmarks106):
    """The crop is a square of 1.5 times the longer side of the detector's box, which is cell (20, 20)'s."""
    path, template = landmarks106()
    aligner = Aligner(path, scrfd(), det_size=640)
    (face,) = aligner(red(640, 480, (20, 20)))
    np.testing.assert_allclose(face.bbox, [152, 152, 184, 192], atol=0.01)
    np.testing.assert_allclose(face.kps, KPS * 8 + 160, atol=0.01)
    side, centre = 1.5 * 40, np.array([168, 172])
    level = 2 * (64 / side**2) - 1
    crop = (template + 1 + level * 127.5 / 128 * np.array([0.1, 0])) * 96
    expected = (crop - 95.5) * side / 192 + centre
    assert face.markup == "jd106" and face.to("ibug68").shape == (68, 2) and face.pose is not None
    np.testing.assert_allclose(to_insightface_106(face.landmarks), expected, atol=0.1)


def test_graphs_of_nobody_say_what_is_accepted(tmp_path, scrfd):
    nodes = [helper.make_node("ReduceMean", ["data"], ["out"], keepdims=0)]
    for shape in ([1, 3, 8, 8], [1, 4, 8, 8], [3]):
        path = save(tmp_path / "x.onnx", "data", shape, [("out", [])], nodes, {})
        with pytest.raises(
            ContractError, match=r"has no 'facelm' metadata; accepted are .* SCRFD detectors and 2d106det"
        ):
            Detector(path)
    with pytest.raises(ContractError, match="det_10g is a model for detection; one for landmarks is needed"):
        Landmarker(scrfd())


def test_they_are_inspected(scrfd, landmarks106):
    facts = inspect_model(scrfd())
    assert facts["contract"] is None and "as insightface's SCRFD is, which Aligner runs for detection" in facts["note"]
    assert "2d106det is, which Aligner runs for landmarks" in inspect_model(landmarks106()[0])["note"]


def test_a_damaged_file_has_no_nodes(scrfd):
    data = scrfd(normalises=True).read_bytes()
    assert foreign._normalises(data)
    for cut in range(0, len(data), 7):
        foreign._normalises(data[:cut])
    for seed in range(200):
        foreign._normalises(np.random.default_rng(seed).bytes(64))
