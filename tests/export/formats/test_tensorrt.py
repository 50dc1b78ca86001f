"""Engines built ahead of time with TensorRT for RTX, which needs no GPU, and what is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from facelm_export import export, exporter
from facelm_export.formats import tensorrt
from facelm_sdk import Landmarker
from facelm_sdk.contract import DetectorSpec
from facelm_sdk.errors import ContractError, EngineError, FacelmError, InputError, MissingDependencyError
from facelm_sdk.runtimes.tensorrt.api import Cuda
from facelm_sdk.runtimes.tensorrt.build import PORTABLE, build_engine, part_done, read_timing
from facelm_sdk.runtimes.tensorrt.session import TrtSession
from facelm_sdk.runtimes.tensorrt.sidecar import EngineCard
from tests.sdk.runtimes.fake_tensorrt import Cudart
from tests.tolerances import PIXELS

from ..conftest import SMALL

trt = pytest.importorskip("tensorrt_rtx")


@pytest.fixture(autouse=True)
def only_rtx(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)


@pytest.mark.parametrize("name", list(reversed(SMALL)))  # the end first: test_networks shares them
def test_every_architecture_becomes_an_engine(small, name, caplog):
    done = small(name)
    steps = []
    caplog.set_level(logging.DEBUG, "facelm_sdk")
    built = build_engine(done.path.read_bytes(), done.spec, max_batch=4, progress=steps.append)
    (layers,) = [message for message in caplog.messages if message.startswith("Engine Layer Information")]
    outputs = ["landmarks (Float[-1,68,2])", *(["scores (Float[-1,68])"] if done.spec.has_scores else [])]
    tensors = layers.rstrip().rpartition("crops (UInt8[-1,64,64,3]) -> ")[2]
    assert sorted(tensors.replace("), ", ")\n").splitlines()) == outputs
    card = built.card
    assert (card.flavour, card.version, card.gpu) == ("tensorrt_rtx", trt.__version__, None)
    assert card.compute_capabilities == PORTABLE and card.profiles == ((1, 4, 4),) and card.max_batch == 4
    assert card.engine_sha256 == hashlib.sha256(built.engine).hexdigest()
    assert card.source_sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert card.spec == done.spec and built.timing is None
    assert steps == sorted(steps) and steps[-1] == 1 and len(steps) > 50


@pytest.fixture
def lotr(small):
    done = small("lotr_m_plus")
    return done.path.read_bytes(), done.spec


def test_a_fixed_batch(lotr):
    model = onnx.load_from_string(lotr[0])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    card = build_engine(model.SerializeToString(), lotr[1]).card
    assert (card.batch, card.profiles, card.max_batch) == (2, (), 2)


def test_chosen_compute_capabilities(lotr):
    assert build_engine(*lotr, compute_capabilities=["8.9"]).card.compute_capabilities == ("8.9",)
    with pytest.raises(InputError, match=r"builds for 7\.5, 8\.0, .* not 9\.0"):
        build_engine(*lotr, compute_capabilities=["9.0"])


def test_the_first_error_of_tensorrt_is_told(lotr):
    data, spec = lotr
    with pytest.raises(EngineError, match=r"tensorrt_rtx .* cannot build lotr_m_plus in fp32: .*OutOfMemory"):
        build_engine(data, spec, workspace=1 << 16)
    with pytest.raises(EngineError, match=r"cannot read the ONNX graph of lotr_m_plus: .*Failed to parse"):
        build_engine(data[:1000], spec)
    with pytest.raises(EngineError, match="--target tensorrt"):
        build_engine(b"rubbish", replace(spec, precision="int8"))


def test_a_graph_that_is_not_its_contracts(lotr):
    data, spec = lotr
    with pytest.raises(ContractError, match="its contract says"):
        build_engine(data, replace(spec, has_scores=True))
    with pytest.raises(ContractError, match="its contract says"):
        build_engine(data, replace(spec, crop=replace(spec.crop, size=96)))


def test_detectors_are_told_what_to_use_instead(lotr):
    spec = DetectorSpec(name="faces", det_thresh=0.5)
    with pytest.raises(InputError, match=r"non-maximum suppression.*CUDAExecutionProvider"):
        build_engine(lotr[0], spec)
    with pytest.raises(InputError, match="max_batch"):
        build_engine(*lotr, max_batch=0)


def test_an_export_of_a_detector_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "_traced", None)
    with pytest.raises(InputError, match=r"retinaface_mnet025 .*non-maximum suppression"):
        export("retinaface_mnet025", format="engine", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_tensorrt_does_not_take_a_detector(exported):
    """If it does one day, the refusal may go."""
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, builder.logger)
    assert not parser.parse(exported("retinaface_mnet025").path.read_bytes())
    assert "NonZero" in parser.get_error(0).desc()


class AsTensorRT:
    """TensorRT for RTX under the name of TensorRT, as far as the builder's own work goes."""

    __name__, __version__ = "tensorrt", "11.2.0"

    def __getattr__(self, name):
        return getattr(trt, name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the timing cache is TensorRT's only
def test_on_tensorrt_for_the_gpu_at_hand(lotr, monkeypatch, tmp_path):
    """One profile for single faces and one for many, the timing cache, and the GPU on the card."""
    gpu = Cudart(capability=(9, 0))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", AsTensorRT())
    built = build_engine(*lotr, max_batch=4)
    card = built.card
    assert (card.flavour, card.version, card.gpu) == ("tensorrt", "11.2.0", "GPU of a test")
    assert card.compute_capabilities == ("9.0",) and card.profiles == ((1, 1, 1), (1, 4, 4)) and card.max_batch == 4
    for path, data in built.files(tmp_path / "x.engine").items():
        path.write_bytes(data)
    assert (tmp_path / "x.engine.timing").read_bytes() == built.timing == read_timing(tmp_path / "x.engine")
    seen = []
    config = trt.IBuilderConfig
    create = config.create_timing_cache
    monkeypatch.setattr(config, "create_timing_cache", lambda self, data: seen.append(data) or create(self, data))
    build_engine(*lotr, max_batch=1, timing=built.timing)
    assert seen == [built.timing]
    with pytest.raises(InputError, match="for TensorRT for RTX"):
        build_engine(*lotr, compute_capabilities=["8.9"])
    gpu.devices = 0
    with pytest.raises(EngineError, match="no usable NVIDIA GPU"):
        build_engine(*lotr)


def test_a_build_can_be_stopped(lotr):
    told = []

    def stop(done):
        told.append(done)
        if len(told) == 20:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        build_engine(*lotr, progress=stop)
    assert len(told) == 20


def test_part_done():
    assert part_done([]) == 0
    assert part_done([(1, 2)]) == 0.5
    assert part_done([(1, 2), (1, 4)]) == 0.625


@pytest.fixture
def traced(small, monkeypatch):
    """Has export take the graph that is traced already."""
    path = small("lotr_m_plus").path
    monkeypatch.setattr(exporter, "_traced", lambda *args, **options: onnx.load(path))
    return path.parent / "weights.safetensors"


def engine_of(weights, out, **options):
    return export("lotr_m_plus", format="engine", weights=weights, out=out, latency=False, **options)


def test_the_files_of_an_export(traced, tmp_path):
    steps = []
    done = engine_of(traced, tmp_path / "face.engine", max_batch=8, progress=steps.append)
    names = ["face.engine", "face.engine.json", "face.engine.report.json", "face.engine.report.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    card = EngineCard.read(done.path)
    assert card.profiles == ((1, 8, 8),) and card.spec == done.spec
    assert card.engine_sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest() == done.report["sha256"]
    assert card.rebuild == done.report["command"]
    assert "--format engine" in card.rebuild and "--max-batch 8" in card.rebuild
    facts = json.loads(done.report_path.read_text())["engine"]
    assert facts["built_with"] == f"tensorrt_rtx {trt.__version__}" and facts["crops"] == "1 to 8"
    assert "building the engine, 100%" in steps


def test_a_failure_leaves_no_file(traced, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise EngineError("no")

    monkeypatch.setattr(tensorrt, "build_engine", fail)
    with pytest.raises(EngineError):
        engine_of(traced, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_or_old_tensorrt_is_told_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(trt, "__version__", "1.0.0.21")
    with pytest.raises(MissingDependencyError, match=r'too old; 1\.2 .* pip install -U "tensorrt-rtx>=1\.2"'):
        export("lotr_m", format="engine", out=tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(exporter, "build", None)
    with pytest.raises(MissingDependencyError, match=r"pip install tensorrt .*pip install tensorrt-rtx"):
        export("lotr_m", format="engine", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_engine_gives_the_files_landmarks(small, tmp_path):
    """Where there is a GPU."""
    try:
        Cuda("cuda:0")
    except FacelmError as error:
        pytest.skip(str(error))
    for name in SMALL:
        done = small(name)
        path = tmp_path / f"{name}.engine"
        for file, data in build_engine(done.path.read_bytes(), done.spec, max_batch=4).files(path).items():
            file.write_bytes(data)
        crops = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
        session = TrtSession(path, source=done.path)
        for _ in range(2):
            assert abs(Landmarker(session)(crops) - Landmarker(done.path)(crops)).max() < PIXELS["fp32"]
