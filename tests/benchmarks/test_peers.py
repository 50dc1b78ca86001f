"""What the benchmark says of other people's finders of faces: their faces, false ones and errors."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.measure import competitor_process
from benchmarks.measure.peer_scores import FACEMESH_68, MESH, as_68, scores
from facelm_sdk.bench import PICTURE
from facelm_training.negatives import part_of

EYES = 40.0
"""Pixels from the outer corner of one eye to that of the other."""


@pytest.fixture
def data(tmp_path):
    """Two faces of 300-W's common test set, three pictures without a face, of which two are test's; and the points."""
    points = np.random.default_rng(0).uniform(20, 80, (68, 2))
    points[36], points[45] = (30, 40), (30 + EYES, 40)
    for place in ("helen/testset/3_1.jpg", "lfpw/testset/image_0001.png"):
        file = tmp_path / "300w" / place
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), np.zeros((100, 100, 3), np.uint8))
        rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in points)  # a file's first pixel is 1, ours is 0
        file.with_suffix(".pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    names = [f"dog_{number}.png" for number in range(60)]
    test = [name for name in names if part_of(name) == "test"][:2]
    (tmp_path / "negatives").mkdir()
    for name in [*test, next(name for name in names if part_of(name) == "train")]:
        cv2.imwrite(str(tmp_path / "negatives" / name), np.zeros((20, 20, 3), np.uint8))
    return tmp_path, points, test


def test_found_false_and_error(data):
    folder, points, test = data
    moved = points + np.array([0.05 * EYES, 0])  # 5% of the distance of the eyes
    elsewhere = [300.0, 300.0, 320.0, 320.0], (points + 300).tolist()

    def find(path):
        if path.name == "3_1.jpg":
            return [elsewhere, ([*points.min(0), *points.max(0)], moved.tolist())]
        return [elsewhere] if path.name in ("image_0001.png", test[0]) else []

    found = scores(find, folder)
    assert found == {
        "faces": 2,
        "found": 1,
        "without": 2,
        "false": 1,
        "nme": pytest.approx(5, abs=0.01),
        "median": pytest.approx(5, abs=0.01),
        "above 8%": 50.0,
    }
    boxes = scores(lambda path: [(box, []) for box, _ in find(path)], folder)
    assert boxes == {"faces": 2, "found": 1, "without": 2, "false": 1}
    assert scores(find, folder / "nowhere") == {}


def test_a_mesh_stands_for_the_68_points():
    mesh = np.random.default_rng(0).uniform(0, 1, (MESH, 2))
    assert np.array_equal(as_68(mesh), mesh[list(FACEMESH_68)]) and len(set(FACEMESH_68)) == 68
    assert np.array_equal(as_68(mesh[:68]), mesh[:68])


def constant(path, size, **outputs):
    """Writes a model that gives the same whatever it sees."""
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value, np.float32)))
        for name, value in outputs.items()
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *size])
    graph = helper.make_graph(nodes, "constant", [image], infos)
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


@pytest.mark.skipif(competitor_process.sys.executable != competitor_process.PYTHON, reason="peers are installed")
def test_a_peer_in_its_own_process(tmp_path, monkeypatch):
    boxes = [[0.25, 0.25, 0.75, 0.75], [0.26, 0.25, 0.75, 0.75], [0.1, 0.1, 0.2, 0.2]]
    detector, landmarker = tmp_path / "models/onnx/version-RFB-320.onnx", tmp_path / "onnx/pfld.onnx"
    constant(detector, (240, 320), scores=[[[0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]], boxes=[boxes])
    constant(landmarker, (112, 112), landmarks=[[0.5] * 136])
    monkeypatch.setenv("FACELM_BENCH_PFLD", str(tmp_path))
    ask, about = competitor_process.started("pfld", PICTURE)
    assert about["found"] == 68 and about["version"].startswith("onnxruntime ")
    assert len(ask(3)) == 3 and min(ask(1)) > 0
    ((box, points),) = ask(str(PICTURE))  # the second box is the first once more, the third is no face
    assert box == pytest.approx([160, 120, 480, 360]) and np.allclose(points, [320, 240])


def test_a_peer_that_is_not_there_says_what_it_needs(monkeypatch):
    monkeypatch.setenv("FACELM_BENCH_YUNET", "none.onnx")
    with pytest.raises(pytest.skip.Exception, match="FACELM_BENCH_YUNET is face_detection_yunet"):
        competitor_process.started("yunet", PICTURE)
