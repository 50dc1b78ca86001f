"""Engines on doubles of CUDA and TensorRT: what is copied where and when, what is refused, what is built anew."""

from __future__ import annotations

import gc
import logging
import sys
from dataclasses import replace

import numpy as np
import pytest

from facelm_sdk import Aligner, Landmarker
from facelm_sdk.errors import (
    ContractError,
    EngineError,
    InputError,
    MissingDependencyError,
    ModelFileError,
)
from facelm_sdk.runtimes.base import RuntimeOptions, Session
from facelm_sdk.runtimes.tensorrt import api
from facelm_sdk.runtimes.tensorrt import open as trt_open
from facelm_sdk.runtimes.tensorrt.build import BuiltEngine
from facelm_sdk.runtimes.tensorrt.session import TrtSession
from facelm_sdk.runtimes.tensorrt.sidecar import EngineCard, card_path, covers, sha256

from .fake_tensorrt import Cudart, plan, tensorrt

PROFILES = ((1, 1, 1), (1, 4, 4))


@pytest.fixture
def cuda(monkeypatch):
    """A machine with one GPU of compute capability 8.9 and TensorRT 11.2.0; ``cuda.trt`` is that module."""
    double = Cudart()
    double.trt = tensorrt(double)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", double)
    monkeypatch.setitem(sys.modules, "tensorrt", double.trt)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    return double


def make_card(spec, data, **values):
    given = {
        "flavour": "tensorrt",
        "version": "11.2.0",
        "gpu": "GPU of a test",
        "compute_capabilities": ("8.9",),
        "batch": None,
        "profiles": PROFILES,
        "engine_sha256": sha256(data),
        "source_sha256": sha256(b"source"),
        "rebuild": "facelm-export --model tiny --format engine",
        "spec": spec,
    }
    return EngineCard(**given | values)


@pytest.fixture
def engine(tmp_path, landmark_spec):
    """Writes an engine and its card; ``card`` are values of the card, the others those of ``plan``."""

    def write(card=None, spec=None, **values):
        spec = spec or landmark_spec(has_scores=True, has_presence=True)
        card = dict(card or {})
        if batch := values.get("batch"):
            card |= {"batch": batch, "profiles": ()}
        data = plan(spec, **values)
        path = tmp_path / "tiny.engine"
        path.write_bytes(data)
        card_path(path).write_text(make_card(spec, data, **card).to_json())
        return path

    return write


def crops_of(count, size=32):
    crops = np.full((count, size, size, 3), 7, np.uint8)
    crops[:, 0, 0, 0] = np.arange(count) + 20
    return crops


def check(session, count):
    landmarks, scores, presence = session.run({"crops": crops_of(count)})
    first = np.arange(count, dtype=np.float32) + 20
    assert landmarks.shape == (count, 68, 2) and scores.shape == (count, 68)
    assert np.array_equal(landmarks[..., 0], first[:, None] + np.arange(68))
    assert np.array_equal(landmarks[..., 0], landmarks[..., 1])
    assert np.allclose(scores, first[:, None] / 255)
    assert presence.shape == (count,) and np.allclose(presence, first / 255)


CROP, POINTS = 32 * 32 * 3, 68 * 2 * 4


def test_any_number_of_crops(cuda, engine):
    session = TrtSession(engine())
    assert isinstance(session, Session) and session.spec.name == "tiny" and session.providers == ("tensorrt",)
    for count in (1, 4, 3, 0, 11, 2, 11):
        check(session, count)


def test_copies_in_computes_copies_out_then_replays_one_graph(cuda, engine):
    session = TrtSession(engine())
    for _ in range(3):
        check(session, 3)
    copies = [f"to host {3 * size}" for size in (POINTS, 68 * 4, 4)]
    assert cuda.log == [f"to device {3 * CROP}", "execute 3 profile 1", *copies, "captured", "launch", "launch"]
    assert not cuda.graphs and len(cuda.launchable) == 1


def test_one_graph_a_number_of_crops(cuda, engine):
    session = TrtSession(engine())
    for count in (1, 2, 1, 6, 2, 4):  # 6 is 4 and 2
        check(session, count)
    assert cuda.log.count("captured") == 3
    assert [line for line in cuda.log if line.startswith("execute")] == [
        "execute 1 profile 0",
        "execute 2 profile 1",
        "execute 4 profile 1",
    ]


def test_results_are_the_callers_own(cuda, engine):
    session = TrtSession(engine())
    first = session.run({"crops": crops_of(2)})[0]
    kept = first.copy()
    session.run({"crops": crops_of(2) + 100})
    assert np.array_equal(first, kept)


def test_a_fixed_batch_is_filled_up_with_black(cuda, engine):
    session = TrtSession(engine(batch=4))
    check(session, 4)
    for count in (1, 6):
        check(session, count)
        assert not session._buffers["crops"].host[count % 4 :].any()
    assert cuda.log.count("captured") == 1


@pytest.mark.parametrize(
    ("values", "cause"), [({"capturable": False}, "cannot be captured"), ({"broken": "capture"}, "fails")]
)
def test_runs_that_cannot_be_captured_are_told_once_and_right(cuda, engine, caplog, values, cause):
    session = TrtSession(engine(**values))
    for _ in range(3):
        check(session, 2)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "without a CUDA graph" in warnings[0] and cause in warnings[0]
    assert cuda.capturing is None


def test_everything_is_given_back(cuda, engine):
    session = TrtSession(engine())
    check(session, 3)
    session.close()
    session.close()
    assert not cuda.held
    with pytest.raises(EngineError, match="closed"):
        session.run({"crops": crops_of(1)})
    session = TrtSession(engine())
    del session
    gc.collect()
    assert not cuda.held


def test_kernels_compiled_at_run_time_are_kept(cuda, engine, monkeypatch, tmp_path, caplog):
    rtx = tensorrt(cuda, "tensorrt_rtx", "1.7.1")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    card = {"flavour": "tensorrt_rtx", "version": "1.7.1", "compute_capabilities": ("8.0", "8.9"), "gpu": None}
    path = engine(card, profiles=((1, 4, 4),), capturable=True)
    card_path(path).write_text(
        make_card(EngineCard.read(path).spec, path.read_bytes(), **card, profiles=((1, 4, 4),)).to_json()
    )
    session = TrtSession(path)
    config = rtx.engines[0].contexts[0].config
    assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
    cache = tmp_path / "tiny.engine.cache"
    assert not cache.exists()
    check(session, 3)
    assert cache.read_bytes() == b"kernels"
    assert TrtSession(path)._cache.loaded == b"kernels"
    cache.write_bytes(b"of another driver")
    caplog.set_level(logging.INFO)
    check(TrtSession(path), 1)
    assert "made anew" in caplog.text and cache.read_bytes() == b"kernels"


def test_landmarkers_open_engines(cuda, engine):
    landmarker = Landmarker(engine(), max_batch=3)
    landmarks, scores, presence = landmarker.run(crops_of(5))
    assert landmarks.shape == (5, 68, 2) and scores[4, 0] == presence[4] == np.float32(24) / 255


def test_crops_of_another_kind(cuda, engine):
    session = TrtSession(engine())
    for wrong in (np.zeros((1, 31, 31, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32)):
        with pytest.raises(InputError, match=r"uint8 \(n, 32, 32, 3\)"):
            session.run({"crops": wrong})
    with pytest.raises(InputError, match="fed with crops"):
        session.run({"image": crops_of(1)})


# ---- refusals: before the engine is read by TensorRT


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"version": "10.9.0.34"}, ["tensorrt 10.9.0.34", "here is 11.2.0"]),
        ({"flavour": "tensorrt_rtx", "version": "1.7.1"}, ["tensorrt_rtx 1.7.1", "here is tensorrt 11.2.0"]),
        ({"compute_capabilities": ("8.6",), "gpu": "NVIDIA A10"}, ["8.6 (NVIDIA A10)", "GPU of a test has 8.9"]),
        ({"engine_sha256": "0" * 64}, ["sha256", "damaged"]),
    ],
)
def test_a_mismatch_is_refused_with_the_line_to_type(cuda, engine, card, words):
    with pytest.raises(EngineError) as caught:
        TrtSession(engine(card))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "tiny.engine" in message and message.endswith("facelm-export --model tiny --format engine")
    assert not cuda.trt.engines


def test_an_engine_of_another_source_is_refused(cuda, engine, tmp_path):
    source = tmp_path / "tiny.onnx"
    source.write_bytes(b"source")
    TrtSession(engine(), source=source)
    source.write_bytes(b"retrained")
    with pytest.raises(EngineError, match=r"another ONNX file than .*tiny\.onnx"):
        TrtSession(engine(), source=source)


def test_without_a_known_line_the_aligner_is_named(cuda, engine):
    with pytest.raises(EngineError, match=r"Aligner.*engine=.*tiny\.engine"):
        TrtSession(engine({"rebuild": None, "version": "10.0"}))


def test_an_engine_that_tensorrt_does_not_read(cuda, engine, landmark_spec):
    path = engine()
    path.write_bytes(b"rubbish")
    card_path(path).write_text(make_card(landmark_spec(), b"rubbish").to_json())
    with pytest.raises(EngineError, match="Magic tag does not match"):
        TrtSession(path)
    assert not cuda.held


@pytest.mark.parametrize(
    "tensors", [{"landmarks": ("HALF", (-1, 68, 2))}, {"landmarks": ("FLOAT", (-1, 98, 2))}, {"extra": ("FLOAT", (1,))}]
)
def test_tensors_that_are_not_the_contracts(cuda, engine, tensors):
    with pytest.raises(ContractError, match="its contract says"):
        TrtSession(engine(**tensors))


def test_options_of_onnxruntime(cuda, engine):
    path = engine()
    for option in ({"providers": ["CPUExecutionProvider"]}, {"threads": 2}, {"session_options": object()}):
        with pytest.raises(InputError, match=f"{next(iter(option))}: another runtime's"):
            TrtSession(path, RuntimeOptions(**option))
    with pytest.raises(InputError, match="'npu'"):
        TrtSession(path, RuntimeOptions(device="npu"))


def test_no_such_gpu(cuda, engine):
    with pytest.raises(EngineError, match=r"no usable NVIDIA GPU 1.*cudaErrorNoDevice"):
        TrtSession(engine(), RuntimeOptions(device="cuda:1"))


def test_missing_packages(cuda, engine, monkeypatch):
    path = engine()
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(cuda, version="8.6.1"))
    with pytest.raises(
        MissingDependencyError, match=r'tensorrt 8.6.1 is too old; 10.0 .* pip install -U "tensorrt>=10.0"'
    ):
        TrtSession(path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="pip install tensorrt"):
        TrtSession(path)
    with pytest.raises(MissingDependencyError, match=r"pip install tensorrt .*pip install tensorrt-rtx"):
        api.load_tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt", cuda.trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingDependencyError, match="pip install cuda-bindings"):
        TrtSession(path)


def test_no_card_or_a_bad_one(cuda, engine, tmp_path):
    with pytest.raises(ModelFileError, match=r"absent\.engine\.json"):
        TrtSession(tmp_path / "absent.engine")
    path = engine()
    good = card_path(path).read_text()
    for text in (
        "no json",
        "[]",
        "{}",
        good.replace('"card_version": 1', '"card_version": 9'),
        good.replace("gpu", "npu"),
    ):
        card_path(path).write_text(text)
        with pytest.raises(ContractError, match="not an engine's card"):
            TrtSession(path)
    card_path(path).write_text(good)
    path.unlink()
    with pytest.raises(ModelFileError, match=r"tiny\.engine cannot be read"):
        TrtSession(path)


def test_a_card_survives_its_json(landmark_spec):
    card = make_card(landmark_spec(), b"")
    assert EngineCard.from_json(card.to_json()) == card
    assert card.max_batch == 4 and replace(card, batch=2, profiles=()).max_batch == 2


def test_compute_capabilities():
    assert covers(("8.0", "12.0+"), "12.1") and covers(("8.0",), "8.0")
    assert not covers(("8.0", "12.0+"), "9.0") and not covers((), "8.0")


# ---- Aligner(engine=...)


@pytest.fixture
def built(monkeypatch):
    """Puts a double in the builder's place; the options it was called with."""
    calls = []

    def build(onnx, spec, *, max_batch, progress, **options):
        calls.append({"max_batch": max_batch, **options})
        progress(0.5)
        data = plan(spec, profiles=((1, max_batch, max_batch),))
        card = make_card(spec, data, source_sha256=sha256(onnx), profiles=((1, max_batch, max_batch),), rebuild=None)
        return BuiltEngine(data, card, b"timing")

    monkeypatch.setattr(trt_open, "build_engine", build)
    return calls


def warned(caplog):
    messages = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return messages


def test_an_aligner_builds_its_engine_once(cuda, built, landmark_model, tmp_path, caplog):
    source, path = landmark_model(), tmp_path / "engines" / "tiny.engine"
    picture, box = np.zeros((40, 40, 3), np.uint8), (5, 5, 35, 35)
    for _ in range(2):
        aligner = Aligner(source, None, engine=path)
        face = aligner(picture, boxes=[box], kps=[[(12, 15), (28, 15), (20, 22), (14, 30), (26, 30)]])[0]
        assert face.landmarks.shape == (68, 2)
        assert aligner.landmarker.session.providers == ("tensorrt",)
    assert len(built) == 1 and sorted(p.name for p in path.parent.iterdir()) == [
        "tiny.engine",
        "tiny.engine.json",
        "tiny.engine.timing",
    ]
    (line,) = warned(caplog)
    assert "tiny.engine.json" in line and str(source) in line and "tensorrt 11.2.0" in line


def test_an_engine_that_does_not_fit_is_built_anew_for_as_many_crops(cuda, built, landmark_model, tmp_path, caplog):
    path = tmp_path / "tiny.engine"
    Aligner(landmark_model(), None, engine=path)
    card = EngineCard.read(path)
    card_path(path).write_text(replace(card, version="10.0", profiles=((1, 64, 64),)).to_json())
    warned(caplog)
    Aligner(landmark_model(), None, engine=path)
    (line,) = warned(caplog)
    assert "built with tensorrt 10.0; here is 11.2.0" in line
    assert [call["max_batch"] for call in built] == [16, 64] and built[1]["timing"] == b"timing"
    retrained = landmark_model(size=48)
    assert Aligner(retrained, None, engine=path).landmarker.size == 48
    assert "another ONNX file" in warned(caplog)[0] and len(built) == 3


def test_the_second_failure_is_told(cuda, built, landmark_model, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "capability", (12, 0))  # the double builds for 8.9
    with pytest.raises(EngineError, match=r"8\.9.* has 12\.0"):
        Aligner(landmark_model(), None, engine=tmp_path / "tiny.engine")
    assert len(built) == 1


def test_without_a_gpu_nothing_is_built(cuda, built, landmark_model, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "devices", 0)
    with pytest.raises(EngineError, match="no usable NVIDIA GPU"):
        Aligner(landmark_model(), None, engine=tmp_path / "tiny.engine")
    assert not built and not list(tmp_path.iterdir())


def test_what_an_engine_cannot_be_of(cuda, built, engine, landmark_model, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.engine"):
        Aligner(landmark_model(), None, engine=tmp_path / "tiny.plan")
    with pytest.raises(InputError, match="not Landmarker"):
        Aligner(Landmarker(landmark_model()), None, engine=tmp_path / "x.engine")
    assert not built
