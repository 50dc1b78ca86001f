"""Exported files against PyTorch, and the graphs in them."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import onnx
import pytest
import torch

from facelm_export.build import DET_THRESH
from facelm_export.report.parity import TOLERANCES, compare
from facelm_export.report.samples import PICTURE, Samples, portrait_crops
from facelm_export.wrappers import FusedDetector, FusedLandmarks
from facelm_models import create, default_weights, info, load
from facelm_sdk import Aligner, Detector, Landmarker, zoo
from facelm_sdk import markup as markups
from facelm_sdk.images.read import read_image
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.transform import kps5_recipe
from tests.tolerances import PIXELS, REWRITE

from .conftest import CARD, disturbed

MARKUP = markups.get("ibug68")


def fused_landmarks(network, *, flip=False):
    return FusedLandmarks(network, info("lotr_m"), 192, MARKUP, flip=flip).eval()


def fused_detector(network):
    return FusedDetector(network, info("retinaface_mnet025")).eval()


@pytest.fixture(scope="module")
def crops(exported):
    return portrait_crops(exported("lotr_m").spec, 5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@torch.no_grad()
def test_landmarks_are_pytorchs(exported, crops, precision):
    landmarker = Landmarker(exported("lotr_m", precision=precision).path)
    expected = fused_landmarks(disturbed("lotr_m"))(torch.from_numpy(crops)).numpy()
    actual = landmarker(crops)
    assert actual.dtype == np.float32
    assert np.linalg.norm(actual - expected, axis=-1).max() < PIXELS[precision]
    np.testing.assert_allclose(landmarker(crops[:1]), actual[:1], **REWRITE)
    assert np.ptp(expected, axis=0).max() > 10 * PIXELS["fp32"], "the points do not depend on the picture"


def test_flip_averaging_in_the_graph_is_the_runtimes(exported, crops):
    inside = Landmarker(exported("lotr_m", flip=True).path)
    outside = Landmarker(exported("lotr_m").path, flip=True)
    assert inside.spec.flip and not outside.spec.flip
    assert inside.spec.multiply_adds == pytest.approx(2 * outside.spec.multiply_adds, rel=1e-3)
    np.testing.assert_allclose(inside(crops), outside(crops), **REWRITE)
    assert np.abs(inside(crops) - Landmarker(exported("lotr_m").path)(crops)).max() > 1, "nothing was averaged"


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_a_fixed_batch_takes_any_number(exported, crops, count):
    file = exported("lotr_m", batch=4).path
    whole = Landmarker(exported("lotr_m").path)
    assert onnx.load(file).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    np.testing.assert_allclose(Landmarker(file)(crops[:count]), whole(crops[:count]), **REWRITE)


def test_a_fixed_batch_in_the_aligner(exported):
    kps = [[[200, 101], [247, 103], [225, 124], [206, 144], [242, 143]]]
    image = read_image(PICTURE)
    (fixed,), (free,) = (
        Aligner(exported("lotr_m", **options).path, None)(image, kps=kps) for options in ({"batch": 4}, {})
    )
    np.testing.assert_allclose(fixed.landmarks, free.landmarks, **REWRITE)


@pytest.mark.parametrize("size", [(97, 131), (320, 256), (64, 200)], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@torch.no_grad()
def test_detections_are_pytorchs(exported, precision, size):
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    expected = [part.numpy() for part in fused_detector(disturbed("retinaface_mnet025"))(torch.from_numpy(image))]
    actual = OrtSession(exported("retinaface_mnet025", precision=precision).path).run({"image": image})
    assert [part.shape[1:] for part in actual] == [(4,), (), (5, 2)]
    assert all(part.dtype == np.float32 for part in actual)
    if precision == "fp32":
        assert len(actual[0]) == len(expected[0]) > 3
        for a, b in zip(actual, expected, strict=True):
            assert np.abs(a - b).max() < PIXELS["fp32"]
    else:  # what has nearly the same score may change places
        sure = np.flatnonzero(actual[1] > 0.6)
        assert len(sure)
        for i in sure:
            same = np.abs(actual[0][i] - expected[0]).max(1) < PIXELS["fp16"]
            assert np.abs(actual[2][i] - expected[2][same]).max() < PIXELS["fp16"]
            assert np.abs(actual[1][i] - expected[1][same]).min() < 0.05


def operators(file):
    return [node.op_type for node in onnx.load(file).graph.node]


@pytest.mark.parametrize("name", ["lotr_m", "retinaface_mnet025"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph(exported, name, precision):
    graph = onnx.load(exported(name, precision=precision).path).graph
    (source,) = graph.input
    assert source.name == ("crops" if name == "lotr_m" else "image")
    assert source.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    readers = {node.op_type for node in graph.node if source.name in node.input}
    assert "Cast" in readers and readers <= {"Cast", "Shape"}
    assert all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in graph.output)
    kinds = [node.op_type for node in graph.node]
    assert not {"BatchNormalization", "Dropout", "Loop", "If", "Scan"} & set(kinds)
    assert kinds.count("NonMaxSuppression") == (name == "retinaface_mnet025")
    halves = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert bool(halves) == (precision == "fp16")


def test_flip_averaging_runs_the_network_once(exported):
    plain, flipped = operators(exported("lotr_m").path), operators(exported("lotr_m", flip=True).path)
    assert flipped.count("Conv") == plain.count("Conv")


@pytest.mark.parametrize("name", ["lotr_m", "retinaface_mnet025"])
def test_the_file_tells_nothing_of_this_machine(exported, name):
    done = exported(name)
    model = onnx.load(done.path)
    assert [entry.key for entry in model.metadata_props] == ["facelm"]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    texts = [str(model), done.report_path.read_text(), done.report_path.with_suffix(".md").read_text()]
    for text in texts:
        assert not re.search(r"stack_trace|site-packages|\.py\b|/tmp/|/home/|/root/", text)


def test_the_contract_in_the_file(exported, weights):
    done = exported("lotr_m")
    spec = OrtSession(done.path).spec
    assert spec == done.spec
    assert (spec.task, spec.name, spec.markup, spec.num_landmarks) == ("landmarks", "lotr_m", "ibug68", 68)
    assert spec.crop == kps5_recipe(192, zoom=0.875, shift=(0.5, 22.5))
    assert (spec.precision, spec.flip, spec.has_scores) == ("fp32", False, False)
    assert (spec.data, spec.licence, dict(spec.accuracy)) == (CARD["data"], CARD["licence"], CARD["accuracy"])
    assert spec.weights_sha256 == hashlib.sha256(weights("lotr_m").read_bytes()).hexdigest()
    assert spec.parity["against"] == "PyTorch fp32" and spec.parity["crops"] == 24
    assert 0 < spec.parity["max_px"] <= TOLERANCES["fp32"]["max_px"]
    assert exported("lotr_m", precision="fp16").spec.precision == "fp16"


def test_the_detectors_contract(exported):
    spec = OrtSession(exported("retinaface_mnet025").path).spec
    assert spec.task == "detection"
    assert spec.det_thresh == DET_THRESH
    assert spec.parity["faces"] > 0 and spec.parity["unmatched"] == 0
    assert Detector(exported("retinaface_mnet025").path).det_thresh == DET_THRESH


def test_the_report(exported):
    done = exported("lotr_m", precision="fp16")
    report = json.loads(done.report_path.read_text())
    data = done.path.read_bytes()
    assert report == done.report
    assert report["file"] == done.path.name == "lotr_m_fp16.onnx"
    assert report["bytes"] == len(data) and report["sha256"] == hashlib.sha256(data).hexdigest()
    assert report["tolerance"] == TOLERANCES["fp16"] and report["parity"] == dict(done.spec.parity)
    assert {"torch", "onnx", "onnxruntime", "python"} <= report["versions"].keys()
    text = done.report_path.with_suffix(".md").read_text()
    assert "# lotr_m_fp16.onnx" in text and report["sha256"] in text


def test_names_say_what_is_inside(exported):
    assert exported("lotr_m", flip=True).path.name == "lotr_m_flip_fp32.onnx"
    assert exported("lotr_m", batch=4).path.name == "lotr_m_b4_fp32.onnx"
    assert exported("lotr_m", batch=4).report["batch"] == 4
    assert exported("lotr_m").report["batch"] == "dynamic"


def packaged(name):
    """The runtime's own file and the network with the weights it was made from."""
    path = default_weights(name)
    if path is None or name not in {entry.name for entry in zoo.list_models()}:
        pytest.skip(f"the weights of {name} are not in the package")
    session = OrtSession(zoo.resolve(name).path)
    assert session.spec.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return session, load(create(name), path).eval()


def test_packaged_landmarks_are_pytorchs():
    session, network = packaged("lotr_m")
    samples = Samples([portrait_crops(session.spec)])
    figures = compare(fused_landmarks(network, flip=session.spec.flip), session, samples)
    assert figures["max_px"] < PIXELS[session.spec.precision]


@torch.no_grad()
def test_packaged_detections_are_pytorchs():
    session, network = packaged("retinaface_mnet025")
    image = read_image(PICTURE)[None]
    expected = [part.numpy() for part in fused_detector(network)(torch.from_numpy(image))]
    actual = session.run({"image": image})
    sure = [parts[1] > 0.3 for parts in (actual, expected)]
    assert sure[0].sum() == sure[1].sum() >= 1
    for a, b in zip(actual, expected, strict=True):
        assert np.abs(a[sure[0]] - b[sure[1]]).max() < PIXELS[session.spec.precision]
