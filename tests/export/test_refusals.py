"""What an export refuses, and that it then leaves nothing behind."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from facelm_export import build, export, exporter
from facelm_export.report import parity
from facelm_export.report.parity import check
from facelm_export.report.samples import portrait_crops
from facelm_sdk.errors import InputError, MarkupError, ModelFileError, ParityError, UnknownModelError
from facelm_sdk.transform import CropRecipe


@pytest.fixture
def traced(monkeypatch, exported):
    """Tracing gives the graph traced before."""
    path = exported("lotr_m").path
    monkeypatch.setattr(exporter, "to_onnx", lambda *args, **options: onnx.load(path))


@pytest.fixture
def untraced(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("this export should not have come to tracing")

    monkeypatch.setattr(exporter, "to_onnx", refuse)


def left(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_miss_of_the_tolerance_leaves_no_file(traced, weights, tmp_path, monkeypatch):
    monkeypatch.setitem(parity.TOLERANCES, "fp32", {"max_px": 0.0, "p99_px": 0.0})
    with pytest.raises(ParityError, match=r"lotr_m in fp32 differs too much.*max_px 0\.\d+ \(allowed 0\.0\)"):
        export("lotr_m", weights=weights("lotr_m"), out=tmp_path)
    assert left(tmp_path) == []


def test_a_graph_of_other_weights_is_found_out(traced, tmp_path, weights, monkeypatch):
    """The file computes the disturbed network, PyTorch the untrained one."""
    monkeypatch.setattr(build, "load", lambda network, *_: network)
    with pytest.raises(ParityError, match="differs too much"):
        export("lotr_m", weights=weights("lotr_m"), out=tmp_path)
    assert left(tmp_path) == []


def test_an_earlier_file_survives_a_miss(traced, weights, tmp_path, monkeypatch):
    done = export("lotr_m", weights=weights("lotr_m"), out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["lotr_m_fp32.onnx", "lotr_m_fp32.report.json", "lotr_m_fp32.report.md"]
    monkeypatch.setitem(parity.TOLERANCES, "fp32", {"max_px": 0.0, "p99_px": 0.0})
    with pytest.raises(ParityError):
        export("lotr_m", weights=weights("lotr_m"), out=done.path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("blocked", ["a/x.report.json", "a/x.report.md", "a"])
def test_a_place_that_cannot_be_written(traced, weights, tmp_path, blocked):
    """A folder where a file should be, and a file where the folder should be."""
    if blocked == "a":
        (tmp_path / "a").write_text("a file")
    else:
        (tmp_path / blocked / "inside").mkdir(parents=True)
    before = left(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be written"):
        export("lotr_m", weights=weights("lotr_m"), out=tmp_path / "a" / "x.onnx")
    assert left(tmp_path) == before


def test_unknown_model_lists_the_models(untraced):
    with pytest.raises(UnknownModelError, match=r"'lotr_x'.*Did you mean 'lotr_m'\?.*retinaface_mnet025"):
        export("lotr_x")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("lotr_m", {"precision": "int4"}, "precision is one of fp32, fp16"),
        ("lotr_m", {"batch": 0}, "a fixed batch is at least 1"),
        ("lotr_m", {"opset": 99}, "opset is 17 to 22, not 99"),
        ("retinaface_mnet025", {"flip": True}, "retinaface_mnet025 is a detector"),
        ("lotr_m", {"random": True, "weights": "some.safetensors"}, "not both"),
        ("lotr_m", {"out": "model.pt"}, r"a folder or a file ending in \.onnx, not model\.pt"),
        ("lotr_m", {"weights": "none.safetensors"}, "no weights file none.safetensors"),
    ],
)
def test_options_that_do_not_fit(untraced, model, options, message):
    with pytest.raises(InputError, match=message):
        export(model, **options)


def test_unknown_markup(untraced):
    with pytest.raises(MarkupError, match="ibug68"):
        export("lotr_m", random=True, markup="ibug86")


def test_weights_of_another_architecture(untraced, weights):
    with pytest.raises(InputError, match="weights are of a RetinaFace, but lotr_m is a LOTR"):
        export("lotr_m", weights=weights("retinaface_mnet025"))


def test_weights_for_another_markup(untraced, weights):
    with pytest.raises(InputError, match=r"weights are of 68 points, but wflw98 has 98.*--markup ibug68"):
        export("lotr_m", weights=weights("lotr_m"), markup="wflw98")


def test_no_weights_in_the_package(untraced, monkeypatch):
    monkeypatch.setattr(build, "default_weights", lambda name: None)
    with pytest.raises(InputError, match=r"--weights FILE.*--random"):
        export("lotr_m")


def test_progress_is_told(traced, weights, tmp_path):
    steps = []
    export("lotr_m", weights=weights("lotr_m"), out=tmp_path / "new" / "a.onnx", progress=steps.append)
    assert (tmp_path / "new" / "a.onnx").is_file()
    assert steps[-1] == "writing" and len(steps) >= 3


def test_check_refuses_what_is_not_a_number():
    with pytest.raises(ParityError):
        check({"max_px": float("nan"), "p99_px": 0.0}, "fp32", "x")
    with pytest.raises(ParityError, match="does not find the faces"):
        check({"max_px": 0.0, "p99_px": 0.0, "unmatched": 1}, "fp32", "x")
    check({"max_px": 0.02, "p99_px": 0.01, "unmatched": 0}, "fp32", "x")


def test_portrait_crops_differ_and_can_be_cut_by_a_box(exported):
    spec = exported("lotr_m").spec
    crops = portrait_crops(spec, 4)
    assert crops.shape == (4, 192, 192, 3) and crops.dtype == np.uint8
    assert crops.std() > 20 and np.abs(crops[0].astype(int) - crops[2]).mean() > 1
    boxed = portrait_crops(dataclasses.replace(spec, crop=CropRecipe(size=64, kind="box", scale=1.2)), 2)
    assert boxed.shape == (2, 64, 64, 3) and boxed.std() > 20
