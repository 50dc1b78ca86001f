"""Model names and checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from facelm_sdk import Aligner, Landmarker, machine, zoo
from facelm_sdk.errors import ChecksumError, InputError, ModelFileError, UnknownModelError


@pytest.fixture
def weights(tmp_path, embed, landmark_model):
    embed(landmark_model())
    return tmp_path


def test_names(weights):
    assert [entry.name for entry in zoo.list_models()] == ["tiny"]
    assert zoo.resolve("tiny").path == weights / "tiny.onnx"
    assert Landmarker("tiny").spec.name == "tiny"


def test_unknown_name_lists_the_names(weights):
    with pytest.raises(UnknownModelError, match=r"'lotr_x'; there are: tiny; .*path to an \.onnx"):
        zoo.resolve("lotr_x")


def test_no_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    assert zoo.list_models() == []
    with pytest.raises(UnknownModelError, match="there are: none"):
        zoo.resolve("tiny")


def test_damaged_embedded_file(weights):
    path = weights / "tiny.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ChecksumError, match=r"tiny\.onnx has sha256"):
        Landmarker("tiny")


def test_missing_embedded_file(weights):
    (weights / "tiny.onnx").unlink()
    with pytest.raises(ModelFileError, match="reinstall"):
        zoo.resolve("tiny")


def test_paths(weights, tmp_path):
    path = weights / "tiny.onnx"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert zoo.resolve(path).sha256 is None
    assert zoo.resolve(str(path), sha256=digest.upper()).name == "tiny"
    with pytest.raises(ChecksumError):
        zoo.resolve(path, sha256="0" * 64)
    with pytest.raises(ChecksumError):
        zoo.resolve("tiny", sha256="0" * 64)
    with pytest.raises(ModelFileError, match="no model file"):
        zoo.resolve(tmp_path / "other.onnx")
    for name in (f"{'x' * 5000}.onnx", "~nobody_of_this_name/x.onnx", "a\0.onnx"):  # no error of the system's own
        with pytest.raises(ModelFileError, match="no model file"):
            zoo.resolve(name)


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("FACELM_CACHE", str(tmp_path))
    assert zoo.cache_dir() == tmp_path
    monkeypatch.delenv("FACELM_CACHE")
    assert isinstance(zoo.cache_dir(), Path)
    assert zoo.cache_dir().name == "facelm"


@pytest.fixture
def two_precisions(tmp_path, monkeypatch, landmark_model):
    """A package with ``tiny`` in fp32 and in int8, which differ by a byte of their contracts."""
    import json

    import onnx

    entries = []
    for precision in ("fp32", "int8"):
        model = onnx.load(landmark_model())
        for prop in model.metadata_props:
            if prop.key == "facelm":
                prop.value = json.dumps({**json.loads(prop.value), "precision": precision})
        file = tmp_path / f"tiny_{precision}.onnx"
        onnx.save(model, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        entries.append(
            {"name": "tiny", "file": file.name, "sha256": digest, "task": "landmarks", "precision": precision}
        )
    (tmp_path / "manifest.json").write_text(json.dumps({"models": entries}))
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("fast", "chosen"), [(True, "int8"), (False, "fp32")])
def test_auto_takes_int8_where_the_processor_is_fast_at_it(two_precisions, monkeypatch, fast, chosen):
    monkeypatch.setattr(machine, "fast_int8", lambda: fast)
    assert Landmarker("tiny").spec.precision == chosen
    assert Landmarker("tiny", variant="fp32").spec.precision == "fp32"
    assert Landmarker("tiny", variant="int8").spec.precision == "int8"


def test_other_providers_get_fp32(two_precisions, monkeypatch):
    monkeypatch.setattr(machine, "fast_int8", lambda: True)
    assert Landmarker("tiny", providers=["CPUExecutionProvider"]).spec.precision == "int8"
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert Landmarker("tiny", providers=both).spec.precision == "fp32"
    assert Landmarker("tiny", device="cuda").spec.precision == "fp32"


def test_a_precision_that_is_not_there_is_an_error(two_precisions, weights):
    with pytest.raises(UnknownModelError, match="tiny is embedded in fp32, not in int8"):
        Landmarker("tiny", variant="int8")
    with pytest.raises(InputError, match="variant is auto, fp32 or int8, not 'half'"):
        Landmarker("tiny", variant="half")


def test_a_file_is_in_the_precision_it_is_in(two_precisions):
    path = two_precisions / "tiny_fp32.onnx"
    assert Landmarker(path).spec.precision == "fp32"
    with pytest.raises(InputError, match="is in fp32, not in int8"):
        Landmarker(path, variant="int8")


def test_the_old_name_of_variant(two_precisions, detector_model):
    for build in (Landmarker, lambda model, **given: Aligner(model, detector_model(), **given).landmarker):
        with pytest.warns(DeprecationWarning, match="precision= is called variant= now") as caught:
            assert build("tiny", precision="int8").spec.precision == "int8"
        assert caught[0].filename == __file__
