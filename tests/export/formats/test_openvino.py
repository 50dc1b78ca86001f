"""OpenVINO's IR of exported graphs: what it computes, what it carries, what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from facelm_export import export
from facelm_export.formats import openvino
from facelm_export.job import ExportJob
from facelm_export.report.parity import TOLERANCES
from facelm_export.report.samples import PICTURE, portrait_crops, portraits
from facelm_sdk import Aligner, zoo
from facelm_sdk.errors import MissingDependencyError, OutputError, ParityError
from facelm_sdk.files import write_files
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.runtimes.openvino import OpenVinoSession
from tests.tolerances import PIXELS

pytest.importorskip("openvino")


def graph_of(file, path):
    data = Path(file).read_bytes()
    return ExportJob(data, OrtSession(data).spec, path, None, 16, lambda step: None)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """The IR of the packaged models, and what is said of it."""
    folder = tmp_path_factory.mktemp("ir")
    done = {}
    for name in ("lotr_m", "retinaface_mnet025"):
        made, facts = openvino.files(graph_of(zoo.resolve(name).path, folder / f"{name}.xml"))
        assert sorted(path.name for path in made) == [f"{name}.bin", f"{name}.xml"]
        for path, data in made.items():
            path.write_bytes(data)
        done[name] = (folder / f"{name}.xml", facts["openvino"])
    return done


def test_landmarks_are_the_onnx_files(packaged):
    path, facts = packaged["lotr_m"]
    here, there = OpenVinoSession(path), OrtSession(zoo.resolve("lotr_m").path)
    crops = portrait_crops(there.spec, 5)
    (actual,), (expected,) = (session.run({"crops": crops}) for session in (here, there))
    assert np.linalg.norm(actual - expected, axis=-1).max() < PIXELS["fp32"]
    assert np.ptp(expected, axis=0).max() > 1, "the points do not depend on the picture"
    assert facts["parity"]["against"] == "ONNX Runtime" and facts["parity"]["crops"] == 24
    assert 0 < facts["parity"]["max_px"] < TOLERANCES["fp32"]["max_px"]


def test_int8_of_any_number_of_crops_compiles(tmp_path):
    """Attention keeps n crops apart, perceptrons see n * 68 rows: one open size is not to be taken for the other."""
    job = graph_of(zoo.resolve("lotr_m", variant="int8").path, tmp_path / "points.xml")
    made, facts = openvino.files(job)  # an error where the points are not those of ONNX Runtime
    for path, data in made.items():
        path.write_bytes(data)
    session = OpenVinoSession(tmp_path / "points.xml")
    crops = portrait_crops(job.spec, 3)
    together, apart = session.run({"crops": crops}), [session.run({"crops": crop[None]}) for crop in crops]
    for outputs in zip(together, *apart, strict=True):
        assert np.abs(outputs[0] - np.concatenate(outputs[1:])).max() < PIXELS["fp32"]
    assert facts["openvino"]["parity"]["p99_px"] < openvino.TOLERANCES["int8"]["p99_px"]


def test_detections_are_the_onnx_files(packaged):
    path, facts = packaged["retinaface_mnet025"]
    here, there = OpenVinoSession(path), OrtSession(zoo.resolve("retinaface_mnet025").path)
    for picture in portraits():
        actual, expected = here.run({"image": picture}), there.run({"image": picture})
        sure = [parts[1] > there.spec.det_thresh for parts in (actual, expected)]
        assert sure[0].sum() == sure[1].sum() == 1
        for one, other in zip(actual, expected, strict=True):
            assert np.abs(one[sure[0]] - other[sure[1]]).max() < PIXELS["fp32"]
    assert facts["parity"]["faces"] == 3 and facts["parity"]["unmatched"] == 0


def test_a_picture_without_a_face(packaged):
    session = OpenVinoSession(packaged["retinaface_mnet025"][0])
    boxes, scores, kps = session.run({"image": np.zeros((1, 240, 320, 3), np.uint8)})
    assert boxes.shape == (len(scores), 4) and kps.shape == (len(scores), 5, 2)
    assert not (scores > session.spec.det_thresh).any()


def test_the_aligner_finds_the_same_landmarks(packaged):
    (one,), (other,) = (
        Aligner(landmarks=landmarks, detector=detector)(PICTURE)
        for landmarks, detector in (
            (OrtSession(zoo.resolve("lotr_m").path), "retinaface_mnet025"),
            (packaged["lotr_m"][0], packaged["retinaface_mnet025"][0]),
        )
    )
    assert np.linalg.norm(one.landmarks - other.landmarks, axis=-1).max() < PIXELS["fp32"]
    assert np.abs(one.kps - other.kps).max() < PIXELS["fp32"]


@pytest.mark.parametrize("name", ["lotr_m", "retinaface_mnet025"])
def test_the_ir_carries_the_contract_once(packaged, name):
    path, _ = packaged[name]
    spec = OrtSession(zoo.resolve(name).path).spec
    assert OpenVinoSession(path).spec == spec
    text = path.read_text("utf-8")
    assert text.count("weights_sha256") == 1
    assert not any(place in text for place in ("/tmp/", "/home/", "/root/", str(path.parent)))


def test_weights_keep_their_precision(packaged):
    """Halved, they would take half the room."""
    path, _ = packaged["lotr_m"]
    assert path.with_suffix(".bin").stat().st_size > 0.9 * zoo.resolve("lotr_m").path.stat().st_size


def test_a_fixed_batch_stays_fixed(tmp_path, landmark_model):
    made, _ = openvino.files(graph_of(landmark_model(batch=4), tmp_path / "fixed.xml"))
    for path, data in made.items():
        path.write_bytes(data)
    assert '<data shape="4,32,32,3" element_type="u8" />' in (tmp_path / "fixed.xml").read_text()
    assert OpenVinoSession(tmp_path / "fixed.xml").run({"crops": np.zeros((5, 32, 32, 3), np.uint8)})[0].shape[0] == 5


@pytest.fixture
def wrong(monkeypatch, landmark_model, landmark_spec):
    """Conversions give a graph whose points lie elsewhere."""
    convert = openvino._convert
    other = onnx.load(landmark_model(weights_sha256="a"))
    (template,) = (tensor for tensor in other.graph.initializer if tensor.name == "template")
    moved = onnx.numpy_helper.to_array(template) + np.float32(0.5)
    template.CopyFrom(onnx.numpy_helper.from_array(moved, "template"))
    monkeypatch.setattr(
        openvino, "_convert", lambda package, data, spec, path: convert(package, other.SerializeToString(), spec, path)
    )


def test_an_ir_that_computes_otherwise_is_refused(wrong, tmp_path, landmark_model):
    with pytest.raises(ParityError, match=r"computes tiny in fp32 otherwise than ONNX Runtime does: max_px 0\.7"):
        openvino.files(graph_of(landmark_model(weights_sha256="a"), tmp_path / "x.xml"))
    assert not any(tmp_path.iterdir())


def test_untrained_models_are_not_measured_by_it(wrong, tmp_path, landmark_model):
    _, facts = openvino.files(graph_of(landmark_model(), tmp_path / "x.xml"))
    assert facts["openvino"]["parity"]["max_px"] > 0.5


def test_without_openvino(tmp_path, landmark_model, monkeypatch):
    graph = graph_of(landmark_model(), tmp_path / "x.xml")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "facelm-sdk\[openvino\]"'):
        openvino.files(graph)


def test_the_export_writes_both_files_and_the_report(traced, tmp_path):
    done = export("lotr_m", format="openvino", out=tmp_path)
    assert list(done.report["latency"]["timed"][0]["ms"]) == ["pytorch", "openvino", "onnxruntime"]
    assert done.path.name == "lotr_m_fp32.xml"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lotr_m_fp32.bin",
        "lotr_m_fp32.xml",
        "lotr_m_fp32.xml.report.json",
        "lotr_m_fp32.xml.report.md",
    ]
    assert OpenVinoSession(done.path).spec == done.spec
    assert json.loads(done.report_path.read_text())["openvino"]["parity"]["max_px"] < TOLERANCES["fp32"]["max_px"]


def test_a_place_that_cannot_be_written_keeps_no_half_model(tmp_path, landmark_model):
    (tmp_path / "x.bin" / "inside").mkdir(parents=True)
    made, _ = openvino.files(graph_of(landmark_model(), tmp_path / "x.xml"))
    with pytest.raises(OutputError, match="cannot be written"):
        write_files(made)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "x.bin"]
