"""Opening model files: contract, providers, and every way a file can be wrong."""

from __future__ import annotations

import logging
import re
import sys

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from facelm_sdk import Aligner, Detector, Landmarker, Tracker
from facelm_sdk.contract import LandmarkSpec
from facelm_sdk.errors import ContractError, InputError, MissingDependencyError, ModelFileError, ProviderError
from facelm_sdk.inspect import inspect_model
from facelm_sdk.runtimes import onnxruntime as sessions
from facelm_sdk.runtimes import open as opening
from facelm_sdk.runtimes.base import MAX_THREADS, RuntimeOptions, Session
from facelm_sdk.runtimes.onnxruntime import SMALL_FILE, OrtSession, is_small
from facelm_sdk.runtimes.open import open_session


@pytest.fixture(scope="module")
def model(landmark_model):
    return landmark_model()


def test_reads_the_contract_and_runs(model, landmark_spec):
    for source in (model, str(model), model.read_bytes()):
        session = OrtSession(source)
        assert isinstance(session, Session)
        assert session.spec == landmark_spec()
        assert session.providers == ("CPUExecutionProvider",)
        (landmarks,) = session.run({"crops": np.zeros((2, 32, 32, 3), np.uint8)})
        assert landmarks.shape == (2, 68, 2)


def test_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match="no model file"):
        OrtSession(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="no model file"):
        OrtSession(f"{'x' * 5000}.onnx")


def test_truncated_and_foreign_files(model, tmp_path):
    for data in (model.read_bytes()[:200], b"", b"not a model at all", model.read_bytes()[:-40]):
        path = tmp_path / "broken.onnx"
        path.write_bytes(data)
        with pytest.raises((ModelFileError, ContractError)) as caught:
            OrtSession(path)
        if len(data) < 300:
            assert isinstance(caught.value, ModelFileError)
            assert "truncated or not an ONNX model" in str(caught.value)


def test_file_without_a_contract(landmark_model):
    with pytest.raises(ContractError, match=r"no 'facelm' metadata.*facelm-export"):
        OrtSession(landmark_model(metadata=""))


def test_other_contract_version(landmark_model, landmark_spec):
    text = landmark_spec().to_json().replace('"format_version": 1', '"format_version": 7')
    with pytest.raises(ContractError, match=r"tiny\.onnx.*format_version 7.*upgrade"):
        OrtSession(landmark_model(metadata=text))


@pytest.mark.parametrize(
    "promise", [{"size": 64}, {"markup": "wflw98"}, {"has_scores": True}], ids=["size", "points", "scores"]
)
def test_graph_that_breaks_its_promise(landmark_model, landmark_spec, promise):
    with pytest.raises(ContractError, match="its contract says"):
        OrtSession(landmark_model(metadata=landmark_spec(**promise).to_json()))


@pytest.mark.parametrize(
    ("text", "damaged", "message"),
    [
        (b'"name": "tiny"', b'"name": "t\xff\xfey"', "metadata that is not UTF-8"),
        (b"crops", b"cr\xffps", "names are not UTF-8"),
    ],
)
def test_bytes_that_are_no_text(model, tmp_path, text, damaged, message):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(model.read_bytes().replace(text, damaged))
    for opened in (OrtSession, inspect_model):
        with pytest.raises(ContractError, match=message):
            opened(path)


def test_a_graph_that_fails_or_gives_something_else(unsteady):
    landmarker = Landmarker(unsteady)
    assert landmarker(np.full((2, 32, 32, 3), 168, np.uint8)).shape == (2, 68, 2)
    with pytest.raises(ContractError, match=r"unsteady\.onnx gave landmarks float32 \(1, 50, 2\); .* \(1, 68, 2\)"):
        landmarker(np.full((1, 32, 32, 3), 150, np.uint8))
    with pytest.raises(ModelFileError, match=r"unsteady\.onnx cannot be run on crops uint8 \(1, 32, 32, 3\) \("):
        landmarker(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("place", ["../secret", "/secret", "link", "own"])
def test_tensors_in_other_files(landmark_model, template, tmp_path, place):
    """Only in the model's own folder: a model of somebody else's reads nothing else of the disk."""
    folder = tmp_path / "model"
    folder.mkdir()
    data = template(68, 32).tobytes()
    for path in (tmp_path / "secret", folder / "own"):
        path.write_bytes(data)
    (folder / "link").symlink_to(tmp_path / "secret")
    model = onnx.load(landmark_model())
    (tensor,) = (one for one in model.graph.initializer if one.name == "template")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    where = f"{tmp_path}/secret" if place == "/secret" else place
    for key, value in {"location": where, "offset": "0", "length": str(len(data))}.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "x.onnx").write_bytes(model.SerializeToString())
    if place == "own":
        assert np.isfinite(Landmarker(folder / "x.onnx")(np.zeros((1, 32, 32, 3), np.uint8))).all()
        return
    with pytest.raises(ModelFileError, match=r"x\.onnx cannot be opened"):
        Landmarker(folder / "x.onnx")


@pytest.mark.parametrize("batch", [0, 4097, 2**31])
def test_a_fixed_batch_that_no_model_has(landmark_model, batch):
    file = onnx.load(landmark_model(batch=4))
    for value in (*file.graph.input, *file.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    with pytest.raises(ContractError, match=f"takes {batch} crops in a run; accepted are 1 to 4096"):
        OrtSession(file.SerializeToString())


@pytest.mark.parametrize("count", [0, 1, 3, 4, 8, 9])
def test_a_fixed_batch_takes_any_number_of_crops(landmark_model, count):
    crops = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    fixed, free = (OrtSession(landmark_model(has_scores=True, batch=batch)) for batch in (4, "n"))
    outputs = fixed.run({"crops": crops})
    assert [output.shape for output in outputs] == [(count, 68, 2), (count, 68)]
    for one, other in zip(outputs, free.run({"crops": crops}), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(
        Landmarker(fixed, flip=True, max_batch=3)(crops), Landmarker(free, flip=True)(crops), atol=1e-4
    )


def test_missing_onnxruntime(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "facelm-sdk\[cpu\]" \(or \[gpu\]'):
        OrtSession(model)
    with pytest.raises(ImportError):
        Landmarker(model)


def test_missing_provider_is_one_warning_or_an_error(model, caplog):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is there")
    with caplog.at_level(logging.WARNING):
        session = OrtSession(model, RuntimeOptions(device="cuda:1"))
    assert session.providers == ("CPUExecutionProvider",)
    assert len(caplog.records) == 1
    assert "CUDAExecutionProvider is not in this onnxruntime" in caplog.text
    with pytest.raises(ProviderError, match="CUDAExecutionProvider"):
        OrtSession(model, RuntimeOptions(device="cuda", strict=True))
    with pytest.raises(ProviderError, match="NoSuchProvider"):
        OrtSession(model, RuntimeOptions(providers=["NoSuchProvider"], strict=True))


class _Fake:
    """onnxruntime with a CUDA provider that is listed; ``fails`` says how it does not work."""

    SessionOptions = onnxruntime.SessionOptions

    def __init__(self, fails):
        self.fails = fails

    def get_available_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, source, options, *, providers, **rest):
        if self.fails == "loudly" and providers != ["CPUExecutionProvider"]:
            raise RuntimeError("libcublas.so.12: cannot open shared object file\nmore")
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("fails", "cause"), [("loudly", "libcublas"), ("silently", "not in use")])
def test_listed_but_unusable_provider_is_told(model, monkeypatch, caplog, fails, cause):
    monkeypatch.setattr("facelm_sdk.runtimes.onnxruntime.load_onnxruntime", lambda: _Fake(fails))
    with caplog.at_level(logging.WARNING):
        OrtSession(model, RuntimeOptions(device="cuda"))
    assert len(caplog.records) == 1 and cause in caplog.text and "CUDAExecutionProvider" in caplog.text
    with pytest.raises(ProviderError, match=cause):
        OrtSession(model, RuntimeOptions(device="cuda", strict=True))


def test_gpu_libraries_are_loaded_first_and_nothing_is_printed(model, monkeypatch, capfd):
    fake = _Fake("loudly")
    calls = []

    def preload_dlls():
        calls.append("preload")
        sys.stdout.write("Failed to load cudnn")

    fake.preload_dlls = preload_dlls
    fake.set_default_logger_severity = lambda severity: calls.append(severity)
    monkeypatch.setattr("facelm_sdk.runtimes.onnxruntime.load_onnxruntime", lambda: fake)
    OrtSession(model, RuntimeOptions(device="cuda"))
    assert calls == [4, "preload", 3]
    OrtSession(model)
    assert calls == [4, "preload", 3]  # the CPU needs none
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "full", "line"),
    [
        ("cuda", "CUDAExecutionProvider", 'pip install "facelm-sdk[gpu]"'),
        ("TensorRT", "TensorrtExecutionProvider", "tensorrt"),
        ("openvino", "OpenVINOExecutionProvider", "pip install onnxruntime-openvino"),
        ("directml", "DmlExecutionProvider", "pip install onnxruntime-directml"),
        ("coreml", "CoreMLExecutionProvider", "macOS"),
    ],
)
def test_providers_by_short_names(model, name, full, line):
    if full in onnxruntime.get_available_providers():
        pytest.skip(f"{full} is there")
    options = RuntimeOptions(providers=[name, ("cpu", {})], strict=True)
    assert options.providers == (full, ("CPUExecutionProvider", {}))
    with pytest.raises(ProviderError, match=re.escape(f"{full} is not in this onnxruntime (")) as raised:
        OrtSession(model, options)
    assert line in str(raised.value)


def test_weights_for_research_are_told_of_once(landmark_model, monkeypatch, caplog):
    monkeypatch.setattr(opening, "_noticed", [])
    research = landmark_model(licence="weights: research use; code: MIT")
    Landmarker(landmark_model(licence="CC0"))
    Landmarker(research, licence_notice=False)
    assert caplog.messages == []
    Landmarker(research)
    Landmarker(research)
    (message,) = caplog.messages
    assert message.startswith("tiny: weights: research use; code: MIT (facelm models --long; licence_notice=False")
    with pytest.raises(InputError, match="licence_notice is True or False"):
        Landmarker(research, licence_notice="no")


def test_no_warning_when_all_is_well(model, caplog):
    OrtSession(model, RuntimeOptions(providers=["CPUExecutionProvider"]))
    assert not caplog.records


def test_options(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    OrtSession(model, RuntimeOptions(session_options=options))
    OrtSession(model, RuntimeOptions(threads=1))
    with pytest.raises(InputError, match="not both"):
        OrtSession(model, RuntimeOptions(session_options=options, threads=1))
    with pytest.raises(InputError, match=r"session_options is onnxruntime\.SessionOptions"):
        OrtSession(model, RuntimeOptions(session_options="fast"))
    with pytest.raises(InputError, match="inference_precision: is OpenVINO's"):
        OrtSession(model, RuntimeOptions(inference_precision="bf16"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"threads": value}, "threads is a whole number")
            for value in (0, -1, 1.5, "x", True, 2**31, MAX_THREADS + 1)
        ),
        *(
            ({"device": value}, "device is cpu, cuda or cuda:<index>, not")
            for value in (None, "", 0, "gpu 1", "cuda:x")
        ),
        *(
            ({"providers": value}, "providers is a list of names")
            for value in ("CPUExecutionProvider", [], [3], [None], {}, [("CPUExecutionProvider",)], [("CPU", "fast")])
        ),
        ({"strict": None}, "strict is True or False"),
    ],
)
def test_options_are_checked_at_once(model, detector_model, options, message):
    for build in (Landmarker, Aligner, lambda model, **given: Tracker(landmarks=model, **given)):
        with pytest.raises(InputError, match=message):
            build(model, **options)
    with pytest.raises(InputError, match=message):
        Detector(detector_model(), **options)


def test_the_most_threads_are_taken_as_numbers_of_numpy_are(model):
    assert _threads(OrtSession(model, RuntimeOptions(threads=np.int64(2)))) == 2
    assert RuntimeOptions(threads=MAX_THREADS).threads == MAX_THREADS
    assert RuntimeOptions(providers=["CPUExecutionProvider"]).providers == ("CPUExecutionProvider",)


def _threads(session):
    return session._session.get_session_options().intra_op_num_threads


@pytest.mark.parametrize(("billions", "wanted"), [(None, 1), (0.02, 1), (0.5, 1), (0.6, 0)])
def test_the_contract_says_how_many_threads(landmark_model, landmark_spec, billions, wanted):
    model = landmark_model(metadata=landmark_spec(multiply_adds=billions).to_json())
    assert _threads(OrtSession(model)) == wanted
    assert _threads(OrtSession(model.read_bytes())) == wanted
    assert _threads(OrtSession(model, RuntimeOptions(threads=2))) == 2
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    assert _threads(OrtSession(model, RuntimeOptions(session_options=options))) == 3


def test_a_contract_without_multiply_adds_goes_by_the_file(landmark_model, detector_model, monkeypatch):
    monkeypatch.setattr(sessions, "SMALL_FILE", landmark_model().stat().st_size - 1)
    assert _threads(OrtSession(landmark_model())) == 0
    monkeypatch.setattr(sessions, "SMALL_FILE", 0)
    assert _threads(OrtSession(detector_model())) == 1  # a detector is small, whatever its size


def test_small_files_of_each_precision(landmark_spec):
    for precision, limit in (("fp32", SMALL_FILE), ("fp16", SMALL_FILE // 2), ("int8", SMALL_FILE // 2)):
        spec = landmark_spec(precision=precision)
        assert is_small(spec, limit) and not is_small(spec, limit + 1)


@pytest.mark.parametrize("options", [{"device": "gpu"}, {"device": "cuda:x"}, {"providers": []}, {"providers": "CPU"}])
def test_bad_devices(model, options):
    with pytest.raises(InputError, match=r"device|providers"):
        OrtSession(model, RuntimeOptions(**options))


def test_the_task_must_fit(model, detector_model):
    detector = detector_model()
    with pytest.raises(ContractError, match="detection"):
        Landmarker(detector)
    with pytest.raises(ContractError, match="landmarks"):
        Detector(model)
    with pytest.raises(InputError, match="a model is"):
        Aligner(3)
    session = OrtSession(model)
    assert open_session(session, LandmarkSpec) == (session, session.spec)
