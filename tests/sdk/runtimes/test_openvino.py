"""Sessions on OpenVINO's IR against onnxruntime on the ONNX file it was made of."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from facelm_sdk import Aligner, Detector, Landmarker
from facelm_sdk.errors import ContractError, InputError, MissingDependencyError, ModelFileError, ProviderError
from facelm_sdk.runtimes.base import RuntimeOptions, Session
from facelm_sdk.runtimes.onnxruntime import OrtSession
from facelm_sdk.runtimes.openvino import OpenVinoSession
from tests.tolerances import PIXELS, REWRITE

openvino = pytest.importorskip("openvino")


@pytest.fixture
def convert(tmp_path):
    """Writes the IR of an ONNX file, as OpenVINO's own converter does: the contract stays under ``framework``."""

    def write(onnx_file, **rt_info):
        network = openvino.Core().read_model(onnx_file)
        for key, value in rt_info.items():
            network.set_rt_info(value, [key])
        path = tmp_path / f"{onnx_file.stem}.xml"
        openvino.save_model(network, path, compress_to_fp16=False)
        return path

    return write


def crops_of(count, size=32):
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("batch", ["n", 3])
@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_landmarks_are_onnxruntimes(convert, landmark_model, batch, count):
    file = landmark_model(batch=batch, has_scores=True, has_presence=True)
    crops = crops_of(count)
    expected = OrtSession(file).run({"crops": crops})
    actual = OpenVinoSession(convert(file)).run({"crops": crops})
    assert [part.shape for part in actual] == [(count, 68, 2), (count, 68), (count,)]
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, **REWRITE)


def test_detections_are_onnxruntimes(convert, detector_model, scene):
    file = detector_model()
    session = OpenVinoSession(convert(file))
    for size in ((80, 60), (33, 47)):
        image = scene(*size, (5, 6, 20, 25), (22, 10, 31, 30))[None]
        for one, other in zip(session.run({"image": image}), OrtSession(file).run({"image": image}), strict=True):
            np.testing.assert_allclose(one, other, **REWRITE)


def test_it_is_a_session_with_the_files_contract(convert, landmark_model):
    file = landmark_model()
    session = OpenVinoSession(convert(file), RuntimeOptions(threads=1))
    assert isinstance(session, Session)
    assert session.spec == OrtSession(file).spec
    assert session.providers == ("OpenVINO CPU",)


def test_facelm_exports_contract_comes_before_the_converters(convert, landmark_model, landmark_spec):
    written = landmark_spec(data='é, "quoted" & <tagged>\n')
    assert OpenVinoSession(convert(landmark_model(), facelm=written.to_json())).spec == written


def test_the_aligner_takes_an_xml(convert, landmark_model, detector_model, scene):
    image = scene(160, 120, (40, 30, 90, 85))
    expected, actual = (
        Aligner(landmarks=landmarks, detector=detector)(image)
        for landmarks, detector in (
            (landmark_model(), detector_model()),
            (convert(landmark_model()), convert(detector_model())),
        )
    )
    assert len(actual) == len(expected) >= 1
    for one, other in zip(actual, expected, strict=True):
        assert np.abs(one.landmarks - other.landmarks).max() < PIXELS["fp32"]
        assert np.abs(one.bbox - other.bbox).max() < PIXELS["fp32"]


def test_results_are_the_callers_own(convert, landmark_model):
    session = OpenVinoSession(convert(landmark_model()))
    (first,) = session.run({"crops": crops_of(2)})
    kept = first.copy()
    session.run({"crops": 255 - crops_of(2)})
    np.testing.assert_array_equal(first, kept)


def test_several_threads_share_a_session(convert, landmark_model):
    session = OpenVinoSession(convert(landmark_model()))
    inputs = [crops_of(1 + i % 4) for i in range(64)]
    expected = [session.run({"crops": crops})[0] for crops in inputs]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(lambda crops: session.run({"crops": crops})[0], inputs))
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_without_contract(convert, landmark_model):
    with pytest.raises(ContractError, match=r"no 'facelm' entry in its rt_info.*--format openvino"):
        OpenVinoSession(convert(landmark_model(metadata="")))


def test_a_broken_contract_names_the_file(convert, landmark_model):
    with pytest.raises(ContractError, match=r"tiny\.xml: .*not JSON"):
        OpenVinoSession(convert(landmark_model(metadata="{")))


def test_texts_that_are_no_contract(convert, landmark_model, landmark_spec):
    file = landmark_model(data="ABCD")
    path = convert(file, facelm=landmark_spec(data="ABCD").to_json())
    text = path.read_bytes()
    path.write_bytes(text.replace(b"ABCD", b"A\xff\xfeD"))
    with pytest.raises((ContractError, ModelFileError), match=r"tiny\.xml"):
        OpenVinoSession(path)
    start = text.index(b"<facelm value=")
    nested = b'<facelm><inner value="1" /></facelm>'
    path.write_bytes(text[:start] + nested + text[text.index(b"/>", start) + 2 :])
    with pytest.raises(ContractError, match=r"tiny\.xml"):
        OpenVinoSession(path)


def test_a_graph_that_fails_or_gives_something_else(convert, unsteady):
    landmarker = Landmarker(convert(unsteady))
    assert landmarker(np.full((2, 32, 32, 3), 168, np.uint8)).shape == (2, 68, 2)
    with pytest.raises(ContractError, match=r"unsteady\.xml gave landmarks float32 \(1, 50, 2\); .* \(1, 68, 2\)"):
        landmarker(np.full((1, 32, 32, 3), 150, np.uint8))
    with pytest.raises((ContractError, ModelFileError), match=r"unsteady\.xml (cannot be run|gave)"):
        landmarker(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_graph_that_breaks_its_contract(convert, landmark_model, landmark_spec):
    other = landmark_spec(markup="wflw98").to_json()
    with pytest.raises(ContractError, match=r"landmarks float32 \(\?, 68, 2\); its contract says .*98, 2"):
        OpenVinoSession(convert(landmark_model(metadata=other)))


def test_the_task_is_checked(convert, landmark_model):
    with pytest.raises(ContractError, match="a model for landmarks; one for detection is needed"):
        Detector(convert(landmark_model()))


def test_no_such_file(tmp_path):
    with pytest.raises(ModelFileError, match=r"no model file .*none\.xml"):
        OpenVinoSession(tmp_path / "none.xml")
    with pytest.raises(ModelFileError, match="no model file"):
        OpenVinoSession(f"{'x' * 5000}.xml")


@pytest.mark.parametrize("damage", ["text", "truncated", "short weights", "no weights"])
def test_files_that_are_no_ir(convert, landmark_model, damage):
    path = convert(landmark_model())
    weights = path.with_suffix(".bin")
    if damage == "text":
        path.write_text("a letter")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "short weights":
        weights.write_bytes(weights.read_bytes()[:20])
    else:
        weights.unlink()
    with pytest.raises(ModelFileError, match=r"tiny\.xml cannot be opened"):
        OpenVinoSession(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"providers": ["CPUExecutionProvider"]}, "providers: onnxruntime's"),
        ({"session_options": object()}, "session_options: onnxruntime's"),
        ({"threads": 0}, "threads is a whole number from 1 to 1024, or None, not 0"),
        ({"inference_precision": "fp16"}, "inference_precision is one of f32, bf16, not 'fp16'"),
    ],
)
def test_options_that_make_no_sense(convert, landmark_model, options, message):
    with pytest.raises(InputError, match=message):
        OpenVinoSession(convert(landmark_model()), RuntimeOptions(**options))


def test_a_device_that_is_not_there(convert, landmark_model, caplog):
    path = convert(landmark_model())
    with caplog.at_level(logging.WARNING):
        session = Landmarker(path, device="cuda:0").session
    assert session.providers == ("OpenVINO CPU",)
    (record,) = caplog.records
    assert "no device 'cuda:0' here (CPU" in record.message and "runs on CPU" in record.message
    with pytest.raises(ProviderError, match="no device 'cuda:0' here"):
        OpenVinoSession(path, RuntimeOptions(device="cuda:0", strict=True))


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_is_for_cpus_that_have_it(convert, landmark_model, monkeypatch, caplog, has_bf16):
    path = convert(landmark_model())
    capabilities = ["FP32", "INT8", *(["BF16"] if has_bf16 else [])]
    monkeypatch.setattr(openvino.Core, "get_property", lambda core, device, name: capabilities)
    with caplog.at_level(logging.WARNING):
        session = OpenVinoSession(path, RuntimeOptions(inference_precision="bf16"))
    assert session._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == ("bf16" if has_bf16 else "f32")
    assert ["does not compute in bf16" in record.message for record in caplog.records] == [True] * (not has_bf16)
    if not has_bf16:
        with pytest.raises(ProviderError, match="does not compute in bf16"):
            OpenVinoSession(path, RuntimeOptions(inference_precision="bf16", strict=True))


def test_floats_are_computed_in_single_precision(convert, landmark_model):
    session = OpenVinoSession(convert(landmark_model()))
    assert session._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_without_openvino(convert, landmark_model, monkeypatch):
    path = convert(landmark_model())
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "facelm-sdk\[openvino\]"'):
        Landmarker(path)
